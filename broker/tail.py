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
from dataclasses import dataclass
from enum import Enum, auto

RECENT = 64
"""Deliveries that a disturbance is checked against. A crashed leader can lose what it had in flight: one write of each
lane and each gateway, far fewer than this."""
MAX_BUFFERED = 1024
"""Live messages kept while behind; beyond that they are dropped and fetched from the log instead."""


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """An entry as the log holds it; `body` is not parsed."""

    seq: int
    subject: str
    body: bytes


@dataclass(frozen=True, slots=True)
class LiveEntry:
    """A republished entry; `prev_on_subject` is the sequence before it on the same subject (0: none)."""

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
    """The last entry of the session, from the stream's leader."""
    FETCH = auto()
    """Entries from `fetch_after` on, in order, until the log has no more."""


Delivery = StoredEntry | Rewound


class Tail:
    """One reader's place in a session. Feed it what happens; it returns what to deliver, in order."""

    def __init__(self, after: int) -> None:
        self.seen = after
        self.need = Need.HEAD
        self.fetch_after = after
        self.duplicates = 0
        self.gaps = 0
        self._base = after
        self._target = 0
        self._last_on: dict[str, int] = {}
        self._recent: deque[int] = deque(maxlen=RECENT)
        self._recent_floor = after
        self._buffer: list[LiveEntry] = []
        self._overflowed = False

    @property
    def live(self) -> bool:
        """Nothing is missing as far as is known."""
        return self.need is Need.NOTHING

    def disturbed(self) -> None:
        """Something happened that may have lost messages: check against the log before delivering more."""
        self.need = Need.HEAD
        self.fetch_after = min(self.fetch_after, self._recent_floor) if self._fetching() else self._recent_floor

    def on_live(self, message: LiveEntry) -> list[Delivery]:
        """A republished message came."""
        entry = message.entry
        if self.need is not Need.NOTHING:
            self._keep(message)
            return []
        if entry.seq <= self.seen and self._was_seen(entry):
            self.duplicates += 1
            return []
        if self._misses(message):
            self.gaps += 1
            self._keep(message)
            self._fall_behind(entry.subject)
            return []
        return self._deliver(entry)

    def on_head(self, head: StoredEntry | None) -> list[Delivery]:
        """The last entry of the session, from the leader (None: the log has nothing of it)."""
        if self.need is not Need.HEAD:
            return []
        self._target = 0 if head is None else head.seq
        if self._target > self.fetch_after:
            self.need = Need.FETCH
            return []
        return self._caught_up()

    def on_batch(self, entries: list[StoredEntry], *, end: bool) -> list[Delivery]:
        """Entries after `fetch_after`, in order; `end` says that the log had no more."""
        if self.need is not Need.FETCH:
            return []
        out: list[Delivery] = []
        for entry in entries:
            self.fetch_after = entry.seq
            if entry.seq > self.seen:
                out += self._deliver(entry)
            elif not self._was_seen(entry):
                out += self._rewind(entry)
        if end:
            out += self._end_of_log()
        return out

    def _fetching(self) -> bool:
        return self.need is Need.FETCH

    def _end_of_log(self) -> list[Delivery]:
        if self.fetch_after < self._target:
            # A stale replica: it does not have what the leader has. Ask again.
            return []
        return self._caught_up()

    def _caught_up(self) -> list[Delivery]:
        self.need = Need.NOTHING
        self._base = max(self._base, self._target, self.fetch_after, self.seen)
        kept, self._buffer = sorted(self._buffer, key=lambda m: m.entry.seq), []
        if self._overflowed:
            # What was dropped may be newer than the head that was fetched.
            self._overflowed = False
            self.need, self.fetch_after = Need.HEAD, self.seen
        out: list[Delivery] = []
        for message in kept:
            out += self.on_live(message)
        return out

    def _keep(self, message: LiveEntry) -> None:
        if len(self._buffer) < MAX_BUFFERED:
            self._buffer.append(message)
        else:
            self._overflowed = True

    def _was_seen(self, entry: StoredEntry) -> bool:
        return entry.seq <= self._recent_floor or entry.seq in self._recent

    def _misses(self, message: LiveEntry) -> bool:
        entry, known = message.entry, self._last_on.get(message.entry.subject, 0)
        return entry.seq <= self.seen or message.prev_on_subject > max(known, self._base)

    def _fall_behind(self, subject: str) -> None:
        self.need = Need.HEAD
        self.fetch_after = min(self.seen, max(self._last_on.get(subject, 0), self._recent_floor))

    def _rewind(self, missed: StoredEntry) -> list[Delivery]:
        to = max((seq for seq in self._recent if seq < missed.seq), default=self._recent_floor)
        kept = [seq for seq in self._recent if seq <= to]
        self._recent.clear()
        self._recent.extend(kept)
        self.seen = to
        self._base = min(self._base, to)
        self._last_on = {subject: seq for subject, seq in self._last_on.items() if seq <= to}
        return [Rewound(to), *self._deliver(missed)]

    def _deliver(self, entry: StoredEntry) -> list[Delivery]:
        if len(self._recent) == RECENT:
            self._recent_floor = self._recent[0]
        self._recent.append(entry.seq)
        self.seen = entry.seq
        self._last_on[entry.subject] = entry.seq
        return [entry]
