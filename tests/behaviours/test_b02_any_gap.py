"""B02: one call resumes after any gap: a second, or so long that the deltas have gone from the log."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from broker.jetstream.log import JetStreamLog
from tests.behaviours.conftest import Figure
from tests.support.nats import NatsNode
from tests.support.place import Frame, Place
from tests.support.rawclient import Wire, join, send_input
from tests.support.stack import Stack

SESSION = "gap"
DELTA_TTL_S = 2.0
POLL_S = 0.1
AGE_WAIT_S = 30.0


@pytest.fixture
async def forgetful(tmp_path: Path, nats_server: NatsNode) -> AsyncIterator[Stack]:
    """A stack whose deltas age out in seconds; texts are put into records often, as they are against a day."""
    env = {"SEGMENT_DELTAS": "32"}
    async with Stack(tmp_path / "stack", nats_server.url, delta_ttl_s=DELTA_TTL_S, env=env) as stack:
        yield stack


async def test_after_a_second(stack: Stack, figure: Figure) -> None:
    near, far = await stack.start(2)
    token = stack.token()
    await send_input(near.url, token, SESSION, "a", "stream 450 tokens at 150/s")
    async with asyncio.TaskGroup() as tasks:
        for every in (False, True):
            tasks.create_task(_away_for_a_second(near.url, far.url, token, every=every))
    figure("a 1 s gap: text identical")


async def test_after_the_deltas_have_gone(forgetful: Stack, nats_server: NatsNode, figure: Figure, seed: int) -> None:
    warm, doomed = await forgetful.start(2)
    token = forgetful.token()
    live = await _watch(warm.url, token, {"a": "stream 200 tokens at 200/s", "b": "say 40000 bytes", "c": "so it is"})
    assert live.frames is not None
    await doomed.kill()
    async with forgetful.log() as log:
        await _all_deltas_gone(log)
    # Ageing must spare the records in a server that starts, too.
    await nats_server.restart()
    cold = await forgetful.gateway()
    async with forgetful.log() as log:
        cursors = await _cursors(log, live.frames, random.Random(seed))
    for index in cursors:
        for gateway in (warm, cold):
            for every in (False, True):
                place = _place_at(live, index, every=every)
                await join(gateway.url, token, place)
                _same(place, live)
    fresh = Place(SESSION)
    await join(cold.url, token, fresh)
    _same(fresh, live)
    assert await _history(cold.url, token) == _texts(live)
    deltas = sum("off" in frame for frame in live.frames)
    figure(
        f"{deltas} deltas gone and NATS restarted: {len(cursors)} cursors x 2 gateways (1 cold) x 2 replays end in "
        f"the same text"
    )


async def test_a_long_gap_in_a_message_that_goes_on(forgetful: Stack, figure: Figure) -> None:
    async with asyncio.TaskGroup() as tasks:
        ringed = tasks.create_task(forgetful.start(1))
        small = tasks.create_task(forgetful.gateway(ring_entries="8"))
        untouched = tasks.create_task(forgetful.gateway())
    gateways = [*ringed.result(), small.result(), untouched.result()]
    token, tokens = forgetful.token(), 1200
    await send_input(gateways[0].url, token, SESSION, "a", f"stream {tokens} tokens at 150/s")
    cut = Place(SESSION)
    async with await Wire.open(gateways[1].url, token) as wire:
        await wire.subscribe(cut)
        await wire.follow(cut, lambda p: p.caught_up and len(p.entries) >= 50)
    async with forgetful.log() as log:
        await _gone(log, cut.last)
    async with asyncio.TaskGroup() as tasks:
        places = [cut.copy() for _ in gateways]
        for gateway, place in zip(gateways, places, strict=True):
            tasks.create_task(_finish(gateway.url, token, place))
    for place in places:
        assert place.whole, place
        assert place.answer("run_a") == _tokens(tokens)
    figure("a cursor whose entry is gone, in a message that still streams: same text from ring, log and cold gateway")


async def test_cut_after_any_frame_of_a_replay(stack: Stack, figure: Figure) -> None:
    """A replay leaves out deltas that a later record brings: whoever is cut in between must get it elsewhere."""
    async with asyncio.TaskGroup() as tasks:
        started = tasks.create_task(stack.start(1, segment_deltas="64"))
        starting = tasks.create_task(stack.gateway(ring_entries="8"))
    (roomy,), narrow = started.result(), starting.result()
    token, tokens, others = stack.token(), 500, [f"q{i}" for i in range(12)]
    live = Place(SESSION)
    async with await Wire.open(roomy.url, token) as wire:
        await wire.subscribe(live)
        await wire.input(SESSION, "a", f"stream {tokens} tokens at 150/s")
        for i, other in enumerate(others):
            # Records amid the deltas: others go on writing while the answer streams.
            await wire.follow(live, lambda p, size=60 * (i + 1): len(p.answer("run_a")) >= size)  # type: ignore[misc]
            await wire.input(SESSION, other, "and then")
        await wire.follow(live, lambda p: len(p.answer("run_a")) >= 900)
        places = await _replay_frame_by_frame(narrow.url, token)
        async with asyncio.TaskGroup() as tasks:
            for place in places:
                tasks.create_task(_finish(roomy.url, token, place))
        await wire.follow(live, lambda p: "run_a" in p.ended)
    for place in (live, *places):
        assert place.whole, place
        assert place.answer("run_a") == _tokens(tokens)
    figure(f"cut after each of {len(places)} frames of a replay, resumed at another gateway: same text")


async def _replay_frame_by_frame(url: str, token: str) -> list[Place]:
    """A fresh join; the reader as it is after each frame, until it has caught up."""
    place, places = Place(SESSION), []
    async with await Wire.open(url, token) as wire:
        await wire.subscribe(place)
        while not place.caught_up:
            place.take(await wire.receive())
            places.append(place.copy())
    return places


async def _away_for_a_second(near: str, far: str, token: str, *, every: bool) -> None:
    place = Place(SESSION, every=every)
    async with await Wire.open(near, token) as wire:
        await wire.subscribe(place)
        await wire.follow(place, lambda p: p.caught_up and len(p.entries) >= 10)
    assert "run_a" not in place.ended
    await asyncio.sleep(1.0)  # the gap itself
    async with await Wire.open(far, token) as wire:
        await wire.subscribe(place)
        await wire.follow(place, lambda p: "run_a" in p.ended)
    assert place.whole
    assert place.snapshots == 1, "a resume gives no snapshot"
    assert place.answer("run_a") == _tokens(450)


async def _finish(url: str, token: str, place: Place) -> None:
    assert "run_a" not in place.ended
    place.caught_up = False
    async with await Wire.open(url, token) as wire:
        await wire.subscribe(place)
        await wire.follow(place, lambda p: p.caught_up)
        assert "run_a" not in place.ended, "the run was over too early to show anything"
        await wire.follow(place, lambda p: "run_a" in p.ended)


async def _watch(url: str, token: str, inputs: dict[str, str]) -> Place:
    """Sees the inputs through, and keeps every entry."""
    live = Place(SESSION, every=True, frames=[])
    async with await Wire.open(url, token) as wire:
        await wire.subscribe(live)
        for input_id, content in inputs.items():
            await wire.input(SESSION, input_id, content)
            await wire.follow(live, lambda p, run=f"run_{input_id}": run in p.ended)  # type: ignore[misc]
    assert live.whole
    return live


async def _all_deltas_gone(log: JetStreamLog) -> None:
    async with asyncio.timeout(AGE_WAIT_S):
        while (await log.read_deltas(log.subjects(SESSION), "main", 0))[0]:
            await asyncio.sleep(POLL_S)


async def _gone(log: JetStreamLog, seq: int) -> None:
    async with asyncio.timeout(AGE_WAIT_S):
        while await log.holds(log.subjects(SESSION), seq):
            await asyncio.sleep(POLL_S)


async def _cursors(log: JetStreamLog, frames: list[Frame], rng: random.Random) -> list[int]:
    """Places to resume from: amid deltas (of which the log has none left), after records, at both ends."""
    amid = [i for i in range(1, len(frames) - 1) if all("off" in frame for frame in frames[i - 1 : i + 2])]
    records = [i for i, frame in enumerate(frames) if "off" not in frame]
    assert len(amid) >= 20, "no stretch of deltas alone"
    for index in amid:
        assert not await log.holds(log.subjects(SESSION), frames[index]["seq"])
    for index in records:
        assert await log.holds(log.subjects(SESSION), frames[index]["seq"])
    return sorted({0, len(frames) - 1, *rng.sample(amid, 12), *rng.sample(records, 6)})


def _place_at(live: Place, index: int, *, every: bool) -> Place:
    """A reader that has handled the entries up to `index`."""
    assert live.frames is not None
    place = Place(SESSION, every=every, epoch=live.epoch)
    for frame in live.frames[: index + 1]:
        place.take(frame)
    return place


def _same(place: Place, live: Place) -> None:
    assert place.whole, place
    assert _texts(place) == _texts(live)
    assert place.ended == live.ended
    assert place.applied == live.applied


def _texts(place: Place) -> dict[str, str]:
    return {id_: str(text) for id_, text in place.texts.items()}


async def _history(url: str, token: str) -> dict[str, str]:
    async with await Wire.open(url, token) as wire:
        messages = (await wire.command("history", session=SESSION, limit=200))["messages"]
    return {message["id"]: message["text"] for message in messages if message["role"] == "assistant"}


def _tokens(count: int) -> str:
    return "".join(f"t{i} " for i in range(count))
