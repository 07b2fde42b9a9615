"""B22: a worker that is told to leave cuts no run and takes no new one; replacing all of them under load loses nothing."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from broker.events import InputApplied, RunFinished, RunStarted, RunTakenOver, SessionOwner
from tests.behaviours.conftest import Figure
from tests.support.herd import Balancer, Herd
from tests.support.nats import NatsNode
from tests.support.place import Place
from tests.support.rawclient import Wire, join
from tests.support.stack import Process, Stack

SESSIONS, WORKERS = 24, 3
TOKENS, RATE = 30, 20
LONG_TOKENS = 160
LEASE_S = 15.0
"""Long, so that nothing that moves at once can be mistaken for a lease that has run out."""

_ON_ITS_WAY_MS = 500
"""What was begun in the moment of the signal."""


@pytest.fixture
async def patient(tmp_path: Path, nats_server: NatsNode) -> Stack:
    return Stack(tmp_path / "stack", nats_server.url, lease_s=LEASE_S)


@pytest.mark.timeout(180)
async def test_all_workers_are_replaced_under_load(patient: Stack, figure: Figure, seed: int) -> None:
    """Runs end within the grace: none is cut, none moves, and a worker that leaves starts none."""
    async with patient as stack:
        (gateway,) = await stack.start(1, workers=0)
        workers = [await _hire(stack, worker_drain_s="60") for _ in range(WORKERS)]
        names = [f"shift-{i}" for i in range(SESSIONS)]
        balancer = Balancer([gateway.url])
        herd = Herd.of(names, 1, f"stream {TOKENS} tokens at {RATE}/s", stack.token, balancer.choose, seed)
        took: list[float] = []
        async with balancer.looking(), herd.living():
            for old in workers:
                await _at_work(old)
                fresh = await _hire(stack, worker_drain_s="60")
                took.append(await _leave(old))
                await _at_work(fresh)
        found = await _ends(stack, names)
        said = sum(len(member.said) for member in herd.members)
        assert found == {"applied": said, "success": said}, "a run was cut, or taken over"
        for member in herd.members:
            await _as_said(stack, gateway, member.place.session, member.said, TOKENS)
            assert member.place.whole
            assert not member.returns
        for old in workers:
            assert not await _started_after_draining(stack, old)
    figure(
        f"{WORKERS} workers replaced one after another under {SESSIONS} sessions: {said} inputs, each applied once, "
        f"0 runs cut, 0 taken over, texts identical; a worker was gone after {max(took):.1f} s at most, seed {seed}"
    )


@pytest.mark.timeout(120)
async def test_what_does_not_end_within_the_grace_is_handed_over_at_once(patient: Stack, figure: Figure) -> None:
    """What ends within it stays; what is queued behind either is the next worker's."""
    async with patient as stack:
        (gateway,) = await stack.start(1, workers=0)
        old = await _hire(stack, worker_drain_s="4")
        lengths = {f"long-{i}": LONG_TOKENS for i in range(12)} | {f"short-{i}": TOKENS for i in range(12)}
        for name, tokens in lengths.items():
            async with await Wire.open(gateway.url, stack.token()) as wire:
                await wire.input(name, "i0", f"stream {tokens} tokens at {RATE}/s")
                await wire.input(name, "i1", f"stream {TOKENS} tokens at {RATE}/s")
        await _at_work(old, lanes=len(lengths))
        await _hire(stack)
        await _leave(old)
        places = {name: Place(name) for name in lengths}
        async with asyncio.TaskGroup() as tasks:
            for place in places.values():
                tasks.create_task(_ended(gateway, stack.token(), place, "run_i1"))
        long = [name for name in lengths if name.startswith("long")]
        assert await _ends(stack, list(lengths)) == {
            "applied": 2 * len(lengths),
            "success": 2 * len(lengths),
            "taken over": len(long),
        }
        assert await _ends(stack, long) == {"applied": 2 * len(long), "success": 2 * len(long), "taken over": len(long)}
        assert not await _started_after_draining(stack, old)
        for name, tokens in lengths.items():
            log = await _as_said(stack, gateway, name, ["i0", "i1"], TOKENS, first=tokens)
            assert log.whole
        gaps = [await _without_owner_s(stack, name) for name in lengths]
        # The next one takes it as soon as it is let go of, and not when a lease has run out.
        assert max(gaps) < LEASE_S / 3
    figure(
        f"{len(long)} runs longer than the grace handed over, {len(lengths) - len(long)} shorter ones ended, "
        f"{len(lengths)} queued inputs left to the next worker; a lane was without an owner for {max(gaps):.2f} s at "
        f"most (lease {LEASE_S:g} s), texts identical"
    )


async def _hire(stack: Stack, **env: str) -> Process:
    return await stack.worker(concurrency=str(SESSIONS), **env)


async def _at_work(worker: Process, lanes: int = 1) -> None:
    async with asyncio.timeout(30):
        while len(worker.claimed()) < lanes:
            await asyncio.sleep(0.05)


async def _leave(worker: Process) -> float:
    """SIGTERM; how many seconds it took to be gone, in order."""
    began = time.monotonic()
    worker.terminate_soon()
    async with asyncio.timeout(60):
        assert await worker.process.wait() == 0
    return time.monotonic() - began


async def _ended(gateway: Process, token: str, place: Place, run: str) -> None:
    async with await Wire.open(gateway.url, token) as wire:
        await wire.subscribe(place)
        await wire.follow(place, lambda p: run in p.ended, wait_s=60)


async def _ends(stack: Stack, names: list[str]) -> Counter[str]:
    """What the log says of inputs and runs, in all sessions."""
    found: Counter[str] = Counter()
    for name in names:
        for _, entry in await stack.entries(name):
            for event in entry.events:
                match event:
                    case InputApplied():
                        found["applied"] += 1
                    case RunFinished():
                        found[str((event.outcome or {}).get("type"))] += 1
                    case RunTakenOver():
                        found["taken over"] += 1
                    case _:
                        pass
    return found


async def _as_said(
    stack: Stack, gateway: Process, name: str, said: list[str], tokens: int, first: int | None = None
) -> Place:
    """Each input was applied once, in order, and answered whole."""
    log = Place(name, every=True)
    await join(gateway.url, stack.token(), log)
    assert log.applied == said
    assert log.started == [f"run_{input_id}" for input_id in said]
    for n, run in enumerate(log.started):
        count = first if n == 0 and first is not None else tokens
        assert log.answer(run) == "".join(f"t{i} " for i in range(count))
    return log


async def _started_after_draining(stack: Stack, worker: Process) -> list[tuple[str, str]]:
    """The runs that a worker has begun after it was told to leave, by session."""
    lines = worker.logged()
    told = next(_ms(line) for line in lines if line["event"] == "draining")
    claimed = {(line["session"], line["fence"]) for line in lines if line["event"] == "lane claimed"}
    found = []
    for session in {session for session, _ in claimed}:
        for _, entry in await stack.entries(session):
            mine = (session, int(entry.id.partition("-")[0])) in claimed if entry.id[:1].isdigit() else False
            started = [event.run_id for event in entry.events if isinstance(event, RunStarted)]
            if mine and entry.ts > told + _ON_ITS_WAY_MS:
                found += [(session, run) for run in started]
    return found


def _ms(line: dict[str, Any]) -> float:
    """When something was logged, in ms since 1970."""
    return datetime.fromisoformat(line["timestamp"]).timestamp() * 1000


async def _without_owner_s(stack: Stack, name: str) -> float:
    """The longest time between a release of the lane in the middle of a run and its next claim, by their own clocks."""
    longest, released, running = 0.0, None, False
    for _, entry in await stack.entries(name):
        for event in entry.events:
            match event:
                case SessionOwner(kind="none") if running:
                    released = entry.ts
                case SessionOwner() if released is not None:
                    longest, released = max(longest, (entry.ts - released) / 1000), None
                case InputApplied():
                    running = True
                case RunFinished():
                    running = False
                case _:
                    pass
    return longest
