"""Every state of the console by axe-core's rules, in light and dark, on a desk and on a phone; and by the keyboard alone."""

from __future__ import annotations

import re
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytest_asyncio
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, expect

from tests.browser.cast import Cast, cast_in
from tests.browser.room import PHONE, Room, open_room
from tests.browser.venue import Line, Venue

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(240)]

ENDLESS = "stream 5000 tokens at 25/s"
DEVICES: dict[str, dict[str, Any]] = {"desk": {"viewport": {"width": 1280, "height": 800}}, "phone": PHONE}
GRAVE = ("serious", "critical")


#: Colours take their time to change, be it a moment.
SETTLED = """(async () => {
  const frame = () => new Promise(requestAnimationFrame);
  await frame();
  await frame();
  while (document.getAnimations().some((each) => each.playState === 'running')) await frame();
})()"""


@dataclass(slots=True)
class Inspected:
    """A tab, and what is wrong in the states that it has been in."""

    room: Room
    line: Line
    found: list[str] = field(default_factory=list)

    async def look(self, state: str) -> None:
        """Holds what is shown now to the rules, in light and in dark."""
        for scheme in ("light", "dark"):
            await self.room.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
            await self.room.state(SETTLED)
            results = await Axe().run(self.room.page)
            for violation in results.response["violations"]:
                if violation["impact"] in GRAVE:
                    where = [node["target"] for node in violation["nodes"][:3]]
                    why = violation["nodes"][0].get("failureSummary", "").replace("\n", " ")
                    self.found.append(f"{state}, {scheme}: {violation['id']} at {where}: {why}")


@pytest_asyncio.fixture(params=DEVICES, loop_scope="session")
async def inspected(request: pytest.FixtureRequest, venue: Venue, browser: Browser) -> AsyncIterator[Inspected]:
    device = DEVICES[request.param] | {"reduced_motion": "reduce"}
    async with venue.line() as line, open_room(browser, **device) as room:
        inspected = Inspected(room, line)
        yield inspected
        await room.check()
        assert inspected.found == []


def link(venue: Venue, line: Line, session: str) -> str:
    return f"{line.url}/#session={session}&token={venue.token('user-2', 'support')}&tools=1"


async def test_no_state_breaks_a_rule(inspected: Inspected, venue: Venue) -> None:
    room, look = inspected.room, inspected.look
    await room.page.goto(inspected.line.url)
    await expect(room.button("Join")).to_be_visible()
    await look("joining")
    await room.join(link(venue, inspected.line, f"page-{uuid.uuid4().hex}"))
    await look("empty")
    await room.say("look it up")
    await room.idle(answers=1)
    for closed in await room.transcript.locator("details > summary").all():
        await closed.click()
    await look("an answer, a thought and a call")
    await room.say("delete files")
    await expect(room.waiting).to_have_count(1)
    await look("approval")
    await room.press("Reject")
    await room.say("plan a trip")
    await expect(room.waiting).to_have_count(1)
    await look("question")
    await room.press("Decline")
    await room.idle(answers=3)
    await room.say('use ask_browser with {"question": "Which colour?"}')
    await expect(room.waiting).to_have_count(1)
    await look("a tool of this page")
    await room.press("Decline")
    await room.idle(answers=4)
    await room.say("I want a human")
    await expect(room.button("Take over")).to_be_visible()
    await look("asked to take over")
    await room.press("Take over")
    await expect(room.button("Give back")).to_be_visible()
    await look("handed over")
    await room.press("Give back")


async def test_no_state_of_streaming_breaks_a_rule(inspected: Inspected, venue: Venue) -> None:
    room, look = inspected.room, inspected.look
    await room.join(link(venue, inspected.line, f"page-{uuid.uuid4().hex}"))
    await room.say(ENDLESS)
    await room.streaming()
    await room.page.get_by_label("What becomes of it while the agent works").select_option("enqueue")
    await room.say("and then this")
    await expect(room.queue).to_have_count(1)
    await look("streaming, with a queue")
    await room.use("Inspector")
    await expect(room.page.locator("[data-seq]").first).to_be_visible()
    await room.page.locator("[data-seq] button").last.click()
    await look("inspector")
    await room.press("Close the inspector")
    await room.use("Replay")
    await expect(room.page.get_by_role("slider")).to_be_visible()
    await look("replay")
    await room.press("Back to live")
    await room.press(re.compile("show who"))
    await look("who is here")
    await room.page.keyboard.press("Escape")
    inspected.line.proxy.take_down()
    await room.go_offline()
    await room.not_online()
    await room.say("sent in a tunnel")
    await look("offline")
    inspected.line.proxy.bring_up()
    await room.go_offline(away=False)
    await room.online()
    await room.press("Stop")


async def test_no_dialog_breaks_a_rule(inspected: Inspected, venue: Venue) -> None:
    room, look = inspected.room, inspected.look
    await room.join(link(venue, inspected.line, f"page-{uuid.uuid4().hex}"))
    await room.page.keyboard.press("Control+k")
    await expect(room.page.get_by_role("dialog")).to_be_visible()
    await look("switcher")
    await room.page.keyboard.press("Escape")
    await expect(room.page.get_by_role("dialog")).to_be_hidden()
    await room.page.locator("body").press("?")
    await expect(room.page.get_by_role("dialog")).to_be_visible()
    await look("keys")
    await room.page.keyboard.press("Escape")
    if await room.button("Show sessions").is_visible():
        await room.press("Show sessions")
        await expect(room.page.get_by_role("navigation", name="Sessions")).to_be_visible()
        await look("sessions")


class Keyboard:
    """Somebody without a mouse, who has to see where they are."""

    def __init__(self, room: Room) -> None:
        self.room = room

    async def press(self, *keys: str) -> None:
        for key in keys:
            await self.room.page.keyboard.press(key)

    async def to(self, name: str, *, most: int = 60) -> None:
        """By Tab to what is called so; each stop on the way must show that it has the focus."""
        stops: list[str] = []
        for _ in range(most):
            await self.press("Tab")
            stop: dict[str, Any] = await self.room.state(FOCUSED)
            assert stop["isShown"], f"one does not see that {stop['name']!r} has the focus"
            stops.append(stop["name"])
            if stop["name"] == name:
                return
        raise AssertionError(f"{name!r} is not reached: {stops}")


#: What has the focus, and whether one sees it: an outline, a ring, or another frame than without.
FOCUSED = """(() => {
  const node = document.activeElement;
  const name = node.getAttribute('aria-label') ?? node.labels?.[0]?.textContent ?? node.textContent ?? '';
  const marks = (at) => {
    const { outlineStyle, outlineWidth, boxShadow } = getComputedStyle(at);
    return (outlineStyle !== 'none' && Number.parseFloat(outlineWidth) > 0) || boxShadow !== 'none';
  };
  let isShown = node === document.body;
  for (let at = node, up = 0; at && up < 3; at = at.parentElement, up += 1) isShown ||= marks(at);
  return { name: name.trim(), isShown };
})()"""


async def test_all_of_it_by_the_keyboard(venue: Venue, browser: Browser) -> None:
    """Two people; the first one has no mouse: joins, asks, steers, stops, decides, answers, replays, and leaves."""
    async with cast_in(venue, browser) as cast:
        await _talk(cast)
        await _look_around(cast)
        await cast.check()


async def _talk(cast: Cast) -> None:
    one, two = cast.rooms[0], cast.rooms[1]
    keyboard = Keyboard(one)
    await keyboard.to("Message")
    await one.page.keyboard.type(ENDLESS)
    await keyboard.press("Enter")
    await one.streaming()
    await one.page.keyboard.type("faster")
    await keyboard.press("Enter")
    await expect(one.answers.last).to_contain_text("[faster]")
    await keyboard.press("Escape")
    await cast.idle(answers=2)
    await one.page.keyboard.type("delete files")
    await keyboard.press("Enter")
    await expect(one.waiting).to_have_count(1)
    await keyboard.press("Shift+Tab", "Shift+Tab", "Shift+Tab", "Shift+Tab", "Shift+Tab", "Shift+Tab")
    await keyboard.to("Reject")
    await keyboard.press("Space")
    await cast.idle(answers=3)
    await two.say("plan a trip")
    await expect(one.waiting).to_have_count(1)
    await keyboard.to("Your answer")
    await one.page.keyboard.type("Ghent")
    await keyboard.to("Answer")
    await keyboard.press("Enter")
    await cast.idle(answers=4)


async def _look_around(cast: Cast) -> None:
    one = cast.rooms[0]
    keyboard, title = Keyboard(one), one.page.get_by_role("heading", level=1)
    await keyboard.to("Replay")
    await keyboard.press("Enter")
    await expect(one.page.get_by_role("slider", name="Position in the log")).to_be_visible()
    await keyboard.to("Position in the log")
    await keyboard.press("Home", "ArrowRight")
    await keyboard.to("Back to live")
    await keyboard.press("Enter")
    await one.page.locator("body").press("i")
    await expect(one.page.get_by_role("complementary", name="Inspector")).to_be_visible()
    await keyboard.to("Close the inspector")
    await keyboard.press("Enter")
    await keyboard.press("Control+k")
    await expect(one.page.get_by_role("dialog").get_by_role("textbox")).to_be_focused()
    await one.page.keyboard.type("elsewhere")
    await keyboard.press("Enter")
    await expect(title).to_have_text("elsewhere")
    await one.page.go_back()
    await expect(title).to_have_text(cast.session)
