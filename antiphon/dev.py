"""`antiphon dev`: everything on a laptop, as one process tree. nats-server and the worker are children."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import structlog

from antiphon.gateway_process import running_gateway
from antiphon.options import flags_of
from antiphon.place import Place, Running, make_token
from antiphon.processes import BrokerSettings, settle_memory, stop_signals
from broker.errors import AntiphonError
from broker.jetstream.child import ChildProcess, lock_from_orphan, try_lock
from broker.jetstream.connection import Connection
from broker.jetstream.server import EmbeddedServer, ServerOptions
from broker.jetstream.topology import Topology
from gateway.config import GatewaySettings

_log = structlog.get_logger("antiphon.dev")

_RESTARTS_S = (0.2, 1.0, 5.0, 15.0)
"""Waits before a worker that has ended is started again; the last one repeats."""
_STEADY_S = 30.0
_STOP_GRACE_S = 10.0


@dataclass(frozen=True, slots=True)
class DevOptions:
    """What `antiphon dev` was asked for."""

    place: Place
    broker: BrokerSettings
    gateway: GatewaySettings
    agent: str
    """Serves the sessions."""
    asked: Mapping[str, str] = field(default_factory=dict)
    """Agents that it may ask, by the names it asks for them by: each has a pool of that name."""
    users: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: {"user-1": (), "user-2": ("support",)})
    """Who may try it, and what they are."""
    session: str = "demo"


async def run_dev(options: DevOptions) -> None:
    """Runs until SIGTERM or SIGINT. Raises ConfigError, ServerError."""
    options.place.make()
    options.place.secret()
    settings = replace(options.gateway, jwt_secret_file=str(options.place.secret_file))
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(EmbeddedServer(ServerOptions(data_dir=options.place.path / "nats")))
        pools = ",".join((*options.broker.log.pool_names, *options.asked))
        broker = replace(
            options.broker,
            nats=replace(options.broker.nats, nats_url=server.url),
            log=replace(options.broker.log, pools=pools),
        )
        async with Connection(broker.nats, name="topology") as connection:
            await Topology(connection, broker.log).apply()
        gateway, url = await stack.enter_async_context(running_gateway(broker, settings))
        await stack.enter_async_context(_workers(options, server.url))
        options.place.announce(Running(url, server.url, os.getpid()))
        stack.callback(options.place.withdraw)
        settle_memory()
        _say_ready(options, url)
        with stop_signals() as stop:
            async with asyncio.TaskGroup() as tasks:
                watching = tasks.create_task(server.watch())
                await stop.wait()
                watching.cancel()
        await gateway.drain()


def _say_ready(options: DevOptions, url: str) -> None:
    secret = options.place.secret()
    print(f"ready {url}", flush=True)
    for user, roles in options.users.items():
        token = make_token(secret, user, None, {"*": ["admin"]}, roles=roles)
        print(f"{user}: {url}/#session={options.session}&token={token}")
    print(f"In another terminal: antiphon chat {options.session}   (Ctrl-C here stops everything)", flush=True)


@asynccontextmanager
async def _workers(options: DevOptions, nats_url: str) -> AsyncIterator[None]:
    """A worker process for each agent, started again when it ends."""
    path = options.place.path / "worker.lock"
    lock = try_lock(path)
    if lock is None:
        # The worker of a dev that was killed may still be about to leave.
        lock = await lock_from_orphan(path, _mark(options), _STOP_GRACE_S)
    if lock is None:
        raise AntiphonError(f"a worker of an earlier run still uses {options.place.path}; stop it first")
    try:
        async with asyncio.TaskGroup() as tasks:
            default = options.broker.log.pool_names[0]
            agents = {default: options.agent, **options.asked}
            keeping = [
                tasks.create_task(_keep_worker(options, pool, agent, nats_url, lock)) for pool, agent in agents.items()
            ]
            try:
                yield
            finally:
                for task in keeping:
                    task.cancel()
    finally:
        os.close(lock)


def _mark(options: DevOptions) -> str:
    """An argument that only the workers of this data directory have; to Python an option that says nothing."""
    return f"antiphon-data={options.place.path.absolute()}"


async def _keep_worker(options: DevOptions, pool: str, agent: str, nats_url: str, lock: int) -> None:
    output = options.place.path / ("worker.log" if pool not in options.asked else f"worker-{pool}.log")
    command = (
        sys.executable,
        "-X",
        _mark(options),
        "-m",
        "antiphon",
        "worker",
        agent,
        "--pool",
        pool,
        "--nats-url",
        nats_url,
        "--worker-drain-s",
        "3",
        "--cancel-grace-s",
        "2",
        "--delta-ttl-s",
        str(options.broker.log.delta_ttl_s),
        *flags_of(options.broker.trace),
    )
    failures = 0
    while True:
        started = asyncio.get_running_loop().time()
        child = await ChildProcess.spawn(command, lock=lock, output=output, on_exit=lambda _: None)
        try:
            await child.exited.wait()
        finally:
            with contextlib.suppress(ProcessLookupError):
                await child.stop(_STOP_GRACE_S)
        failures = 0 if asyncio.get_running_loop().time() - started > _STEADY_S else failures + 1
        _log.error("the worker has ended", code=child.returncode, log=str(output), last=_last_line(output))
        await asyncio.sleep(_RESTARTS_S[min(failures, len(_RESTARTS_S) - 1)])


def _last_line(path: Path) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else ""
