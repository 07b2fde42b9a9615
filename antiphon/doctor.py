"""`antiphon doctor`: looks at the set-up, part by part, and says how to mend what is wrong."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import AsyncIterator

import aiohttp
import orjson

from agent_worker.agents.local import llama, weights
from antiphon.doctor_cluster import cluster_findings
from antiphon.findings import Finding
from antiphon.options import names, settings
from antiphon.place import Place, Running
from broker.config import NatsSettings
from broker.errors import AntiphonError
from broker.jetstream.server import find_binary
from broker.permissions import Role
from broker.versions import VERSION

_FREE_BYTES_MIN = 1 << 30
_HTTP_TIMEOUT_S = 5
_MARKS = {"ok": "ok  ", "note": "note", "fail": "FAIL"}


async def doctor(where: Place, args: argparse.Namespace) -> int:
    """Prints each finding. Returns 1 if something that is needed is wrong."""
    bad, found = False, []
    async for finding in _findings(where, args):
        bad = bad or finding.status == "fail"
        if args.json:
            found.append({"status": finding.status, "what": finding.what, "mend": finding.mend})
        else:
            print(f"{_MARKS[finding.status]} {finding.what}" + (f": {finding.mend}" if finding.mend else ""))
    if args.json:
        print(orjson.dumps({"ok": not bad, "findings": found}, option=orjson.OPT_INDENT_2).decode())
    return 1 if bad else 0


async def _findings(where: Place, args: argparse.Namespace) -> AsyncIterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding(
        f"Python {version}, antiphon {VERSION}",
        "" if sys.version_info >= (3, 11) else "Antiphon needs Python 3.11 or newer",
    )
    monitoring = names(args.monitoring)
    if args.nats_url is not None or "ANTIPHON_NATS_URL" in os.environ:
        # A cluster: what `antiphon dev` needs of this machine is nothing to it.
        role = Role(args.role) if args.role else None
        async for finding in cluster_findings(settings(NatsSettings, args), monitoring, role):
            yield finding
        return
    yield _nats_binary()
    yield _model()
    yield _disk(where)
    running = where.running()
    if running is None:
        yield Finding(
            f"no `antiphon dev` runs with {where.path}", "start it, or give --nats-url to check a cluster", needed=False
        )
        return
    async for finding in cluster_findings(_beside(where, running, args), monitoring):
        yield finding
    yield await _gateway(running.url)


def _beside(where: Place, running: Running, args: argparse.Namespace) -> NatsSettings:
    who = where.as_nats_user(Role.OBSERVER)
    return settings(NatsSettings, args, **(who | {"nats_url": running.nats_url}))


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


async def _gateway(url: str) -> Finding:
    try:
        timeout = aiohttp.ClientTimeout(total=_HTTP_TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=timeout) as http, http.get(f"{url}/readyz") as answer:
            problems = (await answer.json())["problems"]
    except (aiohttp.ClientError, TimeoutError) as error:
        return Finding(f"gateway at {url}", f"it does not answer ({type(error).__name__}); see its log")
    return Finding(f"gateway at {url}", "; ".join(problems))
