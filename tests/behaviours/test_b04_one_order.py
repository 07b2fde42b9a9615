"""B04: clients on different gateways see one identical order, while several people send and runs go on."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter

from tests.behaviours.conftest import Figure
from tests.support.place import Place
from tests.support.rawclient import Refusal, Wire
from tests.support.stack import Stack

GATEWAYS = 3
EARLY, LATE = 15, 5
SENDERS, INPUTS_EACH = 3, 12
SESSION = "order"
LAST = "last"
RETRY_S = 0.05


async def test_one_identical_order(stack: Stack, figure: Figure) -> None:
    urls = [gateway.url for gateway in await stack.start(GATEWAYS)]
    token = stack.token()
    async with asyncio.TaskGroup() as tasks:
        early = [tasks.create_task(_see(urls[i % GATEWAYS], token)) for i in range(EARLY)]
        async with asyncio.TaskGroup() as people:
            for i in range(SENDERS):
                people.create_task(_send(urls[i], stack.token(f"user-{i}"), f"s{i}"))
        late = [tasks.create_task(_see(urls[i % GATEWAYS], token)) for i in range(LATE)]
        async with await Wire.open(urls[0], token) as wire:
            await _send_one(wire, LAST, "stream 100 tokens at 200/s")
    places = [task.result() for task in (*early, *late)]
    # After the last run only the owner's release may follow.
    log = [(seq, entry.id) for seq, entry in await stack.entries(SESSION)]
    for place in places:
        assert place.whole, place
        assert place.merged == 0
        assert place.entries == log[: len(place.entries)]
        assert place.ended == dict.fromkeys(place.started, "success")
    assert len({place.digest() for place in places}) == 1
    assert len(places[0].started) == SENDERS * INPUTS_EACH + 1
    assert max(Counter(places[0].applied).values()) == 1
    figure(
        f"{len(places)} clients on {GATEWAYS} gateways, {len(places[0].entries)} entries of "
        f"{len(places[0].started)} runs by {SENDERS} senders, one order: {places[0].digest()[:16]}"
    )


async def _see(url: str, token: str) -> Place:
    """Everything from the log's first entry to the end of the last run, an entry a frame."""
    place = Place(SESSION, every=True)
    async with await Wire.open(url, token) as wire:
        await wire.subscribe(place)
        await wire.follow(place, _over)
    return place


async def _send(url: str, token: str, name: str) -> None:
    """One person who sends faster than answers come, and is told to wait when too much is queued."""
    async with await Wire.open(url, token) as wire:
        for i in range(INPUTS_EACH):
            await _send_one(wire, f"{name}-{i}", "stream 20 tokens at 400/s" if i % 3 else "some words that come back")


async def _send_one(wire: Wire, name: str, content: str) -> None:
    """Sends until there is room. What the log refused for want of room never runs: it needs a new id."""
    for attempt in itertools.count():
        try:
            await wire.input(SESSION, f"{name}-{attempt}", content)
            return
        except Refusal as refusal:
            if refusal.code != "queue_full":
                raise
            await asyncio.sleep(RETRY_S)


def _over(place: Place) -> bool:
    return any(run.startswith(f"run_{LAST}") for run in place.ended)
