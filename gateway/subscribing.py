"""Opening a subscription: the checks on its cursor, and the reader that goes on from it."""

from __future__ import annotations

from dataclasses import dataclass

from broker.errors import ErrorCode, Refused
from broker.interfaces import SessionLog
from broker.presence import Member
from broker.tools import parse_tools
from gateway.auth import Identity, Right
from gateway.feed import Feed
from gateway.metrics import GatewayMetrics
from gateway.presence import Seat
from gateway.protocol import Subscribe, parse_cursor
from gateway.reader import Outlet, SessionReader
from gateway.services import Services


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


async def subscribe(services: Services, outlet: Outlet, command: Subscribe, who: Identity, device: str) -> Subscription:
    """Checks what the command asks for, and takes a seat in the session. The reader is yet to run.

    Raises Refused, Unavailable.
    """
    who.require(Right.READ, command.session)
    tools = tuple(parse_tools(command.tools).values())
    if tools:
        who.require(Right.TOOLS, command.session)
    member = Member(who.id, device, who.name, who.roles, tools=tools, watching=command.watching)
    feed = services.hub.hold(command.session)
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
    epoch = await log.epoch(feed.subjects)
    if command.after is not None:
        cursor_epoch, after = parse_cursor(command.after)
        if cursor_epoch != epoch:
            raise Refused(
                ErrorCode.CURSOR_EPOCH, "the cursor is of another log; subscribe without `after`", epoch=epoch
            )
    await feed.ready()
    head = feed.last
    if after is not None and after > head:
        # This gateway may be a moment behind the one that gave the cursor: the leader knows.
        stored = await log.head(feed.subjects)
        head = 0 if stored is None else stored.seq
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
