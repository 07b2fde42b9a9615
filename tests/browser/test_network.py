"""What the network, a reload and the death of a gateway do to what three people see: nothing.

After every scenario each tab must show what the log folds to, and no text may ever have shrunk, changed or come twice
on the way: the fixture `cast` sees to that.
"""

from __future__ import annotations

import asyncio

import pytest
from playwright.async_api import expect

from tests.browser.cast import Cast, tokens
from tests.browser.proxy import target_of
from tests.browser.venue import Venue

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(180)]

LONG = "stream 150 tokens at 50/s"
SLEEP_S = 30.0


async def test_a_reload_in_mid_answer(cast: Cast) -> None:
    one, two, phone = cast.rooms
    await two.say(LONG)
    await two.streaming(words=10)
    await two.page.reload()
    await two.streaming(words=30)
    await phone.page.reload()
    await cast.idle(answers=1)
    assert [message.text for message in await cast.logged()] == [LONG, tokens(150)]
    await one.say("and now?")
    await cast.idle(answers=2)


async def test_a_gateway_is_killed_in_mid_answer(cast: Cast, venue: Venue) -> None:
    one, two, phone = cast.people
    doomed = target_of(venue.second.url)
    for person in (one, phone):
        person.network.only = doomed
        person.network.cut()
        await person.room.not_online()
        await person.room.online()
        assert person.network.carried_to(doomed), "it is not at the gateway that is to be killed"
    two.network.only = target_of(venue.url)
    await two.room.say("stream 300 tokens at 50/s")
    for person in (one, two, phone):
        await person.room.streaming(words=20)
    await venue.kill_the_second()
    await two.room.say("still there?")
    await cast.idle(answers=2)
    answers = [message.text for message in await cast.logged() if message.role == "assistant"]
    assert answers[0].startswith(tokens(20)), "the answer is not what the agent said"
    for person in (one, phone):
        assert not person.network.carried_to(doomed)


async def test_a_laptop_sleeps_for_thirty_seconds(cast: Cast) -> None:
    one, two, phone = cast.people
    await one.room.say("stream 5000 tokens at 25/s")
    for room in cast.rooms:
        await room.streaming()
    one.network.sleep()
    slept_at = asyncio.get_running_loop().time()
    await one.room.go_offline()
    await one.room.not_online()
    seen = await one.room.answers.inner_text()
    await asyncio.sleep(slept_at + SLEEP_S - asyncio.get_running_loop().time())
    assert await one.room.answers.inner_text() == seen, "it was not cut off"
    await two.room.say("sent while one is asleep")
    one.network.wake()
    await one.room.go_offline(away=False)
    await one.room.online()
    await expect(one.room.answers.last).to_contain_text("[sent while one is asleep]")
    await phone.room.press("Stop")
    await cast.idle(answers=2)


async def test_what_is_sent_offline_arrives_later(cast: Cast) -> None:
    one, two, phone = cast.people
    phone.network.take_down()
    await phone.room.go_offline()
    await phone.room.not_online()
    for text in ("first, sent in a tunnel", "second, sent in a tunnel"):
        await phone.room.say(text)
    await expect(phone.room.queue).to_have_count(2)
    await one.room.say("meanwhile")
    await two.room.idle(answers=1)
    phone.network.bring_up()
    await phone.room.go_offline(away=False)
    await cast.idle(answers=3)
    sent = [message.text for message in await cast.logged() if message.role == "user"]
    assert sent == ["meanwhile", "first, sent in a tunnel", "second, sent in a tunnel"]


async def test_cuts_in_mid_answer_leave_no_trace(cast: Cast) -> None:
    one, two, phone = cast.people
    await one.room.say("stream 200 tokens at 50/s")
    for words in (10, 40, 80):
        await two.room.streaming(words)
        for person in (one, two, phone):
            person.network.cut()
    await cast.idle(answers=1)
    assert (await cast.logged())[-1].text == tokens(200)
    assert all(person.network.accepted >= 4 for person in (one, two, phone))
