"""`antiphon doctor`: looks at the set-up, part by part, and says how to mend what is wrong."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiohttp

from agent_worker.agents.local import llama, weights
from antiphon.options import settings
from antiphon.place import Place
from broker.config import LogSettings, NatsSettings
from broker.errors import AntiphonError
from broker.jetstream.connection import Connection
from broker.jetstream.health import JetStreamHealth
from broker.jetstream.log import JetStreamLog
from broker.jetstream.server import find_binary

_FREE_BYTES_MIN = 1 << 30
_HTTP_TIMEOUT_S = 5


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `mend` is empty if it is well; `needed`: nothing works without it."""

    what: str
    mend: str = ""
    needed: bool = True


async def doctor(where: Place, args: argparse.Namespace) -> int:
    """Prints a line for each finding. Returns 1 if something that is needed is wrong."""
    bad = False
    async for finding in _findings(where, args):
        mark = "ok  " if not finding.mend else "FAIL" if finding.needed else "note"
        print(f"{mark} {finding.what}" + (f": {finding.mend}" if finding.mend else ""))
        bad = bad or bool(finding.mend and finding.needed)
    return 1 if bad else 0


async def _findings(where: Place, args: argparse.Namespace) -> AsyncIterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding(f"Python {version}", "" if sys.version_info >= (3, 11) else "Antiphon needs Python 3.11 or newer")
    yield _nats_binary()
    yield _model()
    yield _disk(where)
    running = where.running()
    if running is None and args.nats_url is None:
        yield Finding(
            f"no `antiphon dev` runs with {where.path}", "start it, or give --nats-url to check a cluster", needed=False
        )
        return
    nats = settings(NatsSettings, args, **({"nats_url": running.nats_url} if running and args.nats_url is None else {}))
    async for finding in _log_findings(nats):
        yield finding
    if running is not None:
        yield await _gateway(running.url)


def _nats_binary() -> Finding:
    try:
        return Finding(f"nats-server: {find_binary()}")
    except AntiphonError as error:
        return Finding("nats-server for `antiphon dev`", str(error), needed=False)


def _model() -> Finding:
    try:
        path = weights()
        llama()
    except AntiphonError as error:
        return Finding("the model for the agent `local`", str(error), needed=False)
    return Finding(f"model: {path.stem}")


def _disk(where: Place) -> Finding:
    path = where.path if where.path.exists() else where.path.absolute().parent
    free = shutil.disk_usage(path).free
    what = f"disk: {free / (1 << 30):.1f} GiB free for {where.path}"
    return Finding(what, "" if free >= _FREE_BYTES_MIN else "free at least 1 GiB, the log needs room")


async def _log_findings(nats: NatsSettings) -> AsyncIterator[Finding]:
    log_settings = LogSettings()
    async with Connection(nats, name="antiphon-doctor") as connection, JetStreamLog(connection, log_settings) as log:
        if not connection.connected:
            mend = f"{connection.last_error}; is it running, and is --nats-url right?"
            yield Finding(f"NATS at {nats.nats_url}", mend)
            return
        yield Finding(f"NATS at {nats.nats_url}")
        problems = await JetStreamHealth(connection, log, log_settings).problems()
        yield Finding("streams and consumers", "; ".join(problems))


async def _gateway(url: str) -> Finding:
    try:
        timeout = aiohttp.ClientTimeout(total=_HTTP_TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=timeout) as http, http.get(f"{url}/readyz") as answer:
            problems = (await answer.json())["problems"]
    except (aiohttp.ClientError, TimeoutError) as error:
        return Finding(f"gateway at {url}", f"it does not answer ({type(error).__name__}); see its log")
    return Finding(f"gateway at {url}", "; ".join(problems))
