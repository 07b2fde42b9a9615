"""The worker's composition root."""

from __future__ import annotations

import asyncio
import dataclasses
import secrets
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import structlog

from agent_worker.config import WorkerSettings
from agent_worker.context import Agent
from agent_worker.metrics import WorkerMetrics
from agent_worker.runtime import Worker
from agent_worker.scope import WorkerServices
from antiphon.processes import (
    BrokerSettings,
    at_end_of_input,
    collecting_rubbish,
    meanwhile,
    settle_memory,
    spans_of,
    stop_signals,
    wait_for_log,
    watching_the_loop,
)
from broker.clock import now_ms
from broker.drains import Drain
from broker.events import Participant
from broker.interfaces import JobSource, SessionLog
from broker.jetstream.access import lacking, said_of
from broker.jetstream.alarms import JetStreamAlarms
from broker.jetstream.attachments import JetStreamAttachments
from broker.jetstream.connection import Connection
from broker.jetstream.directory import JetStreamDirectory
from broker.jetstream.dispatch import JetStreamJobQueue
from broker.jetstream.drains import JetStreamDrains
from broker.jetstream.log import JetStreamLog
from broker.jetstream.presence import NatsPresence
from broker.jetstream.taking import JetStreamJobSource
from broker.jetstream.topology import stored_lease_s
from broker.jetstream.vitals import JetStreamVitals
from broker.jetstream.workers import answer_questions
from broker.permissions import Role
from broker.workers import WorkerNotice

_log = structlog.get_logger("antiphon.worker")

_HAND_OVER_S = 2.0
"""How long a worker that leaves tries to let go of its lanes, once its agents have been stopped. Should NATS be away,
their leases run out."""


Wrap = Callable[[SessionLog, JobSource], tuple[SessionLog, JobSource]]
"""For tests of agents: what stands between a worker and its log and jobs."""


@asynccontextmanager
async def running_workers(
    broker: BrokerSettings, settings: WorkerSettings, agents: Mapping[str, Agent], wrap: Wrap | None = None
) -> AsyncIterator[list[Worker]]:
    """A worker for each pool, all in this process and over one connection, ready to `run`. Waits for NATS and its streams.

    Each works on as many lanes at once as the settings say; `settings.pool` says nothing here.
    """
    id_ = f"w-{secrets.token_hex(4)}"
    metrics = WorkerMetrics()
    version = settings.worker_version or None
    structlog.contextvars.bind_contextvars(process=id_, **({} if version is None else {"version": version}))
    workers: list[Worker] = []
    notices = _notices_of(workers)
    async with AsyncExitStack() as stack:
        spans = stack.enter_context(spans_of(broker.trace, "antiphon-worker", id_, metrics.registry, authors=True))
        connection = Connection(broker.nats, name=id_, metrics=metrics.log)
        if settings.worker_port:
            from antiphon.scraping import serving_metrics

            vitals = await stack.enter_async_context(JetStreamVitals(connection))
            said = serving_metrics(metrics, vitals, settings.worker_port, lambda: _health(notices()))
            await stack.enter_async_context(said)
            await stack.enter_async_context(watching_the_loop(metrics.process))
        await stack.enter_async_context(connection)
        await stack.enter_async_context(collecting_rubbish())
        log = await stack.enter_async_context(JetStreamLog(connection, broker.log))
        await wait_for_log(connection, log)
        if lacks := await lacking(connection, Role.WORKER, log.partitions, tuple(agents)):
            _log.error("not all will work", mend=said_of(lacks))
        presence = await stack.enter_async_context(NatsPresence(connection))
        for pool, agent in agents.items():
            written: SessionLog = log
            source: JobSource = await stack.enter_async_context(
                JetStreamJobSource(connection, pool, settings.lower_after)
            )
            if wrap is not None:
                written, source = wrap(log, source)
            services = WorkerServices(
                written,
                JetStreamJobQueue(connection, pool),
                presence,
                JetStreamDirectory(connection),
                agent,
                Participant("agent", id_, agent.name, version=version),
                await stored_lease_s(connection, pool),
                dataclasses.replace(settings, pool=pool),
                metrics,
                JetStreamAttachments(connection, broker.attachments),
                broker.attachments,
                JetStreamAlarms(connection),
                spans,
            )
            workers.append(Worker(source, services))
        following = JetStreamDrains(connection).follow(lambda drains: _tell(workers, drains))
        await stack.enter_async_context(meanwhile(following, answer_questions(connection, agents, notices)))
        yield workers


def _notices_of(workers: Sequence[Worker]) -> Callable[[], list[WorkerNotice]]:
    """What the workers of this process, that begins now, are at the time when it is called."""
    host, started_ms = socket.gethostname(), now_ms()
    return lambda: [worker.notice(host, started_ms) for worker in workers]


def _health(notices: Sequence[WorkerNotice]) -> dict[str, Any]:
    return {"workers": [dataclasses.asdict(notice) for notice in notices]}


def _tell(workers: Sequence[Worker], drains: Sequence[Drain]) -> None:
    for worker in workers:
        worker.standing.told(drains)


@asynccontextmanager
async def running_worker(
    broker: BrokerSettings, settings: WorkerSettings, agent: Agent, wrap: Wrap | None = None
) -> AsyncIterator[Worker]:
    """The same, of the pool that the settings name."""
    async with running_workers(broker, settings, {settings.pool: agent}, wrap) as (worker,):
        yield worker


def leaves_within_s(settings: WorkerSettings) -> float:
    """Seconds that a worker takes at most to leave, once it is told to."""
    return settings.worker_drain_s + settings.cancel_grace_s + _HAND_OVER_S


async def run_worker(
    broker: BrokerSettings, settings: WorkerSettings, agents: Mapping[str, Agent], number: int | None = None
) -> None:
    """Works for the pools until SIGTERM or SIGINT, then drains, in a bounded time; a second signal leaves at once.

    `number`: which one it is of several that one parent keeps, with whom it leaves; None: it is alone.
    """
    running = running_workers(broker, settings, agents)
    async with running as workers, workers[0].watched(), asyncio.TaskGroup() as tasks:
        working = [tasks.create_task(worker.run()) for worker in workers]
        settle_memory()
        print("ready worker", flush=True)
        with stop_signals() as stop:
            if number is not None:
                await at_end_of_input(stop.set)
            await _first(working, stop)
            if all(task.done() for task in working):
                return
            _log.info("draining", lanes=_busy(workers))
            for worker in workers:
                worker.shutdown()
            stop.clear()
            try:
                async with asyncio.timeout(leaves_within_s(settings)):
                    await _first(working, stop)
            except TimeoutError:
                _log.warning("leaving at once: NATS does not take what is to be handed over", lanes=_busy(workers))
            for task in working:
                task.cancel()


def _busy(workers: Sequence[Worker]) -> int:
    return sum(worker.busy for worker in workers)


async def _first(working: Sequence[asyncio.Task[None]], stop: asyncio.Event) -> None:
    """Returns when all have left, or it is to stop."""
    async with asyncio.TaskGroup() as tasks:
        stopping = tasks.create_task(stop.wait())
        while not stopping.done() and (left := {task for task in working if not task.done()}):
            await asyncio.wait({stopping, *left}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
