"""Reading: the list of sessions, history, five megabytes, the log token by token, and its raw entries."""

from __future__ import annotations

import re
import uuid
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect

from antiphon_client import Client
from tests.browser.cast import Cast, tokens
from tests.browser.library import write_library
from tests.browser.logged import conversation, texts_said
from tests.browser.room import Room, open_room
from tests.browser.venue import Line, Venue

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(240)]

MAX_ELEMENTS = 6000
"""Of the page, however long the session is."""


@pytest_asyncio.fixture(loop_scope="session")
async def line(venue: Venue) -> AsyncIterator[Line]:
    async with venue.line() as line:
        yield line


def link(venue: Venue, line: Line, session: str, user: str = "user-1") -> str:
    return f"{line.url}/#session={session}&token={venue.token(user)}"


async def test_the_list_of_sessions(venue: Venue, line: Line, room: Room) -> None:
    user = f"reader-{uuid.uuid4().hex[:8]}"
    names = [f"trip-{n}-{uuid.uuid4().hex[:6]}" for n in range(3)]
    async with Client(venue.url, token=venue.token(user)) as client:
        for name in names:
            await client.session(name).create(title=f"Trip {name}")
            await client.session(name).answer(f"hello {name}")
    await room.join(link(venue, line, names[0], user))
    listed = room.page.get_by_role("navigation", name="Sessions").get_by_role("link")
    await expect(listed).to_have_text([re.compile(f"Trip {name}") for name in reversed(names)])
    await expect(listed.and_(room.page.locator("[aria-current=page]"))).to_contain_text(names[0])
    await listed.filter(has_text=names[1]).click()
    await expect(room.page.get_by_role("heading", level=1)).to_have_text(f"Trip {names[1]}")
    await expect(room.answers).to_have_text(f"hello {names[1]}")
    assert await room.state("location.hash") == f"#session={names[1]}"
    await room.say("one more")
    await room.idle(answers=2)
    await room.page.go_back()
    await expect(room.answers).to_have_text(f"hello {names[0]}")
    await room.page.keyboard.press("Control+k")
    finding = room.page.get_by_role("dialog")
    await finding.get_by_role("textbox").fill("trip-2")
    await finding.get_by_role("link").filter(has_text=names[2]).click()
    await expect(room.answers).to_have_text(f"hello {names[2]}")


async def test_history_comes_as_one_scrolls(venue: Venue, line: Line, room: Room) -> None:
    session = f"page-{uuid.uuid4().hex}"
    async with Client(venue.url, token=venue.token("user-2")) as client:
        for n in range(80):
            await client.session(session).answer(f"number {n}")
    await room.join(link(venue, line, session))
    await expect(room.answers.last).to_have_text("number 79")
    logged = await conversation(venue.url, venue.token("reader"), session)
    assert len(logged) == 160
    assert await room.conversation(logged[0].id) == logged


async def test_five_megabytes_are_there_and_cost_little(venue: Venue, line: Line, room: Room) -> None:
    session = f"page-{uuid.uuid4().hex}"
    assert await write_library(venue, session, chapters=40, illustrated=False) > 5_000_000
    await room.join(link(venue, line, session))
    logged = {message.id: message for message in await conversation(venue.url, venue.token("reader"), session)}
    await expect(room.messages.last).to_be_visible()
    seen: set[str] = set()
    for part in (1.0, 0.9, 0.5, 0.25, 0.0):
        await room.state(
            f"(() => {{ const log = document.querySelector('[role=log]'); log.scrollTop = log.scrollHeight * {part}; }})()"
        )
        await room.frame()
        await room.frame()
        assert await room.state("document.getElementsByTagName('*').length") < MAX_ELEMENTS
        for shown in await room.messages.evaluate_all(TEXTS):
            whole = "".join(logged[shown["id"]].text.split())
            assert shown["text"] == whole, f"{shown['id']} is not what the log has"
            seen.add(shown["id"])
    assert len(seen) >= 5


#: Of the messages that are in the DOM, without white space: between paragraphs there is none in the DOM.
TEXTS = """nodes => nodes.map((node) => ({
  id: node.dataset.message,
  text: [...node.querySelectorAll('[data-part=text]')].map((part) => part.textContent).join('').replace(/\\s+/g, ''),
}))"""


async def test_the_log_is_replayed_token_by_token(cast: Cast, venue: Venue) -> None:
    one, two, _ = cast.rooms
    await one.say("stream 40 tokens at 20/s")
    await cast.idle(answers=1)
    said = await texts_said(venue.url, venue.token("reader"), cast.session)
    assert len(said) > 5
    await one.use("Replay")
    slider = one.page.get_by_role("slider", name="Position in the log")
    await expect(slider).to_be_visible()
    replayed = one.page.locator("[data-replay] article[data-role=assistant] [data-part=text]")
    await expect(replayed).to_have_text(tokens(40))
    await slider.focus()
    await one.page.keyboard.press("Home")
    await expect(one.page.locator("[data-replay] [data-message]")).to_have_count(0)
    end = int(await slider.get_attribute("max") or 0)
    texts = [""]
    for _step in range(end):
        await one.press("Step forward")
        text = (await replayed.inner_text()).strip() if await replayed.count() else ""
        if text != texts[-1]:
            texts.append(text)
    assert texts == said
    await two.say("meanwhile")
    await two.idle(answers=2)
    await expect(one.page.locator("[data-replay] article[data-role=assistant]")).to_have_count(1)
    await one.press("Back to live")
    await one.idle(answers=2)


async def test_a_replay_plays_and_pauses(cast: Cast) -> None:
    one = cast.rooms[0]
    await one.say("stream 60 tokens at 60/s")
    await cast.idle(answers=1)
    await one.use("Replay")
    slider = one.page.get_by_role("slider", name="Position in the log")
    await slider.focus()
    await one.page.keyboard.press("Home")
    await one.press("Play")
    replayed = one.page.locator("[data-replay] article[data-role=assistant] [data-part=text]")
    await expect(replayed).to_contain_text("t5 ")
    await one.press("Pause")
    place = await slider.input_value()
    await one.frame()
    assert await slider.input_value() == place
    await one.page.get_by_label("Speed").select_option("64")
    await one.press("Play")
    await expect(replayed).to_have_text(tokens(60))
    await one.press("Back to live")


async def test_the_inspector_shows_what_the_log_has(cast: Cast) -> None:
    one = cast.rooms[0]
    await one.say("stream 20 tokens at 100/s")
    await cast.idle(answers=1)
    await one.use("Inspector")
    panel = one.page.get_by_role("complementary", name="Inspector")
    rows = panel.locator("[data-seq]")
    await expect(rows.filter(has_text="RUN_FINISHED")).to_have_count(1)
    await panel.get_by_label("Filter").fill("input.sent")
    await expect(rows).to_have_count(1)
    await rows.get_by_role("button").first.click()
    await expect(rows.locator("pre")).to_contain_text('"stream 20 tokens at 100/s"')
    await panel.get_by_label("Filter").fill("")
    await panel.get_by_label("Tokens").uncheck()
    await expect(rows.filter(has_text=re.compile("t1 "))).to_have_count(0)
    await one.press("Close the inspector")
    await expect(panel).to_be_hidden()


async def test_a_reader_may_not_write(venue: Venue, line: Line, browser: Browser) -> None:
    """A token that gives `read` alone: everything is shown, nothing is offered."""
    session = f"page-{uuid.uuid4().hex}"
    async with Client(venue.url, token=venue.token("user-1")) as client:
        await client.session(session).answer("to be read")
    async with open_room(browser) as room:
        await room.join(f"{line.url}/#session={session}&token={venue.reading_token('user-3')}")
        await expect(room.answers).to_have_text("to be read")
        await expect(room.field).to_be_hidden()
        await room.check()
