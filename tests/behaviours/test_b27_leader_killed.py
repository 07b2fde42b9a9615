"""B27: a gateway is killed, then the leader of the sessions' stream (R3): nothing acknowledged is lost, clients go on.

How long the cluster has no leader is up to NATS: its servers wait 4 to 9 s until they elect another, and meanwhile nothing
is written. Reading does not wait for that: whoever resumes, in the middle of a text too, is caught up with all that was
acknowledged before there is another leader (ADR 40).
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from tests.behaviours.conftest import Figure
from tests.chaos.checker import check
from tests.chaos.ending import LOOK_S, waits_for
from tests.chaos.history import Answer, CaughtUp, EntrySeen, Left, Record
from tests.chaos.load import ON_BUSY, Room
from tests.support.nats import NatsCluster, cluster
from tests.support.rawclient import WAIT_S
from tests.support.stack import Process, Stack

T = TypeVar("T")

ROOMS = 4
AGENT = "tests.chaos.agent:agent"
RESUMED_S = 5.0
AT_REST_S = 90.0


@pytest.mark.cluster
@pytest.mark.timeout(300)
async def test_a_gateway_and_then_the_leader_are_killed(tmp_path: Path, figure: Figure, seed: int) -> None:
    """People talk, steer, stop, execute tools and decide all the while. One stream, so that its leader leads them all."""
    rng = random.Random(seed)
    async with (
        cluster(tmp_path / "nats", sync_always=True) as servers,
        Stack(tmp_path / "stack", ",".join(servers.urls), replicas=3, partitions=1) as stack,
    ):
        gateways = await stack.start(2, workers=0, heartbeat_s="1", job_repair_s="1", command_timeout_s="4")
        for _ in range(2):
            await stack.worker(AGENT)
        urls = [gateway.url for gateway in gateways]
        rooms = [Room.of(f"b27-{n}", ON_BUSY[n], urls, stack.token, rng) for n in range(ROOMS)]
        async with _living(rooms):
            await _until(lambda: all(_seen(room) > 100 for room in rooms))
            away = await _kill_gateway(rooms, gateways[0])
            await _until(lambda: all(len(_came(room.records, CaughtUp)) for room in rooms))
            elected, resumed, silent = await _kill_leader(rooms, servers)
            for room in rooms:
                room.over = True
            await _at_rest(stack, rooms)
    violations = [str(violation) for room in rooms for violation in check(room.history)]
    assert violations == []
    assert max(away, resumed) < RESUMED_S
    figure(
        f"{len(rooms) * 3} clients in {ROOMS} sessions: resumed within {away:.2f} s of a killed gateway; within "
        f"{resumed:.2f} s of a killed leader, with new entries after {silent:.2f} s (NATS names another leader after "
        f"{elected:.2f} s); {sum(room.acknowledged for room in rooms)} inputs acknowledged, "
        f"{sum(len(room.logged) for room in rooms)} entries, seen {sum(map(_seen, rooms))} times, 0 lost, 0 twice, "
        f"texts identical, seed {seed}"
    )


@asynccontextmanager
async def _living(rooms: list[Room]) -> AsyncIterator[None]:
    clients = [client for room in rooms for client in room.clients]
    async with asyncio.TaskGroup() as tasks:
        for client in clients:
            # They move when they have to, and not before.
            client.manner.stays_s = 1_000.0
            tasks.create_task(client.live())
        try:
            yield
        finally:
            for client in clients:
                client.leave()


async def _kill_gateway(rooms: list[Room], gateway: Process) -> float:
    """Kill -9; the longest that a client which was there took until it had caught up at the other one, in seconds."""
    killed = time.monotonic()
    await gateway.kill()
    await _until(lambda: not _away(rooms, killed))
    lefts = [(room, client) for room in rooms for client in room.clients if _left_at(room, client.name, killed)]
    assert lefts, "nobody was there"
    return max(_back_after(room, client.name, killed) for room, client in lefts)


def _left_at(room: Room, who: str, since: float) -> int:
    """When the client's connection ended, in ms of the room; 0 if it has not."""
    since_ms = _ms(room, since)
    return next((r.at for r in _came(room.records, Left) if r.who == who and r.at >= since_ms), 0)


def _back_after(room: Room, who: str, since: float) -> float:
    """Seconds until it had caught up again."""
    return (_back(room, who, since).at - _ms(room, since)) / 1000


def _back(room: Room, who: str, since: float) -> CaughtUp:
    left = _left_at(room, who, since)
    return next(r for r in _came(room.records, CaughtUp) if r.who == who and r.at >= left)


def _acknowledged(room: Room, until: float) -> int:
    """The last entry that anybody had seen by then, or had a receipt for."""
    until_ms = _ms(room, until)
    seen = [r.frame["seq"] for r in _came(room.records, EntrySeen) if r.at <= until_ms]
    receipts = [r.reply.get("seq") or 0 for r in _came(room.records, Answer) if r.at <= until_ms and r.ok]
    return max(seen + receipts)


def _away(rooms: list[Room], since: float) -> list[str]:
    """Clients whose connection has ended and that have not caught up elsewhere. For a moment nobody has noticed yet."""
    if time.monotonic() - since < 1.0:
        return ["a moment"]
    return [
        client.name
        for room in rooms
        for client in room.clients
        if (left := _left_at(room, client.name, since))
        and not any(r.who == client.name and r.at >= left for r in _came(room.records, CaughtUp))
    ]


async def _kill_leader(rooms: list[Room], servers: NatsCluster) -> tuple[float, float, float]:
    """Kill -9. How long it took, in seconds, until there was another leader, all had resumed, all got a new entry.

    One client of each room loses its connection at that moment, and resumes while nobody leads; the others stay.
    """
    leader = await servers.stream_leader("S00")
    killed, killed_ms = time.monotonic(), int(time.time() * 1000)
    await servers.kill(leader)
    for room in rooms:
        room.clients[0].move()
    await servers.stream_leader("S00")
    elected = time.monotonic() - killed
    await _until(lambda: not _away(rooms, killed))
    moved = [(room, room.clients[0].name) for room in rooms]
    for room, who in moved:
        assert _back(room, who, killed).seq >= _acknowledged(room, killed), f"{who} does not have what was acknowledged"
    resumed = max(_back_after(room, who, killed) for room, who in moved)
    await _until(lambda: all(_new(room, client.name, killed_ms) for room in rooms for client in room.clients))
    firsts = [(room, _new(room, client.name, killed_ms)) for room in rooms for client in room.clients]
    return elected, resumed, max(first.at - _ms(room, killed) for room, first in firsts if first is not None) / 1000


def _new(room: Room, who: str, since_ms: int) -> EntrySeen | None:
    """The first entry that it got of those that were written since then, by the clock of the day."""
    return next((r for r in _came(room.records, EntrySeen) if r.who == who and r.frame["ts"] > since_ms), None)


def _came(records: list[Record], kind: type[T]) -> list[T]:
    return [record for record in records if isinstance(record, kind)]


def _seen(room: Room) -> int:
    return len(_came(room.records, EntrySeen))


def _ms(room: Room, moment: float) -> int:
    """A moment of the monotonic clock as the room's records have it."""
    return int((moment - room.clients[0].since) * 1000)


async def _until(found: Callable[[], object], wait_s: float = WAIT_S) -> None:
    async with asyncio.timeout(wait_s):
        while not found():
            await asyncio.sleep(0.05)


async def _at_rest(stack: Stack, rooms: list[Room]) -> None:
    async with asyncio.timeout(AT_REST_S), stack.log() as log:
        for room in rooms:
            while await waits_for(log, room):
                await asyncio.sleep(LOOK_S)
