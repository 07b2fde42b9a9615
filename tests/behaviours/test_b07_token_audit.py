"""B07: while deltas live, a replay of everything gives every token, where it belongs and when it came."""

from __future__ import annotations

import time

from tests.behaviours.conftest import Figure
from tests.support.place import Frame, Place
from tests.support.rawclient import Wire, join
from tests.support.stack import Stack

TOKENS, RATE = 400, 200
SESSION = "audit"
CLOCK_MS = 1000
"""Two processes of one machine read one clock; a second is more than they may differ."""


async def test_every_token_with_its_time(stack: Stack, figure: Figure) -> None:
    watched, cold = await stack.start(2)
    token = stack.token()
    live = Place(SESSION, every=True, frames=[])
    begin_ms = int(time.time() * 1000)
    async with await Wire.open(watched.url, token) as wire:
        await wire.subscribe(live)
        await wire.input(SESSION, "a", f"stream {TOKENS} tokens at {RATE}/s")
        await wire.follow(live, lambda p: "run_a" in p.ended)
    end_ms = int(time.time() * 1000)

    audits = []
    for gateway in (watched, cold):
        audit = Place(SESSION, every=True, frames=[])
        await join(gateway.url, token, audit)
        assert audit.whole
        assert audit.merged == 0
        audits.append(audit)
    deltas = _deltas(live)
    for audit in audits:
        assert _deltas(audit) == deltas
    _contiguous(deltas)
    times = [frame["ts"] for frame in deltas]
    assert times == sorted(times)
    assert begin_ms - CLOCK_MS <= times[0] <= times[-1] <= end_ms + CLOCK_MS
    # The times are those of the tokens, not of the replay: they lie as far apart as the tokens were said.
    assert times[-1] - times[0] >= 0.9 * 1000 * (TOKENS - 1) / RATE
    per_token = _times_of_tokens(deltas)
    assert len(per_token) == TOKENS
    figure(
        f"{TOKENS} tokens in {len(deltas)} deltas over {times[-1] - times[0]} ms, each with its time and place, the "
        f"same live and from two gateways"
    )


def _deltas(place: Place) -> list[Frame]:
    assert place.frames is not None
    return [frame for frame in place.frames if "off" in frame]


def _contiguous(deltas: list[Frame]) -> None:
    offset = 0
    for frame in deltas:
        assert frame["off"] == offset
        (event,) = frame["events"]
        assert event["type"] == "TEXT_MESSAGE_CONTENT"
        offset += len(event["delta"])


def _times_of_tokens(deltas: list[Frame]) -> list[int]:
    """The time of each token, in order. Tokens that were said while a write was on its way share one entry."""
    times = []
    expected = 0
    for frame in deltas:
        for token in frame["events"][0]["delta"].split():
            assert token == f"t{expected}"
            expected += 1
            times.append(frame["ts"])
    return times
