"""Following one session over NATS: the thin loop around `broker.tail.Tail`, which decides."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

import structlog
from nats.aio.subscription import Subscription

from broker.errors import LogError, NotPermitted, Unavailable
from broker.interfaces import Of
from broker.jetstream.connection import Connection
from broker.jetstream.direct import TooManySubjects
from broker.subjects import SessionSubjects
from broker.tail import LEADER_WAIT_S, Delivery, LiveEntry, Need, StoredEntry, Tail

if TYPE_CHECKING:
    from broker.jetstream.log import JetStreamLog

_log = structlog.get_logger("antiphon.tail")

MAX_READY = 8192
"""Entries that wait for `next`; beyond that no more are delivered until they have been taken, then from the log."""
_HEADERS = re.compile(
    rb"\r\nNats-Subject: ([^\r]*)\r\nNats-Sequence: (\d+)\r\nNats-Time-Stamp: ([^\r]*)\r\nNats-Last-Sequence: (\d+)\r\n\r\n$"
)
"""What the server puts at the end of a republished message's headers, after those of its writer."""
_STALE_WAIT_S = 0.02
_AWAY_WAIT_MIN_S, _AWAY_WAIT_MAX_S = 0.05, 2.0


class JetStreamTail:
    """One reader of a session (`broker.interfaces.LiveTail`). For one consumer of `next`."""

    def __init__(
        self, log: JetStreamLog, connection: Connection, subjects: SessionSubjects, after: int, of: Of
    ) -> None:
        self._log = log
        self._connection = connection
        self._subjects = subjects
        self._root = f"{subjects.root}."
        self._of = of
        self._tail = Tail(after)
        self._ready: list[Delivery] = []
        self._wake = asyncio.Event()
        self._sub: Subscription | None = None
        self._was_live = False
        self._read_early = self._told_early = False
        self._counted = 0, 0
        self._recheck: asyncio.TimerHandle | None = None
        self._take_at_once: Callable[[StoredEntry], None] | None = None
        self._awaited = False
        """Somebody is in `next` and there is nothing but to wait."""
        self._failure: Exception | None = None
        self.seen = after

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._count()
        if self._recheck is not None:
            self._recheck.cancel()
        if self._sub is not None:
            await self._connection.unsubscribe(self._sub)

    @property
    def caught_up(self) -> bool:
        return self._tail.live and not self._ready

    @property
    def readable(self) -> bool:
        return not self._ready and (self._tail.live or self._read_early)

    @property
    def gaps(self) -> int:
        return self._tail.gaps

    @property
    def duplicates(self) -> int:
        return self._tail.duplicates

    def follows(self, sub: Subscription) -> bool:
        return self._sub is sub

    def disturbed(self) -> None:
        """Messages may have been lost: compare with the log before delivering more."""
        self._tail.disturbed()
        self._wake.set()

    async def has_all(self, seq: int) -> bool:
        if not self.caught_up:
            return False
        try:
            lasts = await self._log.lasts(self._subjects, seq)
        except TooManySubjects:
            # More than 500 lanes: what was missed comes to light as for those who only read.
            return True
        if lasts is None or not self.caught_up:
            return False
        if self._tail.lacks(lasts):
            self._wake.set()
            return False
        return True

    def hand_to(self, take: Callable[[StoredEntry], None]) -> None:
        self._take_at_once = take

    async def next(self) -> list[Delivery]:
        wait_s = _AWAY_WAIT_MIN_S
        while True:
            if self._failure is not None:
                raise self._failure
            if self._ready:
                return self._take()
            if self._tail.live and not self._was_live:
                self._was_live = True
                return []
            if self._read_early and not self._told_early:
                self._told_early = True
                return []
            try:
                await self._step()
                wait_s = _AWAY_WAIT_MIN_S
            except LogError as error:
                _log.warning("cannot read the log, trying again", session=self._subjects.key, reason=str(error))
                await asyncio.sleep(wait_s * random.uniform(0.5, 1.0))
                wait_s = min(wait_s * 2, _AWAY_WAIT_MAX_S)

    def _take(self) -> list[Delivery]:
        self._count()
        batch, self._ready = self._ready, []
        last = batch[-1]
        self.seen = last.seq if isinstance(last, StoredEntry) else last.to
        return batch

    def _count(self) -> None:
        """What the tail has mended since it was looked at last."""
        gaps, duplicates = self._counted
        if (gaps, duplicates) != (self._tail.gaps, self._tail.duplicates):
            self._counted = self._tail.gaps, self._tail.duplicates
            self._connection.metrics.gaps.inc(self._tail.gaps - gaps)
            self._connection.metrics.duplicates.inc(self._tail.duplicates - duplicates)

    async def _step(self) -> None:
        if self._sub is None:
            await self._subscribe()
        match self._tail.need:
            case Need.HEAD:
                self._was_live = False
                await self._ask_for_head()
            case Need.FETCH:
                await self._fetch()
            case Need.NOTHING:
                self._wake.clear()
                self._awaited = True
                try:
                    await self._wake.wait()
                finally:
                    self._awaited = False

    async def _ask_for_head(self) -> None:
        """While no leader answers, what a replica holds is delivered, once; then the leader is waited for."""
        wait_s = None if self._read_early else LEADER_WAIT_S
        try:
            async with asyncio.timeout(wait_s):
                head = await self._log.head(self._subjects, self._of)
        except NotPermitted:
            raise
        except (TimeoutError, Unavailable) as error:
            if not self._read_early:
                await self._read_a_replica()
            if isinstance(error, Unavailable):
                raise
        else:
            self._read_early = self._told_early = False
            self._emit(self._tail.on_head(head))

    async def _read_a_replica(self) -> None:
        end = False
        while not end:
            before = self._tail.fetch_after
            entries, end = await self._log.read(self._subjects, before, self._of)
            if self._tail.need is Need.HEAD and self._tail.fetch_after == before:
                self._emit(self._tail.on_early(entries))
        self._read_early = True

    async def _subscribe(self) -> None:
        """Subscribes before the head is read, so that nothing falls between the two."""
        subject = self._subjects.live_records if self._of is Of.RECORDS else self._subjects.live
        self._sub = await self._connection.subscribe_live(subject, self._on_message)
        try:
            await self._connection.confirm(self._sub)
        except NotPermitted:
            self._sub = None
            raise
        loop, delay_s = asyncio.get_running_loop(), self._log.settings.join_recheck_s
        if delay_s > 0:
            # Interest may reach a distant server after the flush: look once more, a little later.
            self._recheck = loop.call_later(delay_s, self.disturbed)

    async def _fetch(self) -> None:
        before = self._tail.fetch_after
        entries, end = await self._log.read(self._subjects, before, self._of)
        if self._tail.need is not Need.FETCH or self._tail.fetch_after != before:
            return
        self._emit(self._tail.on_batch(entries, end=end))
        if end and self._tail.need is Need.FETCH:
            await asyncio.sleep(_STALE_WAIT_S)

    def _on_message(self, headers: bytes, body: bytes) -> None:
        if len(self._ready) >= MAX_READY:
            # At once, while the loss is among what a disturbance is checked against; the tail itself keeps what follows
            # within its own bound.
            self._tail.disturbed()
        live = _live_entry(headers, body)
        if live is None:
            return
        if not live.entry.subject.startswith(self._root):
            # Who may read the log may have the server send its answer here, which is an entry of another session.
            _log.warning("a live message of another session was ignored", session=self._subjects.key)
            return
        deliveries = self._tail.on_live(live)
        if self._awaited and not self._wake.is_set() and len(deliveries) == 1 and deliveries[0] is live.entry:
            self._hand_over(live.entry)
        elif deliveries:
            self._emit(deliveries)
        else:
            # It had been there before, or shows that something is missing.
            self._count()
            self._wake.set()

    def _hand_over(self, entry: StoredEntry) -> None:
        """To who takes entries at once, if there is somebody."""
        if self._take_at_once is None:
            self._emit([entry])
            return
        self.seen = entry.seq
        try:
            self._take_at_once(entry)
        except Exception as error:  # noqa: BLE001 (`next` raises it)
            self._failure = error
            self._wake.set()

    def _emit(self, deliveries: list[Delivery]) -> None:
        if deliveries:
            self._ready += deliveries
        self._wake.set()


def _live_entry(headers: bytes, body: bytes) -> LiveEntry | None:
    found = _HEADERS.search(headers)
    if found is None:
        # Only the server may publish on live.>; what somebody else puts there is not of the log.
        _log.warning("a live message without the log's headers was ignored")
        return None
    subject, seq, stored, prev = found.groups()
    return LiveEntry(StoredEntry(int(seq), subject.decode(), body, stored.decode()), int(prev))
