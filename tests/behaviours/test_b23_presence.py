"""B23: one person on two devices counts once, a reload does not flicker, and the people of a dead gateway go in time."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from tests.behaviours.conftest import Figure
from tests.support.bare import get
from tests.support.presence import Viewer, devices, viewer
from tests.support.stack import Process, Stack, metric

SESSION = "people"
RELOADS = 12
RELOAD_GRACE_S = 60.0
GRACE_S = 2.0
LIFE_S = 6.0
"""Of a gateway, three heartbeats: the default."""
SLACK_S = 4.0


async def test_one_person_on_two_devices_and_reloads_that_nobody_sees(stack: Stack, figure: Figure) -> None:
    gateways = await stack.start(2, workers=0, leave_grace_s=str(RELOAD_GRACE_S))
    one, two = gateways
    async with (
        viewer(one.url, stack.token("watcher-1"), SESSION, device="w1") as first,
        viewer(two.url, stack.token("watcher-2"), SESSION, device="w2") as second,
        viewer(two.url, stack.token("user-1"), SESSION, device="phone"),
    ):
        async with viewer(one.url, stack.token("user-1"), SESSION, device="laptop"):
            people = [await watcher.until(_on_two_devices) for watcher in (first, second)]
            assert all(set(seen) == {"user-1", "watcher-1", "watcher-2"} for seen in people)
            await first.until(lambda seen: seen == people[1])
        for i in range(RELOADS):
            # The page was on the one gateway, and comes back on the other one or on the same.
            await _noticed(gateways, connections=3)
            gateway = gateways[i // 2 % 2]
            async with viewer(gateway.url, stack.token("user-1"), SESSION, device="laptop") as page:
                assert (await page.next())["user-1"] == people[0]["user-1"]
        await _noticed(gateways, connections=3)
        before = len(first.seen), len(second.seen)
        await first.say("idle")
        for watcher in (first, second):
            seen = await watcher.next()
            assert seen.pop("watcher-1")["state"] == "idle"
            assert seen == {id_: shown for id_, shown in people[0].items() if id_ != "watcher-1"}
        assert (len(first.seen), len(second.seen)) == (before[0] + 1, before[1] + 1)
    figure(f"two devices are one person; {RELOADS} reloads on two gateways, 0 changes seen")


async def test_the_people_of_a_dead_gateway_go(stack: Stack, figure: Figure) -> None:
    one, two = await stack.start(2, workers=0, leave_grace_s=str(GRACE_S))
    async with (
        viewer(one.url, stack.token("watcher"), SESSION, device="w") as watcher,
        viewer(two.url, stack.token("user-1"), SESSION, device="d1"),
        viewer(two.url, stack.token("user-2"), SESSION, device="d2"),
    ):
        await watcher.until(lambda people: len(people) == 3)
        killed = time.monotonic()
        await two.kill()
        await _alone(watcher)
        took_s = time.monotonic() - killed
    # Its last heartbeat came up to a third of its life before.
    assert LIFE_S * 2 / 3 + GRACE_S <= took_s <= LIFE_S + GRACE_S + SLACK_S
    figure(f"a killed gateway's people went after {took_s:.1f} s (life {LIFE_S:g} s, grace {GRACE_S:g} s)")


async def _alone(watcher: Viewer) -> None:
    """Both go at once, in one frame."""
    assert set(await watcher.next()) == {"watcher"}


async def _noticed(gateways: list[Process], *, connections: int) -> None:
    """Returns when the gateways have found out who is connected."""
    async with asyncio.timeout(20):
        while await _connected(gateways) != connections:
            await asyncio.sleep(0.02)


async def _connected(gateways: list[Process]) -> float:
    pages = [await get(f"{gateway.url}/metrics") for gateway in gateways]
    return sum(metric(page.text, "antiphon_gateway_connections") for page in pages)


def _on_two_devices(people: dict[str, dict[str, Any]]) -> bool:
    return len(people) == 3 and devices(people, "user-1") == {"laptop": "active", "phone": "active"}
