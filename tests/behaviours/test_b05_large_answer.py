"""B05: an answer of 5 MB streams, resumes in its middle, and opens again later, at about the cost of its text."""

from __future__ import annotations

import asyncio
import time

from tests.behaviours.conftest import Figure
from tests.support.place import Place
from tests.support.rawclient import Wire, join, send_input
from tests.support.stack import Stack

SIZE = 5 << 20
SESSION = "large"
RUN = "run_a"
COST = 1.1
CONSTANT = 65_536
"""What a join may cost beside the text: handshakes, snapshot, the frames around the text."""


async def test_a_large_answer(stack: Stack, figure: Figure) -> None:
    near, far = await stack.start(2)
    token = stack.token()
    async with asyncio.TaskGroup() as tasks:
        whole = tasks.create_task(_read(near.url, token, Place(SESSION)))
        cut = tasks.create_task(_cut_in_the_middle(near.url, far.url, token))
        late = tasks.create_task(_join_in_the_middle(near.url, far.url, token))
        begin = time.monotonic()
        await send_input(near.url, token, SESSION, "a", f"say {SIZE} bytes")
    streamed_s = time.monotonic() - begin
    cold = await stack.gateway()
    begin = time.monotonic()
    fresh = Place(SESSION)
    fresh_bytes = await join(cold.url, token, fresh)
    fresh_s = time.monotonic() - begin

    text = "".join(f"{i:08x} " for i in range(SIZE // 9 + 1))[:SIZE]
    resumed, rest_bytes, rest = cut.result()
    late_place, late_bytes = late.result()
    for place in (whole.result()[0], resumed, late_place, fresh):
        assert place.whole, place
        assert place.answer(RUN) == text
        assert [t.reason for t in place.texts.values()] == ["complete"]
    assert await _history(cold.url, token) == text
    for received, size in ((fresh_bytes, SIZE), (late_bytes, SIZE), (rest_bytes, rest)):
        assert received <= COST * size + CONSTANT
    figure(
        f"5 MiB streamed to three in {streamed_s:.1f} s, one cut and resumed, text identical; reopened in "
        f"{fresh_s * 1000:.0f} ms with {fresh_bytes / SIZE:.3f} x the text (mid-run {late_bytes / SIZE:.3f} x, "
        f"resume {rest_bytes / rest:.3f} x its rest); history gives it whole"
    )


async def _read(url: str, token: str, place: Place) -> tuple[Place, int]:
    """Reads to the end of the run; the place, and the bytes it took."""
    async with await Wire.open(url, token) as wire:
        await wire.subscribe(place)
        await wire.follow(place, lambda p: RUN in p.ended)
        return place, wire.received


async def _cut_in_the_middle(near: str, far: str, token: str) -> tuple[Place, int, int]:
    """Also the bytes that the resume took, and the size of the text that it brought."""
    place = Place(SESSION)
    async with await Wire.open(near, token) as wire:
        await wire.subscribe(place)
        await wire.follow(place, _half)
    assert RUN not in place.ended
    had = sum(text.length for text in place.texts.values())
    place, received = await _read(far, token, place)
    return place, received, SIZE - had


async def _join_in_the_middle(near: str, far: str, token: str) -> tuple[Place, int]:
    async with await Wire.open(near, token) as wire:
        other = Place(SESSION)
        await wire.subscribe(other)
        await wire.follow(other, _half)
    return await _read(far, token, Place(SESSION))


def _half(place: Place) -> bool:
    return sum(text.length for text in place.texts.values()) >= SIZE // 2


async def _history(url: str, token: str) -> str:
    async with await Wire.open(url, token) as wire:
        messages = (await wire.command("history", session=SESSION))["messages"]
    (answer,) = [message["text"] for message in messages if message["role"] == "assistant"]
    return str(answer)
