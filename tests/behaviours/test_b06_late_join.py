"""B06: who joins late, in the middle of a run of 200,000 tokens, sees it within 300 ms, for 1.1 times the bytes of its text."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

import pytest

from tests.behaviours.conftest import Figure
from tests.support.place import Place
from tests.support.rawclient import Wire, send_input
from tests.support.stack import Process, Stack

TOKENS = 200_000
SESSION = "long"
INPUT = "a"
RUN = f"run_{INPUT}"
JOINS = 5
"""At gateways that have just started; as many at one that has the session open."""
WITHIN_S = 0.3
COST = 1.1
WAIT_S = 120.0


@dataclass(frozen=True, slots=True)
class Joined:
    """What a join brought: all the text there was, the bytes on the wire (headers, hello and all), the seconds it took."""

    place: Place
    text: str
    received: int
    seconds: float

    @property
    def cost(self) -> float:
        return self.received / len(self.text)


@pytest.mark.timeout(300)
async def test_late_join_into_a_long_run(stack: Stack, figure: Figure) -> None:
    near = await stack.gateway()
    await stack.worker("tests.support.agents:long_winded")
    token = stack.token()
    await send_input(near.url, token, SESSION, INPUT, str(TOKENS))
    begun = "".join(f"t{i} " for i in range(TOKENS))
    await _until_said(near, token, len(begun))

    cold = [await _join(await stack.gateway(), token) for _ in range(JOINS)]
    warm = [await _join(near, token) for _ in range(JOINS)]
    async with await Wire.open(near.url, token) as wire:
        await wire.command("run.cancel", session=SESSION, runId=RUN)
    last = await _ended(near, token)
    for joined in (*cold, *warm):
        # Whole, in order, and not a word that was not said: what was said later only went on from there.
        assert joined.place.whole, joined.place
        assert joined.place.snapshots == 1
        assert not joined.place.ended
        assert joined.text.startswith(begun)
        assert last.startswith(joined.text)
        assert joined.cost <= COST
    assert max(len(joined.text) for joined in warm) > len(begun), "the run did not go on while they joined"
    cold_s, warm_s = (statistics.median(joined.seconds for joined in group) for group in (cold, warm))
    assert cold_s < WITHIN_S
    assert warm_s < WITHIN_S
    figure(
        f"{len(begun):,} characters of a run that goes on: {cold_s * 1000:.0f} ms at a gateway that has just started, "
        f"{warm_s * 1000:.0f} ms at one that has it open (medians of {JOINS}), "
        f"{max(joined.cost for joined in (*cold, *warm)):.3f} x the text at most"
    )


async def _join(gateway: Process, token: str) -> Joined:
    """From the connection's first byte to the last of the text: with that the reader can paint."""
    place = Place(SESSION)
    begin = time.monotonic()
    async with await Wire.open(gateway.url, token) as wire:
        await wire.subscribe(place)
        await wire.follow(place, lambda p: p.caught_up)
        seconds, received = time.monotonic() - begin, wire.received
    (text,) = place.texts.values()
    return Joined(place, str(text), received, seconds)


async def _until_said(gateway: Process, token: str, length: int) -> None:
    """Returns when so much of the run's text is in the log."""
    place = Place(SESSION)
    async with await Wire.open(gateway.url, token) as wire:
        await wire.subscribe(place)
        await wire.follow(place, lambda p: sum(text.length for text in p.texts.values()) >= length, WAIT_S)


async def _ended(gateway: Process, token: str) -> str:
    """The run's whole text."""
    place = Place(SESSION)
    async with await Wire.open(gateway.url, token) as wire:
        await wire.subscribe(place)
        await wire.follow(place, lambda p: RUN in p.ended)
    assert place.whole, place
    assert place.ended == {RUN: "cancelled"}
    return place.answer(RUN)
