"""A TCP proxy before gateways: the way in for one device, and its network, which a test may take away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TypeAlias
from urllib.parse import urlsplit

Target: TypeAlias = tuple[str, int]
Writers: TypeAlias = frozenset[asyncio.StreamWriter]


def target_of(url: str) -> Target:
    """Where a gateway listens."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    return parts.hostname, parts.port


class Proxy:
    """Passes each connection on to one of its targets, in turn, or to the next one that answers.

    `targets` may be changed at any time. With `only`, every connection goes there for as long as it answers.
    """

    def __init__(self, targets: Sequence[Target]) -> None:
        self.targets = list(targets)
        self.only: Target | None = None
        self.is_up = True
        self.accepted = 0
        self._turn = 0
        self._pairs: dict[Writers, Target] = {}
        self._asleep: set[Writers] = set()
        self._there = asyncio.Event()
        self._there.set()

    def cut(self) -> None:
        """Resets every connection there is, in the middle of whatever it carries."""
        for pair in self._pairs:
            for writer in pair:
                writer.transport.abort()

    def take_down(self) -> None:
        """Cuts, and refuses new connections until `bring_up`."""
        self.is_up = False
        self.cut()

    def bring_up(self) -> None:
        self.is_up = True

    def sleep(self) -> None:
        """From now on nothing passes and nobody is told: connections of before never carry anything again, new ones
        hang until `wake`.
        """
        self._there.clear()
        self._asleep |= set(self._pairs)

    def wake(self) -> None:
        self._there.set()

    def carried_to(self, target: Target) -> int:
        """How many connections lead there now."""
        return list(self._pairs.values()).count(target)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Passes one connection on, until it ends."""
        await self._there.wait()
        back = await self._open() if self.is_up else None
        if back is None:
            writer.transport.abort()
            return
        self.accepted += 1
        target, back_reader, back_writer = back
        pair = frozenset({writer, back_writer})
        self._pairs[pair] = target
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._pass(pair, reader, back_writer))
                tasks.create_task(self._pass(pair, back_reader, writer))
        finally:
            del self._pairs[pair]
            self._asleep.discard(pair)
            for each in pair:
                each.transport.abort()

    async def _open(self) -> tuple[Target, asyncio.StreamReader, asyncio.StreamWriter] | None:
        self._turn += 1
        turn = self._turn % len(self.targets)
        in_turn = self.targets[turn:] + self.targets[:turn]
        for target in ([self.only] if self.only else []) + in_turn:
            with suppress(OSError):
                return target, *await asyncio.open_connection(*target)
        return None

    async def _pass(self, pair: Writers, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                if pair in self._asleep:
                    continue
                writer.write(data)
                await writer.drain()
        if pair not in self._asleep:
            for each in pair:
                each.close()


@asynccontextmanager
async def running_proxy(*targets: Target) -> AsyncIterator[tuple[Proxy, str]]:
    """A proxy on loopback, with its own address."""
    proxy = Proxy(targets)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    try:
        yield proxy, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        proxy.wake()
        proxy.take_down()
