"""B09: ten agents stream at once into one session, 150 tokens a second each; none is refused, all see one order."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.behaviours.conftest import Figure
from tests.support.agents_steering import SINGERS
from tests.support.nats import NatsNode
from tests.support.place import Place
from tests.support.rawclient import Wire
from tests.support.stack import Process, Stack

SESSION = "chorus"
TOKENS, RATE = 900, 150
TOKENS_OF_KILLED = 450
AGENTS = "tests.support.agents_steering"
LANES = {"singer"} | {f"singer-{i}" for i in range(2, SINGERS + 1)}

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
async def stack(tmp_path: Path, nats_server: NatsNode) -> AsyncIterator[Stack]:
    env = {"POOLS": "default,singer"}
    async with Stack(tmp_path / "stack", nats_server.url, lease_s=1.5, env=env) as running:
        yield running


@dataclass(slots=True)
class Times:
    """When the first and the last token came to a client."""

    first: float = 0.0
    last: float = 0.0

    def token(self) -> None:
        self.last = time.monotonic()
        self.first = self.first or self.last


async def test_ten_at_once(stack: Stack, figure: Figure) -> None:
    gateways, _ = await _start(stack)
    async with await Wire.open(gateways[0].url, stack.token()) as near:
        places, times = await _sung(gateways, stack.token(), near, TOKENS)
    _check(places, TOKENS)
    tokens = SINGERS * TOKENS
    # From the first token to the last there is one token's time less than it took to make them all.
    rate = tokens / (times.last - times.first + 1 / RATE)
    figure(
        f"{SINGERS} agents, {tokens} tokens at {rate:.0f}/s in one session (wanted {SINGERS * RATE}/s), none refused, "
        f"one order of {len(places[0].entries)} entries at two gateways"
    )


async def test_workers_die_meanwhile(stack: Stack, figure: Figure) -> None:
    """The one that conducts, and one of the two that sing."""
    gateways, workers = await _start(stack)
    async with await Wire.open(gateways[0].url, stack.token()) as near:
        doomed: set[str] = set()

        async def kill() -> None:
            singing = [worker for worker in workers if "singer" in worker.name]
            conducting = next(worker for worker in workers if "conductor" in worker.name and worker.claimed())
            worker = max(singing, key=lambda worker: len(_lanes(worker)))
            doomed.update(_lanes(worker))
            await worker.kill()
            await conducting.kill()

        places, _ = await _sung(gateways, stack.token(), near, TOKENS_OF_KILLED, kill)
    _check(places, TOKENS_OF_KILLED)
    lost = sum(text.reason == "worker_lost" for text in places[0].texts.values())
    assert lost == len(doomed) >= SINGERS / 2
    figure(f"two workers killed with {lost} of {SINGERS} voices, which went on elsewhere, each token once")


async def _start(stack: Stack) -> tuple[list[Process], list[Process]]:
    async with asyncio.TaskGroup() as tasks:
        gateways = [tasks.create_task(stack.gateway()) for _ in range(2)]
        workers = [
            tasks.create_task(stack.worker(f"{AGENTS}:{name}", pool=pool))
            for name, pool in (("conductor", "default"), ("singer", "singer"))
            for _ in range(2)
        ]
    return [task.result() for task in gateways], [task.result() for task in workers]


async def _sung(
    gateways: list[Process], token: str, near: Wire, tokens: int, kill: Callable[[], Awaitable[None]] | None = None
) -> tuple[tuple[Place, Place], Times]:
    """Has the song sung to two clients; calls `kill` in the middle."""
    first, second, times = Place(SESSION, frames=[]), Place(SESSION, frames=[]), Times()
    async with await Wire.open(gateways[1].url, token) as far:
        await near.subscribe(first)
        await far.subscribe(second)
        await near.input(SESSION, "a", f"{tokens} tokens at {RATE}/s")
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_read(near, first, times))
            tasks.create_task(far.follow(second, _over))
            if kill is not None:
                tasks.create_task(_in_the_middle(first, kill))
        for wire, place in ((near, first), (far, second)):
            await wire.follow(place, lambda p: p.last >= max(first.last, second.last))
    return (first, second), times


async def _in_the_middle(place: Place, kill: Callable[[], Awaitable[None]]) -> None:
    async with asyncio.timeout(30):
        while sum(text.length > 500 for text in place.texts.values()) < SINGERS:
            await asyncio.sleep(0.02)
    assert not any(text.done for text in place.texts.values())
    await kill()


async def _read(wire: Wire, place: Place, times: Times) -> None:
    async with asyncio.timeout(60):
        while not _over(place):
            frame = await wire.receive()
            place.take(frame)
            if "off" in frame:
                times.token()


def _over(place: Place) -> bool:
    return "run_a" in place.ended


def _check(places: tuple[Place, Place], tokens: int) -> None:
    first, second = places
    assert first.entries == second.entries
    assert first.digest() == second.digest()
    for place in places:
        assert place.whole, place
        # One run was asked for, and each of the ten by it; all of them ended well.
        assert len(place.ended) == SINGERS + 1
        assert set(place.ended.values()) == {"success"}
        assert place.answer("run_a") == "all sung"
        sung = sorted(place.answer(run) for run in place.ended if run != "run_a")
        assert sung == sorted("".join(f"v{i}.{n} " for n in range(tokens)) for i in range(SINGERS))
        assert all(text.done for text in place.texts.values())
    lanes = {frame["lane"] for frame in first.frames or () for e in frame["events"] if e["type"] == "RUN_STARTED"}
    assert lanes == LANES | {"main"}


def _lanes(worker: Process) -> set[str]:
    """The lanes that a worker says it has claimed."""
    said = [json.loads(line) for line in worker.output().splitlines() if line.startswith("{")]
    return {line["lane"] for line in said if line.get("event") == "lane claimed"}
