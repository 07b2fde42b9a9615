"""What has come from sockets is taken in turns, and at its pace. Sockets that are not: what is fed is noted."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field, replace

import pytest

from antiphon.reading import Reading
from antiphon.turnstile import Turnstile
from gateway.pacing import Held, PacingSettings

WAIT_S = 20.0
FRAME = b"\x81\x80\0\0\0\0"
"""An empty one."""
WIDE = PacingSettings(1e9, 1e9, 1e12, 1e12, 1e9, 1e9, sockets_per_second=1e9, sockets_burst=1e9, turn_frames=8)


@dataclass
class Sock:
    """What its reading does with it."""

    order: list[Sock]
    fed: list[bytes] = field(default_factory=list)
    reads: bool = True
    is_left: bool = False

    def feed(self, data: bytes) -> None:
        assert data
        self.fed.append(data)
        self.order.append(self)

    def stop_reading(self) -> None:
        self.reads = False

    def read_on(self) -> None:
        self.reads = True

    def left(self) -> bool:
        return self.is_left

    @property
    def frames(self) -> int:
        return len(b"".join(self.fed)) // len(FRAME)


class World:
    def __init__(self, settings: PacingSettings = WIDE) -> None:
        self.held: Counter[Held] = Counter()
        self.turnstile = Turnstile(settings, self._on_held)
        self.order: list[Sock] = []

    def _on_held(self, by: Held, more: int) -> None:
        self.held[by] += more
        assert self.held[by] >= 0

    def http(self, address: str = "a", *, for_many: bool = False) -> tuple[Reading, Sock]:
        sock = Sock(self.order)
        reading = Reading(self.turnstile, sock, address, for_many=for_many)
        reading.begin_when_due()
        return reading, sock

    def websocket(self, address: str = "a", *, for_many: bool = False) -> tuple[Reading, Sock]:
        reading, sock = self.http(address, for_many=for_many)
        reading.is_websocket(b"")
        return reading, sock


async def until_read(sock: Sock) -> None:
    async with asyncio.timeout(WAIT_S):
        while not sock.reads:
            await asyncio.sleep(0)


# --- turns -----------------------------------------------------------------------------------------------------------------


async def test_what_is_little_is_taken_as_it_came() -> None:
    reading, sock = World().websocket()
    reading.came(FRAME * 3)
    assert sock.fed == [FRAME * 3]
    assert sock.reads
    assert not reading.is_held


async def test_what_is_much_is_taken_a_turn_at_a_time() -> None:
    reading, sock = World().websocket()
    reading.came(FRAME * 100)
    assert sock.fed == [FRAME * 8]
    assert not sock.reads
    assert reading.is_held
    await until_read(sock)
    assert b"".join(sock.fed) == FRAME * 100
    assert max(map(len, sock.fed)) == len(FRAME * 8)
    assert not reading.is_held


async def test_one_large_buffer_keeps_nobody_waiting_for_more_than_its_turn() -> None:
    world = World()
    large, large_sock = world.websocket()
    small, small_sock = world.websocket("b")
    large.came(FRAME * 10_000)
    small.came(FRAME)
    await until_read(small_sock)
    assert small_sock.frames == 1
    assert large_sock.frames <= 3 * 8
    await until_read(large_sock)
    assert large_sock.frames == 10_000


async def test_turns_that_are_full_leave_time_for_others() -> None:
    world = World(replace(WIDE, turn_share=0.25))
    reading, sock = world.websocket()
    busy_s, turns = 0.004, 12

    def busily(data: bytes) -> None:
        sock.fed.append(data)
        until = time.monotonic() + busy_s
        while time.monotonic() < until:
            pass

    sock.feed = busily  # type: ignore[method-assign]
    begun = time.monotonic()
    reading.came(FRAME * 8 * turns)
    await until_read(sock)
    assert sock.frames == 8 * turns
    # Each but the first and the last is followed by a pause of three times as long, which a timer rounds.
    assert time.monotonic() - begun >= busy_s * (turns + 2 * (turns - 3))


async def test_a_file_is_taken_in_pieces_of_which_many_make_a_turn() -> None:
    reading, sock = World().http()
    data = bytes(range(256)) * 1024
    reading.came(data)
    assert sum(map(len, sock.fed)) == 8 * 16_384
    await until_read(sock)
    assert b"".join(sock.fed) == data


async def test_what_was_on_its_way_when_it_was_held_comes_after() -> None:
    reading, sock = World().websocket()
    data = b"".join(b"\x81\x81\0\0\0\0%c" % (number % 256) for number in range(60))
    for at in range(0, len(data), 11):
        reading.came(data[at : at + 11])
    await until_read(sock)
    assert b"".join(sock.fed) == data


async def test_what_came_behind_the_upgrade_comes_first() -> None:
    reading, sock = World().http()
    reading.came(b"GET / HTTP/1.1\r\n\r\n")
    sock.fed.clear()
    reading.is_websocket(FRAME * 20)
    assert 0 < sock.frames <= 8
    await until_read(sock)
    assert sock.frames == 20


async def test_who_fails_takes_nobody_along() -> None:
    """A fault in taking one socket's bytes."""
    world = World()
    first, _ = world.websocket()
    first.came(FRAME * 8)

    class Faulty(Sock):
        def feed(self, data: bytes) -> None:
            raise ValueError

    faults: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, told: faults.append(told["exception"]))
    faulty = Reading(world.turnstile, Faulty(world.order), "a")
    faulty.is_websocket(b"")
    other, sock = world.websocket()
    faulty.came(FRAME)
    other.came(FRAME * 8)
    await until_read(sock)
    assert sock.frames == 8
    assert len(faults) <= 1


# --- at its pace -----------------------------------------------------------------------------------------------------------


async def test_a_connection_is_read_at_its_rate() -> None:
    world = World(replace(WIDE, frames_per_second=200, frames_burst=10, bytes_burst=0))
    loop = asyncio.get_running_loop()
    begun = loop.time()
    reading, sock = world.websocket()
    reading.came(FRAME * 60)
    assert sock.frames <= 10
    async with asyncio.timeout(WAIT_S):
        while not world.held[Held.CONNECTION]:
            await asyncio.sleep(0)
    async with asyncio.timeout(WAIT_S):
        while not sock.reads:
            assert sock.frames <= 10 + 200 * (loop.time() - begun) + 1
            await asyncio.sleep(0.005)
    assert sock.frames == 60
    assert +world.held == {}


async def test_a_user_shares_and_others_do_not() -> None:
    world = World(replace(WIDE, user_frames_per_second=100, shared_burst_s=0.1))
    loop = asyncio.get_running_loop()
    ours = [world.websocket() for _ in range(5)]
    theirs, their_sock = world.websocket()
    theirs.is_users("theirs", lambda: None)
    begun = loop.time()
    for reading, _ in ours:
        reading.is_users("ours", lambda: None)
        reading.came(FRAME * 20)
    theirs.came(FRAME * 5)
    await until_read(their_sock)
    assert their_sock.frames == 5
    assert world.held[Held.SHARED] >= 4
    async with asyncio.timeout(WAIT_S):
        while not all(sock.reads for _, sock in ours):
            # What is due together is at most a turn's too early.
            assert sum(sock.frames for _, sock in ours) <= 10 + 100 * (loop.time() - begun) + 8
            await asyncio.sleep(0.005)
    assert sum(sock.frames for _, sock in ours) == 100


async def test_before_it_is_a_users_it_is_its_addresss() -> None:
    world = World(replace(WIDE, address_frames_per_second=1, shared_burst_s=4.5))
    readings = [world.websocket() for _ in range(5)]
    for reading, _ in readings:
        reading.came(FRAME)
    assert [sock.frames for _, sock in readings] == [1, 1, 1, 1, 0]
    other, sock = world.websocket("b")
    other.came(FRAME)
    assert sock.frames == 1
    proxy, sock = world.websocket("b", for_many=True)
    proxy.came(FRAME * 8)
    await until_read(sock)
    assert sock.frames == 8


async def test_who_leaves_while_it_waits_keeps_nobody_waiting() -> None:
    world = World(replace(WIDE, user_frames_per_second=1, shared_burst_s=1))
    first, _ = world.websocket()
    first.is_users("u", lambda: None)
    first.came(FRAME)
    waiting = [world.websocket()[0] for _ in range(100)]
    for reading in waiting:
        reading.is_users("u", lambda: None)
        reading.came(FRAME)
    assert world.held[Held.SHARED] == 100
    for reading in waiting:
        reading.end()
    assert +world.held == {}
    group = world.turnstile.users.join("u")
    assert group is not None
    assert group.pace.wait_s(asyncio.get_running_loop().time(), 1.0) <= 1.0


async def test_of_who_has_left_nothing_more_is_taken() -> None:
    world = World(replace(WIDE, frames_per_second=100, frames_burst=8, bytes_burst=0))
    reading, sock = world.websocket()
    reading.came(FRAME * 50)
    sock.is_left = True
    async with asyncio.timeout(WAIT_S):
        while reading._timer is None:
            await asyncio.sleep(0)
        while reading._timer is not None:
            await asyncio.sleep(0.005)
    assert sock.frames == 8
    reading.end()


async def test_tiny_chunks_cost_what_they_take() -> None:
    world = World(replace(WIDE, address_frames_per_second=100, shared_burst_s=0.5))
    reading, sock = world.http()
    reading.in_chunks = True
    reading.came(b"1\r\n \r\n" * 40_000)
    async with asyncio.timeout(WAIT_S):
        while not world.held[Held.SHARED]:
            await asyncio.sleep(0)
    # Twenty times sixteen lines in each.
    assert sum(map(len, sock.fed)) <= 3 * 1024
    plain, plain_sock = world.http("b")
    plain.came(b"x" * 65_536)
    assert b"".join(plain_sock.fed) == b"x" * 65_536 or plain.is_held
    await until_read(plain_sock)
    reading.end()


async def test_requests_wait_for_what_they_share() -> None:
    world = World(replace(WIDE, address_frames_per_second=40, shared_burst_s=0.2))
    reading, _ = world.http()
    loop = asyncio.get_running_loop()
    begun, asked = loop.time(), 8
    async with asyncio.timeout(WAIT_S), asyncio.TaskGroup() as tasks:
        for _ in range(asked):
            tasks.create_task(reading.its_turn())
        await asyncio.sleep(0.01)
        assert world.held[Held.SHARED] > 0
    # Two at once, and ten a second.
    assert loop.time() - begun >= (asked - 2) / 10 - 0.01
    assert +world.held == {}


async def test_requests_by_a_proxy_are_those_of_whom_it_speaks_for() -> None:
    world = World(replace(WIDE, address_frames_per_second=40, shared_burst_s=0.2))
    proxy, _ = world.http("proxy", for_many=True)
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(WAIT_S), asyncio.TaskGroup() as tasks:
        many = [tasks.create_task(proxy.its_turn("10.0.0.1")) for _ in range(8)]
        begun = loop.time()
        await proxy.its_turn("10.0.0.2")
        assert not all(task.done() for task in many)
        await asyncio.wait(many)
        assert loop.time() - begun >= (8 - 2) / 10 - 0.02


async def test_a_flood_is_told_after_its_time() -> None:
    world = World(replace(WIDE, frames_per_second=100, frames_burst=4, bytes_burst=0, flood_s=0.3))
    loop = asyncio.get_running_loop()
    told: list[float] = []
    reading, sock = world.websocket()
    reading.is_users("u", lambda: told.append(loop.time()))
    begun = loop.time()
    async with asyncio.timeout(WAIT_S):
        while not told:
            if sock.reads:
                reading.came(FRAME * 20)
            await asyncio.sleep(0.005)
    assert told[0] - begun >= 0.3
    reading.end()


async def test_newcomers_wait_for_their_turn() -> None:
    world = World(replace(WIDE, sockets_per_second=20, sockets_burst=2))
    loop = asyncio.get_running_loop()
    begun = loop.time()
    coming = [world.http() for _ in range(8)]
    for reading, _ in coming:
        reading.came(b"x")
    assert world.held == {Held.NEWCOMERS: 6}
    gone, unread = coming.pop()
    gone.end()
    async with asyncio.timeout(WAIT_S):
        while not all(sock.fed for _, sock in coming):
            assert sum(bool(sock.fed) for _, sock in coming) <= 2 + 20 * (loop.time() - begun) + 1
            await asyncio.sleep(0.005)
    assert not unread.fed
    assert +world.held == {}
    assert all(sock.reads for _, sock in coming)


async def test_one_that_sends_nothing_yet_is_read_when_it_may() -> None:
    world = World(replace(WIDE, sockets_per_second=20, sockets_burst=1))
    world.http()
    reading, sock = world.http()
    assert reading.is_held
    await until_read(sock)
    assert not reading.is_held
    reading.came(b"x")
    assert sock.fed == [b"x"]


@pytest.mark.parametrize("when", ["in its turn", "at its pace", "as a newcomer"])
async def test_what_has_ended_takes_nothing_more(when: str) -> None:
    settings = {
        "in its turn": WIDE,
        "at its pace": replace(WIDE, frames_per_second=100, frames_burst=1, bytes_burst=0),
        "as a newcomer": replace(WIDE, sockets_per_second=50, sockets_burst=1),
    }[when]
    world = World(settings)
    world.http()
    reading, sock = world.websocket()
    reading.came(FRAME * 50)
    fed = len(sock.fed)
    reading.end()
    other, other_sock = world.websocket()
    other.came(FRAME * 50 if when == "in its turn" else FRAME)
    await until_read(other_sock)
    assert len(sock.fed) == fed
