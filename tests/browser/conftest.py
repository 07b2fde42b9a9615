"""What the browser tests share: a server, a network that can be cut, and a page in Chromium.

The server is the scripted peer, or a running `antiphon dev --agent echo` when ANTIPHON_TEST_URL
(`http://host:port`) and ANTIPHON_TEST_TOKEN (rights to read, send and cancel in `page-*`) are set.
Needs the `browser` dependency group and a Chromium (ANTIPHON_TEST_CHROMIUM, /usr/bin/chromium by default).
"""

import os
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from playwright.async_api import Browser, async_playwright

from tests.browser.peer import Peer, running_peer
from tests.browser.proxy import running_proxy
from tests.browser.room import Room, Site, open_room

CHROMIUM = Path(os.environ.get("ANTIPHON_TEST_CHROMIUM", "/usr/bin/chromium"))
CHROMIUM_ARGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


@pytest_asyncio.fixture(loop_scope="module")
async def site() -> AsyncIterator[Site]:
    if url := os.environ.get("ANTIPHON_TEST_URL"):
        target = urlsplit(url)
        async with running_proxy(target.hostname or "127.0.0.1", target.port or 80) as (proxy, port):
            yield Site(f"http://127.0.0.1:{port}", os.environ["ANTIPHON_TEST_TOKEN"], proxy, None)
        return
    async with running_peer() as (peer, peer_port), running_proxy("127.0.0.1", peer_port) as (proxy, port):
        yield Site(f"http://127.0.0.1:{port}", "token-user-a", proxy, peer)


@pytest.fixture
def peer(site: Site) -> Peer:
    """The scripted peer, for tests that need a server to misbehave."""
    if site.peer is None:
        pytest.skip("only the scripted peer can be made to do this")
    return site.peer


@pytest.fixture(scope="module")
def chromium() -> Path:
    assert CHROMIUM.exists(), f"no Chromium at {CHROMIUM}: install it, or set ANTIPHON_TEST_CHROMIUM"
    return CHROMIUM


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser(chromium: Path) -> AsyncIterator[Browser]:
    async with async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=chromium, args=CHROMIUM_ARGS)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="module")
async def room(browser: Browser) -> AsyncIterator[Room]:
    """A page; the test fails if it logged an error or broke its content security policy."""
    room = await open_room(browser)
    yield room
    assert await room.state("window.cspViolations") == []
    assert room.faults == []
    await room.page.context.close()
