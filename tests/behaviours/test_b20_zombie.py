"""B20: a worker that slept past its lease wakes up as a zombie: the log refuses every write of it.

In each lane a write is on its way when it falls asleep, and reaches the log when another worker has the lane.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from broker.events import SessionOwner
from broker.lease import parse_write_id
from broker.subjects import MAIN_LANE, SessionSubjects
from tests.behaviours.conftest import Figure
from tests.support.nats import free_ports
from tests.support.place import Place
from tests.support.rawclient import WAIT_S, Wire
from tests.support.stack import Process, Stack, lanes_lost, replicated_stack
from tests.support.tcp import proxy_to

LEASE_S = 3.0
SESSIONS = 6
TOKENS = 600
STREAM = f"stream {TOKENS} tokens at 100/s"
TEXT = "".join(f"t{i} " for i in range(TOKENS))
RUN = "run_a"


@pytest.fixture(params=[1, pytest.param(3, marks=pytest.mark.cluster)], ids=["R1", "R3"])
async def replicated(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stack]:
    async with replicated_stack(tmp_path, request.param, lease_s=LEASE_S) as stack:
        yield stack


async def test_a_zombie_cannot_write(replicated: Stack, figure: Figure) -> None:
    (port,) = free_ports(1)
    gateway = await replicated.gateway()
    async with (
        proxy_to(replicated.nats_url.split(",")[0]) as proxy,
        await Wire.open(gateway.url, replicated.token()) as wire,
    ):
        # What was on its way when it fell asleep is answered when it wakes; it must not give up on that before.
        zombie = await replicated.worker(worker_port=str(port), ack_timeout_s="60", nats_url=proxy.url)
        places = [Place(f"zombie-{i}") for i in range(SESSIONS)]
        for place in places:
            await wire.subscribe(place)
            await wire.input(place.session, "a", STREAM)
        await _follow(wire, places, lambda p: len(p.answer(RUN)) >= 20)
        async with asyncio.timeout(WAIT_S):
            await proxy.hold([_delta_of(replicated, place) for place in places])
        zombie.pause()
        heir = await replicated.worker()
        await _follow(wire, places, lambda p: len(p.texts) == 2)
        zombie.resume()
        proxy.release()
        await _follow(wire, places, lambda p: RUN in p.ended)
        for place in places:
            assert place.whole, place
            assert place.answer(RUN) == TEXT
            assert await _stale(replicated, place.session) == []
        await lanes_lost(port, SESSIONS)
        assert proxy.refusals >= SESSIONS
        assert zombie.running
        assert heir.running
        await heir.kill()
        await _works(replicated, gateway, "after")
    figure(
        f"R{replicated.replicas}: {SESSIONS} lanes lost, {proxy.refusals} writes refused, 0 entries under an old fence; "
        "works on"
    )


def _delta_of(stack: Stack, place: Place) -> bytes:
    """What a worker sends when it writes a delta there."""
    return f" {SessionSubjects.of(place.session, stack.partitions).deltas(MAIN_LANE)} ".encode()


async def _stale(stack: Stack, session: str) -> list[int]:
    """Entries of a lane that stand after a newer claim than theirs."""
    fence, found = 0, []
    for seq, entry in await stack.entries(session):
        if entry.events and isinstance(entry.events[0], SessionOwner):
            fence = seq
        elif entry.lane is not None:
            write = parse_write_id(entry.id)
            if write is None or write.fence != fence:
                found.append(seq)
    return found


async def _works(stack: Stack, gateway: Process, session: str) -> None:
    """The former zombie is the only worker left: it takes new work."""
    place = Place(session)
    async with await Wire.open(gateway.url, stack.token()) as wire:
        await wire.subscribe(place)
        await wire.input(session, "b", "hello")
        await wire.follow(place, lambda p: "run_b" in p.ended)
    assert place.answer("run_b") == "hello"


async def _follow(wire: Wire, places: list[Place], until: Callable[[Place], bool]) -> None:
    async with asyncio.timeout(60):
        while not all(until(place) for place in places):
            frame = await wire.receive()
            for place in places:
                place.take(frame)
