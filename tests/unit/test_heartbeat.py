"""Who is there and who is gone, over real sockets of loopback: a peer that answers, reads slowly, or does neither."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from gateway.heartbeat import Heartbeat
from gateway.protocol import PING
from gateway.taking import Progress, progress
from tests.support.rawclient import connected

pytestmark = pytest.mark.skipif(not hasattr(socket, "TCP_INFO"), reason="the kernel does not say what a peer takes")

EVERY_S, PATIENCE_S = 0.2, 1.0
WAIT_S = 20.0


class Ends:
    """Both ends of a connection, and what the heartbeat of one has done."""

    def __init__(
        self, transport: asyncio.Transport, peer: socket.socket, gone: asyncio.Event, patience_s: float
    ) -> None:
        self.is_held = False
        self.transport = transport
        self.peer = peer
        self.pings = 0
        self.dead = gone
        self.heartbeat = Heartbeat(transport, EVERY_S, patience_s, self._write, self)

    def greeted(self, caller: str, on_flood: Callable[[], None]) -> None:
        raise NotImplementedError

    def _write(self, data: bytes) -> None:
        assert data == PING
        self.pings += 1
        self.transport.write(data)

    async def pinged(self, times: int) -> None:
        async with asyncio.timeout(WAIT_S):
            while self.pings < times:
                assert not self.dead.is_set()
                await asyncio.sleep(0.01)


@asynccontextmanager
async def ends(patience_s: float = PATIENCE_S) -> AsyncIterator[Ends]:
    loop, gone = asyncio.get_running_loop(), asyncio.Event()
    made = loop.create_future()

    class Accepted(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            made.set_result(transport)

        def connection_lost(self, exc: Exception | None) -> None:
            gone.set()

    server = await loop.create_server(Accepted, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    peer = await connected(host, port, 4096)
    both = Ends(await made, peer, gone, patience_s)
    both.heartbeat.start()
    try:
        yield both
    finally:
        both.heartbeat.stop()
        both.transport.abort()
        peer.close()
        server.close()
        await asyncio.sleep(0)


async def test_a_peer_that_answers_lives() -> None:
    async with ends() as both:
        for times in (1, 2, 3):
            await both.pinged(times)
            await asyncio.get_running_loop().sock_sendall(both.peer, b"x")


async def test_a_peer_that_answers_nothing_is_dead() -> None:
    """Its kernel goes on acknowledging: that it has taken the ping is no sign of life."""
    async with ends() as both, asyncio.timeout(WAIT_S):
        await both.dead.wait()
        assert both.pings == 1


async def test_a_peer_that_is_not_read_lives_until_it_is_read_again() -> None:
    """It is not even pinged: an answer could not be heard."""
    async with ends() as both:
        both.is_held = True
        await asyncio.sleep(5 * EVERY_S)
        assert not both.pings
        assert not both.dead.is_set()
        both.is_held = False
        async with asyncio.timeout(WAIT_S):
            await both.dead.wait()
        assert both.pings == 1


async def test_a_peer_that_takes_what_stands_before_the_ping_lives() -> None:
    """It answers nothing, for the ping has not got to it; as long as it takes something it is there."""
    async with ends(patience_s=WAIT_S) as both:
        both.transport.write(bytes(100_000))
        await both.pinged(1)
        loop, taken = asyncio.get_running_loop(), 0
        until = loop.time() + 8 * EVERY_S
        while loop.time() < until:
            taken += len(await loop.sock_recv(both.peer, 1024))
            await asyncio.sleep(0.02)
        assert not both.dead.is_set()
        assert taken < 100_000
        assert both.pings == 1


async def test_a_peer_that_takes_nothing_of_what_stands_before_the_ping_is_dead_after_a_while() -> None:
    async with ends() as both, asyncio.timeout(WAIT_S):
        both.transport.write(bytes(100_000))
        await both.dead.wait()
        assert both.pings == 1


async def test_a_stopped_heartbeat_says_nothing() -> None:
    async with ends() as both:
        both.heartbeat.stop()
        await asyncio.sleep(3 * EVERY_S)
        assert not both.pings
        assert not both.dead.is_set()


async def test_progress_is_what_the_peer_takes_and_sends() -> None:
    async with ends() as both:
        before = progress(both.transport)
        assert (before.queued, before.unsent) == (0, 0)
        both.transport.write(bytes(50_000))
        full = progress(both.transport)
        assert full.written - before.written == 50_000
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(WAIT_S):
            while not progress(both.transport).took_since(full):
                await loop.sock_recv(both.peer, 1024)
        assert not progress(both.transport).sent_since(before)
        await loop.sock_sendall(both.peer, b"x")
        async with asyncio.timeout(WAIT_S):
            while not progress(both.transport).sent_since(before):
                await asyncio.sleep(0.01)


async def test_what_a_kernel_does_not_say_counts_by_what_is_unsent() -> None:
    before = Progress(acked=0, received=0, queued=0, unsent=1000)
    assert Progress(0, 0, 0, 900).took_since(before)
    assert not Progress(0, 0, 0, 1000).took_since(before)
    assert before.written == 1000


async def test_a_closed_connection_has_no_progress() -> None:
    async with ends() as both:
        both.transport.abort()
        await asyncio.sleep(0.01)
        assert progress(both.transport).acked == 0
