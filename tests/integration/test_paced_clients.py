"""Clients that send more than they may: less is taken of them, nothing of it is lost, and what they cost has a bound.

What is taken is counted, and compared with what the settings let in until then: a machine that is slow takes less.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass

import orjson
import pytest
import pytest_asyncio

from antiphon.bench.sockets import masked, upgrade
from tests.support.bare import Ended, bare, get
from tests.support.nats import single_server
from tests.support.place import Place
from tests.support.rawclient import Wire
from tests.support.slow import memory
from tests.support.stack import Process, Stack, metric

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]

WAIT_S = 60.0
MIB = 1 << 20
PER_SECOND, BURST = 20, 20
FACTOR = 2
SLICE = 16
"""Frames that are taken at once."""
NARROW = {
    "commands_per_second": str(PER_SECOND),
    "commands_burst": str(BURST),
    "bytes_per_second": "1000000",
    "bytes_burst": "1024",
    "pace_factor": str(FACTOR),
    "kernel_unread_bytes": "16384",
    "flood_refusals": "1000000",
    "flood_s": "3600",
}
USUAL = {"kernel_unread_bytes": "16384"}
OPEN = {
    "commands_per_second": "1e9",
    "commands_burst": "1000000000",
    "bytes_per_second": "1e12",
    "user_frames_per_second": "1e9",
    "address_frames_per_second": "0",
    "sockets_per_second": "1e9",
    "kernel_unread_bytes": "16384",
}


@dataclass(frozen=True, slots=True)
class World:
    stack: Stack
    narrow: Process
    """A connection may send little."""
    open: Process
    """Everybody may send as much as they like: what the others take would be taken there at once."""

    def token(self, user: str = "user-1") -> str:
        return self.stack.token(user)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    directory = tmp_path_factory.mktemp("paced")
    async with (
        single_server(directory / "nats") as nats,
        Stack(directory / "stack", nats.url) as stack,
        asyncio.TaskGroup() as tasks,
    ):
        narrow = tasks.create_task(stack.gateway(**NARROW))
        opened = tasks.create_task(stack.gateway(**OPEN))
        worker = tasks.create_task(stack.worker())
        await asyncio.wait((narrow, opened, worker))
        yield World(stack, narrow.result(), opened.result())


class Raw:
    """A socket that sends bytes. `sent` counts what the kernels have taken since it was greeted."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.sent = 0
        self.got = b""
        self._loop = asyncio.get_running_loop()

    @classmethod
    @contextlib.asynccontextmanager
    async def to(cls, url: str) -> AsyncIterator[Raw]:
        host, _, port = url.removeprefix("http://").partition(":")
        with socket.socket() as sock:
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
            await asyncio.get_running_loop().sock_connect(sock, (host, int(port)))
            yield cls(sock)

    @classmethod
    @contextlib.asynccontextmanager
    async def greeted(cls, url: str, token: str) -> AsyncIterator[Raw]:
        async with cls.to(url) as raw:
            await raw.all(upgrade("/v1/connect", "127.0.0.1", 80, "antiphon.v1").encode())
            await raw.until(b"\r\n\r\n")
            await raw.all(masked(orjson.dumps({"op": "hello", "id": 0, "token": token})))
            await raw.until(b'"op":"welcome"')
            raw.sent, raw.got = 0, b""
            yield raw

    async def all(self, data: bytes) -> None:
        async with asyncio.timeout(WAIT_S):
            await self._loop.sock_sendall(self.sock, data)
        self.sent += len(data)

    def push(self, data: bytes) -> int:
        """As much of it as the kernel takes now."""
        try:
            count = self.sock.send(data)
        except BlockingIOError:
            return 0
        self.sent += count
        return count

    async def until(self, what: bytes) -> None:
        async with asyncio.timeout(WAIT_S):
            while what not in self.got:
                data = await self._loop.sock_recv(self.sock, MIB)
                assert data, self.got[-500:]
                self.got += data

    async def flood(self, unit: bytes, size: int, seconds: float) -> float:
        """Sends `unit` again and again, until so many bytes are sent, or for so long. Reads what comes. How long it took."""
        begun, at = self._loop.time(), 0
        data = unit * (65_536 // len(unit))
        while self.sent < size and self._loop.time() - begun < seconds:
            count = self.push(data[at:])
            at = (at + count) % len(data)
            with contextlib.suppress(BlockingIOError):
                self.got += self.sock.recv(MIB)
            await asyncio.sleep(0 if count else 0.005)
        return self._loop.time() - begun


async def held(gateway: Process, by: str) -> float:
    return metric((await get(f"{gateway.url}/metrics")).text, "antiphon_gateway_sockets_held", by=by)


async def until_held(gateway: Process, by: str, count: float = 1) -> None:
    async with asyncio.timeout(WAIT_S):
        while await held(gateway, by) < count:
            await asyncio.sleep(0.02)


async def is_served(gateway: Process, token: str) -> None:
    async with bare(gateway.url, token) as client:
        assert (await client.ask("ping"))["op"] == "pong"


# --- one connection --------------------------------------------------------------------------------------------------------

COMMAND = masked(b'{"op":"ping","id":1}')
FLOODS = {
    "commands": COMMAND,
    "pings": b"\x89\x84\0\0\0\0ping",
    "pongs": b"\x8a\x80\0\0\0\0",
    # Of a message that has begun and does not end.
    "fragments": b"\x00\x80\0\0\0\0",
}
A_MB = 1_000_000
_BUFFERS = 150_000
"""What both kernels and the gateway hold of what is not taken yet, generously: the sender has 16 KiB, the receiver 32, and
the gateway as much as it has read of that at once."""


@pytest.mark.parametrize("kind", FLOODS)
async def test_what_is_taken_of_a_flood_has_a_bound(world: World, kind: str) -> None:
    """And where nothing bounds it all of it is taken, so that this test would see it."""
    unit = FLOODS[kind]
    beginning = b"\x01\x80\0\0\0\0" if kind == "fragments" else b""
    async with Raw.greeted(world.open.url, world.token("open")) as raw:
        await raw.all(beginning)
        await raw.flood(unit, A_MB, WAIT_S)
        assert raw.sent >= A_MB
    async with Raw.greeted(world.narrow.url, world.token(kind)) as raw:
        await raw.all(beginning)
        took_s = await raw.flood(unit, A_MB, 3.0)
        frames = FACTOR * (BURST + PER_SECOND * took_s) + 2 * SLICE
        assert raw.sent <= _BUFFERS + frames * len(unit)
        await is_served(world.narrow, world.token("another"))


async def test_who_goes_on_calmly_has_lost_nothing(world: World) -> None:
    """Each command has its one answer, in its order; and no more of them at a time than are taken."""
    commands, loop = 200, asyncio.get_running_loop()
    async with Raw.greeted(world.narrow.url, world.token("calm")) as raw:
        begun = loop.time()
        await raw.all(b"".join(masked(b'{"op":"ping","id":%d}' % number) for number in range(1, commands + 1)))
        seen = 0
        async with asyncio.timeout(WAIT_S):
            while seen < commands:
                raw.got += await loop.sock_recv(raw.sock, MIB)
                seen = raw.got.count(b'"id":')
                assert seen <= FACTOR * (BURST + PER_SECOND * (loop.time() - begun)) + SLICE
        ids = [int(part[: part.index(b",")]) for part in raw.got.split(b'"id":')[1:]]
        assert sorted(ids) == list(range(1, commands + 1))
        # Those that were too many have been told so, and when to come again.
        assert 0 < raw.got.count(b'"op":"pong"') < commands
        assert raw.got.count(b'"rate_limited"') == raw.got.count(b'"retry_after_ms"') > 0
        await raw.all(masked(b'{"op":"ping","id":777}'))
        await raw.until(b'"id":777')


async def test_an_input_in_the_middle_of_a_flood_is_carried_out(world: World) -> None:
    """It waits for what its own sender sent before, and is not lost; everybody else has answers meanwhile."""
    session = "middle"
    async with Raw.greeted(world.narrow.url, world.token("middle")) as raw:
        # As many as are answered before it, and no refusal is left for it.
        await raw.all(COMMAND * (3 * BURST))
        async with await Wire.open(world.narrow.url, world.token("reader")) as wire:
            place = Place(session)
            await wire.subscribe(place)
            said = {"op": "input.send", "id": 5000, "session": session, "inputId": "in", "content": "hello"}
            while True:
                raw.got = b""
                await raw.all(masked(orjson.dumps(said)))
                await raw.until(b'"id":5000')
                if b"rate_limited" not in raw.got:
                    break
            await wire.follow(place, lambda p: "run_in" in p.ended)
            assert place.whole


async def test_who_is_held_back_is_not_taken_for_dead(world: World) -> None:
    """Its answers to pings stand behind what is not taken, for many times as long as one may take."""
    gateway = await world.stack.gateway(**NARROW, heartbeat_s="0.5")
    async with Raw.greeted(gateway.url, world.token("held")) as raw:
        # Eight seconds of frames, none of which is a message, or comes to anything.
        await raw.all(b"\x01\x80\0\0\0\0" + FLOODS["fragments"] * 360)
        await until_held(gateway, "connection")
        await raw.all(b"\x80\x94\0\0\0\0" + b'{"op":"ping","id":9}')
        await raw.until(b'"id":9')
        assert b"pong" in raw.got


async def test_who_never_stops_is_told_and_closed(world: World) -> None:
    gateway = await world.stack.gateway(**{**NARROW, "flood_s": "1"})
    async with bare(gateway.url, world.token("floods")) as client:

        async def flood() -> None:
            with contextlib.suppress(ConnectionError):
                while not client.ws.closed:
                    await client.ws.ping(b"x")
                    await asyncio.sleep(0)

        flooding = asyncio.get_running_loop().create_task(flood())
        try:
            ended = await client.end()
        finally:
            flooding.cancel()
            await asyncio.wait([flooding])
        assert (ended.code, ended.reason) == (4429, {"code": "flood"})
    await is_served(gateway, world.token("floods"))


async def test_who_is_within_the_limits_sees_no_change(world: World) -> None:
    """A whole burst at once, and then the rate, with pings of the protocol in between."""
    async with bare(world.narrow.url, world.token("within")) as client:
        for id_ in [await client.post("ping") for _ in range(BURST)]:
            assert (await client.reply(id_))["op"] == "pong"
        for _ in range(10):
            await asyncio.sleep(1 / PER_SECOND)
            await client.ws.ping(b"x")
            assert (await client.ask("ping"))["op"] == "pong"


# --- many together ---------------------------------------------------------------------------------------------------------


async def test_all_connections_of_a_user_share(world: World) -> None:
    rate, burst_s, loop = 40, 0.5, asyncio.get_running_loop()
    gateway = await world.stack.gateway(**USUAL, user_frames_per_second=str(rate), shared_burst_s=str(burst_s))
    async with contextlib.AsyncExitStack() as stack:
        raws = [await stack.enter_async_context(Raw.greeted(gateway.url, world.token("many"))) for _ in range(10)]
        begun, each = loop.time(), 16
        for raw in raws:
            await raw.all(COMMAND * each)
        await until_held(gateway, "shared")
        # Somebody else does not wait for them.
        await is_served(gateway, world.token("else"))
        seen = 0
        async with asyncio.timeout(WAIT_S):
            while seen < each * len(raws):
                for raw in raws:
                    with contextlib.suppress(BlockingIOError):
                        raw.got += raw.sock.recv(MIB)
                seen = sum(raw.got.count(b'"pong"') for raw in raws)
                assert seen <= rate * (burst_s + loop.time() - begun) + SLICE
                await asyncio.sleep(0.01)
    assert await held(gateway, "shared") == 0


async def test_sockets_that_come_and_go(world: World) -> None:
    """So many are begun each second; the others wait, and all are served in the end."""
    rate, burst, loop = 10, 5, asyncio.get_running_loop()
    gateway = await world.stack.gateway(sockets_per_second=str(rate), sockets_burst=str(burst))
    begun, answered, request = loop.time(), 0, b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"

    async def ask() -> None:
        nonlocal answered
        async with Raw.to(gateway.url) as raw:
            await raw.all(request)
            await raw.until(b'"status":')
        answered += 1
        # What is asked beside this test, when the gateway was started, makes it no more.
        assert answered <= burst + rate * (loop.time() - begun) + 1

    async with asyncio.timeout(WAIT_S), asyncio.TaskGroup() as tasks:
        for _ in range(40):
            tasks.create_task(ask())
    assert answered == 40


async def test_requests_on_a_kept_connection(world: World) -> None:
    rate, burst_s, loop = 80, 0.5, asyncio.get_running_loop()
    gateway = await world.stack.gateway(address_frames_per_second=str(rate), shared_burst_s=str(burst_s))
    async with Raw.to(gateway.url) as raw:
        begun, seen = loop.time(), 0
        await raw.all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 60)
        async with asyncio.timeout(WAIT_S):
            while seen < 60:
                raw.got += await loop.sock_recv(raw.sock, MIB)
                seen = raw.got.count(b"HTTP/1.1 200")
                # Each costs four frames.
                assert seen <= rate / 4 * (burst_s + loop.time() - begun) + 1


async def test_a_body_in_tiny_chunks(world: World) -> None:
    """Each chunk costs more than a byte of a large one: it is read at the pace of what it costs."""
    gateway = await world.stack.gateway(**USUAL, address_frames_per_second="40", shared_burst_s="0.5")
    head = (
        "POST /v1/sessions/tiny/attachments?name=a.txt HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
        f"Content-Type: text/plain\r\nAuthorization: Bearer {world.token('tiny')}\r\n\r\n"
    )
    for url, bounded in ((world.open.url, False), (gateway.url, True)):
        async with Raw.to(url) as raw:
            await raw.all(head.encode())
            took_s = await raw.flood(b"1\r\n \r\n", A_MB, 3.0 if bounded else WAIT_S)
            if bounded:
                # A line has three bytes, and sixteen of them cost a frame.
                assert raw.sent <= _BUFFERS + 40 * (0.5 + took_s) * 16 * 3 + 3 * 16_384
            else:
                assert raw.sent >= A_MB or raw.got.startswith(b"HTTP/1.1 4")


async def test_a_proxy_that_is_trusted_speaks_for_many(world: World) -> None:
    """It is not held back for what they ask together; one of them who asks too much is."""
    gateway = await world.stack.gateway(
        address_frames_per_second="4", shared_burst_s="1", trusted_proxies="127.0.0.0/8", commands_per_second="1"
    )
    async with Raw.to(gateway.url) as raw:
        loop = asyncio.get_running_loop()
        request = b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 10.9.8.%d\r\n\r\n"
        await raw.all(b"".join(request % number for number in range(200)))
        async with asyncio.timeout(WAIT_S):
            while raw.got.count(b"HTTP/1.1 200") < 200:
                raw.got += await loop.sock_recv(raw.sock, MIB)
        begun, raw.got = loop.time(), b""
        await raw.all(request % 250 * 5)
        async with asyncio.timeout(WAIT_S):
            while (seen := raw.got.count(b"HTTP/1.1 200")) < 5:
                raw.got += await loop.sock_recv(raw.sock, MIB)
                # A request costs four frames.
                assert seen <= 1 + loop.time() - begun + 1
    assert await held(gateway, "shared") == 0


# --- what it costs ---------------------------------------------------------------------------------------------------------


async def test_a_flood_of_many_costs_bounded_memory(world: World) -> None:
    """Sockets that send as fast as they can and read nothing, of all kinds; others are served, and it ends when they go."""
    gateway = await world.stack.gateway(**USUAL)
    await is_served(gateway, world.token("before"))
    before, each, seconds = memory(gateway.pid), 40, 3.0
    async with contextlib.AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
        raws = [await stack.enter_async_context(Raw.greeted(gateway.url, world.token("flood"))) for _ in range(each)]
        for raw, kind in zip(raws, list(FLOODS) * each, strict=False):
            if kind == "fragments":
                await raw.all(b"\x01\x80\0\0\0\0")
            tasks.create_task(_tolerant(raw, FLOODS[kind], seconds))
        await until_held(gateway, "shared", each / 2)
        async with bare(gateway.url, world.token("well-behaved")) as client:
            for _ in range(20):
                assert (await client.ask("ping"))["op"] == "pong"
        assert memory(gateway.pid) - before <= each * 2 * _BUFFERS
        for raw in raws:
            # As if it were killed: no end of what it has sent stands behind what it has sent.
            raw.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    async with asyncio.timeout(WAIT_S):
        while await held(gateway, "shared") + await held(gateway, "connection") > 0:
            await asyncio.sleep(0.05)
    await is_served(gateway, world.token("flood"))


async def _tolerant(raw: Raw, unit: bytes, seconds: float) -> None:
    with contextlib.suppress(ConnectionError, Ended):
        await raw.flood(unit, 1 << 40, seconds)
