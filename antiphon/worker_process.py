"""The worker's composition root."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import structlog

from agent_worker.config import WorkerSettings
from agent_worker.context import Agent
from agent_worker.metrics import WorkerMetrics
from agent_worker.runtime import Worker
from agent_worker.scope import WorkerServices
from antiphon.processes import (
    BrokerSettings,
    settle_memory,
    spans_of,
    stop_signals,
    wait_for_log,
    watching_the_loop,
)
from broker.events import Participant
from broker.jetstream.connection import Connection
from broker.jetstream.directory import JetStreamDirectory
from broker.jetstream.dispatch import JetStreamJobQueue, JetStreamJobSource
from broker.jetstream.log import JetStreamLog
from broker.jetstream.presence import NatsPresence
from broker.jetstream.topology import stored_lease_s
from broker.jetstream.vitals import JetStreamVitals

_log = structlog.get_logger("antiphon.worker")

_HAND_OVER_S = 2.0
"""How long a worker that leaves tries to let go of its lanes, once its agents have been stopped. Should NATS be away,
their leases run out."""


@asynccontextmanager
async def running_worker(broker: BrokerSettings, settings: WorkerSettings, agent: Agent) -> AsyncIterator[Worker]:
    """A worker, connected and ready to `run`. Waits for NATS and its streams."""
    me = Participant("agent", f"w-{secrets.token_hex(4)}", agent.name)
    metrics = WorkerMetrics()
    structlog.contextvars.bind_contextvars(process=me.id)
    async with AsyncExitStack() as stack:
        spans = stack.enter_context(spans_of(broker.trace, "antiphon-worker", me.id, metrics.registry, authors=True))
        connection = Connection(broker.nats, name=me.id, metrics=metrics.log)
        if settings.worker_port:
            from antiphon.worker_metrics import serving_metrics

            vitals = await stack.enter_async_context(JetStreamVitals(connection))
            await stack.enter_async_context(serving_metrics(metrics, vitals, settings.worker_port))
            await stack.enter_async_context(watching_the_loop(metrics.process))
        await stack.enter_async_context(connection)
        log = await stack.enter_async_context(JetStreamLog(connection, broker.log))
        await wait_for_log(connection, log)
        source = await stack.enter_async_context(JetStreamJobSource(connection, settings.pool))
        jobs = JetStreamJobQueue(connection, settings.pool)
        lease_s = await stored_lease_s(connection, settings.pool)
        presence = await stack.enter_async_context(NatsPresence(connection))
        directory = JetStreamDirectory(connection)
        services = WorkerServices(log, jobs, presence, directory, agent, me, lease_s, settings, metrics, spans)
        yield Worker(source, services)


async def run_worker(broker: BrokerSettings, settings: WorkerSettings, agent: Agent) -> None:
    """Works until SIGTERM or SIGINT, then drains, in a bounded time; a second signal leaves at once."""
    async with running_worker(broker, settings, agent) as worker, asyncio.TaskGroup() as tasks:
        working = tasks.create_task(worker.run())
        settle_memory()
        print("ready worker", flush=True)
        with stop_signals() as stop:
            await _first(working, stop)
            if working.done():
                return
            _log.info("draining", lanes=worker.busy)
            worker.shutdown()
            stop.clear()
            try:
                async with asyncio.timeout(settings.worker_drain_s + settings.cancel_grace_s + _HAND_OVER_S):
                    await _first(working, stop)
            except TimeoutError:
                _log.warning("leaving at once: NATS does not take what is to be handed over", lanes=worker.busy)
            working.cancel()


async def _first(working: asyncio.Task[None], stop: asyncio.Event) -> None:
    async with asyncio.TaskGroup() as tasks:
        stopping = tasks.create_task(stop.wait())
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
