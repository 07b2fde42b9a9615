#!/usr/bin/env python3
"""Takes the pictures of the console in docs/images/, in real Chromium, of real sessions at `antiphon dev`.

Two people and an agent that follows a script talk; nothing on the pictures is drawn afterwards. Needs what
`make .venv/.synced-browser` installs, and a Chromium: `.venv/bin/python tools/console_pictures.py`.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from playwright.async_api import Browser, async_playwright, expect  # noqa: E402 (the path first)

from antiphon_client import Client  # noqa: E402
from tests.browser.room import PHONE, Room, open_room  # noqa: E402
from tests.browser.venue import Venue, running_venue  # noqa: E402

IMAGES = ROOT / "docs/images"
CHROMIUM = os.environ.get("ANTIPHON_TEST_CHROMIUM", "/usr/bin/chromium")
AGENT = "tests.support.agents_pictures:planner"
DESK: dict[str, Any] = {"viewport": {"width": 1280, "height": 800}}
SESSION = "vienna"
OTHERS = {"invoice-march": "Invoice of March", "garden": "What to plant in the shade", "release-notes": "Release notes"}


async def take(room: Room, name: str) -> None:
    """The window as it is now, without a caret that may or may not be there."""
    await room.frame()
    await room.page.screenshot(path=IMAGES / f"{name}.png", caret="initial")
    print(IMAGES / f"{name}.png")


async def prepare(venue: Venue) -> None:
    """Other sessions of the same user, and the beginning of the one that is shown."""
    async with Client(venue.url, token=venue.token("user-1")) as client:
        for name, title in OTHERS.items():
            await client.session(name).create(title=title)
            await client.session(name).answer("Where were we?")
        shown = client.session(SESSION)
        await shown.create(title="To Vienna with a bicycle")
        await shown.answer("We want to go from Ghent to Vienna on Friday, with one bicycle. Which train?")


@asynccontextmanager
async def joined(venue: Venue, browser: Browser, user: str, **options: Any) -> AsyncIterator[Room]:
    async with open_room(browser, **options) as room:
        await room.join(f"{venue.url}/#session={SESSION}&token={venue.token(user)}")
        yield room


async def streaming(venue: Venue, browser: Browser) -> None:
    """Two people; an answer streams, and a message waits for its turn."""
    async with AsyncExitStack() as stack:
        light = await stack.enter_async_context(joined(venue, browser, "user-1", **DESK, color_scheme="light"))
        dark = await stack.enter_async_context(joined(venue, browser, "user-1", **DESK, color_scheme="dark"))
        other = await stack.enter_async_context(joined(venue, browser, "user-2", **DESK))
        await other.say("And where do we ride from the station?")
        await light.streaming(words=20)
        await other.page.get_by_label("What becomes of it while the agent works").select_option("enqueue")
        await other.say("Is there a place to swim on the way?")
        await expect(light.queue).to_have_count(1)
        await expect(light.answers.last).to_contain_text("Tulln")
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(take(light, "console"))
            tasks.create_task(take(dark, "console-dark"))
        await light.idle(answers=3)


async def deciding(venue: Venue, browser: Browser) -> None:
    """A phone, on which the agent waits for a decision."""
    async with joined(venue, browser, "user-2", **PHONE, device_scale_factor=2) as phone:
        await phone.say("Book the Nightjet for two, please.")
        await expect(phone.waiting).to_have_count(1)
        await take(phone, "console-phone")
        await phone.waiting.get_by_role("button", name="Allow", exact=True).click()
        await phone.idle(answers=5)


async def looking_back(venue: Venue, browser: Browser) -> None:
    """The log of the session, token by token, and its raw entries."""
    async with joined(venue, browser, "user-1", **DESK) as room:
        await room.use("Replay")
        slider = room.page.get_by_role("slider", name="Position in the log")
        end = int(await slider.get_attribute("max") or 0)
        await slider.fill(str(end * 3 // 10))
        await expect(room.page.locator("[data-replay] article")).not_to_have_count(0)
        await take(room, "console-replay")
        await room.press("Back to live")
        await room.use("Inspector")
        panel = room.page.get_by_role("complementary", name="Inspector")
        await panel.get_by_label("Tokens").uncheck()
        await (
            panel.locator("[data-seq]").filter(has_text=re.compile("approval.responded")).get_by_role("button").click()
        )
        await expect(panel.locator("pre")).to_be_visible()
        await take(room, "console-inspector")


async def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        async with running_venue(Path(name) / "data", AGENT) as venue, async_playwright() as driver:
            await prepare(venue)
            browser = await driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
            for pictured in (streaming, deciding, looking_back):
                await pictured(venue, browser)
            await browser.close()


if __name__ == "__main__":
    asyncio.run(main())
