"""What gateways and workers need of the log: the seam between them and NATS.

`broker.jetstream` implements it; composition roots pass the implementation in.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol

from broker.attachments import Attachment
from broker.audit import AuditRecord
from broker.events import Entry, Participant
from broker.presence import Member, Present
from broker.queues import Priority
from broker.revocations import Revocation
from broker.subjects import AlarmPlace, AttachmentPlace, SessionKey, SessionSubjects
from broker.tail import Delivery, StoredEntry
from broker.usage import SessionUse


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
    """A session in the directory, by its key; `seq` grows with each note, `ts` is when it was made (ms since 1970)."""

    session: str
    seq: int
    ts: int


class Directory(Protocol):
    """Which sessions are whose, newest activity first. Sessions are named by their keys, and a user or a role is one of
    the session's tenant. An aid: the logs are the truth, and a note may be stale.

    `kind` is "user" (who created or wrote to the session; `whose` is the user's id) or "handoff" (a hand-over waits there
    for a role; `whose` is the role).
    """

    async def note(self, kind: str, whose: str, session: str, ts: int) -> None:
        """Raises Unavailable."""
        ...

    async def forget(self, kind: str, whose: str, session: str, noted: Noted | None = None) -> None:
        """Takes the session out; with `noted`, only if that is still its note. Raises Unavailable."""
        ...

    async def noted(self, kind: str, whose: str, before: int | None, limit: int, tenant: str = "") -> list[Noted]:
        """The newest notes of a tenant's user or role before note `before`, newest first. Raises Unavailable."""
        ...


class Revocations(Protocol):
    """What tokens may no longer be used for, known to all gateways."""

    async def revoke(self, revocation: Revocation) -> None:
        """Puts one in force, in place of an earlier one with the same key. Raises Unavailable (LogFull)."""
        ...

    async def listed(self) -> list[Revocation]:
        """Those that are in force. Raises Unavailable."""
        ...

    def follow(self, take: Callable[[list[Revocation]], None]) -> None:
        """Calls `take` with those in force, then with what is new, some of it more than once; first with an empty list if
        there are none. Through outages of NATS: after one, again with all.
        """
        ...


class UsageNotes(Protocol):
    """How much sessions take, known to all gateways. Raises Unavailable unless it says otherwise."""

    async def note(self, session: SessionKey, use: SessionUse) -> None:
        """In place of the session's note before; none is left of one that is gone."""
        ...

    def sessions(self) -> AsyncIterator[SessionSubjects]:
        """All sessions that the log holds, whether there are notes of them or not."""
        ...

    async def follow(self, take: Callable[[Mapping[SessionKey, SessionUse], bool], None]) -> None:
        """Calls `take` with all notes and True, then with new ones and False, through outages of NATS; now and then, and
        after an outage, with all again. Does not return.
        """
        ...


class AuditLog(Protocol):
    """Who did what, for as long as the setting says, and not to be changed."""

    async def note(self, record: AuditRecord) -> None:
        """Raises Unavailable."""
        ...

    async def read(self, tenant: str | None, limit: int) -> list[AuditRecord]:
        """The newest records of a tenant (None: of all), the oldest of them first. Raises Unavailable, CodecError."""
        ...

    async def page(self, tenant: str, after: int, limit: int) -> tuple[list[tuple[int, AuditRecord]], bool]:
        """The next `limit` records of a tenant behind a place, each with its own; and whether there are no more.

        What was written a moment ago may not be among them yet, and then comes with the next page. Raises Unavailable.
        """
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

    @property
    def readable(self) -> bool:
        """It has caught up, or no leader says how far the log is, and what one of its copies holds has been returned."""
        ...

    async def next(self) -> list[Delivery]:
        """What comes next. An empty list says that the tail has just caught up, or is `readable`. Waits through outages of NATS.

        Safe to cancel: nothing that it has taken is lost.
        """
        ...

    async def has_all(self, seq: int) -> bool:
        """Whether every record up to record `seq` has been returned, as a copy of the log says. If not, or if that copy
        does not know, what is missing comes: ask again. Of a session with more than 500 lanes it is taken for granted. Raises
        Unavailable.
        """
        ...

    def disturbed(self) -> None:
        """Something may have been missed: it compares with the log before it returns more."""
        ...

    def hand_to(self, take: Callable[[StoredEntry], None]) -> None:
        """From here on, entries that come while somebody waits in `next` go to `take` at once, and not through `next`.

        So the reader of a live session need not be woken for each. What `take` raises is raised by `next`.
        """
        ...


class SessionLog(Protocol):
    """The durable, totally ordered logs of all sessions."""

    def subjects(self, key: str) -> SessionSubjects:
        """Of a session, by its key. Raises InvalidName."""
        ...

    def reads_waiting(self, subjects: SessionSubjects) -> int:
        """Reads that one of this session would wait for: as many are going on as may be, and these wait already."""
        ...

    async def epoch(self, subjects: SessionSubjects) -> str:
        """Names the incarnation of the log; cursors of another one are refused. Raises Unavailable."""
        ...

    async def head(self, subjects: SessionSubjects, of: Of = Of.EVERYTHING) -> StoredEntry | None:
        """The session's last entry, from the stream's leader. Raises Unavailable."""
        ...

    async def append_input(
        self, subjects: SessionSubjects, entry: Entry, message_id: str, expected: int | None = None
    ) -> Stored:
        """Stores what a participant sent. Within two minutes the same `message_id` is stored once. Raises Unavailable.

        With `expected`, only if the last entry of a participant is that one, else WrongSequence.
        """
        ...

    async def last_input(self, subjects: SessionSubjects) -> int:
        """Where the last entry of a participant is, from the stream's leader; 0: there is none. Raises Unavailable."""
        ...

    async def claim(
        self,
        subjects: SessionSubjects,
        lane: str,
        expected: int,
        owner: Participant,
        ts: int,
        can: tuple[str, ...] = (),
        job: int | None = None,
    ) -> int:
        """Claims a lane whose ownership record is at `expected`; returns the fence.

        `can` is what the owner's agent takes: "inject" for inputs in the middle of a run. `job` is the one by which it
        claims. Raises WrongSequence if another
        came first, Unavailable.
        """
        ...

    async def claimed_by(self, subjects: SessionSubjects, lane: str) -> int | None:
        """The job by which the lane was claimed last; None if that does not say. From the stream's leader. Raises
        Unavailable.
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

    async def read_checkpoint(self, subjects: SessionSubjects) -> StoredEntry | None:
        """The newest checkpoint, as it is stored. Raises Unavailable."""
        ...

    async def forget_before(self, subjects: SessionSubjects, seq: int) -> None:
        """Deletes all that the session had before entry `seq`, which deleted it: attachments, then what its log holds,
        checkpoint included. Raises Unavailable.
        """
        ...

    async def write_checkpoint(self, subjects: SessionSubjects, lane: str, fence: int, body: bytes) -> None:
        """Replaces the checkpoint, under the lane's fence. Raises WrongSequence, Unavailable."""
        ...


class Job(Protocol):
    """A lane with work, leased to this worker."""

    @property
    def session(self) -> str:
        """The session's key."""
        ...

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

    @property
    def seq(self) -> int:
        """Names it among all jobs that there are and have been."""
        ...

    async def is_second_to(self, first: int | None) -> bool:
        """Whether the job `first` is another one and still queued or leased: then that one stands for the lane.

        None: that with which a worker of an earlier version has claimed the lane. Raises Unavailable.
        """
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

    async def rest(self) -> None:
        """There is no room for a job until the next `take`: what comes meanwhile goes back to its queue. Raises Unavailable."""
        ...

    async def close(self) -> None:
        """Takes no more: what was asked for and comes too late goes back to the queue. May be called again; and so may
        `take`.
        """
        ...


class JobQueue(Protocol):
    """Where gateways put jobs."""

    async def offer(
        self, subjects: SessionSubjects, lane: str, pool: str | None = None, priority: str = Priority.NORMAL
    ) -> bool:
        """Says that a lane has work, to the workers of `pool` (None: the default one).

        False if its job is queued or leased already in the same queue; in another queue of the pool it may be, too.
        Raises Unavailable.
        """
        ...


class Alarms(Protocol):
    """When scheduled inputs are due. An alarm is a hint: whether something is due, the session's log says.

    All raise Unavailable.
    """

    async def set(self, place: AlarmPlace, at: int) -> None:
        """Has it go off at `at` (ms since 1970), in place of one that is there; at once if that has passed."""
        ...

    async def is_set(self, place: AlarmPlace) -> bool:
        """Whether there is one that will go off, or has and was not heard yet."""
        ...

    async def clear(self, place: AlarmPlace) -> None:
        """Takes it off."""
        ...


class DueAlarm(Protocol):
    """An alarm that has gone off, leased to this process."""

    @property
    def place(self) -> AlarmPlace: ...

    @property
    def delivery(self) -> int:
        """How often it was delivered, from 1."""
        ...

    async def done(self) -> None:
        """It was heard. Raises Unavailable."""
        ...

    async def again(self, delay_s: float) -> None:
        """Somebody is to hear it once more, after a delay. Raises Unavailable."""
        ...


class AlarmSource(Protocol):
    """Where gateways hear alarms: each is given to one of them."""

    async def take(self, wait_s: float) -> DueAlarm | None:
        """The next one; None if none went off within `wait_s`. Safe to cancel. Raises Unavailable."""
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


class Upload(Protocol):
    """An attachment on its way into the store. Nobody sees it until it is committed."""

    async def write(self, data: bytes) -> None:
        """Stores the next bytes, of which it keeps less than a piece in memory. Raises AttachmentGone (the session has been
        deleted), LogFull, Unavailable.
        """
        ...

    async def commit(self, attachment: Attachment) -> Attachment | None:
        """Makes it one, as it is described (where its bytes are excepted); None if there is one with its id by now.

        Raises AttachmentGone, LogFull, Unavailable.
        """
        ...


class AttachmentStore(Protocol):
    """The attachments of all sessions. All raise Unavailable."""

    async def find(self, place: AttachmentPlace, id_: str) -> Attachment | None:
        """One that is there, whole."""
        ...

    async def listed(self, place: AttachmentPlace) -> list[Attachment]:
        """Those of a session, oldest first. May be a moment behind."""
        ...

    async def stored_bytes(self, session: SessionKey) -> int:
        """Bytes of all that a session has. May be a moment behind."""
        ...

    def upload(self, place: AttachmentPlace, id_: str) -> AbstractAsyncContextManager[Upload]:
        """Begins one; what is not committed when the context ends is gone."""
        ...

    def read(
        self, place: AttachmentPlace, attachment: Attachment, first: int = 0, last: int | None = None
    ) -> AsyncIterator[bytes]:
        """Its bytes from `first` to `last`, that one included. Raises AttachmentGone."""
        ...

    async def use(self, place: AttachmentPlace, id_: str) -> Attachment | None:
        """Keeps it for as long as the session; None if it is not there (any more)."""
        ...

    async def remove(self, place: AttachmentPlace, attachment: Attachment) -> bool:
        """Deletes it, unless it is not as it was found any more (it is used by now, or gone): then False."""
        ...

    async def sweep(self) -> int:
        """Deletes what uploads have left that were cut short; returns how many. Any process may do it, at any time."""
        ...
