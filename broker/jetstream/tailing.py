"""Following one session over NATS: the thin loop around `broker.tail.Tail`, which decides."""

from __future__ import annotations

import asyncio
import random
from types import TracebackType
from typing import TYPE_CHECKING, Self

import structlog
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from broker.errors import LogError
from broker.interfaces import Of
from broker.jetstream.connection import Connection
from broker.subjects import SessionSubjects
from broker.tail import Delivery, LiveEntry, Need, StoredEntry, Tail

if TYPE_CHECKING:
    from broker.jetstream.log import JetStreamLog

_log = structlog.get_logger("antiphon.tail")

MAX_READY = 8192
"""Entries that wait for `next`; beyond that no more are delivered until they have been taken, then from the log."""
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
        self._of = of
        self._tail = Tail(after)
        self._ready: list[Delivery] = []
        self._wake = asyncio.Event()
        self._sub: Subscription | None = None
        self._was_live = False
        self._counted = 0, 0
        self._recheck: asyncio.TimerHandle | None = None
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

    async def next(self) -> list[Delivery]:
        wait_s = _AWAY_WAIT_MIN_S
        while True:
            if self._ready:
                return self._take()
            if self._tail.live and not self._was_live:
                self._was_live = True
                return []
            try:
                await self._step()
                wait_s = _AWAY_WAIT_MIN_S
            except LogError as error:
                _log.warning("cannot read the log, trying again", session=self._subjects.session, reason=str(error))
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
                self._emit(self._tail.on_head(await self._log.head(self._subjects, self._of)))
            case Need.FETCH:
                await self._fetch()
            case Need.NOTHING:
                self._wake.clear()
                await self._wake.wait()

    async def _subscribe(self) -> None:
        """Subscribes before the head is read, so that nothing falls between the two."""
        subject = self._subjects.live_records if self._of is Of.RECORDS else self._subjects.live
        self._sub = await self._connection.subscribe(subject, self._on_message)
        await self._connection.flush()
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

    async def _on_message(self, msg: Msg) -> None:
        if len(self._ready) >= MAX_READY:
            # At once, while the loss is among what a disturbance is checked against; the tail itself keeps what follows
            # within its own bound.
            self._tail.disturbed()
        live = _live_entry(msg)
        if live is not None:
            self._emit(self._tail.on_live(live))

    def _emit(self, deliveries: list[Delivery]) -> None:
        if deliveries:
            self._ready += deliveries
        self._wake.set()


def _live_entry(msg: Msg) -> LiveEntry | None:
    headers = msg.headers
    if not headers:
        return None
    try:
        stored = headers.get("Nats-Time-Stamp", "")
        entry = StoredEntry(int(headers["Nats-Sequence"]), headers["Nats-Subject"], msg.data, stored)
        return LiveEntry(entry, int(headers["Nats-Last-Sequence"]))
    except (KeyError, ValueError):
        # Only the server may publish on live.>; what somebody else puts there is not of the log.
        _log.warning("a live message without the log's headers was ignored", subject=msg.subject)
        return None
