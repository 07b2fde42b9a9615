"""What the browser tests share: `antiphon dev` with two gateways, a server that misbehaves, and Chromium.

Needs the `browser` dependency group and a Chromium (ANTIPHON_TEST_CHROMIUM, /usr/bin/chromium by default).
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, async_playwright

from tests.browser.cast import Cast, cast_in
from tests.browser.peer import Peer, running_peer
from tests.browser.proxy import running_proxy
from tests.browser.room import Room, open_room
from tests.browser.site import Site
from tests.browser.venue import Venue, running_venue

CHROMIUM = Path(os.environ.get("ANTIPHON_TEST_CHROMIUM", "/usr/bin/chromium"))
CHROMIUM_ARGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


@pytest.fixture(scope="session")
def chromium() -> Path:
    assert CHROMIUM.exists(), f"no Chromium at {CHROMIUM}: install it, or set ANTIPHON_TEST_CHROMIUM"
    return CHROMIUM


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser(chromium: Path) -> AsyncIterator[Browser]:
    async with async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=chromium, args=CHROMIUM_ARGS)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def venue(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Venue]:
    """Real gateways, and an agent that does all that a page can show."""
    async with running_venue(tmp_path_factory.mktemp("venue") / "data") as venue:
        yield venue


@pytest_asyncio.fixture(loop_scope="session")
async def cast(venue: Venue, browser: Browser) -> AsyncIterator[Cast]:
    """Two tabs and a phone; at the end all of them must show what the log has."""
    async with cast_in(venue, browser) as cast:
        yield cast
        await cast.check()


@pytest_asyncio.fixture(loop_scope="session")
async def site() -> AsyncIterator[Site]:
    """A server that misbehaves on command, and a network before it."""
    async with running_peer() as (peer, target), running_proxy(target) as (proxy, url):
        yield Site(url, "token-user-a", proxy, peer)


@pytest.fixture
def peer(site: Site) -> Peer:
    return site.peer


@pytest_asyncio.fixture(loop_scope="session")
async def room(browser: Browser) -> AsyncIterator[Room]:
    """A tab, which must log no error and break no policy."""
    async with open_room(browser) as room:
        yield room
        await room.check()
