"""How a reader waits for its socket, over real ones of loopback."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from broker.errors import CloseCode
from gateway.config import GatewaySettings
from gateway.outlet import WRITES_UNSENT, Closing, Drain, SocketOutlet
from tests.support.rawclient import connected

WAIT_S = 20.0
LIMIT = 4096
MUCH = bytes(4 << 20)


class Ours(asyncio.Protocol):
    def __init__(self, made: asyncio.Future[asyncio.Transport]) -> None:
        self.drain = Drain()
        self._made = made

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self._made.set_result(transport)  # type: ignore[arg-type]

    def resume_writing(self) -> None:
        self.drain.done()

    def connection_lost(self, exc: Exception | None) -> None:
        self.drain.done()


@dataclass(frozen=True, slots=True)
class Ends:
    outlet: SocketOutlet
    transport: asyncio.Transport
    peer: socket.socket

    async def take(self, count: int) -> None:
        """The peer reads so many bytes."""
        async with asyncio.timeout(WAIT_S):
            while count > 0:
                count -= len(await asyncio.get_running_loop().sock_recv(self.peer, count))


@asynccontextmanager
async def ends(slow_reader_s: float = WAIT_S, outbox_bytes: int = LIMIT) -> AsyncIterator[Ends]:
    loop = asyncio.get_running_loop()
    made: asyncio.Future[asyncio.Transport] = loop.create_future()
    server = await loop.create_server(lambda: Ours(made), "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    peer = await connected(host, port, 4096)
    transport = await made
    settings = GatewaySettings(outbox_bytes=outbox_bytes, slow_reader_s=slow_reader_s)
    try:
        yield Ends(SocketOutlet(transport, settings), transport, peer)
    finally:
        transport.abort()
        peer.close()
        server.close()
        await asyncio.sleep(0)


async def test_there_is_no_wait_for_a_socket_that_takes_all() -> None:
    async with ends() as both:
        both.outlet.write(b"x")
        await both.outlet.uncongested()


async def test_it_is_told_when_the_peer_has_taken_enough() -> None:
    async with ends() as both, asyncio.TaskGroup() as tasks:
        both.outlet.write(MUCH)
        waiting = tasks.create_task(both.outlet.uncongested())
        await both.take(len(MUCH) // 2)
        assert not waiting.done()
        await both.take(len(MUCH) // 2)
        async with asyncio.timeout(WAIT_S):
            await waiting
        assert not both.outlet.congested


async def test_many_small_writes_are_too_much_however_short() -> None:
    """Each of them takes memory of its own. Who waits is told when all have been taken."""
    async with ends(outbox_bytes=len(MUCH)) as both, asyncio.TaskGroup() as tasks:
        both.outlet.write(MUCH)
        await asyncio.sleep(0.1)  # what the kernel takes is gone
        before = both.outlet.unsent_bytes
        for written in range(1, WRITES_UNSENT):
            assert not both.outlet.congested, written
            both.outlet.write(b"x")
        assert both.outlet.congested
        assert both.outlet.unsent_bytes == before + WRITES_UNSENT - 1
        waiting = tasks.create_task(both.outlet.uncongested())
        await both.take(len(MUCH) // 2)
        assert not waiting.done()
        await both.take(len(MUCH) // 2 + WRITES_UNSENT - 1)
        async with asyncio.timeout(WAIT_S):
            await waiting
        assert not both.outlet.congested


async def test_a_peer_that_takes_all_may_be_written_as_often_as_one_likes() -> None:
    async with ends() as both:
        for _ in range(4 * WRITES_UNSENT):
            both.outlet.write(b"x")
            await both.take(1)
            assert not both.outlet.congested


async def test_of_many_who_wait_one_writes_and_the_others_wait_on() -> None:
    """Each looks whether there is room: sixty readers of one connection do not write sixty pieces."""
    async with ends() as both:
        most, wrote = 0, 0

        async def write_when_there_is_room() -> None:
            nonlocal most, wrote
            await both.outlet.uncongested()
            both.outlet.write(bytes(8 * LIMIT))
            wrote += 1
            most = max(most, both.outlet.unsent_bytes)

        both.outlet.write(MUCH)
        before = both.outlet.unsent_bytes
        async with asyncio.timeout(WAIT_S), asyncio.TaskGroup() as tasks:
            for _ in range(60):
                tasks.create_task(write_when_there_is_room())
            await both.take(len(MUCH) + 60 * 8 * LIMIT)
        assert before > 9 * LIMIT
        assert wrote == 60
        assert most <= 9 * LIMIT


async def test_a_peer_that_takes_nothing_is_too_slow() -> None:
    async with ends(slow_reader_s=0.4) as both:
        both.outlet.write(MUCH)
        async with asyncio.timeout(WAIT_S):
            with pytest.raises(Closing) as raised:
                await both.outlet.uncongested()
        assert raised.value.code is CloseCode.SLOW_READER


async def test_a_peer_that_takes_a_little_is_not() -> None:
    async with ends(slow_reader_s=0.4) as both, asyncio.TaskGroup() as tasks:
        both.outlet.write(MUCH)
        waiting = tasks.create_task(both.outlet.uncongested())
        for _ in range(20):
            await asyncio.sleep(0.05)
            await both.take(20_000)
        assert not waiting.done()
        waiting.cancel()


async def test_who_waits_is_told_when_the_socket_is_gone() -> None:
    async with ends() as both, asyncio.TaskGroup() as tasks:
        both.outlet.write(MUCH)
        waiting = tasks.create_task(both.outlet.uncongested())
        await asyncio.sleep(0)
        both.transport.abort()
        async with asyncio.timeout(WAIT_S):
            await waiting


async def test_who_is_cancelled_takes_nobody_along() -> None:
    async with ends() as both, asyncio.TaskGroup() as tasks:
        both.outlet.write(MUCH)
        one, other = (tasks.create_task(both.outlet.uncongested()) for _ in range(2))
        await asyncio.sleep(0)
        one.cancel()
        await asyncio.wait([one])
        await both.take(len(MUCH))
        async with asyncio.timeout(WAIT_S):
            await other
