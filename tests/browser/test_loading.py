"""What the console costs before it is there: the bytes that are really transferred, and nothing from elsewhere."""

from __future__ import annotations

import uuid
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Request

from tests.browser.room import Room
from tests.browser.venue import Venue

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(120)]

FIRST_LOAD_BYTES = 150 * 1024

#: Of the page and all that it has loaded: name, bytes as transferred with their headers, and when it was asked for; and
#: when something was first painted.
LOADED = """(() => {
  const paint = performance.getEntriesByType('paint').find(({ name }) => name === 'first-contentful-paint');
  const all = [...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')];
  const files = all.map(({ name, transferSize, startTime }) => ({ name, bytes: transferSize, at: startTime }));
  return { paintedAt: paint?.startTime ?? null, files };
})()"""


async def test_the_first_load_is_small_and_all_from_here(venue: Venue, room: Room) -> None:
    hosts: set[str] = set()

    def asked(request: Request) -> None:
        hosts.add(urlsplit(request.url).netloc)

    room.page.on("request", asked)
    await room.join(f"{venue.url}/#session=page-{uuid.uuid4().hex}&token={venue.token('user-1')}")
    loaded: dict[str, Any] = await room.state(LOADED)
    assert loaded["paintedAt"] is not None
    before = [file for file in loaded["files"] if file["at"] <= loaded["paintedAt"]]
    assert before, loaded
    assert all(file["bytes"] > 0 for file in before), "something was not measured"
    total = sum(file["bytes"] for file in loaded["files"])
    assert total <= FIRST_LOAD_BYTES, loaded["files"]
    assert hosts == {urlsplit(venue.url).netloc}


async def test_a_second_load_transfers_next_to_nothing(venue: Venue, room: Room) -> None:
    await room.join(f"{venue.url}/#session=page-{uuid.uuid4().hex}&token={venue.token('user-1')}")
    await room.page.goto("about:blank")
    await room.page.goto(venue.url)
    await room.until("performance.getEntriesByType('resource').length > 0")
    loaded: dict[str, Any] = await room.state(LOADED)
    assert sum(file["bytes"] for file in loaded["files"]) < 4096, loaded["files"]
