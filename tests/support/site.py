"""A log and a worker in this process, and what a gateway does with them: for tests of workers."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from agent_worker.agents import echo
from agent_worker.config import WorkerSettings
from agent_worker.context import Agent
from agent_worker.runtime import Worker
from antiphon.processes import BrokerSettings
from antiphon.worker_process import running_worker
from broker.codec import decode_at
from broker.config import LogSettings, NatsSettings
from broker.events import Entry, Event, InputSent, Participant, RunCancelRequested, RunError
from broker.jetstream.connection import Connection
from broker.jetstream.dispatch import JetStreamJobQueue
from broker.jetstream.log import JetStreamLog
from broker.jetstream.topology import Topology
from broker.permissions import Role
from broker.subjects import MAIN_LANE, place_of, run_id_of
from broker.tail import StoredEntry
from broker.transcript import Transcript
from tests.support.roles import settings_of
from tests.support.stack import read_entries

LEASE_S = 1.5
WAIT_S = 45.0
USER = Participant("user", "user-1")


@dataclass(frozen=True, slots=True)
class Site:
    """A log, and what a gateway does with it."""

    url: str
    settings: LogSettings
    connection: Connection
    log: JetStreamLog
    jobs: JetStreamJobQueue

    async def send(self, session: str, content: str, input_id: str, pool: str | None = None) -> str:
        """Stores an input and offers its job, as a gateway does; returns the run's id. `pool`: as the session's config says."""
        subjects = self.log.subjects(session)
        entry = Entry(id=input_id, ts=1, events=(InputSent(input_id, content),), by=USER)
        await self.log.append_input(subjects, entry, input_id)
        await self.jobs.offer(subjects, MAIN_LANE, pool)
        return run_id_of(input_id)

    async def say(self, session: str, event: Event, *, by: Participant = USER, id_: str | None = None) -> int:
        """Stores what a participant does, as a gateway does; returns where."""
        entry = Entry(id=id_ or f"say:{secrets.token_hex(6)}", ts=int(time.time() * 1000), events=(event,), by=by)
        return (await self.log.append_input(self.log.subjects(session), entry, entry.id)).seq

    async def cancel(self, session: str, run_id: str, mode: str = "immediate") -> None:
        await self.say(session, RunCancelRequested(run_id, mode))

    async def until(self, session: str, reached: Callable[[Transcript], object]) -> Transcript:
        """Follows the session from its start until it is as asked for."""
        transcript = Transcript()
        async with asyncio.timeout(WAIT_S), self.log.tail(self.log.subjects(session), 0) as tail:
            while True:
                for stored in await tail.next():
                    assert isinstance(stored, StoredEntry)
                    place = place_of(stored.subject)
                    assert place is not None
                    transcript.apply(stored.seq, decode_at(place, stored.body)[0])
                    if reached(transcript):
                        return transcript

    async def ended(self, session: str, run_id: str) -> Transcript:
        return await self.until(session, lambda t: t.state.end_of(run_id))

    async def streaming(self, session: str) -> Transcript:
        """Returns when the first text of the session is in the log."""
        return await self.until(session, lambda t: any(m.role == "assistant" and m.text for m in t.messages))

    async def errors(self, session: str) -> list[RunError]:
        entries = await read_entries(self.log, session)
        return [event for _, entry in entries for event in entry.events if isinstance(event, RunError)]

    async def queued_jobs(self) -> int:
        """Jobs that are queued or leased."""
        state = (await self.connection.api("STREAM.INFO.WORK"))["state"]
        return int(state["messages"])

    async def has_jobs(self, count: int) -> None:
        """Returns when there are so many jobs, queued or leased."""
        async with asyncio.timeout(WAIT_S):
            while await self.queued_jobs() != count:
                await asyncio.sleep(0.01)

    async def has_no_jobs(self, wait_s: float) -> None:
        """Returns when all work is done; for much of it."""
        async with asyncio.timeout(wait_s):
            while await self.queued_jobs():
                await asyncio.sleep(0.1)

    @contextlib.asynccontextmanager
    async def working(self, agent: Agent = echo.agent, **settings: float | str) -> AsyncIterator[Working]:
        """A worker at work until the context ends; one that was not told to leave is cut short then."""
        user = settings_of(self.url, Role.WORKER)
        broker = BrokerSettings(NatsSettings(nats_url=self.url, ack_timeout_s=1.0, **user), self.settings)
        made = WorkerSettings(**{"concurrency": 8, "pull_wait_s": 1.0, **settings})  # type: ignore[arg-type]
        async with running_worker(broker, made, agent) as worker, asyncio.TaskGroup() as tasks:
            task = tasks.create_task(worker.run())
            yield Working(worker, task)
            task.cancel()


@dataclass(frozen=True, slots=True)
class Working:
    """A worker, and the task that it runs in."""

    worker: Worker
    task: asyncio.Task[None]

    async def left(self) -> None:
        """Asks it to leave, and returns when it has."""
        self.worker.shutdown()
        async with asyncio.timeout(WAIT_S):
            await asyncio.wait({self.task})
        self.task.result()

    async def die(self) -> None:
        """It leaves at once, as after a second signal."""
        self.task.cancel()
        await asyncio.wait({self.task})

    def count(self, name: str, **labels: str) -> float:
        """The value of one of its metrics, without `antiphon_worker_`."""
        value = self.worker._services.metrics.registry.get_sample_value(f"antiphon_worker_{name}", labels)
        return value or 0.0


@contextlib.asynccontextmanager
async def open_site(
    url: str, *, replicas: int = 1, pools: str = "default", lease_s: float = LEASE_S
) -> AsyncIterator[Site]:
    settings = LogSettings(partitions=2, replicas=replicas, lease_s=lease_s, pools=pools)
    async with Connection(NatsSettings(nats_url=url), name="site") as connection:
        await Topology(connection, settings).apply()
        async with JetStreamLog(connection, settings) as log:
            await log.prepare()
            yield Site(url, settings, connection, log, JetStreamJobQueue(connection, "default"))


def said(transcript: Transcript) -> str:
    """What the agent has said, in all its messages."""
    return "".join(message.text for message in transcript.messages if message.role == "assistant")


def tokens(count: int) -> str:
    return "".join(f"t{i} " for i in range(count))
