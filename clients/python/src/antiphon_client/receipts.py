"""What became of an input: the receipt of `send()`, and the book that the fold writes into."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Final, Protocol
from weakref import WeakValueDictionary

from ._json import JsonObject, as_count, as_str
from ._trace import headers_of
from .changes import (
    MESSAGE_PREFIX,
    Change,
    Emptied,
    Imported,
    InputApplied,
    InputDropped,
    InputDue,
    InputSpoken,
    Outcome,
    RunEnded,
)
from .errors import AntiphonError, InputNotApplied
from .rules.names import RUN_PREFIX
from .state import State

CANCELLED: Final = frozenset({"cancelled", "superseded", "parent_cancelled", "deleted"})
"""Codes of inputs that were taken back, not refused."""

NO_RUN: Final = Outcome("no_run")


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
    # What the fold said of it, when noting began or last began anew; what lay before is hidden
    hidden_to: int = -1
    was_queued: bool = False
    was_running: bool = False
    was_known: bool = False
    is_due: bool = False
    """It was scheduled, and has been sent."""

    def begin(self, state: State, folded_seq: int) -> None:
        """Note what happens from here on: the entry `folded_seq`, after which `state` is."""
        self.hidden_to = folded_seq
        self.was_queued = state.is_queued(self.input_id) or state.is_scheduled(self.input_id)
        self.was_running = state.is_running(self.run_id)
        self.was_known = folded_seq >= 0 and not state.partial

    def settle(self) -> None:
        """The input was sent before noting began: take what the fold said of it then."""
        if self.outcome is None and not self.was_queued:
            self.apply()
            self.outcome = None if self.was_running else Outcome("unknown")
            self.changed.set()

    @property
    def status(self) -> str | None:
        """`applied`, `ended`, `failed` or `cancelled`; None while it waits."""
        if self.dropped is not None:
            return "cancelled" if self.dropped.code in CANCELLED else "failed"
        if self.outcome is not None:
            return "ended"
        return None if self.applied is None else "applied"

    @property
    def past_queue(self) -> bool:
        """Whether the input does not wait any more."""
        return self.applied is not None or self.dropped is not None

    def apply(self) -> None:
        """The input has left the queue for the transcript, as which message is not known."""
        if not self.past_queue:
            self.applied = InputApplied(self.input_id, self.run_id, None)

    def drop(self, code: str) -> None:
        """The input will not be applied, and its run not start."""
        self.dropped = InputDropped(self.input_id, code)
        self.outcome = Outcome("cancelled") if code in CANCELLED else Outcome("error", code)

    def take(self, change: InputApplied | InputSpoken | InputDropped) -> None:
        """What the fold found."""
        match change:
            case InputApplied():
                self.applied = change
                self.run_id = change.run_id or self.run_id
            case InputSpoken():
                self.applied = InputApplied(self.input_id, None, change.message_id, change.source)
                self.outcome = NO_RUN
            case InputDropped():
                self.drop(change.code)
        self.changed.set()


class ReceiptBook:
    """The inputs whose receipts somebody holds; the rest is forgotten with its last receipt."""

    def __init__(self) -> None:
        self._open: WeakValueDictionary[str, Progress] = WeakValueDictionary()

    def open(self, input_id: str, state: State, folded_seq: int) -> Progress:
        """The progress of an input, shared by all of its receipts; noted from here on."""
        progress = self._open.get(input_id)
        if progress is None:
            progress = Progress(input_id, RUN_PREFIX + input_id)
            progress.begin(state, folded_seq)
            self._open[input_id] = progress
        return progress

    def observe(self, changes: list[Change]) -> None:
        """Take over what the fold found, in order."""
        for change in changes:
            match change:
                case RunEnded():
                    self._run_ended(change)
                case InputApplied() | InputSpoken() | InputDropped():
                    progress = self._open.get(change.input_id)
                    if progress is not None and not progress.past_queue:
                        progress.take(change)
                case InputDue():
                    progress = self._open.get(change.input_id)
                    if progress is not None:
                        progress.is_due = True
                case Emptied() | Imported():
                    pass

    def _run_ended(self, change: RunEnded) -> None:
        for progress in list(self._open.values()):
            if progress.run_id == change.run_id and progress.outcome is None:
                progress.apply()
                progress.outcome = change.outcome
                progress.changed.set()

    def restart(self, state: State, folded_seq: int) -> None:
        """After a snapshot: what lies before it will not be noted."""
        for progress in list(self._open.values()):
            progress.begin(state, folded_seq)
            if progress.seq is not None and progress.seq <= folded_seq:
                progress.settle()

    def stored(self, progress: Progress, reply: JsonObject, state: State, *, readable: bool) -> None:
        """Take over the reply to `input.send`; `readable`: entries of the session arrive.

        What the entries have told, or will tell, counts. Only of an input from before that do
        the fold, or else the reply, have to say what became of it.
        """
        if not progress.past_queue:  # else an entry that was read before has told the run it went into
            progress.run_id = as_str(reply.get("runId")) or progress.run_id
        progress.seq = as_count(reply.get("seq"))
        progress.was_running = progress.was_running or state.is_running(progress.run_id)
        hidden = progress.seq is None or progress.seq <= progress.hidden_to
        status = as_str(reply.get("status"))
        if readable and not hidden:
            return
        if status in ("cancelled", "failed") and not progress.past_queue:
            progress.drop(as_str(reply.get("reason")) or status)
        elif status in ("applied", "ended") and reply.get("runId", "") is None and not progress.past_queue:
            progress.applied, progress.outcome = InputApplied(progress.input_id, None, None), NO_RUN
        elif readable and progress.was_known:
            progress.settle()
        elif status in ("applied", "ended") and progress.outcome is None:
            progress.apply()
            progress.outcome = Outcome("unknown") if status == "ended" else None
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

    async def cancel_run(self, run_id: str, mode: str | None = None) -> str:
        """Stop a run."""


class Receipt:
    """An input that is stored in the log.

    `seq` is its place there. `duplicate` says that this input id had been stored before; then
    nothing was added, and `seq` is that of the first time, None if that is long ago. When it was
    stored, it got `mode`, and the place `position` in the queue (1 for the next), both None if it
    did not wait; `reason` is what it waited for besides its turn: `approval`, `paused`, or None.
    `at` is when it is sent (ms since 1970), if it is scheduled; then `mode` is what its sender wishes.
    `trace` has the headers of the input's place in its trace, by which other requests may continue it.
    """

    __slots__ = ("_at_first", "_progress", "_source", "at", "duplicate", "mode", "position", "reason", "seq", "trace")

    def __init__(self, progress: Progress, source: ReceiptSource, reply: JsonObject) -> None:
        self._progress = progress
        self._source = source
        self.seq = as_count(reply.get("seq"))
        self.duplicate = reply.get("duplicate") is True
        self.position = as_count(reply.get("position"))
        self.mode = as_str(reply.get("mode"))
        self.reason = as_str(reply.get("reason"))
        self.at = as_count(reply.get("at"))
        self.trace = headers_of(reply)
        self._at_first = as_str(reply.get("status")) or "queued"

    @property
    def input_id(self) -> str:
        """The id of the input."""
        return self._progress.input_id

    @property
    def status(self) -> str:
        """What has become of the input by now.

        `scheduled` (it is sent later), `queued` or `pending` (it waits), `applied` (it is in the transcript), `ended` (and its run
        is over), `failed`, `cancelled`. It moves on while the session is read.
        """
        first = "queued" if self._progress.is_due and self._at_first == "scheduled" else self._at_first
        return self._progress.status or first

    @property
    def run_id(self) -> str:
        """The run that the input starts; it can be cancelled before it exists.

        Once the input is applied, the run it went into: an injected one goes into a run that is
        going on, a merged one into that of another input.
        """
        return self._progress.run_id

    @property
    def message_id(self) -> str:
        """The input's message, once it is applied; until then (or if that was not seen), the one it is to be."""
        applied = self._progress.applied
        return (applied and applied.message_id) or MESSAGE_PREFIX + self.input_id

    @property
    def outcome(self) -> Outcome | None:
        """How the run ended; None while that is not known."""
        return self._progress.outcome

    async def cancel(self, mode: str | None = None) -> str:
        """Stop the run, as `Session.cancel_run` does."""
        return await self._source.cancel_run(self.run_id, mode)

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

        An input that never comes to a run ends `cancelled`, or `error` with the code of its
        refusal; one that goes to a human, who has the lane, ends `no_run`. Raises the session's error if it cannot be read. Cancelling the wait is safe.
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
