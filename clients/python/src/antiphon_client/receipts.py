"""What became of an input: the receipt of `send()`, and the book that the fold writes into."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol
from weakref import WeakValueDictionary

from ._json import JsonObject, as_count, as_str
from .errors import AntiphonError, InputNotApplied
from .state import RUN_PREFIX, Change, InputApplied, InputDropped, Outcome, RunEnded, State


@dataclass(slots=True, weakref_slot=True)
class Progress:
    """Everything known about one input, so far."""

    input_id: str
    run_id: str
    seq: int | None = None
    applied: InputApplied | None = None
    dropped: InputDropped | None = None
    outcome: Outcome | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def past_queue(self) -> bool:
        """Whether the input does not wait any more."""
        return self.applied is not None or self.dropped is not None

    def apply(self) -> None:
        """The input has left the queue for the transcript, as which message is not known."""
        if not self.past_queue:
            self.applied = InputApplied(self.input_id, self.run_id, None)


class ReceiptBook:
    """The inputs whose receipts somebody holds; the rest is forgotten with its last receipt."""

    def __init__(self) -> None:
        self._open: WeakValueDictionary[str, Progress] = WeakValueDictionary()

    def open(self, input_id: str) -> Progress:
        """The progress of an input, shared by all of its receipts."""
        progress = self._open.get(input_id)
        if progress is None:
            progress = Progress(input_id, RUN_PREFIX + input_id)
            self._open[input_id] = progress
        return progress

    def observe(self, changes: list[Change]) -> None:
        """Take over what the fold found, in order."""
        for change in changes:
            if isinstance(change, RunEnded):
                self._run_ended(change)
                continue
            progress = self._open.get(change.input_id)
            if progress is None or progress.past_queue:
                continue
            if isinstance(change, InputApplied):
                progress.applied = change
                progress.run_id = change.run_id or progress.run_id
            else:
                progress.dropped = change
                cancelled = change.code == "cancelled"
                progress.outcome = Outcome("cancelled" if cancelled else "error", change.code)
            progress.changed.set()

    def _run_ended(self, change: RunEnded) -> None:
        for progress in list(self._open.values()):
            if progress.run_id == change.run_id and progress.outcome is None:
                progress.apply()
                progress.outcome = change.outcome
                progress.changed.set()

    def settle(self, state: State, folded_seq: int) -> None:
        """After a snapshot: end what lies before it and is neither waiting nor running."""
        for progress in list(self._open.values()):
            self.settle_one(progress, state, folded_seq)

    def settle_one(self, progress: Progress, state: State, folded_seq: int) -> None:
        """The same for one input, once its place in the log (`seq`) is known."""
        placed = progress.seq is not None and progress.seq <= folded_seq
        if progress.outcome is not None or not placed or state.partial:
            return
        if state.is_queued(progress.input_id):
            return
        progress.apply()
        if not state.is_running(progress.run_id):
            progress.outcome = Outcome("unknown")
        progress.changed.set()

    def wake(self) -> None:
        """Let all who wait look again: the session has got an error."""
        for progress in list(self._open.values()):
            progress.changed.set()


class ReceiptSource(Protocol):
    """What a receipt needs of its session."""

    @property
    def error(self) -> AntiphonError | None:
        """Why the session cannot be read, so that nothing more will be learned."""

    def follow(self) -> None:
        """Read the session (again), if it is not being read."""

    def waiting(self) -> AbstractContextManager[None]:
        """While inside, somebody waits for an entry: the socket must be read."""


class Receipt:
    """An input that is stored in the log.

    `seq` is its place there. `duplicate` says that this input id had been stored before; then
    `seq` is that of the first time, and nothing was added. `position` is 1 for the next to run.
    """

    __slots__ = ("_progress", "_source", "duplicate", "position", "seq", "status")

    def __init__(self, progress: Progress, source: ReceiptSource, reply: JsonObject) -> None:
        self._progress = progress
        self._source = source
        self.seq = as_count(reply.get("seq")) or 0
        self.duplicate = reply.get("duplicate") is True
        self.position = as_count(reply.get("position"))
        self.status = as_str(reply.get("status")) or "queued"
        progress.run_id = as_str(reply.get("runId")) or progress.run_id
        progress.seq = self.seq
        if self.status in ("applied", "ended"):
            progress.apply()
        if self.status == "ended" and progress.outcome is None:
            progress.outcome = Outcome("unknown")
        progress.changed.set()

    @property
    def input_id(self) -> str:
        """The id of the input."""
        return self._progress.input_id

    @property
    def run_id(self) -> str:
        """The run that the input starts; it can be cancelled before it exists."""
        return self._progress.run_id

    async def applied(self) -> InputApplied:
        """Wait until the input has entered the transcript.

        `message_id` is None if that lies before what this client has read. Raises
        `InputNotApplied` if it never will, and the session's error if it cannot be read.
        Cancelling the wait is safe.
        """
        await self._until(lambda: self._progress.past_queue)
        dropped = self._progress.dropped
        if dropped is not None:
            raise InputNotApplied(dropped.code, f"input {self.input_id} was not applied")
        assert self._progress.applied is not None, "else it would still wait"
        return self._progress.applied

    async def finished(self) -> Outcome:
        """Wait until the run has ended; tells how.

        An input that never starts a run ends `cancelled`, or `error` with the code of its
        refusal. Raises the session's error if it cannot be read. Cancelling the wait is safe.
        """
        await self._until(lambda: self._progress.outcome is not None)
        assert self._progress.outcome is not None, "else it would still wait"
        return self._progress.outcome

    async def _until(self, known: Callable[[], bool]) -> None:
        progress = self._progress
        if known():
            return
        self._source.follow()
        with self._source.waiting():
            while not known():
                error = self._source.error
                if error is not None:
                    raise error
                progress.changed.clear()
                await progress.changed.wait()

    def __repr__(self) -> str:
        return f"Receipt(input_id={self.input_id!r}, run_id={self.run_id!r}, seq={self.seq})"
