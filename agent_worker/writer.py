"""Writes a lane: one write in flight, under the lane's fence, in order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from agent_worker.config import WorkerSettings
from agent_worker.lane import LaneQueue, StreamKind
from agent_worker.metrics import WorkerMetrics
from broker.clock import now_ms
from broker.errors import LogError
from broker.events import Entry, Event, Participant
from broker.interfaces import SessionLog
from broker.lease import WriteId
from broker.subjects import SessionSubjects
from broker.tracing import TraceContext

PENDING_MAX = 65_536
"""Pieces of text and records that wait to be stored before an agent has to wait."""


class LaneWriter:
    """Takes what an agent says and stores it. `run` is a task of the lane's owner.

    Methods that wait raise what ended the writer: WrongSequence (the lane was taken) or Unavailable.
    """

    def __init__(
        self,
        log: SessionLog,
        subjects: SessionSubjects,
        lane: str,
        fence: int,
        by: Participant,
        settings: WorkerSettings,
        metrics: WorkerMetrics,
    ) -> None:
        self._log = log
        self._subjects = subjects
        self._lane = lane
        self._fence = fence
        self._settings = settings
        self._metrics = metrics
        self._queue = LaneQueue(
            delta_chars=settings.delta_chars,
            segment_chars=settings.segment_chars,
            segment_deltas=settings.segment_deltas,
        )
        self._n = 0
        self._more = asyncio.Event()
        self._room = asyncio.Event()
        self._stored = asyncio.Event()
        self._idle = True
        self._failure: LogError | None = None
        self._run_began: float | None = None
        self.by = by
        self.run_id: str | None = None
        self.trace: TraceContext | None = None
        """The span of the run's attempt: its records carry it."""
        self.on_first_delta: Callable[[], None] | None = None
        """Called once, when the next delta has been stored."""
        self.last_record = fence

    async def run(self) -> None:
        """Stores what comes, until cancelled. Raises WrongSequence, Unavailable: the lane is lost, stop at once."""
        try:
            while True:
                write = self._queue.next_write()
                if write is None:
                    self._idle = True
                    self._stored.set()
                    await self._wait_for_more()
                    continue
                self._n += 1
                delta = write.off is not None
                entry = Entry(
                    id=str(WriteId(self._fence, self._n)),
                    ts=now_ms(),
                    events=write.events,
                    lane=self._lane,
                    run=None if delta else self.run_id,
                    by=None if delta else self.by,
                    off=write.off,
                    trace=None if delta else self.trace,
                )
                seq = await self._log.append(self._subjects, self._lane, self._fence, entry)
                if not delta:
                    self.last_record = seq
                else:
                    self._first_text()
                self._metrics.appends.labels("delta" if delta else "record").inc()
                if not self._full():
                    self._room.set()
        except LogError as error:
            self._failure = error
            raise
        finally:
            self._room.set()
            self._stored.set()

    def _first_text(self) -> None:
        """A delta has been stored: if it is the first, those who wait for it are told."""
        if self._run_began is not None:
            self._metrics.first_text.observe(time.monotonic() - self._run_began)
            self._run_began = None
        if self.on_first_delta is not None:
            self.on_first_delta()
            self.on_first_delta = None

    def await_first_text(self) -> None:
        """A run begins: how long it takes to its first text is measured."""
        self._run_began = time.monotonic()

    def record(self, *events: Event) -> None:
        """Events that belong together, as a record. Does not wait."""
        self._check()
        self._queue.record(*events)
        self._wake()

    def open(self, start: Event, id_: str, kind: StreamKind) -> None:
        """Begins a text. Does not wait."""
        self._check()
        self._queue.open(start, id_, kind)
        self._wake()

    def close(self, id_: str, reason: str = "complete") -> None:
        """Ends a text. Does not wait."""
        self._check()
        self._queue.close(id_, reason)
        self._wake()

    def open_streams(self) -> list[str]:
        return self._queue.open_streams()

    async def text(self, id_: str, text: str) -> None:
        """More of a text; waits while too much waits to be stored. Cancelling keeps the text queued.

        Raises UnicodeEncodeError for a lone surrogate, which no JSON may hold.
        """
        self._check()
        if not text.isascii():
            text.encode()
        self._queue.text(id_, text)
        self._wake()
        await self.room()

    async def room(self) -> None:
        """Waits while too much waits to be stored. Safe to cancel."""
        while self._full():
            self._room.clear()
            await self._room.wait()
            self._check()

    def _full(self) -> bool:
        return self._queue.pending_chars >= self._settings.pending_chars or len(self._queue) >= PENDING_MAX

    async def flush(self) -> int:
        """Returns the sequence of the last record when everything said so far is stored. Safe to cancel."""
        self._check()
        while not self._idle:
            self._stored.clear()
            await self._stored.wait()
            self._check()
        return self.last_record

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _wake(self) -> None:
        self._idle = False
        self._more.set()

    async def _wait_for_more(self) -> None:
        try:
            async with asyncio.timeout(self._settings.settle_idle_s):
                await self._more.wait()
        except TimeoutError:
            self._queue.settle()
            if not self._queue:
                await self._more.wait()
        self._more.clear()
