"""The console in a tab, as a person sees it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, ConsoleMessage, Locator, Page, expect

from tests.browser.logged import Shown

WATCH = Path(__file__).with_name("watch.js").read_text(encoding="utf-8")
READ = Path(__file__).with_name("read.js").read_text(encoding="utf-8")
#: What a person may wait for something on a machine that does much else.
WAIT_MS = 30_000
PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}

expect.set_options(timeout=WAIT_MS)


class Room:
    """One tab; what it logs as an error or breaks of its content security policy is in `faults`."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.faults: list[str] = []
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self.faults.append(str(error)))

    def _heard(self, message: ConsoleMessage) -> None:
        # Chromium's own lines when the network is away.
        is_network = "WebSocket connection to" in message.text or "net::ERR_" in message.text
        if message.type in ("error", "warning") and not is_network:
            self.faults.append(message.text)

    # --- what is there

    @property
    def transcript(self) -> Locator:
        return self.page.get_by_role("log", name="Transcript")

    @property
    def messages(self) -> Locator:
        return self.transcript.locator("article[data-message]")

    @property
    def answers(self) -> Locator:
        return self.said("assistant")

    @property
    def sent(self) -> Locator:
        return self.said("user")

    def said(self, role: str) -> Locator:
        """The texts of the messages of a role."""
        return self.transcript.locator(f'article[data-role="{role}"] [data-part="text"]')

    @property
    def calls(self) -> Locator:
        return self.transcript.locator("[data-tool-call]")

    @property
    def queue(self) -> Locator:
        return self.page.get_by_role("list", name="Queue").locator("[data-input]")

    @property
    def people(self) -> Locator:
        return self.page.get_by_role("list", name="People").locator("[data-person]")

    @property
    def waiting(self) -> Locator:
        """Approvals and questions."""
        return self.page.locator("[data-approval]")

    @property
    def connection(self) -> Locator:
        return self.page.locator("[data-connection]")

    @property
    def field(self) -> Locator:
        return self.page.get_by_role("textbox", name="Message", exact=True)

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name, exact=True)

    # --- what a person does

    async def join(self, link: str) -> None:
        await self.page.goto(link)
        await self.online()

    async def online(self) -> None:
        await self.is_connection("online")

    async def is_connection(self, state: str) -> None:
        await expect(self.connection.first).to_have_attribute("data-connection", state)

    async def not_online(self) -> None:
        await expect(self.connection.first).not_to_have_attribute("data-connection", "online")

    async def say(self, text: str) -> None:
        await self.field.fill(text)
        await self.field.press("Enter")

    async def press(self, name: str | re.Pattern[str]) -> None:
        """The button of that name."""
        await self.page.get_by_role("button", name=name, exact=True).click()

    async def use(self, tool: str) -> None:
        """A button of the bar, which on a phone is in a menu."""
        if await self.button("More").is_visible():
            await self.press("More")
        await self.press(tool)

    async def go_offline(self, *, away: bool = True) -> None:
        """What the browser tells the page of its network."""
        await self.page.context.set_offline(away)

    # --- what it is waited for

    async def streaming(self, words: int = 5) -> None:
        """Until the answer that streams has so many words."""
        answer = "[role=log] article[data-role=assistant][data-status=streaming] [data-part=text]"
        await self.until(
            f"(document.querySelector('{answer}')?.textContent ?? '').trim().split(/\\s+/).length >= {words}"
        )

    async def idle(self, answers: int) -> None:
        """Until so many answers stand there and nothing runs or waits. Of few messages, all of which are in the DOM."""
        done = self.transcript.locator('article[data-role="assistant"][data-status="done"]')
        await expect(done).to_have_count(answers)
        await expect(self.answers).to_have_count(answers)
        await expect(self.button("Stop")).to_be_hidden()
        await expect(self.queue).to_have_count(0)

    async def conversation(self, first: str | None) -> list[Shown]:
        """All messages, read from the first (`first` is its id) to the last, as one scrolls."""
        found: list[dict[str, str]] = await self.page.evaluate(READ, first)
        return [Shown(**each) for each in found]

    async def steps(self) -> dict[str, list[str]]:
        """Every text that each message has shown since the page was loaded, without white space."""
        steps: dict[str, list[str]] = await self.state("Object.fromEntries(window.watched.texts)")
        return steps

    async def check(self) -> None:
        """Nothing was logged as an error or warning, no policy was broken, and no text has ever shrunk or come twice."""
        assert await self.state("window.watched.faults") == []
        assert await self.state("window.cspViolations") == []
        assert self.faults == []

    async def frame(self) -> None:
        """Until the page has drawn once more."""
        await self.page.evaluate("new Promise(requestAnimationFrame)")

    async def until(self, condition: str) -> None:
        """Until a JavaScript condition holds; the page's policy forbids `wait_for_function`, which evaluates there."""
        script = (
            f"(async () => {{ const end = performance.now() + {WAIT_MS}; while (!({condition})) {{"
            "if (performance.now() > end) throw new Error('it never came to that');"
            "await new Promise((go) => setTimeout(go, 20)); } })()"
        )
        await self.page.evaluate(script)

    async def state(self, script: str) -> Any:
        return await self.page.evaluate(script)


@asynccontextmanager
async def open_room(browser: Browser, **options: Any) -> AsyncIterator[Room]:
    """A tab of a browser of its own: nothing of it is shared with another."""
    context = await browser.new_context(**options)
    try:
        await context.add_init_script(WATCH)
        yield Room(await context.new_page())
    finally:
        await context.close()
