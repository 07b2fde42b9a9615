"""B03: a backlog of 50,000 events reaches whoever was away, and whoever was not, with none skipped."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import pytest

from tests.behaviours.conftest import Figure
from tests.support.backlog import write_answer
from tests.support.place import Place
from tests.support.rawclient import Wire, join, send_input
from tests.support.stack import Stack

TOKENS = 50_000
SESSION = "backlog"
INPUT = "a"
WAIT_S = 90.0


@dataclass(slots=True)
class Read:
    """A reader that was away, and what coming back took."""

    place: Place
    seconds: float
    received: int


@pytest.mark.timeout(180)
async def test_a_backlog_of_50_000(stack: Stack, figure: Figure) -> None:
    warm, cold = await stack.start(2, workers=0)
    token = stack.token()
    await send_input(warm.url, token, SESSION, INPUT, "tell me everything")
    tokens = [f"t{i} " for i in range(TOKENS)]
    away = Place(SESSION)
    await join(warm.url, token, away)
    async with asyncio.TaskGroup() as tasks:
        following = tasks.create_task(_follow_all(warm.url, token))
        written = await write_answer(stack, SESSION, INPUT, tokens)
    live = following.result()
    log = [(seq, entry.id) for seq, entry in await stack.entries(SESSION)]
    # One entry is the input; the backlog is what came after it.
    assert len(log) == written + 1 > TOKENS

    reads = {
        (every, name): await _come_back(url, token, away, every=every)
        for every in (True, False)
        for name, url in (("warm", warm.url), ("cold", cold.url))
    }
    text = "".join(tokens)
    for place in (live, *(read.place for read in reads.values())):
        assert place.whole, place
        assert place.text(f"msg_{INPUT}_answer") == text
        assert place.ended == {f"run_{INPUT}": "success"}
    for name in ("warm", "cold"):
        assert reads[True, name].place.entries == log
        assert reads[True, name].place.merged == 0
    # Whoever follows live stops at the run's end, just before the lane is released.
    assert live.entries == log[: len(live.entries)]
    assert len(live.entries) >= len(log) - 1
    assert live.merged == 0
    audit, merged = reads[True, "cold"], reads[False, "cold"]
    figure(
        f"{written} entries of backlog, 0 skipped (live, warm and cold gateway); every one in {audit.seconds:.1f} s, "
        f"merged {merged.received / len(text):.2f} x the text in {merged.seconds * 1000:.0f} ms"
    )


async def _follow_all(url: str, token: str) -> Place:
    """A reader that is there while the backlog is written faster than it can be shown."""
    place = Place(SESSION, every=True)
    async with await Wire.open(url, token) as wire:
        await wire.subscribe(place)
        await wire.follow(place, lambda p: f"run_{INPUT}" in p.ended, WAIT_S)
    return place


async def _come_back(url: str, token: str, away: Place, *, every: bool) -> Read:
    place = away.copy()
    place.every = every
    begin = time.monotonic()
    received = await join(url, token, place, WAIT_S)
    return Read(place, time.monotonic() - begin, received)
