"""B19: a worker is killed in mid-answer: another goes on within the lease, or the run ends with an error."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

import pytest

from tests.behaviours.conftest import Figure
from tests.support.place import Place
from tests.support.rawclient import Wire, join
from tests.support.stack import Stack, replicated_stack

LEASE_S = 3.0
SESSIONS = 10
TOKENS = 300
STREAM = f"stream {TOKENS} tokens at 100/s"
TEXT = "".join(f"t{i} " for i in range(TOKENS))
RUN = "run_a"


@pytest.fixture(params=[1, 3], ids=["R1", "R3"])
async def replicated(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stack]:
    async with replicated_stack(tmp_path, request.param, lease_s=LEASE_S) as stack:
        yield stack


async def test_another_worker_goes_on(replicated: Stack, figure: Figure) -> None:
    gateway, doomed = await replicated.gateway(), await replicated.worker()
    places = [Place(f"killed-{i}") for i in range(SESSIONS)]
    async with await Wire.open(gateway.url, replicated.token()) as wire:
        for place in places:
            await wire.subscribe(place)
        await _send_to(wire, places)
        await _follow_all(wire, places, lambda: min(len(p.answer(RUN)) for p in places) >= 20)
        await doomed.kill()
        began = time.monotonic()
        heir = await replicated.worker()
        await _follow_all(wire, places, lambda: all(RUN in p.ended for p in places))
        took_s = time.monotonic() - began
    assert heir.running
    for place in places:
        assert place.whole, place
        assert place.ended == {RUN: "success"}
        assert place.answer(RUN) == TEXT
        assert all(text.done for text in place.texts.values())
    takeovers = [sum(t.reason == "worker_lost" for t in place.texts.values()) for place in places]
    assert takeovers == [1] * SESSIONS
    figure(
        f"R{replicated.replicas}: worker killed in {sum(takeovers)} runs, all ended with each token once "
        f"{took_s:.1f} s later (lease {LEASE_S:g} s)"
    )


async def test_no_other_worker_alive(stack: Stack, figure: Figure) -> None:
    gateway, doomed = await stack.gateway(), await stack.worker()
    place = Place("alone")
    async with await Wire.open(gateway.url, stack.token()) as wire:
        await wire.subscribe(place)
        await _send_to(wire, [place])
        await _follow_all(wire, [place], lambda: len(place.answer(RUN)) >= 20)
        await doomed.kill()
        await stack.worker()
        await _follow_all(wire, [place], lambda: RUN in place.ended)
    assert place.whole
    assert place.answer(RUN) == TEXT
    figure("with no other worker alive the run waits for the next one, and is complete")


@pytest.mark.parametrize(("agent", "end"), [("restarts", "success"), ("fails", "error")])
async def test_the_author_chooses(stack: Stack, agent: str, end: str) -> None:
    gateway = await stack.gateway()
    doomed = await stack.worker(f"tests.support.agents:{agent}")
    place = Place("chosen")
    async with await Wire.open(gateway.url, stack.token()) as wire:
        await wire.subscribe(place)
        await _send_to(wire, [place])
        await _follow_all(wire, [place], lambda: len(place.answer(RUN)) >= 20)
        await doomed.kill()
        await stack.worker(f"tests.support.agents:{agent}")
        await _follow_all(wire, [place], lambda: RUN in place.ended)
    first, *rest = place.texts.values()
    assert (first.done, first.reason) == (True, "worker_lost")
    assert place.ended == {RUN: end}
    assert [str(text) for text in rest] == ([TEXT] if agent == "restarts" else [])


async def test_workers_that_die_again_and_again(stack: Stack) -> None:
    gateway = await stack.gateway()
    place = Place("cursed")
    async with await Wire.open(gateway.url, stack.token()) as wire:
        await wire.subscribe(place)
        await wire.input(place.session, "a", "stream 100000 tokens at 50/s")
        for attempt in range(3):
            doomed = await stack.worker(max_attempts="3")
            await _follow_all(wire, [place], partial(_has_texts, place, attempt + 1))
            await doomed.kill()
        await stack.worker(max_attempts="3")
        await _follow_all(wire, [place], lambda: RUN in place.ended)
    assert place.ended == {RUN: "error"}
    assert all(text.done and text.reason == "worker_lost" for text in place.texts.values())


async def test_a_run_cancelled_while_its_worker_is_dead(stack: Stack) -> None:
    gateway, doomed = await stack.gateway(), await stack.worker()
    place = Place("stopped")
    async with await Wire.open(gateway.url, stack.token()) as wire:
        await wire.subscribe(place)
        await _send_to(wire, [place])
        await _follow_all(wire, [place], lambda: len(place.answer(RUN)) >= 20)
        await doomed.kill()
        reply = await wire.command("run.cancel", session=place.session, runId=RUN)
        assert reply["status"] == "cancelling"
        await stack.worker()
        await _follow_all(wire, [place], lambda: RUN in place.ended)
        before = place.answer(RUN)
    assert place.ended == {RUN: "cancelled"}
    assert before == TEXT[: len(before)]
    late = Place(place.session)
    await join(gateway.url, stack.token(), late)
    assert late.answer(RUN) == before


def _has_texts(place: Place, count: int) -> bool:
    return len(place.texts) == count


async def _send_to(wire: Wire, places: list[Place]) -> None:
    for place in places:
        await wire.input(place.session, "a", STREAM)


async def _follow_all(wire: Wire, places: list[Place], until: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not until():
            frame = await wire.receive()
            for place in places:
                place.take(frame)
