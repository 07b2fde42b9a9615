"""One session in a gateway: its state, its latest entries, and the readers that follow it live.

A feed holds nothing that another gateway could not rebuild from the log. Readers that are up to date are *live*: all
of them (of one framing) get the same bytes, in one write for each turn of the event loop. A reader that cannot take them is held back:
it leaves the live set and is caught up, from the ring of latest entries or from the log (`gateway.reader`).
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Protocol

import structlog

from broker.checkpoint import Checkpoint, checkpoint_of
from broker.clock import age_s
from broker.codec import decode_at, frame, published_at
from broker.errors import Unavailable
from broker.interfaces import JobQueue, LiveTail, SessionLog
from broker.lease import lanes_with_work, queue_of
from broker.loading import load_state
from broker.session import fold
from broker.state import SessionState
from broker.subjects import Kind, SessionSubjects, place_of
from broker.tail import Rewound, StoredEntry
from gateway.config import GatewaySettings
from gateway.doubtful import Doubter, Doubtful
from gateway.dues import Dues
from gateway.framing import Framing, framed
from gateway.handed_over import close_left_open, left_open
from gateway.metrics import GatewayMetrics
from gateway.replay import ReplayEntry, delta_body, for_clients, sane_body, settled_streams, without_settled_text
from gateway.tracing import Deliveries
from gateway.turn import Turn
from gateway.witness import Witness

_log = structlog.get_logger("antiphon.feed")

_STALE_WAIT_MIN_S, _STALE_WAIT_MAX_S, _STALE_S = 0.001, 0.02, 5.0
"""Between questions to a copy of the log that does not have an entry yet, and how long it may lack it."""
_LATE_S = 1.0
"""An entry that is known to be stored and has not come by then was missed, as the last one of its subject."""


class Reader(Doubter, Protocol):
    """A subscription of a connection, as a feed sees it."""

    def live_write(self, data: bytes, seq: int) -> bool:
        """Takes what is new, up to entry `seq`; False if the reader cannot keep up and has left."""
        ...

    @property
    def acknowledges(self) -> bool:
        """It may be asked by `mark`."""
        ...

    def mark(self, seq: int, ts: int) -> None:
        """Asks the client to say when it has handled entry `seq`, which was published at `ts` (ms since 1970)."""
        ...

    def rewound(self, to: int, seen: int) -> None:
        """Entries after `to` were out of order: start afresh."""
        ...

    def caught_up(self) -> None:
        """A live reader has all that the log had, which was not known when it went live."""
        ...


class Feed:
    """Run by the hub; readers and commands use it once `ready` returns."""

    def __init__(
        self,
        subjects: SessionSubjects,
        log: SessionLog,
        jobs: JobQueue,
        settings: GatewaySettings,
        metrics: GatewayMetrics,
        turn: Turn,
        deliveries: Deliveries | None = None,
    ) -> None:
        self.subjects = subjects
        self.session = subjects.session
        self._log = log
        self._jobs = jobs
        self._settings = settings
        self._metrics = metrics
        self._turn = turn
        self._deliveries = deliveries
        self._dues = Dues(metrics.tally)
        self.state = SessionState()
        self.last = 0
        """The sequence of the last entry that was taken in; what comes next has it as `prev`."""
        self.epoch = ""
        """The incarnation of the log, as its leader has named it last; empty: it has not been asked yet."""
        self.users = 0
        self._position = 0
        self._ring: deque[ReplayEntry] = deque()
        self._ring_bytes = 0
        self._floor = 0
        self._live: dict[Framing, set[Reader]] = {}
        self._doubtful: Doubtful[Reader] = Doubtful()
        self._readers: set[Reader] = set()
        self._when_live: dict[Reader, Callable[[], None]] = {}
        self._witnesses: set[Witness] = set()
        self._unsent: list[bytes] = []
        self._unsent_since = ""
        """When the first of them was stored."""
        self._mark_due = 0.0
        self._flush_due = False
        self._changed = asyncio.Event()
        self._waiting = 0
        """Who waits for a change."""
        self._caught_up = self._readable = False
        self._tail: LiveTail | None = None
        self._proven = 0
        """Up to this record it is certain that none was missed."""
        self._quiet_looks = 0
        self._deleted_before = 0
        """The log holds nothing before this sequence."""

    # --- for readers and commands ----------------------------------------------------------------------------------

    @property
    def floor(self) -> int:
        """The ring holds every entry after this sequence."""
        return self._floor

    @property
    def settled(self) -> int:
        """Up to this entry, records alone hold all text."""
        floor = self.state.settled_floor()
        return self.state.as_of if floor is None else floor

    def unsettled_at(self, seq: int) -> set[str]:
        """The open texts of which records hold less than deltas did up to entry `seq`, as far as is known, by their messages."""
        streams = (stream for lane in self.state.lanes.values() for stream in lane.streams.values())
        return {stream.id for stream in streams if stream.settled_seq < seq}

    @property
    def is_caught_up(self) -> bool:
        """The state is that of the log's end, as far as is known here."""
        return self._caught_up

    async def ready(self) -> None:
        """Returns when the state is that of the log's end. Safe to cancel."""
        while not self._caught_up:
            await self._next_change()

    async def readable(self) -> None:
        """Returns when it is ready, or no leader says how far the log is and it has what one of the log's copies holds.

        Safe to cancel.
        """
        while not (self._caught_up or self._readable):
            await self._next_change()

    async def reached(self, seq: int) -> None:
        """Returns when entry `seq` has been taken in. Safe to cancel."""
        while self._position < seq:
            await self._next_change()

    async def proven(self, seq: int) -> None:
        """Returns when record `seq` and all records before it have been folded: `reached`, and nothing had been missed on
        the way. Safe to cancel. Raises Unavailable.
        """
        try:
            async with asyncio.timeout(_LATE_S):
                await self.reached(seq)
        except TimeoutError:
            self.look_again()
            await self.reached(seq)
        wait_s, until = _STALE_WAIT_MIN_S, time.monotonic() + _STALE_S
        while time.monotonic() < until:
            await self.ready()
            if self._proven >= seq or self.state.deleted_seq > seq:
                return
            if (tail := self._tail) is not None and await tail.has_all(seq) and tail is self._tail:
                self._proven = max(self._proven, seq)
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._next_change()
            wait_s = min(wait_s * 2, _STALE_WAIT_MAX_S)
        raise Unavailable("a replica of the log stays behind")

    async def until(self, holds: Callable[[SessionState], bool]) -> None:
        """Returns when the state, up to date as far as is known here, is such. Safe to cancel."""
        while not (self._caught_up and holds(self.state)):
            await self._next_change()

    @contextlib.contextmanager
    def witness(self, entry_id: str) -> Iterator[Witness]:
        """Sees what the fold makes of the entries with this id, for as long as the context is open."""
        witness = Witness(entry_id)
        self._witnesses.add(witness)
        try:
            yield witness
        finally:
            self._witnesses.discard(witness)

    def after(self, seq: int) -> list[ReplayEntry]:
        """The ring's entries after `seq`, which must not be below `floor`."""
        newer: list[ReplayEntry] = []
        for entry in reversed(self._ring):
            if entry.seq <= seq:
                break
            newer.append(entry)
        newer.reverse()
        return newer

    def attach(self, reader: Reader) -> None:
        self._readers.add(reader)

    def detach(self, reader: Reader) -> None:
        self._readers.discard(reader)
        self._dues.left(reader, len(self._unsent))
        self._live.get(reader.framing, set()).discard(reader)
        self._doubtful.discard(reader)
        self._when_live.pop(reader, None)

    def when_live(self, reader: Reader, tell: Callable[[], None]) -> None:
        """Calls `tell` each time when the reader has caught up, and has been told so."""
        self._when_live[reader] = tell

    def go_live(self, reader: Reader) -> None:
        """From here on the reader, who must have had everything up to `last`, gets what is new."""
        self._flush()
        self._dues.went_live(reader)
        self._live.setdefault(reader.framing, set()).add(reader)
        self._doubtful.add(reader)
        if self._caught_up:
            self._tell_live(reader)

    def _tell_live(self, reader: Reader) -> None:
        if (tell := self._when_live.get(reader)) is not None:
            tell()

    def gave(self, reader: Reader, entries: int, frames: int) -> None:
        """A reader that is not live has been given so many entries, in so many frames."""
        self._dues.gave(reader, entries, frames)

    @property
    def in_flight(self) -> int:
        """Entries that are due to readers, each once for each of them, and have not been dealt with yet."""
        live = [reader for readers in self._live.values() for reader in readers]
        return self._dues.in_flight(live, len(self._unsent))

    def look_again(self) -> None:
        """Somebody has seen what has not come here: compares with the log."""
        if self._tail is not None:
            self._tail.disturbed()

    async def checkpoint(self) -> Checkpoint:
        """The newest checkpoint that the feed has passed. Raises Unavailable."""
        checkpoint = checkpoint_of(await self._log.read_checkpoint(self.subjects))
        await self.reached(checkpoint.state.as_of)
        return checkpoint

    # --- the feed's own life ---------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Follows the session until cancelled; starts afresh when entries turn out to have been missed."""
        while True:
            await self._load()
            async with self._log.tail(self.subjects, self.last) as tail:
                tail.hand_to(self._take_live)
                self._tail = tail
                rewound = await self._follow(tail)
            seen = self.last
            self._metrics.rewinds.inc()
            _log.warning("entries were missed, starting afresh", after=rewound.to)
            self._reset()
            for reader in tuple(self._readers):
                reader.rewound(rewound.to, seen)

    def _reset(self) -> None:
        self._caught_up = self._readable = False
        self._dues.began_anew(len(self._unsent))
        self._live.clear()
        self._doubtful.clear()
        self._ring.clear()
        self._unsent.clear()
        self._ring_bytes = 0
        for witness in self._witnesses:
            witness.forget()

    async def _load(self) -> None:
        """The state at the log's end, from the newest checkpoint and the records after it."""
        wait_s = 0.05
        while True:
            try:
                self.state = await load_state(self._log, self.subjects)
                break
            except Unavailable:
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, 2.0)
        self.last = self._position = self._floor = self.state.as_of
        if self._deliveries is not None:
            self._deliveries.loaded(self.state)

    async def _follow(self, tail: LiveTail) -> Rewound:
        while True:
            deliveries = await tail.next()
            for delivery in deliveries:
                if isinstance(delivery, Rewound):
                    # At once: what has been folded is not what the log makes of it.
                    self._caught_up = self._readable = False
                    self._tail, self._proven = None, 0
                    return delivery
                self._take(delivery)
            self._readable = tail.readable or self._readable
            if tail.caught_up and not self._caught_up:
                self._caught_up = True
                self._tell_caught_up()
            self._tell_change()

    def _tell_caught_up(self) -> None:
        self._flush()
        for readers in self._live.values():
            for reader in readers:
                reader.caught_up()
                self._tell_live(reader)

    def _take_live(self, stored: StoredEntry) -> None:
        self._take(stored)
        self._tell_change()

    def _tell_change(self) -> None:
        self._quiet_looks = 0
        if self._waiting:
            self._changed.set()
            self._changed.clear()

    async def _next_change(self) -> None:
        self._waiting += 1
        try:
            await self._changed.wait()
        finally:
            self._waiting -= 1

    def is_quiet(self) -> bool:
        """Nothing has come for two looks in a row, of which this is one."""
        self._quiet_looks += 1
        if self._quiet_looks <= 2 or not self._caught_up:
            return False
        self._quiet_looks = 1
        return True

    async def repair(self) -> None:
        """A gateway may die between two writes that belong together: whoever sees the session does what is missing.

        That is to offer the job of a lane with work, to close what an agent left open in a lane that a human took, and to
        delete what was before a deletion. While the log is away nothing is done.
        """
        try:
            for lane in lanes_with_work(self.state):
                if await self._jobs.offer(self.subjects, lane, *queue_of(self.state, lane)):
                    self._metrics.jobs_repaired.inc()
            for lane in left_open(self.state):
                await close_left_open(self._log, self.subjects, self.state, lane)
            await self._finish_deletion()
        except Unavailable:
            return

    async def _finish_deletion(self) -> None:
        if self.state.deleted_seq > self._deleted_before:
            oldest, _ = await self._log.read(self.subjects, 0)
            if oldest and oldest[0].seq < self.state.deleted_seq:
                await self._log.forget_before(self.subjects, self.state.deleted_seq)
            self._deleted_before = self.state.deleted_seq

    def _take(self, stored: StoredEntry) -> None:
        self._position = stored.seq
        place = place_of(stored.subject)
        if place is None:
            return
        if place.kind is Kind.DELTA:
            taken = ReplayEntry(stored.seq, self.last, delta_body(place, stored.body), True)
            if self._deliveries is not None:
                self._deliveries.delta(place.lane)
        else:
            entry, faithful = decode_at(place, stored.body)
            self.state = fold(self.state, stored.seq, entry)
            if self.state.deleted_seq == stored.seq:
                self._forget_ring()
            if self._deliveries is not None and place.lane:
                self._deliveries.folded(place.lane, self.state)
            for witness in self._witnesses:
                if witness.entry_id == entry.id:
                    witness.saw(stored.seq, self.state)
            shown = for_clients(entry)
            full = sane_body(shown, faithful and shown is entry, stored.body)
            settles = settled_streams(shown)
            body = without_settled_text(shown, full) if settles else full
            taken = ReplayEntry(stored.seq, self.last, body, False, settles, full if settles else b"")
        self._remember(taken)
        self._dues.took()
        if taken.settles and self._doubtful:
            whole = frame(self.session, taken.seq, taken.prev, taken.full)
            self._doubtful.took(len(self._unsent), whole, taken.settles)
        self._unsent.append(frame(self.session, taken.seq, taken.prev, taken.body))
        self.last = stored.seq
        if not self._flush_due:
            self._flush_due = True
            self._unsent_since = stored.stored
            self._turn.at_its_end(self._flush)

    def _forget_ring(self) -> None:
        """What has been deleted must not come from memory either."""
        self._ring.clear()
        self._ring_bytes = 0
        self._floor = self.last

    def _remember(self, entry: ReplayEntry) -> None:
        self._ring.append(entry)
        self._ring_bytes += len(entry.body) + len(entry.full)
        while len(self._ring) > self._settings.ring_entries or self._ring_bytes > self._settings.ring_bytes:
            old = self._ring.popleft()
            self._ring_bytes -= len(old.body) + len(old.full)
            self._floor = old.seq

    def _flush(self) -> None:
        self._flush_due = False
        if not self._unsent:
            return
        unsent, self._unsent = self._unsent, []
        self._write(unsent)
        self._doubtful.written()
        if self._deliveries is not None:
            self._deliveries.written(sum(map(len, self._live.values())))

    def _write(self, unsent: list[bytes]) -> None:
        delivered = 0
        for framing, readers in self._live.items():
            if not readers:
                continue
            data = framed(framing, unsent)
            whole = self._doubtful.writes(framing, unsent)
            for reader in tuple(readers):
                if not reader.live_write(whole.get(reader, data) if whole else data, self.last):
                    readers.discard(reader)
                    self._doubtful.discard(reader)
                    self._dues.held_back(reader, len(unsent))
            delivered += len(readers)
        if not delivered:
            return
        self._dues.delivered(len(unsent), delivered)
        now = time.time()
        if (lag_s := age_s(self._unsent_since, now)) is not None:
            self._metrics.fan_out.observe(lag_s)
        if now >= self._mark_due:
            self._sample(now)

    def _sample(self, now: float) -> None:
        """Asks one of the live readers, now and then, to say when it has handled what it has just been given."""
        every_s = self._settings.ack_sample_s
        self._mark_due = now + (every_s or math.inf)
        live = [reader for readers in self._live.values() for reader in readers]
        if not (every_s and live and self._ring):
            return
        reader = random.choice(live)
        if reader.acknowledges and (ts := published_at(self._ring[-1].body)) is not None:
            reader.mark(self.last, ts)
            self._metrics.marks.inc()
