"""Opening a subscription: the checks on its cursor, and the reader that goes on from it."""

from __future__ import annotations

from dataclasses import dataclass

from broker.errors import ErrorCode, Refused
from broker.interfaces import SessionLog
from gateway.feed import Feed
from gateway.metrics import GatewayMetrics
from gateway.protocol import Subscribe, parse_cursor
from gateway.reader import Outlet, SessionReader


@dataclass(frozen=True, slots=True)
class Opened:
    """A reader that is ready to run, and what the reply to `subscribe` says."""

    reader: SessionReader
    epoch: str
    head: int


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
