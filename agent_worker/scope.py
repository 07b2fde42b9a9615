"""What a lane's owner has at hand while it owns the lane, and how it waits for what others write."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from agent_worker.config import WorkerSettings
from agent_worker.metrics import WorkerMetrics
from agent_worker.sizes import check_size
from agent_worker.slots import Slot
from agent_worker.writer import LaneWriter
from broker.clock import now_ms
from broker.config import AttachmentSettings
from broker.events import Entry, Event, Participant
from broker.interfaces import Alarms, AttachmentStore, Directory, JobQueue, Presence, SessionLog
from broker.loading import Loaded, read_entry
from broker.spans import NO_SPANS, Spans
from broker.state import SessionState
from broker.subjects import SessionSubjects

if TYPE_CHECKING:
    from agent_worker.context import Agent

T = TypeVar("T")

LATE_MS = 500
"""By how much an end in the log may be late: the clocks of gateways and workers differ a little."""


@dataclass(frozen=True, slots=True)
class WorkerServices:
    """What all lanes of a worker share."""

    log: SessionLog
    jobs: JobQueue
    presence: Presence
    directory: Directory
    agent: Agent
    me: Participant
    lease_s: float
    settings: WorkerSettings
    metrics: WorkerMetrics
    attachments: AttachmentStore
    attachment_settings: AttachmentSettings
    alarms: Alarms
    spans: Spans = NO_SPANS


@dataclass(frozen=True, slots=True)
class LaneScope:
    """An owned lane: its writer, its folded state, and its slot. `changed` returns at the next change of the state."""

    services: WorkerServices
    subjects: SessionSubjects
    lane: str
    fence: int
    writer: LaneWriter
    loaded: Loaded
    slot: Slot
    changed: Callable[[], Coroutine[Any, Any, None]]

    @property
    def state(self) -> SessionState:
        return self.loaded.state

    @property
    def owned(self) -> bool:
        """Nobody has claimed the lane since, as far as the state goes."""
        return self.state.lane(self.lane).fence == self.fence

    def record(self, event: Event) -> None:
        """Writes an event of the agent's own. Raises ContentTooLarge, LogError."""
        check_size(event)
        self.writer.record(event)

    async def reached(self, seq: int) -> None:
        """Returns when record `seq` has been folded."""
        while self.state.as_of < seq:
            await self.changed()

    async def stored(self) -> None:
        """Returns when everything said so far is stored and folded. Raises LogError."""
        await self.reached(await self.writer.flush())

    async def until(self, found: Callable[[SessionState], T | None], at_ms: int | None = None) -> T | None:
        """Waits until `found` finds something in the state, and returns it; None when it is `at_ms` by the wall clock."""
        while True:
            value = found(self.state)
            if value is not None:
                return value
            left_s = None if at_ms is None else (at_ms - now_ms()) / 1000
            if left_s is not None and left_s <= 0:
                return None
            try:
                async with asyncio.timeout(left_s):
                    await self.changed()
            except TimeoutError:
                continue

    async def entry(self, seq: int) -> Entry:
        """The record at `seq`. Raises Unavailable."""
        return await read_entry(self.services.log, self.subjects, seq)
