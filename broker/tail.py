"""Joining a live session without losing, doubling or reordering an entry: the logic, without a network.

Readers follow a session by the republished copy of its entries, which is at-most-once, and mend it by reading the
log. `Tail` decides; whoever holds it fetches what it needs and feeds it back:

* A reader starts *behind*: it needs the head of the log, fetches up to it, and keeps live messages meanwhile.
* Live messages carry the sequence before them on their own subject. One that is newer than anything seen there says
  that something was missed: fetch first.
* A loss on one subject may be passed by a message on another. When that comes to light (the next message there, or
  the check after a disturbance) the entry is older than what was already delivered, so the reader is **rewound**:
  it must forget what came after `Rewound.to`, and gets it again in order.
* After a disturbance (reconnect, slow consumer, new stream leader) the latest `RECENT` deliveries are compared with
  the log, because a lost last message shows no gap.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto

RECENT = 64
"""Deliveries that a disturbance is checked against. A crashed leader can lose what it had in flight: one write of each
lane and each gateway, far fewer than this."""
MAX_BUFFERED = 1024
"""Live messages kept while behind; beyond that they are dropped and fetched from the log instead."""
STALE_READS_MAX = 250
"""Reads in a row that end before the head and bring nothing; after them the leader is asked for the head again."""

LEADER_WAIT_S = 0.5
"""A stream's leader that has not answered by then may have died, and an heir may take seconds to be elected: whoever only
reads goes on with what is known meanwhile (ADR 40)."""


@dataclass(slots=True)
class StoredEntry:
    """An entry as the log holds it; `body` is not parsed.

    Nobody changes one. It is not frozen, because it is made for every token, and a frozen one takes three times as long.
    """

    seq: int
    subject: str
    body: bytes
    stored: str = ""
    """When, as the log says it: RFC 3339, by the clock of the stream's leader."""


@dataclass(slots=True)
class LiveEntry:
    """A republished entry; `prev_on_subject` is the sequence before it on the same subject (0: none). Not to be changed,
    as a `StoredEntry`.
    """

    entry: StoredEntry
    prev_on_subject: int


@dataclass(frozen=True, slots=True)
class Rewound:
    """Entries were missed before some that were delivered: forget everything after sequence `to`."""

    to: int


class Need(Enum):
    """What the tail waits for."""

    NOTHING = auto()
    HEAD = auto()
    """The last entry of the session, from the stream's leader. While none answers, `Tail.on_early` may be told what a
    replica holds from `fetch_after` on: that is in the log, but it may not be all."""
    FETCH = auto()
    """Entries from `fetch_after` on, in order, until the log has no more."""


Delivery = StoredEntry | Rewound


class Tail:
    """One reader's place in a session. Feed it what happens; it returns what to deliver, in order.

    A lost entry comes to light, and is delivered after a `Rewound` if others have passed it, with the next live message
    of its subject, however late that comes, or with any check of the log (for a gap anywhere, or a disturbance) before
    `recent` more entries have been delivered. It stays lost only if a later check reads a newer entry of its subject
    that has not come live, because an entry that is read does not say what was before it on its subject.
    """

    def __init__(self, after: int, *, recent: int = RECENT, max_buffered: int = MAX_BUFFERED) -> None:
        self.seen = after
        self.need = Need.HEAD
        self.fetch_after = after
        self.duplicates = 0
        self.gaps = 0
        self._start = after
        self._max_buffered = max_buffered
        self._last_on: dict[str, int] = {}
        self._recent: deque[int] = deque(maxlen=recent)
        self._recent_floor = after
        self._buffer: list[LiveEntry] = []
        self._overflowed = False
        # The check under way: from `_check_from`, because of the live message `_cause` (0: none), to `_target`.
        self._check_from = after
        self._cause = 0
        self._target = 0
        self._stale_reads = 0
        self._doubtful = False
        self._ask_again = False

    @property
    def live(self) -> bool:
        """Nothing is missing as far as is known."""
        return self.need is Need.NOTHING

    def disturbed(self) -> None:
        """Something happened that may have lost messages: check against the log before delivering more."""
        # The head that was asked for may be older than what was lost.
        self._ask_again = self.need is Need.HEAD
        self._check(self._recent_floor)

    def lacks(self, lasts: Mapping[str, int]) -> bool:
        """Whether something has been missed, by the last sequence on each subject up to some place that has been
        delivered. If so, it is checked against the log.
        """
        missed = [known for subject, seq in lasts.items() if seq > (known := self._known_on(subject))]
        if missed:
            self.gaps += 1
            self._check(min(self._recent_floor, *missed))
        return bool(missed)

    def on_live(self, message: LiveEntry) -> list[Delivery]:
        """A republished message came."""
        entry = message.entry
        if self.need is not Need.NOTHING:
            self._keep(message)
            if self._known_on(entry.subject) < message.prev_on_subject <= self._check_from:
                # What was missed is older than the check that is under way.
                self._check(self._known_on(entry.subject))
            return []
        if entry.seq <= self.seen and self._was_delivered(entry):
            self.duplicates += 1
            return []
        if entry.seq <= self.seen or message.prev_on_subject > self._known_on(entry.subject):
            self.gaps += 1
            self._keep(message)
            self._cause = entry.seq
            self._check(min(self._recent_floor, self._known_on(entry.subject)))
            return []
        return self._deliver(entry)

    def on_head(self, head: StoredEntry | None) -> list[Delivery]:
        """The last entry of the session, from the leader (None: the log has nothing of it)."""
        if self.need is not Need.HEAD:
            return []
        if self._ask_again:
            self._ask_again = False
            return []
        self._target = 0 if head is None else head.seq
        if not self._doubtful:
            # What came live is in the log, even if a leader that is new does not know yet.
            self._target = max(self._target, self._cause)
        if self._target > self.fetch_after:
            self.need = Need.FETCH
            return []
        return self._caught_up()

    def on_batch(self, entries: list[StoredEntry], *, end: bool) -> list[Delivery]:
        """Entries after `fetch_after`, in order; `end` says that the log had no more."""
        if self.need is not Need.FETCH:
            return []
        out = self._read(entries)
        if end:
            out += self._end_of_log(progress=bool(entries))
        return out

    def on_early(self, entries: list[StoredEntry]) -> list[Delivery]:
        """As `on_batch`, before the head is known."""
        return self._read(entries) if self.need is Need.HEAD else []

    def _read(self, entries: list[StoredEntry]) -> list[Delivery]:
        out: list[Delivery] = []
        for entry in entries:
            self.fetch_after = entry.seq
            if entry.seq > self.seen:
                out += self._deliver(entry)
            elif not self._was_delivered(entry):
                out += self._rewind(entry)
        return out

    def _end_of_log(self, *, progress: bool) -> list[Delivery]:
        if self.fetch_after >= self._target:
            return self._caught_up()
        # A stale replica does not have what the leader has: read again. If that does not help, it may have aged out.
        self._stale_reads = 0 if progress else self._stale_reads + 1
        if self._stale_reads == STALE_READS_MAX:
            self._stale_reads, self._doubtful, self.need = 0, True, Need.HEAD
        return []

    def _check(self, after: int) -> None:
        """Compare with the log from `after` on, or from further back if a check is under way that began there."""
        self._check_from = after if self.live else min(self._check_from, after)
        self.fetch_after = after if self.live else min(self.fetch_after, after)
        self.need = Need.HEAD

    def _caught_up(self) -> list[Delivery]:
        checked_to = max(self._target, self.fetch_after, self._cause)
        self.need, self._cause, self._stale_reads, self._doubtful = Need.NOTHING, 0, 0, False
        kept, self._buffer = sorted(self._buffer, key=lambda m: m.entry.seq), []
        overflowed, self._overflowed = self._overflowed, False
        out: list[Delivery] = []
        for message in kept:
            if self._check_from < message.entry.seq <= checked_to:
                # It came by the check, or the log does not have it any more.
                self.duplicates += 1
            else:
                out += self.on_live(message)
        if overflowed:
            self._check(self._recent_floor)
        return out

    def _keep(self, message: LiveEntry) -> None:
        if len(self._buffer) < self._max_buffered:
            self._buffer.append(message)
        else:
            self._overflowed = True

    def _known_on(self, subject: str) -> int:
        """Up to here nothing is missing on the subject."""
        # What has been delivered is after the start.
        return self._last_on.get(subject, self._start)

    def _was_delivered(self, entry: StoredEntry) -> bool:
        return entry.seq <= min(self._recent_floor, self._known_on(entry.subject)) or entry.seq in self._recent

    def _rewind(self, missed: StoredEntry) -> list[Delivery]:
        older = (seq for seq in self._recent if seq < missed.seq)
        to = max(older, default=min(self._recent_floor, missed.seq - 1))
        kept = [seq for seq in self._recent if seq <= to]
        self._recent.clear()
        self._recent.extend(kept)
        self.seen = to
        self._last_on = {subject: seq for subject, seq in self._last_on.items() if seq <= to}
        return [Rewound(to), *self._deliver(missed)]

    def _deliver(self, entry: StoredEntry) -> list[Delivery]:
        if len(self._recent) == self._recent.maxlen:
            self._recent_floor = self._recent[0]
        self._recent.append(entry.seq)
        self.seen = entry.seq
        self._last_on[entry.subject] = entry.seq
        return [entry]
