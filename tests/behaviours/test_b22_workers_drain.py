"""B22: a worker that is told to leave cuts no run and takes no new one; replacing all of them under load loses nothing."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from broker.events import Entry, InputApplied, RunFinished, RunStarted, RunTakenOver, SessionOwner
from tests.behaviours.conftest import Figure
from tests.support.herd import Balancer, Herd
from tests.support.nats import NatsNode
from tests.support.place import Place
from tests.support.rawclient import Wire, join
from tests.support.stack import Process, Stack, read_entries

SESSIONS, WORKERS = 24, 3
TOKENS, RATE = 30, 20
ENDLESS = 100_000
"""Tokens of a run that nobody waits for."""
LEASE_S = 15.0
"""Long, so that nothing that moves at once can be mistaken for a lease that has run out."""

_ON_ITS_WAY_MS = 500
"""What was begun in the moment of the signal."""


@pytest.fixture
async def patient(tmp_path: Path, nats_server: NatsNode) -> Stack:
    return Stack(tmp_path / "stack", nats_server.url, lease_s=LEASE_S)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("pools", [("default",), ("default", "night")], ids=["one pool", "two pools in each worker"])
async def test_all_workers_are_replaced_under_load(
    patient: Stack, figure: Figure, seed: int, pools: tuple[str, ...]
) -> None:
    """Runs end within the grace: none is cut, none moves, and a worker that leaves starts none."""
    patient.env = {"POOLS": ",".join(pools)}
    async with patient as stack:
        (gateway,) = await stack.start(1, workers=0)
        workers = [await _hire(stack, pools, worker_drain_s="60") for _ in range(WORKERS)]
        names = [f"shift-{i}" for i in range(SESSIONS)]
        await _spread(gateway, stack.token(), names, pools)
        balancer = Balancer([gateway.url])
        herd = Herd.of(names, 1, f"stream {TOKENS} tokens at {RATE}/s", stack.token, balancer.choose, seed)
        took: list[float] = []
        async with balancer.looking(), herd.living():
            for old in workers:
                await _at_work(old)
                fresh = await _hire(stack, pools, worker_drain_s="60")
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
        f"{WORKERS} workers, each of {len(pools)} pool(s), replaced one after another under {SESSIONS} sessions: {said} inputs, each applied once, "
        f"0 runs cut, 0 taken over, texts identical; a worker was gone after {max(took):.1f} s at most, seed {seed}"
    )


@pytest.mark.timeout(120)
async def test_what_does_not_end_within_the_grace_is_handed_over_at_once(patient: Stack, figure: Figure) -> None:
    """What ends within it stays; what is queued behind the others is the next worker's."""
    async with patient as stack:
        (gateway,) = await stack.start(1, workers=0)
        old = await _hire(stack, worker_drain_s="8")
        long, short = [f"long-{i}" for i in range(12)], [f"short-{i}" for i in range(12)]
        for names, tokens in ((long, ENDLESS), (short, TOKENS)):
            for name in names:
                async with await Wire.open(gateway.url, stack.token()) as wire:
                    await wire.input(name, "i0", f"stream {tokens} tokens at {RATE}/s")
                    await wire.input(name, "i1", f"stream {TOKENS} tokens at {RATE}/s")
        await _at_work(old, lanes=len(long) + len(short))
        await _hire(stack)
        await _leave(old)
        async with asyncio.TaskGroup() as tasks:
            for name in long:
                tasks.create_task(_stopped(gateway, stack.token(), Place(name)))
            for name in short:
                tasks.create_task(_ended(gateway, stack.token(), Place(name), "run_i1"))
        assert await _ends(stack, long) == {
            "applied": 2 * len(long),
            "success": len(long),
            "cancelled": len(long),
            "taken over": len(long),
        }
        assert await _ends(stack, short) == {"applied": 2 * len(short), "success": 2 * len(short)}
        assert not await _started_after_draining(stack, old)
        for name in short:
            await _as_said(stack, gateway, name, ["i0", "i1"], TOKENS)
        for name in long:
            log = await _as_said(stack, gateway, name, ["i0", "i1"], TOKENS, but="run_i0")
            assert _sung(ENDLESS).startswith(log.answer("run_i0"))
        gaps = [_without_owner_s(entries) for entries in await _entries(stack, long + short)]
        # The next one takes it as soon as it is let go of, and not when a lease has run out.
        assert max(gaps) < LEASE_S / 3
    figure(
        f"{len(long)} runs longer than the grace handed over, {len(short)} shorter ones ended, what was queued behind the "
        f"long ones left to the next worker; a lane was without an owner for {max(gaps):.2f} s at most (lease "
        f"{LEASE_S:g} s), texts identical"
    )


async def _hire(stack: Stack, pools: tuple[str, ...] = ("default",), **env: str) -> Process:
    if len(pools) == 1:
        return await stack.worker(concurrency=str(SESSIONS), **env)
    agents = [word for pool in pools for word in ("--agent", f"{pool}=echo")]
    return await stack.start_worker(agents, concurrency=str(SESSIONS), **env)


async def _spread(gateway: Process, token: str, names: list[str], pools: tuple[str, ...]) -> None:
    """Has the sessions served by all pools in turn."""
    async with await Wire.open(gateway.url, token) as wire:
        for number, name in enumerate(names):
            await wire.command("session.create", session=name, config={"pool": pools[number % len(pools)]})


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
    for entries in await _entries(stack, names):
        for _, entry in entries:
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


async def _stopped(gateway: Process, token: str, place: Place) -> None:
    """Stops the first run once the next worker has gone on with it, and returns when the second one has ended."""
    async with await Wire.open(gateway.url, token) as wire:
        await wire.subscribe(place)
        await wire.follow(place, lambda p: p.caught_up)
        said = len(place.answer("run_i0"))
        await wire.follow(place, lambda p: len(p.answer("run_i0")) > said + 50)
        await wire.command("run.cancel", session=place.session, runId="run_i0")
        await wire.follow(place, lambda p: "run_i1" in p.ended, wait_s=60)


def _sung(tokens: int) -> str:
    return "".join(f"t{i} " for i in range(tokens))


async def _as_said(
    stack: Stack, gateway: Process, name: str, said: list[str], tokens: int, but: str | None = None
) -> Place:
    """Each input was applied once, in order, and answered whole, `but` one."""
    log = Place(name, every=True)
    await join(gateway.url, stack.token(), log)
    assert log.whole
    assert log.applied == said
    assert log.started == [f"run_{input_id}" for input_id in said]
    assert all(log.answer(run) == _sung(tokens) for run in log.started if run != but)
    return log


async def _started_after_draining(stack: Stack, worker: Process) -> list[tuple[str, str]]:
    """The runs that a worker has begun after it was told to leave, by session."""
    lines = worker.logged()
    told = next(_ms(line) for line in lines if line["event"] == "draining")
    claimed = {(line["session"], line["fence"]) for line in lines if line["event"] == "lane claimed"}
    found = []
    sessions = list({session for session, _ in claimed})
    for session, entries in zip(sessions, await _entries(stack, sessions), strict=True):
        for _, entry in entries:
            mine = (session, int(entry.id.partition("-")[0])) in claimed if entry.id[:1].isdigit() else False
            started = [event.run_id for event in entry.events if isinstance(event, RunStarted)]
            if mine and entry.ts > told + _ON_ITS_WAY_MS:
                found += [(session, run) for run in started]
    return found


def _ms(line: dict[str, Any]) -> float:
    """When something was logged, in ms since 1970."""
    return datetime.fromisoformat(line["timestamp"]).timestamp() * 1000


async def _entries(stack: Stack, names: list[str]) -> list[list[tuple[int, Entry]]]:
    """Of each session, all that the log holds."""
    async with stack.log() as log:
        return [await read_entries(log, name) for name in names]


def _without_owner_s(entries: list[tuple[int, Entry]]) -> float:
    """The longest time between a release of the lane in the middle of a run and its next claim, by their own clocks."""
    longest, released, running = 0.0, None, False
    for _, entry in entries:
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
