"""A subscription: brings one connection from where it is to the live end of a session, and back when it falls behind."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Protocol, TypeVar

from broker.clock import now_ms
from broker.codec import decode_at
from broker.errors import Unavailable
from broker.interfaces import Of, SessionLog
from broker.state import SessionState
from broker.subjects import Kind, place_of
from broker.tail import StoredEntry
from broker.view import public_view
from gateway import protocol
from gateway.feed import Feed
from gateway.framing import Framing, framed
from gateway.metrics import GatewayMetrics
from gateway.replay import ReplayEntry, delta_body, for_clients, for_doubtful, frames, pieces, sane_body

_STALE_WAIT_S = 0.02
_STALE_TRIES = 250
_AWAY_WAIT_S = 0.25
_PIECE_BYTES = 65_536
"""Bytes of entries that are written at once in a catch-up: so much more than an outbox may hold, and one frame."""

T = TypeVar("T")


class Outlet(Protocol):
    """A connection, as a reader sees it."""

    @property
    def congested(self) -> bool:
        """More is unsent than the connection may hold."""
        ...

    @property
    def gone(self) -> bool:
        """The connection is ending: nothing that is written will be sent."""
        ...

    @property
    def framing(self) -> Framing:
        """What stands around a frame in what is written."""
        ...

    def write(self, data: bytes) -> None:
        """Sends framed frames, without waiting."""
        ...

    async def uncongested(self) -> None:
        """Returns when there is room. Raises SlowReader if nothing is taken for too long."""
        ...


@dataclass(slots=True)
class _Position:
    """`read`: entries up to here are dealt with; `sent`: the last one the client was given (or its cursor)."""

    read: int
    sent: int


class SessionReader:
    """One subscription. `run` is a task of the connection's; the feed calls `live_write` and `rewound`."""

    def __init__(
        self,
        feed: Feed,
        log: SessionLog,
        outlet: Outlet,
        metrics: GatewayMetrics,
        *,
        epoch: str,
        after: int | None,
        every: bool,
        acknowledges: bool = False,
    ) -> None:
        self.framing = outlet.framing
        self.acknowledges = acknowledges
        self._marked: tuple[int, int] | None = None
        self._feed = feed
        self._log = log
        self._outlet = outlet
        self._metrics = metrics
        self._epoch = epoch
        self._every = every
        self._after = after
        self._at = _Position(after or 0, after or 0)
        self._behind = asyncio.Event()
        self._gap: tuple[int, int] | None = None
        self._whole = False
        """The reader has had every delta up to where it is, or the text of it."""
        self._had: set[str] = set()
        self.doubts: set[str] = set()
        self._announce = True
        """The client is yet to be told that it has caught up."""

    async def run(self) -> None:
        """Reads for as long as it is not cancelled. Raises SlowReader, Unavailable."""
        self._feed.attach(self)
        try:
            await self._join()
            while True:
                await self._behind.wait()
                with self._metrics.behind.track_inprogress():
                    await self._come_back()
        finally:
            self._feed.detach(self)

    async def _join(self) -> None:
        begun = time.monotonic()
        await self._feed.readable()
        kind = "snapshot"
        if self._after is None:
            await self._start_fresh()
        else:
            await self._feed.reached(self._after)
            kind = "ring" if self._after >= self._feed.floor else "log"
        self._metrics.joins.labels(kind).inc()
        await self._catch_up()
        self._metrics.catch_up.labels(kind).observe(time.monotonic() - begun)

    async def _come_back(self) -> None:
        begun, gap = time.monotonic(), self._gap
        if gap is not None:
            await self._after_gap(*gap)
        await self._catch_up()
        kind = "held_back" if gap is None else "gap"
        self._metrics.catch_up.labels(kind).observe(time.monotonic() - begun)

    # --- called by the feed ------------------------------------------------------------------------------------------

    def live_write(self, data: bytes, seq: int) -> bool:
        if self._outlet.congested:
            self._metrics.held_back.inc()
            self._behind.set()
            return False
        if self._outlet.gone:
            return False
        self._outlet.write(data)
        at = self._at
        at.read = at.sent = seq
        return True

    def mark(self, seq: int, ts: int) -> None:
        self._marked = seq, ts
        self._write([protocol.mark(self._feed.session, seq)])

    def acked(self, seq: int) -> None:
        """The client has handled everything up to `seq`."""
        if self._marked is not None and seq >= self._marked[0]:
            self._metrics.end_to_end.observe(max(0, now_ms() - self._marked[1]) / 1000)
            self._marked = None

    def settled(self, texts: AbstractSet[str]) -> None:
        self._had |= texts
        self.doubts -= texts
        if not self.doubts:
            self._is_whole()

    def caught_up(self) -> None:
        if self._announce:
            self._announce = False
            self._write([protocol.caught_up(self._feed.session, self._at.sent, self._epoch)])

    def rewound(self, to: int, seen: int) -> None:
        self._marked = None
        if self._at.sent > to:
            self._gap = to, max(seen, self._at.sent)
        self._behind.set()

    # --- catching up ---------------------------------------------------------------------------------------------------

    async def _start_fresh(self) -> None:
        """The snapshot: state at the newest quiet place, from where entries follow."""
        if self._every:
            await self._outlet.uncongested()
            as_of, before, view = 0, 0, public_view(type(self._feed.state)())
        else:
            state = await self._checkpointed()
            as_of, before, view = state.as_of, state.messages, public_view(state)
        self._write([protocol.snapshot(self._feed.session, as_of, before, view)])
        self._at = _Position(as_of, as_of)
        # A checkpoint stands where no text is open: there is nothing before it to lack.
        self._after = None
        self._is_whole()

    async def _checkpointed(self) -> SessionState:
        """The state to start from, once there is room to send it: it may be large, and be asked for many times over."""
        while True:
            await self._outlet.uncongested()
            checkpoint = await self._patiently(self._feed.checkpoint)
            if not self._outlet.congested:
                return checkpoint.state

    async def _after_gap(self, to: int, seen: int) -> None:
        self._gap = None
        self._write([protocol.gap(self._feed.session, to, seen)])
        self._announce = True
        await self._feed.readable()
        await self._start_fresh()

    async def _catch_up(self) -> None:
        """Sends what is missing until the reader is live."""
        stale = 0
        while True:
            self._behind.clear()
            await self._outlet.uncongested()
            if self._gap is not None:
                await self._after_gap(*self._gap)
            await self._feed.readable()
            if self._at.read >= self._feed.floor:
                if self._from_ring():
                    break
            elif await self._patiently(self._from_log):
                stale = 0
            else:
                stale += 1
                if stale > _STALE_TRIES:
                    raise Unavailable("a replica of the log stays behind")
                await asyncio.sleep(_STALE_WAIT_S)
        # No await from here on: nothing may come between the last entry and going live.
        if self._outlet.gone:
            return
        if self._feed.is_caught_up:
            self.caught_up()
        self._look_at_doubts()
        self._feed.go_live(self)

    def _look_at_doubts(self) -> None:
        """What the client may lack when it goes live: of texts that were open at its cursor, and of which this gateway has
        not seen a segment since. By that its next segment covers what it lacks, whatever gateway gave the cursor.
        """
        self.doubts = set() if self._after is None else self._feed.unsettled_at(self._after)
        if not self.doubts:
            self._is_whole()

    def _is_whole(self) -> None:
        self._whole = True
        self._had.clear()
        self.doubts.clear()

    async def _patiently(self, read: Callable[[], Awaitable[T]]) -> T:
        """Reads again until the log can be read: an outage of NATS is no reason to send the client away."""
        while True:
            try:
                return await read()
            except Unavailable:
                await asyncio.sleep(_AWAY_WAIT_S)

    def _from_ring(self) -> bool:
        """Sends from the ring; True if that was all."""
        entries = self._feed.after(self._at.read)
        settled = 0 if self._every or self._whole else self._feed.settled
        # What is settled is sent without its deltas; the entry at `settled` is a record.
        entries = [entry for entry in entries if entry.seq > settled or not entry.delta]
        piece = next(pieces(entries, _PIECE_BYTES), [])
        merge = not self._every and len(entries) > 1
        self._send(piece if self._whole else for_doubtful(piece, settled, self._had), merge=merge)
        return len(piece) == len(entries) and not self._outlet.congested

    async def _from_log(self) -> bool:
        """Sends one page of the log; False if a replica gave nothing where there must be something."""
        feed, start = self._feed, self._at.read
        settled = feed.settled
        records_only = not self._every and start < settled
        if records_only:
            # Deltas are left out for records, some of which may come later, from the ring.
            self._whole = False
            self._had.clear()
        page, end = await self._log.read(feed.subjects, start, Of.RECORDS if records_only else Of.EVERYTHING)
        limit = settled if records_only else feed.last
        entries = [entry for entry in map(_replay_entry, page) if entry is not None and entry.seq <= limit]
        for piece in pieces(entries, _PIECE_BYTES):
            if self._outlet.congested:
                # What is left is read again once there is room: kept for many who do not read, it would be too much.
                return True
            self._send(piece, merge=not self._every)
        if not end:
            return True
        must_reach = settled if records_only else feed.floor
        reached = page[-1].seq if page else start
        if reached < must_reach and await self._log.holds(feed.subjects, must_reach):
            return bool(entries)
        # Nothing else is there: what lay between has aged out.
        self._at.read = max(self._at.read, must_reach)
        return True

    def _send(self, entries: list[ReplayEntry], *, merge: bool) -> None:
        if not entries:
            return
        payloads = frames(self._feed.session, entries, self._at.sent, merge=merge)
        if not self._outlet.gone:
            self._feed.gave(self, len(entries), len(payloads))
        self._write(payloads)
        self._at = _Position(entries[-1].seq, entries[-1].seq)

    def _write(self, payloads: list[bytes]) -> None:
        self._outlet.write(framed(self.framing, payloads))


def _replay_entry(stored: StoredEntry) -> ReplayEntry | None:
    place = place_of(stored.subject)
    if place is None:
        return None
    if place.kind is Kind.DELTA:
        return ReplayEntry(stored.seq, 0, delta_body(place, stored.body), True)
    entry, faithful = decode_at(place, stored.body)
    shown = for_clients(entry)
    return ReplayEntry(stored.seq, 0, sane_body(shown, faithful and shown is entry, stored.body), False)
