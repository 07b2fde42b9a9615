"""What gateways and workers need of the log: the seam between them and NATS.

`broker.jetstream` implements it; composition roots pass the implementation in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol

from broker.events import Entry, Participant
from broker.presence import Member, Present
from broker.subjects import SessionSubjects
from broker.tail import Delivery, StoredEntry


class Of(Enum):
    """Which of a session's entries to read."""

    EVERYTHING = auto()
    RECORDS = auto()


@dataclass(frozen=True, slots=True)
class Stored:
    """A stored entry's sequence; `duplicate`: it had been stored before under the same id."""

    seq: int
    duplicate: bool


@dataclass(frozen=True, slots=True)
class Noted:
    """A session in the directory; `seq` grows with each note, `ts` is when it was made (ms since 1970)."""

    session: str
    seq: int
    ts: int


class Directory(Protocol):
    """Which sessions are whose, newest activity first. An aid: the logs are the truth, and a note may be stale.

    `kind` is "user" (who created or wrote to the session; `whose` is the user's id) or "handoff" (a hand-over waits there
    for a role; `whose` is the role).
    """

    async def note(self, kind: str, whose: str, session: str, ts: int) -> None:
        """Raises Unavailable."""
        ...

    async def forget(self, kind: str, whose: str, session: str, noted: Noted | None = None) -> None:
        """Takes the session out; with `noted`, only if that is still its note. Raises Unavailable."""
        ...

    async def noted(self, kind: str, whose: str, before: int | None, limit: int) -> list[Noted]:
        """The newest notes before note `before`, newest first. Raises Unavailable."""
        ...


class LiveTail(Protocol):
    """A session's entries from a place on, then live, in order, for one reader."""

    @property
    def seen(self) -> int:
        """The last sequence that `next` has returned, or that was given at the start."""
        ...

    @property
    def caught_up(self) -> bool:
        """Nothing is known to be missing."""
        ...

    async def next(self) -> list[Delivery]:
        """What comes next. An empty list says that the tail has just caught up. Waits through outages of NATS.

        Safe to cancel: nothing that it has taken is lost.
        """
        ...


class SessionLog(Protocol):
    """The durable, totally ordered logs of all sessions."""

    def subjects(self, session: str) -> SessionSubjects:
        """Raises InvalidName."""
        ...

    async def epoch(self, subjects: SessionSubjects) -> str:
        """Names the incarnation of the log; cursors of another one are refused. Raises Unavailable."""
        ...

    async def head(self, subjects: SessionSubjects, of: Of = Of.EVERYTHING) -> StoredEntry | None:
        """The session's last entry, from the stream's leader. Raises Unavailable."""
        ...

    async def append_input(self, subjects: SessionSubjects, entry: Entry, message_id: str) -> Stored:
        """Stores what a participant sent. Within two minutes the same `message_id` is stored once. Raises Unavailable."""
        ...

    async def claim(
        self,
        subjects: SessionSubjects,
        lane: str,
        expected: int,
        owner: Participant,
        ts: int,
        can: tuple[str, ...] = (),
    ) -> int:
        """Claims a lane whose ownership record is at `expected`; returns the fence.

        `can` is what the owner's agent takes: "inject" for inputs in the middle of a run. Raises WrongSequence if another
        came first, Unavailable.
        """
        ...

    async def release(self, subjects: SessionSubjects, lane: str, fence: int, owner: Participant, ts: int) -> None:
        """Gives a lane up. Raises WrongSequence if it was taken meanwhile, Unavailable."""
        ...

    async def own(self, subjects: SessionSubjects, lane: str, expected: int, entry: Entry) -> int:
        """As `claim`, with the record as it is; its id must differ from those of all others."""
        ...

    async def append(self, subjects: SessionSubjects, lane: str, fence: int, entry: Entry) -> int:
        """Stores a lane's entry under its fence: a delta if it has `off`, else a record. Returns its sequence.

        At most one may be in flight for a lane. An outcome that is not known is found out by reading back. Raises
        WrongSequence (the lane was taken: stop at once), Unavailable (not stored within the lease).
        """
        ...

    async def read(
        self, subjects: SessionSubjects, after: int, of: Of = Of.EVERYTHING
    ) -> tuple[Sequence[StoredEntry], bool]:
        """Entries after a sequence, in order, up to the batch size; and whether the log had no more. May lag the leader.

        Raises Unavailable.
        """
        ...

    async def read_deltas(self, subjects: SessionSubjects, lane: str, after: int) -> tuple[Sequence[StoredEntry], bool]:
        """As `read`, of one lane's deltas."""
        ...

    async def holds(self, subjects: SessionSubjects, seq: int) -> bool:
        """Whether the stream's leader has the entry (it may have aged out). Raises Unavailable."""
        ...

    def tail(
        self, subjects: SessionSubjects, after: int, of: Of = Of.EVERYTHING
    ) -> AbstractAsyncContextManager[LiveTail]:
        """Follows a session."""
        ...

    async def read_checkpoint(self, subjects: SessionSubjects) -> bytes | None:
        """The newest checkpoint. Raises Unavailable."""
        ...

    async def forget_before(self, subjects: SessionSubjects, seq: int) -> None:
        """Deletes all that the session's log holds before entry `seq`, checkpoint included. Raises Unavailable."""
        ...

    async def write_checkpoint(self, subjects: SessionSubjects, lane: str, fence: int, body: bytes) -> None:
        """Replaces the checkpoint, under the lane's fence. Raises WrongSequence, Unavailable."""
        ...


class Job(Protocol):
    """A lane with work, leased to this worker."""

    @property
    def session(self) -> str: ...

    @property
    def lane(self) -> str: ...

    @property
    def delivery(self) -> int:
        """How often it was delivered, from 1."""
        ...

    @property
    def waited_s(self) -> float:
        """Seconds from when it was stored (the clock of NATS) to when it came here (this process's)."""
        ...

    async def renew(self) -> None:
        """Starts the lease anew. Raises Unavailable."""
        ...

    async def done(self) -> None:
        """Takes the job off the queue, and returns when it is off. Raises Unavailable."""
        ...

    async def give_back(self, delay_s: float = 0.0) -> None:
        """Lets another worker have it, after a delay. Raises Unavailable."""
        ...


class JobSource(Protocol):
    """Where a worker takes jobs of its pool from."""

    async def take(self, wait_s: float) -> Job | None:
        """The next job; None if none came within `wait_s`. Safe to cancel. Raises Unavailable."""
        ...

    async def close(self) -> None:
        """Takes no more: what was asked for and comes too late goes back to the queue. May be called again."""
        ...


class JobQueue(Protocol):
    """Where gateways put jobs."""

    async def offer(self, subjects: SessionSubjects, lane: str, pool: str | None = None) -> bool:
        """Says that a lane has work, to the workers of `pool` (None: the queue's default).

        False if its job is queued or leased already. Raises Unavailable.
        """
        ...


class PresenceWatch(Protocol):
    """Who is in a session, for one consumer of `changed`."""

    @property
    def participants(self) -> tuple[Present, ...]:
        """Who is there, by id, with those who do not watch; empty until `ready`."""
        ...

    @property
    def more(self) -> int:
        """Devices that are not among them: more than a gateway announces."""
        ...

    async def ready(self) -> None:
        """Returns when the gateways have said who is there, or have had the time to (0.5 s while NATS is there).

        Safe to cancel.
        """
        ...

    async def changed(self) -> None:
        """Returns when who is there has changed since this returned last. Safe to cancel."""
        ...


class Presence(Protocol):
    """Who is there, in any session."""

    def watch(self, subjects: SessionSubjects) -> AbstractAsyncContextManager[PresenceWatch]:
        """Follows a session, through outages of NATS: while it is away, what was known stays."""
        ...


class Attendance(Protocol):
    """A gateway's part in the presence of a session. As of PresenceWatch, but that changes come by a callback."""

    @property
    def participants(self) -> tuple[Present, ...]: ...

    @property
    def more(self) -> int: ...

    @property
    def is_ready(self) -> bool: ...

    def announce(self, members: tuple[Member, ...], more: int) -> None:
        """Says who is at this gateway now, instead of what was said before. Counts here at once."""
        ...


class GatewayPresence(Presence, Protocol):
    """For a process that has people connected."""

    def attend(
        self, subjects: SessionSubjects, on_change: Callable[[], None]
    ) -> AbstractAsyncContextManager[Attendance]:
        """Takes part in a session; at most once at a time for each. Calls `on_change` when the others have changed, and
        when it becomes ready. What was announced last stays announced when the context ends: announce nobody first.
        """
        ...


class Vitals(Protocol):
    """What is only asked of NATS when somebody looks at the metrics."""

    async def refresh(self) -> None:
        """Brings the metrics up to date, unless they are so by a few seconds. Waits for a second at most, never raises."""
        ...


class Health(Protocol):
    """Whether the log can be used."""

    def on_change(self, callback: Callable[[bool], None]) -> None:
        """Calls `callback` now and at each change: True when NATS is there, False when it is away."""
        ...

    async def problems(self) -> list[str]:
        """What is wrong, a line each; empty if all is well. Never raises."""
        ...
