"""Clients that hold on to what they have, or send more than they take: what they cost has a bound, and they are let go."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.bare import bare, get
from tests.support.nats import single_server
from tests.support.place import Place
from tests.support.rawclient import Wire, connected
from tests.support.slow import memory, slow_readers
from tests.support.stack import Process, Stack, metric

pytestmark = pytest.mark.asyncio(loop_scope="module")

WAIT_S = 30.0
MIB = 1 << 20
SOCKETS = 80
OUTBOX = 65_536
ONE_WRITE = 65_536
"""What is written at once in a catch-up, at most."""
A_CONNECTION = 131_072
"""What a connection with a subscription costs without anything unsent, and its part of what is being read, generously."""


@dataclass(frozen=True, slots=True)
class World:
    stack: Stack
    gateway: Process

    @property
    def url(self) -> str:
        return self.gateway.url

    async def cut(self, reason: str) -> float:
        return metric((await get(f"{self.url}/metrics")).text, "antiphon_gateway_sockets_cut_total", reason=reason)

    async def socket(self, receive_buffer: int = 0) -> socket.socket:
        host, _, port = self.url.removeprefix("http://").partition(":")
        return await connected(host, int(port), receive_buffer)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    directory: Path = tmp_path_factory.mktemp("hostile")
    async with single_server(directory / "nats") as nats, Stack(directory / "stack", nats.url) as stack:
        gateway = await stack.gateway(
            http_head_s="1",
            http_idle_s="2",
            slow_reader_s="1",
            heartbeat_s="60",
            outbox_bytes=str(OUTBOX),
            sockets=str(SOCKETS),
            requests_per_second="1000",
            requests_burst="1000",
        )
        await stack.worker()
        yield World(stack, gateway)


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def others_are_served(world: World) -> AsyncIterator[None]:
    """Whatever a test does."""
    yield
    async with asyncio.timeout(WAIT_S):
        while True:
            with contextlib.suppress(OSError, ConnectionError):
                async with bare(world.url, world.stack.token()) as client:
                    assert (await client.ask("ping"))["op"] == "pong"
                    return
            await asyncio.sleep(0.05)


async def ended(sock: socket.socket, keep_sending: bytes = b"") -> bytes:
    """What has come until the server ended the connection; a byte is sent all the while."""
    loop, got, at = asyncio.get_running_loop(), b"", 0
    async with asyncio.timeout(WAIT_S):
        while True:
            try:
                async with asyncio.timeout(0.2):
                    data = await loop.sock_recv(sock, MIB)
            except TimeoutError:
                data = None
            except ConnectionError:
                return got
            if data == b"":
                return got
            got += data or b""
            if keep_sending:
                with contextlib.suppress(ConnectionError):
                    await loop.sock_sendall(sock, keep_sending[at : at + 1])
                    at = (at + 1) % len(keep_sending)


async def until(holds: Callable[[], object], wait_s: float = WAIT_S) -> None:
    async with asyncio.timeout(wait_s):
        while not holds():
            await asyncio.sleep(0.05)


# --- sockets that do nothing -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("beginning", "more"),
    [(b"", b""), (b"GET /healthz HTTP/1.1\r\n", b"X-A: b\r\n"), (b"GET /v1/connect HTTP/1.1\r\nUpgrade: w", b"e")],
    ids=["silent", "headers without end", "an upgrade without end"],
)
async def test_a_socket_without_a_request_is_cut(world: World, beginning: bytes, more: bytes) -> None:
    before = await world.cut("no_request")
    with await world.socket() as sock:
        await asyncio.get_running_loop().sock_sendall(sock, beginning)
        assert await ended(sock, more) == b""
    assert await world.cut("no_request") == before + 1


async def test_a_socket_that_asks_nothing_more_is_closed(world: World) -> None:
    """Its answer has come. The next request does not, or not all of it."""
    for rest in (b"", b"GET /healthz HTTP/1.1\r\nX"):
        with await world.socket() as sock:
            await asyncio.get_running_loop().sock_sendall(sock, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" + rest)
            assert (await ended(sock)).startswith(b"HTTP/1.1 200")


async def test_more_sockets_than_there_may_be(world: World) -> None:
    before, held = await world.cut("too_many"), [await world.socket() for _ in range(SOCKETS + 10)]
    try:
        # Those that are in go on being served: nothing is closed for who comes later.
        await asyncio.get_running_loop().sock_sendall(held[0], b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await asyncio.get_running_loop().sock_recv(held[0], 100)).startswith(b"HTTP/1.1 200")
        for sock in held[SOCKETS:]:
            await ended(sock)
    finally:
        for sock in held:
            sock.close()
    async with asyncio.timeout(WAIT_S):
        while True:
            with contextlib.suppress(OSError, ConnectionError, AssertionError):
                assert await world.cut("too_many") >= before + 10
                return
            await asyncio.sleep(0.1)


# --- answers that nobody takes ---------------------------------------------------------------------------------------------


async def test_an_answer_that_is_not_taken(world: World) -> None:
    """It is cut, even though the web server would wait for ever for the end of what it has sent."""
    before = await world.cut("stalled")
    with await world.socket(4096) as sock:
        await asyncio.get_running_loop().sock_sendall(sock, b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 32)
        async with asyncio.timeout(WAIT_S):
            while await world.cut("stalled") == before:
                await asyncio.sleep(0.1)


async def test_pings_whose_answers_are_not_taken(world: World) -> None:
    """As many as it likes: what is unsent stays within the outbox, and then the socket is cut."""
    before, cut = memory(world.gateway.pid), await world.cut("stalled")
    ping = b"\x89\xfd" + bytes(4) + b"x" * 125
    async with await Wire.open(world.url, world.stack.token(), receive_buffer=4096) as wire:
        wire._writer.transport.pause_reading()
        sent, peak = 0, 0.0
        async with asyncio.timeout(WAIT_S):
            while await world.cut("stalled") == cut:
                if wire._writer.transport.get_write_buffer_size() < MIB:
                    wire._writer.write(ping * 1000)
                    sent += 1000
                text = (await get(f"{world.url}/metrics")).text
                peak = max(peak, metric(text, "antiphon_gateway_outbox_largest_bytes"))
    assert sent * len(ping) > 2 * OUTBOX
    assert 0 < peak <= OUTBOX + 127
    assert memory(world.gateway.pid) - before < 8 * MIB


async def test_a_body_that_is_larger_than_it_looks(world: World) -> None:
    """Ten megabytes of spaces in ten kilobytes."""
    body = gzip.compress(b" " * (10 * MIB))
    head = (
        "POST /v1/sessions/bomb/inputs HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {world.stack.token()}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    before = memory(world.gateway.pid)
    socks = [await world.socket() for _ in range(20)]
    try:
        for sock in socks:
            await asyncio.get_running_loop().sock_sendall(sock, head.encode() + body)
        answers = [await ended(sock) for sock in socks]
    finally:
        for sock in socks:
            sock.close()
    # Who is closed with something unread may lose the answer.
    assert {answer[:12] for answer in answers if answer} == {b"HTTP/1.1 415"}
    # All of them together have 200 MB.
    assert memory(world.gateway.pid) - before < 20 * MIB


# --- readers that stop -----------------------------------------------------------------------------------------------------


async def test_readers_that_stop_in_the_middle_of_joining(world: World) -> None:
    """Each has been given frames of its own, out of the log: no more of them than its outbox and one write hold."""
    gateway = await world.stack.gateway(outbox_bytes=str(OUTBOX), slow_reader_s="600", kernel_unsent_bytes="16384")
    session, count = "large", 80
    async with await Wire.open(gateway.url, world.stack.token()) as wire:
        place = Place(session)
        await wire.subscribe(place)
        for number in range(4):
            await wire.input(session, f"i{number}", "say 500000 bytes")
            await wire.follow(place, lambda p, n=number: f"run_i{n}" in p.ended)  # type: ignore[misc]
        places = [Place(session) for _ in range(count)]
        before = memory(gateway.pid)
        async with slow_readers([gateway.url], world.stack.token(), places, until_live=False):
            stalled = 0.0
            async with asyncio.timeout(WAIT_S):
                while stalled < count * OUTBOX:
                    text = (await get(f"{gateway.url}/metrics")).text
                    stalled = metric(text, "antiphon_gateway_outbox_bytes")
                    largest = metric(text, "antiphon_gateway_outbox_largest_bytes")
                    assert largest <= OUTBOX + ONE_WRITE + 10_000
            each = (memory(gateway.pid) - before) / count
            print(f"{each:,.0f} B for each of {count} readers that stopped in joining")  # noqa: T201
            assert each <= OUTBOX + ONE_WRITE + A_CONNECTION
            # And the gateway serves: somebody else gets everything.
            other = Place(session)
            async with await Wire.open(gateway.url, world.stack.token()) as fast:
                await fast.subscribe(other)
                await fast.follow(other, lambda p: p.caught_up)
            assert other.whole


async def test_one_connection_that_subscribes_to_all_it_may(world: World) -> None:
    """Its subscriptions share its outbox: sixty snapshots and backlogs are not sixty outboxes."""
    session = "shared"
    async with await Wire.open(world.url, world.stack.token()) as wire:
        place = Place(session)
        await wire.subscribe(place)
        await wire.input(session, "i", "say 400000 bytes")
        await wire.follow(place, lambda p: "run_i" in p.ended)
    copies = [f"shared-{number}" for number in range(60)]
    async with bare(world.url, world.stack.token()) as client:
        for copy in copies:
            assert (await client.ask("session.fork", session=session, to=copy))["op"] == "ok"
    peak = 0.0
    async with await Wire.open(world.url, world.stack.token(), receive_buffer=4096) as wire:
        for copy in copies:
            wire.send("subscribe", session=copy)
        wire._writer.transport.pause_reading()
        cut = await world.cut("stalled")
        async with asyncio.timeout(WAIT_S):
            while True:
                text = (await get(f"{world.url}/metrics")).text
                peak = max(peak, metric(text, "antiphon_gateway_outbox_largest_bytes"))
                closed = metric(text, "antiphon_gateway_closes_total", code="4102")
                if closed or await world.cut("stalled") > cut:
                    break
    # What a fork says of its messages is one frame, of 400 KB.
    assert OUTBOX < peak <= OUTBOX + 2 * 500_000


async def test_large_commands_that_wait_for_answers_to_be_taken(world: World) -> None:
    """Who does not take what was answered is asked for nothing more, and keeps the gateway from keeping it."""
    gateway = await world.stack.gateway(outbox_bytes="4096", kernel_unsent_bytes="4096", slow_reader_s="600")
    content = "x" * 60_000
    async with await Wire.open(gateway.url, world.stack.token(), receive_buffer=4096) as wire:
        await wire.subscribe(Place("waits"))
        wire._writer.transport.pause_reading()
        async with bare(gateway.url, world.stack.token()) as client:
            await client.ask("input.send", session="waits", inputId="large", content="say 200000 bytes")

        async def behind() -> bool:
            text = (await get(f"{gateway.url}/metrics")).text
            return metric(text, "antiphon_gateway_readers_behind") > 0

        async with asyncio.timeout(WAIT_S):
            while not await behind():
                await asyncio.sleep(0.05)
        for number in range(64):
            wire.send("input.send", session="waits", inputId=f"i{number}", content=content)
        async with asyncio.timeout(WAIT_S):
            while True:
                text = (await get(f"{gateway.url}/metrics")).text
                refused = metric(text, "antiphon_gateway_refusals_total", code="rate_limited")
                if refused >= 58:
                    break
                await asyncio.sleep(0.05)
        # One is at work, and of the others four fit into a quarter of a megabyte.
        assert refused <= 60
