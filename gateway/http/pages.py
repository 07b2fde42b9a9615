"""A session's entries as JSON pages: what a reader would be sent until it is live, a piece at a time."""

from __future__ import annotations

import asyncio

import orjson

from broker.errors import LogError
from gateway.framing import LINES, Framing
from gateway.protocol import Subscribe
from gateway.reader import SessionReader
from gateway.rights import Identity
from gateway.services import Services
from gateway.subscribing import check_join, open_reader

PAGE_BYTES = 1 << 20
"""Bytes of entries after which a page ends, though it has fewer than were asked for."""


class _Full(Exception):
    """The page has as much as it may."""


class PageOutlet:
    """Takes what a reader sends until the page is full, or the reader is live (`gateway.reader.Outlet`)."""

    framing: Framing = LINES

    def __init__(self, limit: int) -> None:
        self.entries: list[bytes] = []
        self.snapshot: bytes | None = None
        self.cursor: str | None = None
        """The cursor of the session's end, once the reader has got there."""
        self.done = asyncio.Event()
        self.error: LogError | None = None
        self._limit = limit
        self._bytes = 0

    gone = False

    @property
    def congested(self) -> bool:
        return len(self.entries) >= self._limit or self._bytes >= PAGE_BYTES

    def write(self, data: bytes) -> None:
        for line in data.splitlines():
            if not self.done.is_set():
                self._take(line)

    def _take(self, line: bytes) -> None:
        if line.startswith(b'{"op":"entry"'):
            self.entries.append(line)
            self._bytes += len(line)
        elif line.startswith(b'{"op":"session.snapshot"'):
            # After a gap the reader has begun afresh.
            self.snapshot = line
            self.entries.clear()
            self._bytes = 0
        elif line.startswith(b'{"op":"session.caught_up"'):
            self.cursor = orjson.loads(line)["cursor"]
            self.done.set()

    async def uncongested(self) -> None:
        """Raises _Full."""
        if self.congested:
            raise _Full


async def read_page(services: Services, command: Subscribe, who: Identity, limit: int) -> bytes:
    """The page, as JSON. Raises Refused, InvalidName, Unavailable."""
    check_join(services, who.key(command.session), who)
    outlet = PageOutlet(limit)
    async with services.hub.session(who.key(command.session)) as feed:
        opened = await open_reader(feed, services.log, outlet, services.metrics, command)
        async with asyncio.TaskGroup() as tasks:
            filling = tasks.create_task(_fill(opened.reader, outlet))
            await outlet.done.wait()
            filling.cancel()
    if outlet.error is not None:
        raise outlet.error
    return _page(command, outlet, opened.epoch, limit)


async def _fill(reader: SessionReader, outlet: PageOutlet) -> None:
    try:
        await reader.run()
    except _Full:
        pass
    except LogError as error:
        outlet.error = error
    finally:
        outlet.done.set()


def _page(command: Subscribe, outlet: PageOutlet, epoch: str, limit: int) -> bytes:
    entries = outlet.entries[:limit]
    caught_up = outlet.cursor is not None and len(entries) == len(outlet.entries)
    if caught_up:
        cursor = outlet.cursor
    elif entries:
        cursor = f"{epoch}:{orjson.loads(entries[-1])['seq']}"
    elif outlet.snapshot is not None:
        cursor = f"{epoch}:{orjson.loads(outlet.snapshot)['asOf']}"
    else:
        cursor = command.after
    head = orjson.dumps({"session": command.session, "cursor": cursor, "caughtUp": caught_up})
    return b'%b,"snapshot":%b,"entries":[%b]}' % (head[:-1], outlet.snapshot or b"null", b",".join(entries))
