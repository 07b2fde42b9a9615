"""Two people in two tabs and a third on a phone, against `antiphon dev` with two gateways.

After every scenario each tab must show what the log folds to, and no text may ever have shrunk, changed or come twice
on the way: the fixture `cast` sees to that.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from playwright.async_api import Browser, FilePayload, expect

from tests.browser.cast import Cast, cast_in, tokens
from tests.browser.venue import Venue

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(180)]

LONG = "stream 150 tokens at 50/s"
ENDLESS = "stream 5000 tokens at 25/s"


async def test_everybody_sees_an_answer_stream(cast: Cast) -> None:
    one, two, phone = cast.rooms
    await one.say(LONG)
    await phone.streaming()
    await cast.idle(answers=1)
    question, answer = await cast.logged()
    assert (question.text, answer.text) == (LONG, tokens(150))
    for room in (one, two, phone):
        steps = (await room.steps())[answer.id]
        assert len(steps) > 10, "the text came in few pieces: it did not stream"
        assert steps[-1] == answer.text.replace(" ", "")
        await expect(room.people).to_have_count(3)


async def test_steering_while_it_streams(cast: Cast) -> None:
    one, two, phone = cast.rooms
    await one.say(ENDLESS)
    await phone.streaming()
    await phone.say("faster, please")
    for room in cast.rooms:
        await expect(room.answers.last).to_contain_text("[faster, please]")
    await two.press("Stop")
    await cast.idle(answers=2)
    before, steered, after = (message.text for message in (await cast.logged())[1:])
    assert (before, steered) == (tokens(len(before.split())), "faster, please"), "it is in its place in the transcript"
    assert after.startswith("[faster, please]")


async def test_stop_by_somebody_else(cast: Cast) -> None:
    one, two, phone = cast.rooms
    await one.say(ENDLESS)
    await two.streaming()
    await phone.press("Stop")
    await cast.idle(answers=1)
    for room in cast.rooms:
        await expect(room.transcript.get_by_text("stopped", exact=True)).to_be_visible()
    await one.say("never mind")
    await cast.idle(answers=2)


async def test_two_send_at_once_and_one_takes_it_back(cast: Cast) -> None:
    one, two, phone = cast.rooms
    await phone.say(ENDLESS)
    for room in cast.rooms:
        await room.streaming()
    for room, text in ((one, "of the first"), (two, "of the second")):
        await room.field.fill(text)
        await room.page.get_by_label("What becomes of it while the agent works").select_option("enqueue")
    await one.field.press("Enter")
    await two.field.press("Enter")
    for room in cast.rooms:
        await expect(room.queue).to_have_count(2)
    await one.queue.filter(has_text="of the first").get_by_role("button", name="Take back").click()
    for room in cast.rooms:
        await expect(room.queue).to_have_count(1)
    await phone.press("Stop")
    await cast.idle(answers=2)
    assert [message.text for message in await cast.logged() if message.role == "user"] == [ENDLESS, "of the second"]


async def test_a_file_goes_with_a_message(cast: Cast) -> None:
    one, two, phone = cast.rooms
    content = b"what was agreed\n" * 20_000
    await one.page.locator("input[type=file]").set_input_files(
        FilePayload(name="notes.txt", mimeType="text/plain", buffer=content)
    )
    await expect(one.page.locator('[data-file][data-state="stored"]')).to_contain_text("notes.txt")
    await one.say("look at this")
    for room in (one, two, phone):
        await expect(room.transcript.locator("[data-attachment]")).to_contain_text("320 kB")
    async with two.page.expect_download() as begun:
        await two.transcript.get_by_role("button", name="notes.txt").click()
    saved = await begun.value
    assert saved.suggested_filename == "notes.txt"
    assert await asyncio.to_thread(Path(await saved.path()).read_bytes) == content
    await cast.idle(answers=1)


async def test_an_approval_is_answered_in_the_other_tab(cast: Cast) -> None:
    one, two, _ = cast.rooms
    await one.say("delete files")
    for room in cast.rooms:
        await expect(room.waiting).to_contain_text("Delete 3 files?")
    await two.waiting.get_by_role("button", name="Allow", exact=True).click()
    for room in cast.rooms:
        await expect(room.waiting).to_have_count(0)
    await cast.idle(answers=1)
    assert (await cast.logged())[-1].text == "allow_once by user-2"


async def test_a_question_is_answered_on_the_phone(cast: Cast) -> None:
    one, _, phone = cast.rooms
    await one.say("plan a trip")
    for room in cast.rooms:
        await expect(room.waiting).to_contain_text("Where to?")
    await phone.waiting.get_by_label("Your answer").fill("Ghent")
    await phone.waiting.get_by_role("button", name="Answer").click()
    for room in cast.rooms:
        await expect(room.waiting).to_have_count(0)
    await cast.idle(answers=1)
    assert (await cast.logged())[-1].text == "to Ghent"


async def test_a_tool_is_executed_in_the_page(venue: Venue, browser: Browser) -> None:
    async with cast_in(venue, browser, tools=True) as cast:
        one, two, phone = cast.rooms
        await one.say('use ask_browser with {"question": "Which colour?"}')
        for room in cast.rooms:
            await expect(room.calls).to_have_count(1)
        await expect(one.waiting).to_contain_text("Which colour?")
        await one.waiting.get_by_label("Your answer").fill("green")
        await one.waiting.get_by_role("button", name="Answer").click()
        await cast.idle(answers=1)
        for room in (two, phone):
            await expect(room.calls).to_have_attribute("data-state", "done")
        assert (await cast.logged())[-1].text == 'result: {"answer":"green"}'
        await cast.check()


async def test_a_human_takes_over_and_gives_it_back(cast: Cast) -> None:
    one, two, phone = cast.rooms
    await one.say("I want a human")
    await two.press("Take over")
    await expect(two.button("Give back")).to_be_visible()
    await one.say("My order?")
    await expect(two.sent.last).to_have_text("My order?")
    await two.say("It is on its way.")
    for room in cast.rooms:
        await expect(room.answers.last).to_have_text("It is on its way.")
    await two.press("Give back")
    for room in cast.rooms:
        await expect(room.button("Give back")).to_be_hidden()
    await phone.say("back to the agent")
    await cast.idle(answers=3)
    said = [(message.role, message.text) for message in await cast.logged()]
    assert said[-4:] == [
        ("user", "My order?"),
        ("assistant", "It is on its way."),
        ("user", "back to the agent"),
        ("assistant", "back to the agent"),
    ]
