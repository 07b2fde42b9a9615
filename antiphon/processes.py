"""Composition roots: a gateway and a worker, put together from their parts and run until told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import structlog
from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_1_0_0

from agent_worker.config import WorkerSettings
from agent_worker.context import Agent
from agent_worker.metrics import WorkerMetrics
from agent_worker.owner import WorkerServices
from agent_worker.runtime import Worker
from broker.config import LogSettings, NatsSettings
from broker.errors import ConfigError, LogError
from broker.events import Participant
from broker.jetstream.connection import Connection
from broker.jetstream.dispatch import JetStreamJobQueue, JetStreamJobSource
from broker.jetstream.health import JetStreamHealth
from broker.jetstream.log import JetStreamLog
from gateway.app import Gateway
from gateway.auth import Authenticator
from gateway.commands import Commands
from gateway.config import GatewaySettings
from gateway.hub import Hub
from gateway.metrics import GatewayMetrics
from gateway.websocket import Services

_log = structlog.get_logger("antiphon")

_PREPARE_WAIT_S = 0.5

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class BrokerSettings:
    """How a process reaches the log."""

    nats: NatsSettings
    log: LogSettings


@asynccontextmanager
async def running_gateway(broker: BrokerSettings, settings: GatewaySettings) -> AsyncIterator[tuple[Gateway, str]]:
    """A gateway that serves, and its address. It serves (and says what is wrong) while NATS is away, too.

    Raises ConfigError before anything is opened.
    """
    authenticator = Authenticator.from_settings(settings)
    metrics = GatewayMetrics()
    name = f"gw-{secrets.token_hex(4)}"
    async with AsyncExitStack() as stack:
        connection = await stack.enter_async_context(Connection(broker.nats, name=name))
        log = await stack.enter_async_context(JetStreamLog(connection, broker.log))
        await stack.enter_async_context(_prepared(connection, log))
        jobs = JetStreamJobQueue(connection, broker.log.pool_names[0])
        hub = await stack.enter_async_context(Hub(log, jobs, settings, metrics))
        commands = Commands(hub, log, jobs, settings, metrics)
        services = Services(name, hub, log, commands, authenticator, settings, metrics)
        gateway = Gateway(services, JetStreamHealth(connection, log, broker.log))
        url = await stack.enter_async_context(_serving(gateway.app, settings.host, settings.port))
        yield gateway, url


@asynccontextmanager
async def running_worker(broker: BrokerSettings, settings: WorkerSettings, agent: Agent) -> AsyncIterator[Worker]:
    """A worker, connected and ready to `run`. Waits for NATS and its streams."""
    me = Participant("agent", f"w-{secrets.token_hex(4)}", agent.name)
    metrics = WorkerMetrics()
    async with AsyncExitStack() as stack:
        if settings.worker_port:
            app = _metrics_app(metrics.registry)
            await stack.enter_async_context(_serving(app, "0.0.0.0", settings.worker_port))  # noqa: S104 (for scraping)
        connection = await stack.enter_async_context(Connection(broker.nats, name=me.id))
        log = await stack.enter_async_context(JetStreamLog(connection, broker.log))
        await _prepare(connection, log)
        source = await stack.enter_async_context(JetStreamJobSource(connection, settings.pool))
        jobs = JetStreamJobQueue(connection, settings.pool)
        services = WorkerServices(log, jobs, agent, me, broker.log.lease_s, settings, metrics)
        yield Worker(source, services)


async def run_gateway(broker: BrokerSettings, settings: GatewaySettings) -> None:
    """Serves until SIGTERM or SIGINT, then drains."""
    async with running_gateway(broker, settings) as (gateway, url):
        print(f"ready {url}", flush=True)
        await _stop_signal()
        _log.info("draining", connections=gateway.connections)
        await gateway.drain()


async def run_worker(broker: BrokerSettings, settings: WorkerSettings, agent: Agent) -> None:
    """Works until SIGTERM or SIGINT, then drains; a second signal leaves at once."""
    async with running_worker(broker, settings, agent) as worker, asyncio.TaskGroup() as tasks:
        working = tasks.create_task(worker.run())
        print("ready worker", flush=True)
        with stop_signals() as stop:
            await _first(working, stop)
            if working.done():
                return
            _log.info("draining", lanes=worker.busy)
            worker.shutdown()
            stop.clear()
            await _first(working, stop)
            working.cancel()


async def _first(working: asyncio.Task[None], stop: asyncio.Event) -> None:
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()


@contextlib.contextmanager
def stop_signals() -> Iterator[asyncio.Event]:
    """An event that SIGTERM and SIGINT set."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        yield stop
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


async def _stop_signal() -> None:
    with stop_signals() as stop:
        await stop.wait()


@asynccontextmanager
async def _prepared(connection: Connection, log: JetStreamLog) -> AsyncIterator[None]:
    """Prepares the log, now or, when NATS is away, as soon as it is there."""
    async with asyncio.TaskGroup() as tasks:
        preparing = tasks.create_task(_prepare(connection, log))
        await asyncio.wait({preparing}, timeout=1.0)
        try:
            yield
        finally:
            preparing.cancel()


async def _prepare(connection: Connection, log: JetStreamLog) -> None:
    said = ""
    while True:
        await connection.wait_connected()
        try:
            await log.prepare()
        except LogError as error:
            if str(error) != said:
                said = str(error)
                _log.warning("the log cannot be used yet", reason=said)
            await asyncio.sleep(_PREPARE_WAIT_S)
        else:
            return


@asynccontextmanager
async def _serving(app: web.Application, host: str, port: int) -> AsyncIterator[str]:
    """Listens; yields the address. Raises ConfigError if it is taken."""
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=1.0)
    await runner.setup()
    try:
        listener = _listen(host, port)
        await web.SockSite(runner, listener, backlog=1024).start()
        shown = "127.0.0.1" if host in ("0.0.0.0", "") else host  # noqa: S104 (only compared)
        yield f"http://{shown}:{listener.getsockname()[1]}"
    finally:
        await runner.cleanup()


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        raise ConfigError(f"cannot listen on {host}:{port}: {os.strerror(error.errno or 0)}; choose another --port") from None
    return listener


def _metrics_app(registry: CollectorRegistry) -> web.Application:
    async def metrics(request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_PLAIN_1_0_0})

    async def healthz(request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    app.router.add_get("/healthz", healthz)
    return app


def run(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Runs a coroutine function to its end on uvloop, where there is one."""
    if sys.platform == "win32":
        return asyncio.run(main())
    import uvloop

    return uvloop.run(main())
