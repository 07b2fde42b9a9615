"""B19: a worker is killed in mid-answer: another goes on within the lease, or the run ends with an error."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.behaviours.conftest import Figure
from tests.support.place import Frame, Place
from tests.support.rawclient import Wire, join
from tests.support.stack import Process, Stack, replicated_stack

LEASE_S = 3.0
SESSIONS = 10
TOKENS = 300
STREAM = f"stream {TOKENS} tokens at 100/s"
TEXT = "".join(f"t{i} " for i in range(TOKENS))
RUN = "run_a"

Started = TypeVar("Started")

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(params=[1, pytest.param(3, marks=pytest.mark.cluster)], ids=["R1", "R3"])
async def replicated(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stack]:
    async with replicated_stack(tmp_path, request.param, lease_s=LEASE_S) as stack:
        yield stack


async def test_another_worker_goes_on(replicated: Stack, figure: Figure) -> None:
    """Two workers share ten runs; the one with more of them is killed."""
    gateway = await replicated.gateway()
    workers = await _started(replicated.worker(), replicated.worker())
    places = [Place(f"killed-{i}", frames=[]) for i in range(SESSIONS)]
    async with await Wire.open(gateway.url, replicated.token()) as wire:
        for place in places:
            await wire.subscribe(place)
            await wire.input(place.session, "a", STREAM)
        await _follow_all(wire, places, lambda: min(len(p.answer(RUN)) for p in places) >= 20)
        doomed = max(workers, key=lambda worker: len(worker.claimed()))
        lost = [place for place in places if place.session in doomed.claimed()]
        await doomed.kill()
        waits = _Waits(time.monotonic(), lost)
        await _follow_all(wire, places, lambda: waits.over() and all(RUN in p.ended for p in places))
    assert len(lost) >= SESSIONS / 2
    for place in places:
        assert place.whole, place
        assert place.ended == {RUN: "success"}
        assert place.answer(RUN) == TEXT
        assert all(text.done for text in place.texts.values())
        reasons = [text.reason for text in place.texts.values()]
        assert reasons == (["worker_lost", "complete"] if place in lost else ["complete"])
        assert _attempts(place) == ([2] if place in lost else [])
        assert await _as_seen_later(replicated, gateway, place) == place.answer(RUN)
    assert max(waits.until_s.values()) < 2 * LEASE_S
    figure(
        f"R{replicated.replicas}: {len(lost)} of {SESSIONS} runs lost their worker, each token once; "
        f"kill to first new token {waits} (lease {LEASE_S:g} s)"
    )


async def test_no_other_worker_alive_and_what_the_author_chose(replicated: Stack, figure: Figure) -> None:
    """Nobody is left to take over. Runs stay open until a worker starts, then end as each agent's author has chosen."""
    worlds = {
        name: _World(replicated, name, agent, max_attempts)
        for name, agent, max_attempts in (
            ("waits", "echo", 3),
            ("restarts", "tests.support.agents:restarts", 3),
            ("fails", "tests.support.agents:fails", 3),
            ("cursed", "echo", 2),
        )
    }
    await replicated.apply_topology(pools=",".join(worlds))
    await _started(*(world.start_gateway() for world in worlds.values()))
    await _started(*(world.start_worker() for world in worlds.values()))
    stopped = _World(replicated, "stopped", "echo", 3, worlds["waits"].gateway)
    followed = [*worlds.values(), stopped]
    async with asyncio.TaskGroup() as tasks:
        for world in followed:
            tasks.create_task(world.begin())
    for world in worlds.values():
        await world.worker.kill()
    # The gateway that runs are watched through says that they are open, and stops one of them.
    assert await stopped.cancel() == "cancelling"
    for world in followed:
        late = Place(world.name)
        await join(world.gateway.url, replicated.token(), late)
        assert late.started == [RUN]
        assert late.ended == {}, "nobody is there to end it"
    await _started(*(world.start_worker() for world in worlds.values()))
    begin = time.monotonic()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_dies_again(worlds["cursed"]))
        for world in followed:
            if world.name != "cursed":
                tasks.create_task(world.follow(lambda p: RUN in p.ended))
    ends = {world.name: world.place.ended[RUN] for world in followed}
    assert ends == {
        "waits": "success",
        "restarts": "success",
        "fails": "error",
        "cursed": "error",
        "stopped": "cancelled",
    }
    reasons = {world.name: [text.reason for text in world.place.texts.values()] for world in followed}
    assert reasons == {
        "waits": ["worker_lost", "complete"],
        "restarts": ["worker_lost", "complete"],
        "fails": ["worker_lost"],
        "cursed": ["worker_lost", "worker_lost"],
        "stopped": ["cancelled"],
    }
    for world in followed:
        assert world.place.whole, world.place
        assert all(text.done for text in world.place.texts.values())
        assert _attempts(world.place) == ([] if world.name in ("fails", "stopped") else [2])
        assert [e["code"] for e in _events(world.place, "RUN_ERROR")] == (
            ["worker_lost"] if ends[world.name] == "error" else []
        )
        assert await _as_seen_later(replicated, world.gateway, world.place) == world.place.answer(RUN)
    assert worlds["waits"].place.answer(RUN) == TEXT
    assert list(map(str, worlds["restarts"].place.texts.values()))[1] == TEXT
    for name in ("fails", "cursed", "stopped"):
        said = next(world for world in followed if world.name == name).place.answer(RUN)
        assert said == TEXT[: len(said)], "what was said stays as it was"
    figure(
        f"R{replicated.replicas}: with no worker alive runs wait, then go on, start again, fail or stay cancelled as "
        f"chosen, {time.monotonic() - begin:.1f} s after workers start"
    )


class _World:
    """A pool with an agent, a gateway that sends to it, and a session there."""

    def __init__(self, stack: Stack, name: str, agent: str, max_attempts: int, gateway: Process | None = None) -> None:
        self._stack = stack
        self._agent = agent
        self._max_attempts = str(max_attempts)
        self._gateway = gateway
        self._worker: Process | None = None
        self.name = name
        self.place = Place(name, frames=[])

    @property
    def gateway(self) -> Process:
        assert self._gateway is not None
        return self._gateway

    @property
    def worker(self) -> Process:
        assert self._worker is not None
        return self._worker

    async def start_gateway(self) -> None:
        self._gateway = await self._stack.gateway(pools=self.name)

    async def start_worker(self) -> None:
        self._worker = await self._stack.worker(
            self._agent, pool=self.name, pools=self.name, max_attempts=self._max_attempts
        )

    async def begin(self) -> None:
        """Sends the input; returns in mid-answer."""
        async with await Wire.open(self.gateway.url, self._stack.token()) as wire:
            await wire.subscribe(self.place)
            await wire.input(self.name, "a", STREAM)
            await wire.follow(self.place, lambda p: len(p.answer(RUN)) >= 20)

    async def follow(self, until: Callable[[Place], bool]) -> None:
        """Goes on from where the place is."""
        async with await Wire.open(self.gateway.url, self._stack.token()) as wire:
            await wire.subscribe(self.place)
            await wire.follow(self.place, until)

    async def cancel(self) -> str:
        async with await Wire.open(self.gateway.url, self._stack.token()) as wire:
            return str((await wire.command("run.cancel", session=self.name, runId=RUN))["status"])


async def _dies_again(world: _World) -> None:
    """The second worker of the run dies as well, which is as often as it may; the third ends the run."""
    await world.follow(lambda p: len(p.texts) == 2 and all(text.length for text in p.texts.values()))
    await world.worker.kill()
    await world.start_worker()
    await world.follow(lambda p: RUN in p.ended)


@dataclass(frozen=True, slots=True)
class _Waits:
    """How long each of some places has waited for new text since a moment."""

    since: float
    places: list[Place]
    until_s: dict[str, float] = field(default_factory=dict)

    def over(self) -> bool:
        """Looks again; whether all have some."""
        for place in self.places:
            texts = list(place.texts.values())
            if len(texts) > 1 and texts[1].length:
                self.until_s.setdefault(place.session, time.monotonic() - self.since)
        return len(self.until_s) == len(self.places)

    def __str__(self) -> str:
        waits = sorted(self.until_s.values())
        return f"{waits[0]:.2f} to {waits[-1]:.2f} s"


async def _started(*starting: Coroutine[Any, Any, Started]) -> list[Started]:
    """All at once: each takes its time to start."""
    async with asyncio.TaskGroup() as tasks:
        started = [tasks.create_task(each) for each in starting]
    return [task.result() for task in started]


def _events(place: Place, kind: str) -> list[Frame]:
    return [event for frame in place.frames or () for event in frame["events"] if event["type"] == kind]


def _attempts(place: Place) -> list[int]:
    """The attempts that takeovers have announced."""
    return [event["attempt"] for event in _events(place, "run.taken_over")]


async def _as_seen_later(stack: Stack, gateway: Process, place: Place) -> str:
    """What somebody who comes when all is over reads; nothing is streaming."""
    late = Place(place.session)
    await join(gateway.url, stack.token(), late)
    assert all(text.done for text in late.texts.values())
    assert late.ended == place.ended
    return late.answer(RUN)


async def _follow_all(wire: Wire, places: list[Place], until: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not until():
            frame = await wire.receive()
            for place in places:
                place.take(frame)
