"""The gateway's composition root."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import structlog

from antiphon.door import Cut, Door, DoorSettings
from antiphon.listening import serving
from antiphon.processes import (
    BrokerSettings,
    at_end_of_input,
    collecting_rubbish,
    may_open,
    settle_memory,
    spans_of,
    stop_signals,
    wait_for_log,
    watching_the_loop,
)
from broker.jetstream.alarms import JetStreamAlarms, JetStreamAlarmSource
from broker.jetstream.attachments import JetStreamAttachments
from broker.jetstream.audit import JetStreamAuditLog
from broker.jetstream.connection import Connection
from broker.jetstream.directory import JetStreamDirectory
from broker.jetstream.dispatch import JetStreamJobQueue
from broker.jetstream.health import JetStreamHealth
from broker.jetstream.log import JetStreamLog
from broker.jetstream.presence import NatsPresence
from broker.jetstream.revocations import JetStreamRevocations
from broker.jetstream.usage import JetStreamUsage
from broker.jetstream.vitals import JetStreamVitals
from broker.permissions import Role
from gateway.admission import Admission
from gateway.app import Gateway
from gateway.attachments import Attachments
from gateway.auditing import Auditing
from gateway.auth import Authenticator
from gateway.clock import Clock
from gateway.commands import Commands
from gateway.config import GatewaySettings
from gateway.hub import Hub
from gateway.metrics import GatewayMetrics
from gateway.pacing import Held, PacingSettings
from gateway.presence import Rooms
from gateway.revoked import RevokedTokens
from gateway.services import Services
from gateway.tracing import GatewayTracing
from gateway.usage import Usage

_log = structlog.get_logger("antiphon.gateway")

_STALLED = 1.5
_OTHER_FILES = 100
"""Open files of a gateway beside its clients' sockets, generously."""
_FIRST_READ_S = 5.0
"""How long a gateway waits, before it serves, for what is revoked."""


@asynccontextmanager
async def running_gateway(
    broker: BrokerSettings, settings: GatewaySettings, number: int | None = None
) -> AsyncIterator[tuple[Gateway, str]]:
    """A gateway that serves, and its address. It serves (and says what is wrong) while NATS is away, too.

    `number`: which one it is of those that share the port; None: it has the port for itself.

    Raises ConfigError before anything is opened.
    """
    metrics = GatewayMetrics()
    revoked = RevokedTokens()
    authenticator = Authenticator.from_settings(settings, metrics, revoked)
    admission = Admission.of(settings)
    name = f"gw-{secrets.token_hex(4)}"
    structlog.contextvars.bind_contextvars(process=name)
    async with AsyncExitStack() as stack:
        spans = stack.enter_context(spans_of(broker.trace, "antiphon-gateway", name, metrics.registry))
        tracing = GatewayTracing(name, spans)
        await stack.enter_async_context(authenticator.key_sets)
        connection = await stack.enter_async_context(Connection(broker.nats, name=name, metrics=metrics.log))
        log = await stack.enter_async_context(JetStreamLog(connection, broker.log))
        await stack.enter_async_context(_prepared(connection, log))
        jobs = JetStreamJobQueue(connection, broker.log.pool_names[0])
        hub = await stack.enter_async_context(Hub(log, jobs, settings, metrics, tracing))
        presence = await stack.enter_async_context(
            NatsPresence(connection, name, heartbeat_s=settings.presence_heartbeat_s, grace_s=settings.leave_grace_s)
        )
        rooms = await stack.enter_async_context(Rooms(presence, settings.leave_grace_s, metrics))
        store = JetStreamAttachments(connection, broker.attachments)
        usage = await stack.enter_async_context(Usage(hub, log, store, JetStreamUsage(connection), settings))
        auditing = Auditing(JetStreamAuditLog(connection), name)
        attachments = Attachments(
            hub, log, store, broker.attachments, metrics, settings.command_timeout_s, usage=usage, auditing=auditing
        )
        await stack.enter_async_context(attachments.swept())
        directory = JetStreamDirectory(connection)
        alarms = JetStreamAlarms(connection)
        commands = Commands(
            *(hub, log, jobs, directory, settings, metrics, tracing),
            attachments=attachments,
            auditing=auditing,
            admission=admission,
            usage=usage,
            alarms=alarms,
        )
        source = await stack.enter_async_context(JetStreamAlarmSource(connection))
        await stack.enter_async_context(Clock(hub, commands, alarms, source, settings, metrics))
        revocations = await stack.enter_async_context(JetStreamRevocations(connection))
        services = Services(
            *(name, hub, log, commands, attachments, rooms, authenticator, settings, metrics),
            auditing=auditing,
            revocations=revocations,
            revoked=revoked,
            admission=admission,
            usage=usage,
        )
        vitals = await stack.enter_async_context(JetStreamVitals(connection, metrics.queue))
        gateway = Gateway(services, JetStreamHealth(connection, log, broker.log, Role.GATEWAY), vitals)
        # Until it knows what is revoked, all that it could say is `unavailable`.
        await revocations.read(_FIRST_READ_S)
        await usage.read(_FIRST_READ_S)
        await stack.enter_async_context(watching_the_loop(metrics.process))
        await stack.enter_async_context(collecting_rubbish())
        url = await _listens(stack, gateway, settings, _door(settings, metrics, admission), number)
        yield gateway, url


async def _listens(
    stack: AsyncExitStack, gateway: Gateway, settings: GatewaySettings, door: Door, number: int | None
) -> str:
    """Serves until the stack is left; returns the address."""
    if number is not None:
        port = settings.process_port and settings.process_port + number
        own = await stack.enter_async_context(serving(gateway.own_app, settings.host, port))
        _log.info("this process is asked about itself on a port of its own", number=number, url=own)
    listening = serving(gateway.app, settings.host, settings.port, door, shared=number is not None)
    return await stack.enter_async_context(listening)


async def run_gateway(broker: BrokerSettings, settings: GatewaySettings, number: int | None = None) -> None:
    """Serves until SIGTERM or SIGINT, then drains. One of several (`number`) does so, too, when its parent is gone."""
    async with running_gateway(broker, settings, number) as (gateway, url):
        settle_memory()
        print(f"ready {url}", flush=True)
        with stop_signals() as stop:
            if number is not None:
                await at_end_of_input(stop.set)
            await stop.wait()
        _log.info("draining", connections=gateway.connections)
        await gateway.drain()


def _door(settings: GatewaySettings, metrics: GatewayMetrics, admission: Admission) -> Door:
    sockets = min(settings.sockets, may_open(settings.sockets + _OTHER_FILES) - _OTHER_FILES)
    if sockets < settings.sockets:
        _log.info("this process may have fewer files open than sockets", sockets=sockets)
    may = DoorSettings(
        sockets=sockets,
        head_s=settings.http_head_s,
        idle_s=settings.http_idle_s,
        # Later than readers are told that they are too slow, so that they are.
        stalled_s=settings.slow_reader_s * _STALLED,
        kernel_unsent_bytes=settings.kernel_unsent_bytes,
        kernel_unread_bytes=settings.kernel_unread_bytes,
        pacing=_pacing(settings),
    )

    def on_cut(why: Cut) -> None:
        metrics.sockets_cut.labels(why).inc()

    def on_held(by: Held, more: int) -> None:
        metrics.sockets_held.labels(by).inc(more)

    trusts = admission.addresses.is_trusted
    return Door(may, metrics.sockets.set, on_cut, on_held, trusts, admission.address_of)


def _pacing(settings: GatewaySettings) -> PacingSettings:
    factor = settings.pace_factor
    return PacingSettings(
        frames_per_second=factor * settings.commands_per_second,
        frames_burst=factor * settings.commands_burst,
        bytes_per_second=factor * settings.bytes_per_second,
        bytes_burst=factor * settings.bytes_burst,
        user_frames_per_second=settings.user_frames_per_second,
        address_frames_per_second=settings.address_frames_per_second,
        shared_burst_s=settings.shared_burst_s,
        sockets_per_second=settings.sockets_per_second,
        sockets_burst=settings.sockets_burst,
        turn_frames=settings.turn_frames,
        turn_share=settings.turn_share,
        flood_s=settings.flood_s,
    )


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
