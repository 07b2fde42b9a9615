"""Opening a subscription: the checks on its cursor, and the reader that goes on from it."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass

from broker.errors import ErrorCode, Refused, Unavailable
from broker.interfaces import SessionLog
from broker.presence import Member
from broker.subjects import SessionKey
from broker.tail import LEADER_WAIT_S
from broker.tools import parse_tools
from gateway.auth import Identity, Right
from gateway.feed import Feed
from gateway.limits import Limit, rate_limited
from gateway.metrics import GatewayMetrics
from gateway.presence import Seat
from gateway.protocol import Subscribe, parse_cursor
from gateway.reader import Outlet, SessionReader
from gateway.services import Services

_CATCH_UP_WAIT_S = 1.0


@dataclass(frozen=True, slots=True)
class Opened:
    """A reader that is ready to run, and what the reply to `subscribe` says."""

    reader: SessionReader
    epoch: str
    head: int


@dataclass(frozen=True, slots=True)
class Subscription:
    """Somebody reads a session. `end` must be called, once, when its reader has ended."""

    reader: SessionReader
    seat: Seat
    epoch: str
    head: int
    _feed: Feed
    _services: Services

    def end(self) -> None:
        self._services.metrics.subscriptions.dec()
        self.seat.leave()
        self._services.hub.let_go(self._feed)


def check_join(services: Services, session: SessionKey, who: Identity) -> None:
    """Whether somebody may begin to read just now. Raises Refused (rate_limited), Unavailable.

    Joins that need no read of the log are refused with the rest while too many reads wait: which they are is not known yet.
    """
    if services.log.reads_waiting(services.log.subjects(session)) >= services.settings.catchup_queue:
        raise rate_limited(_CATCH_UP_WAIT_S, Limit.CATCH_UP)
    services.admission.join(who)


async def subscribe(services: Services, outlet: Outlet, command: Subscribe, who: Identity, device: str) -> Subscription:
    """Checks what the command asks for, and takes a seat in the session. The reader is yet to run.

    Raises Refused, Unavailable.
    """
    who.check()
    who.require(Right.READ, command.session)
    check_join(services, who.key(command.session), who)
    tools = tuple(parse_tools(command.tools).values())
    if tools:
        who.require(Right.TOOLS, command.session)
    member = Member(who.id, device, who.name, who.roles, tools=tools, watching=command.watching)
    feed = services.hub.hold(who.key(command.session))
    try:
        opened = await open_reader(feed, services.log, outlet, services.metrics, command)
    except BaseException:
        services.hub.let_go(feed)
        raise
    seat = services.rooms.sit(feed.subjects, outlet, member)
    feed.when_live(opened.reader, seat.went_live)
    services.metrics.subscriptions.inc()
    return Subscription(opened.reader, seat, opened.epoch, opened.head, feed, services)


async def open_reader(
    feed: Feed, log: SessionLog, outlet: Outlet, metrics: GatewayMetrics, command: Subscribe
) -> Opened:
    """Raises Refused (cursor_bad, cursor_epoch, cursor_future), Unavailable."""
    after = None
    epoch = await _epoch(feed, log)
    if command.after is not None:
        cursor_epoch, after = parse_cursor(command.after)
        if cursor_epoch != epoch:
            raise Refused(
                ErrorCode.CURSOR_EPOCH, "the cursor is of another log; subscribe without `after`", epoch=epoch
            )
    await feed.readable()
    head = feed.last
    if after is not None and after > head:
        head = await _head_for(after, feed, log)
        if after > head:
            raise Refused(
                ErrorCode.CURSOR_FUTURE, "the cursor is beyond the end of the log; subscribe without `after`", head=head
            )
    reader = SessionReader(
        feed,
        log,
        outlet,
        metrics,
        epoch=epoch,
        after=after,
        every=command.replay == "every",
        acknowledges=command.acks,
    )
    return Opened(reader, epoch, head)


async def _epoch(feed: Feed, log: SessionLog) -> str:
    """The log's, as its leader says. While none answers, that of a feed that is up to date is what it was: those who
    read it go on with it, too. Raises Unavailable.
    """
    if not (feed.epoch and feed.is_caught_up):
        feed.epoch = await log.epoch(feed.subjects)
        return feed.epoch
    with contextlib.suppress(TimeoutError, Unavailable):
        async with asyncio.timeout(LEADER_WAIT_S):
            feed.epoch = await log.epoch(feed.subjects)
    return feed.epoch


async def _head_for(after: int, feed: Feed, log: SessionLog) -> int:
    """How far the log is, or that it has entry `after` or a later one, which any copy of it may say. Raises Unavailable.

    This gateway may be a moment behind the one that gave the cursor: the leader knows. While none answers, a copy that has
    the entry will do, for what is in a copy is in the log; but only the leader can say that there is no such entry.
    """
    try:
        async with asyncio.timeout(LEADER_WAIT_S):
            return await _head(feed, log)
    except (TimeoutError, Unavailable):
        feed.look_again()
    copied, _ = await log.read(feed.subjects, after - 1)
    return copied[-1].seq if copied else await _head(feed, log)


async def _head(feed: Feed, log: SessionLog) -> int:
    stored = await log.head(feed.subjects)
    return 0 if stored is None else stored.seq
