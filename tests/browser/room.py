"""What a browser test holds: where the page is, and the page as a person sees it."""

import uuid
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from playwright.async_api import Browser, ConsoleMessage, Locator, Page, expect

from tests.browser.peer import Json, Peer
from tests.browser.proxy import Proxy

WATCH_CSP = """
window.cspViolations = [];
document.addEventListener('securitypolicyviolation', (e) => window.cspViolations.push(e.violatedDirective));
"""


@dataclass(slots=True)
class Site:
    """Where the page is, through the proxy, and who reads it."""

    url: str
    token: str
    proxy: Proxy
    peer: Peer | None
    session: str = field(default_factory=lambda: f"page-{uuid.uuid4().hex}")

    def link(self, token: str | None = None, more: str = "") -> str:
        return f"{self.url}/#session={self.session}&token={token or self.token}{more}"

    async def history(self) -> list[Json]:
        """The session's whole messages, as an independent reader gets them."""
        async with (
            aiohttp.ClientSession() as http,
            http.ws_connect(self.url + "/v1/connect", protocols=["antiphon.v1"]) as ws,
        ):
            await ws.send_json({"op": "hello", "id": 1, "token": self.token})
            await ws.send_json({"op": "history", "id": 2, "session": self.session, "limit": 200})
            while (reply := await ws.receive_json())["id"] != 2:
                pass
            messages: list[Json] = reply["messages"]
            return messages

    async def answers(self) -> list[str]:
        return [str(message["text"]) for message in await self.history() if message["role"] == "assistant"]


class Room:
    """The page, as a person sees it."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.faults: list[str] = []
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self.faults.append(str(error)))

    def _heard(self, message: ConsoleMessage) -> None:
        is_network = "WebSocket connection to" in message.text  # Chromium's own line when we cut it
        if message.type in ("error", "warning") and not is_network:
            self.faults.append(message.text)

    @property
    def answers(self) -> Locator:
        return self.page.locator(".message.assistant .text")

    @property
    def sent(self) -> Locator:
        return self.page.locator(".message.user .text")

    @property
    def queue(self) -> Locator:
        return self.page.locator("#queue li")

    @property
    def stop(self) -> Locator:
        return self.page.locator("#stop")

    @property
    def status(self) -> Locator:
        return self.page.locator("#status")

    @property
    def cards(self) -> Locator:
        return self.page.locator("#cards > *")

    @property
    def banners(self) -> Locator:
        return self.page.locator("#banners > *")

    def message(self, ident: str) -> Locator:
        return self.page.locator(f'.message[data-id="{ident}"]')

    async def press(self, name: str) -> None:
        """The button of that name."""
        await self.page.get_by_role("button", name=name, exact=True).click()

    async def join(self, link: str) -> None:
        await self.page.goto(link)
        await self.phase("live")

    async def phase(self, phase: str) -> None:
        await expect(self.page.locator("#pill")).to_have_attribute("data-phase", phase, timeout=15_000)

    async def say(self, text: str) -> None:
        await self.page.fill("#draft", text)
        await self.page.press("#draft", "Enter")

    async def idle(self, answers: int) -> None:
        """Until that many answers stand there and nothing runs or waits."""
        await expect(self.answers).to_have_count(answers, timeout=15_000)
        await expect(self.stop).to_be_hidden(timeout=30_000)
        await expect(self.queue).to_have_count(0)

    async def fits(self, *ids: str, width: int, height: int) -> None:
        """These elements lie within the window."""
        for id_ in ids:
            box = await self.page.locator(f"#{id_}").bounding_box()
            assert box is not None
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= width
            assert box["y"] + box["height"] <= height

    async def texts(self, locator: Locator) -> list[str]:
        texts: list[str] = await locator.evaluate_all("nodes => nodes.map((node) => node.textContent)")
        return texts

    async def frame(self) -> None:
        """Until the page has drawn once more."""
        await self.page.evaluate("new Promise(requestAnimationFrame)")

    async def until(self, condition: str) -> None:
        """Until a JavaScript condition holds; the page's policy forbids `wait_for_function`, which evaluates there."""
        await self.page.evaluate(
            f"(async () => {{ while (!({condition})) await new Promise(requestAnimationFrame); }})()"
        )

    async def state(self, script: str) -> Any:
        return await self.page.evaluate(script)


async def open_room(browser: Browser, **options: Any) -> Room:
    context = await browser.new_context(**options)
    await context.add_init_script(WATCH_CSP)
    return Room(await context.new_page())
