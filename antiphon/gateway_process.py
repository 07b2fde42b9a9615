"""The gateway's composition root."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import structlog

from antiphon.listening import serving
from antiphon.processes import (
    BrokerSettings,
    settle_memory,
    spans_of,
    stop_signals,
    wait_for_log,
    watching_the_loop,
)
from broker.jetstream.connection import Connection
from broker.jetstream.directory import JetStreamDirectory
from broker.jetstream.dispatch import JetStreamJobQueue
from broker.jetstream.health import JetStreamHealth
from broker.jetstream.log import JetStreamLog
from broker.jetstream.presence import NatsPresence
from broker.jetstream.vitals import JetStreamVitals
from gateway.app import Gateway
from gateway.auth import Authenticator
from gateway.commands import Commands
from gateway.config import GatewaySettings
from gateway.hub import Hub
from gateway.metrics import GatewayMetrics
from gateway.presence import Rooms
from gateway.services import Services
from gateway.tracing import GatewayTracing

_log = structlog.get_logger("antiphon.gateway")


@asynccontextmanager
async def running_gateway(broker: BrokerSettings, settings: GatewaySettings) -> AsyncIterator[tuple[Gateway, str]]:
    """A gateway that serves, and its address. It serves (and says what is wrong) while NATS is away, too.

    Raises ConfigError before anything is opened.
    """
    authenticator = Authenticator.from_settings(settings)
    metrics = GatewayMetrics()
    name = f"gw-{secrets.token_hex(4)}"
    structlog.contextvars.bind_contextvars(process=name)
    async with AsyncExitStack() as stack:
        spans = stack.enter_context(spans_of(broker.trace, "antiphon-gateway", name, metrics.registry))
        tracing = GatewayTracing(name, spans)
        connection = await stack.enter_async_context(Connection(broker.nats, name=name, metrics=metrics.log))
        log = await stack.enter_async_context(JetStreamLog(connection, broker.log))
        await stack.enter_async_context(_prepared(connection, log))
        jobs = JetStreamJobQueue(connection, broker.log.pool_names[0])
        hub = await stack.enter_async_context(Hub(log, jobs, settings, metrics, tracing))
        presence = await stack.enter_async_context(
            NatsPresence(connection, name, heartbeat_s=settings.presence_heartbeat_s, grace_s=settings.leave_grace_s)
        )
        rooms = await stack.enter_async_context(Rooms(presence, settings.leave_grace_s, metrics))
        commands = Commands(hub, log, jobs, JetStreamDirectory(connection), settings, metrics, tracing)
        services = Services(name, hub, log, commands, rooms, authenticator, settings, metrics)
        vitals = await stack.enter_async_context(JetStreamVitals(connection, metrics.queue))
        gateway = Gateway(services, JetStreamHealth(connection, log, broker.log), vitals)
        await stack.enter_async_context(watching_the_loop(metrics.process))
        url = await stack.enter_async_context(serving(gateway.app, settings.host, settings.port))
        yield gateway, url


async def run_gateway(broker: BrokerSettings, settings: GatewaySettings) -> None:
    """Serves until SIGTERM or SIGINT, then drains."""
    async with running_gateway(broker, settings) as (gateway, url):
        settle_memory()
        print(f"ready {url}", flush=True)
        with stop_signals() as stop:
            await stop.wait()
        _log.info("draining", connections=gateway.connections)
        await gateway.drain()


@asynccontextmanager
async def _prepared(connection: Connection, log: JetStreamLog) -> AsyncIterator[None]:
    """Prepares the log, now or, when NATS is away, as soon as it is there."""
    async with asyncio.TaskGroup() as tasks:
        preparing = tasks.create_task(wait_for_log(connection, log))
        await asyncio.wait({preparing}, timeout=1.0)
        try:
            yield
        finally:
            preparing.cancel()
