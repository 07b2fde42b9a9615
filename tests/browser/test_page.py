"""The page at `/`, in a real Chromium: join, stream, send, stop, take back, survive."""

import re
from itertools import pairwise

import pytest
from playwright.async_api import Browser, expect

from tests.browser.peer import Peer
from tests.browser.room import Room, Site, open_room

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(90)]

LONG = "stream 120 tokens at 60/s"
ENDLESS = "stream 2000 tokens at 40/s"
SOME_TEXT = re.compile(r"\S")
#: Keeps every text that the last answer has shown, to prove order and once-ness.
RECORD = """() => {
  window.seenTexts = [];
  new MutationObserver(() => {
    const text = [...document.querySelectorAll('.message.assistant .text')].at(-1)?.textContent ?? '';
    if (text !== window.seenTexts.at(-1)) window.seenTexts.push(text);
  }).observe(document.getElementById('messages'), {childList: true, subtree: true, characterData: true});
}"""


async def test_join_by_link_hides_the_token(site: Site, room: Room) -> None:
    await room.join(site.link())
    assert await room.state("location.hash") == f"#session={site.session}"
    assert site.token in await room.state("JSON.stringify({...sessionStorage})")
    await expect(room.page.locator("#session")).to_have_text(site.session)
    await room.page.reload()
    await room.phase("live")


async def test_join_by_form(site: Site, room: Room) -> None:
    await room.page.goto(site.url)
    await room.page.fill("#join-session", "no such name!")
    await room.page.fill("#join-token", "nonsense")
    await room.page.get_by_role("button", name="Join").click()
    await expect(room.page.locator("#join-error")).to_contain_text("128 letters")
    await room.page.fill("#join-session", site.session)
    await room.page.fill("#join-token", "nonsense")
    await room.page.press("#join-token", "Enter")
    await expect(room.page.locator("#join-error")).to_contain_text("not valid")
    await room.phase("refused")
    await room.page.fill("#join-token", site.token)
    await room.page.press("#join-token", "Enter")
    await room.phase("live")
    assert site.token not in await room.state("location.href")


async def test_an_answer_streams_in_order_and_once(site: Site, room: Room) -> None:
    await room.join(site.link())
    await room.state(RECORD)
    await room.say(LONG)
    await expect(room.page.locator(".message.assistant.streaming")).to_have_count(1)
    await room.idle(answers=1)
    steps: list[str] = await room.state("window.seenTexts")
    assert len(steps) > 10, "the text came in few pieces: it did not stream"
    assert all(after.startswith(before) for before, after in pairwise(steps))
    assert await site.answers() == await room.texts(room.answers) == steps[-1:]
    await expect(room.page.locator(".streaming")).to_have_count(0)


async def test_cuts_in_mid_stream_leave_no_trace(site: Site, room: Room) -> None:
    await room.join(site.link())
    await room.state(RECORD)
    await room.say(LONG)
    for steps_seen in (5, 15, 30):
        await room.until(f"window.seenTexts.length > {steps_seen}")
        site.proxy.cut()
    await room.idle(answers=1)
    assert site.proxy.accepted >= 4
    steps: list[str] = await room.state("window.seenTexts")
    assert all(after.startswith(before) for before, after in pairwise(steps))
    assert await site.answers() == await room.texts(room.answers) == steps[-1:]


async def test_a_reload_in_mid_stream_shows_it_all(site: Site, room: Room) -> None:
    await room.join(site.link())
    for number in (1, 2, 3):
        await room.say(f"number {number}")
        await room.idle(answers=number)
    await room.say(LONG)
    await expect(room.answers).to_have_count(4)
    await expect(room.answers.last).to_have_text(SOME_TEXT)
    await room.page.reload()
    await room.idle(answers=4)
    assert await room.texts(room.sent) == ["number 1", "number 2", "number 3", LONG]
    assert await site.answers() == await room.texts(room.answers)


async def test_a_message_is_text_whatever_is_in_it(site: Site, room: Room) -> None:
    await room.join(site.link())
    nasty = "<img src=x onerror=\"document.title='owned'\">\n\n```html\n<script>1</script>\n```\n\n\n  & done  "
    await room.page.fill("#draft", "first line")
    await room.page.press("#draft", "Shift+Enter")
    assert await room.state("document.getElementById('draft').value") == "first line\n"
    await room.say(nasty)
    await room.idle(answers=1)
    assert await room.texts(room.sent) == [nasty]
    assert await site.answers() == await room.texts(room.answers)
    assert await room.page.locator(".message img, .message script").count() == 0
    await expect(room.page.locator(".message.user .head .author")).to_have_text("You")
    assert "owned" not in await room.page.title()


async def test_stop_keeps_the_partial_text(site: Site, room: Room) -> None:
    await room.join(site.link())
    await room.say(ENDLESS)
    await expect(room.answers).to_have_text(SOME_TEXT)
    await room.stop.click()
    await room.idle(answers=1)
    await expect(room.page.locator(".message.assistant .marks")).to_have_text("stopped")
    assert await site.answers() == await room.texts(room.answers)


async def test_a_queued_message_can_be_taken_back(site: Site, room: Room) -> None:
    await room.join(site.link())
    await room.say(ENDLESS)
    await expect(room.answers).to_have_text(SOME_TEXT)
    await room.say("never mind")
    await room.say("keep this")
    await expect(room.queue).to_have_count(2)
    await expect(room.queue.first.locator(".tag")).to_have_text("queued")
    assert len(await room.texts(room.sent)) == 1, "a queued message stands apart from the transcript"
    await room.queue.first.get_by_role("button", name="Take back").click()
    await expect(room.queue).to_have_count(1)
    await room.stop.click()
    await room.idle(answers=2)
    assert await room.texts(room.sent) == [ENDLESS, "keep this"]


async def test_sending_survives_a_cut_and_a_reload(site: Site, room: Room) -> None:
    await room.join(site.link())
    site.proxy.take_down()
    await room.say("sent while the network was away")
    await expect(room.queue.locator(".tag")).to_have_text(re.compile("sending…|waiting"))
    await expect(room.page.locator("#pill")).not_to_have_attribute("data-phase", "live")
    site.proxy.bring_up()
    await room.idle(answers=1)
    await room.page.reload()
    await room.idle(answers=1)
    assert await room.texts(room.sent) == ["sent while the network was away"]


async def test_a_reload_in_mid_send_sends_once(peer: Peer, site: Site, room: Room) -> None:
    peer.refusals["input.send"] = {"code": "unavailable", "retryable": True, "retry_after_ms": 60_000}
    await room.join(site.link())
    await room.say("patience")
    await expect(room.queue.locator(".tag")).to_have_text("sending…")
    await room.page.reload()
    await room.idle(answers=1)
    sends = [command["inputId"] for command in peer.commands if command["op"] == "input.send"]
    assert len(sends) == 2
    assert len(set(sends)) == 1, "sent again under the same id"


async def test_two_people_see_each_other(peer: Peer, site: Site, room: Room, browser: Browser) -> None:
    await room.join(site.link())
    other = await open_room(browser)
    await other.join(site.link("token-user-b"))
    await other.say("hello from the other side")
    await room.idle(answers=1)
    await expect(room.page.locator(".message.user .author")).to_have_text("User B")
    await expect(room.page.locator("#announcer")).to_have_text("Echo: hello from the other side")
    assert await room.texts(room.answers) == await other.texts(other.answers)
    assert other.faults == []


async def test_a_refused_message_can_be_sent_again(peer: Peer, site: Site, room: Room) -> None:
    peer.refusals["input.send"] = {"code": "queue_full", "retryable": True}
    await room.join(site.link())
    await room.say("one too many")
    await expect(room.queue.locator(".tag")).to_have_text("not sent")
    await room.queue.get_by_role("button", name="Try again").click()
    await room.idle(answers=1)
    sends = [command["inputId"] for command in peer.commands if command["op"] == "input.send"]
    assert len(set(sends)) == 2, "a refused id is spent"


async def test_a_gap_is_folded_anew(peer: Peer, site: Site, room: Room) -> None:
    await room.join(site.link())
    await room.say("before the gap")
    await room.idle(answers=1)
    log = peer.log(site.session)
    client = next(iter(log.listeners))
    delta = next(entry for entry in log.entries if "off" in entry)
    log.messages[1]["text"] = delta["events"][0]["delta"] = "before THE gap"
    client.send({"op": "session.gap", "session": log.name, "from": 1, "to": 2})
    client.join(log, None)
    await expect(room.answers).to_have_text("before THE gap")
    assert await room.texts(room.sent) == ["before the gap"]


async def test_a_broken_chain_is_repaired(peer: Peer, site: Site, room: Room) -> None:
    await room.join(site.link())
    log = peer.log(site.session)
    listeners, log.listeners = log.listeners, set()
    log.append([{"type": "CUSTOM", "name": "lost on the way"}], by={"kind": "system"}, id="lost")
    log.listeners = listeners
    await room.say("after the hole")
    await room.idle(answers=1)
    cursors = [command.get("after") for command in peer.commands if command["op"] == "subscribe"]
    assert cursors == [None, "e1:0"]
    assert await site.answers() == await room.texts(room.answers)


async def test_a_gateway_that_asks_is_told_when_an_entry_is_seen(peer: Peer, site: Site, room: Room) -> None:
    await room.join(site.link())
    await room.say("hello")
    await room.idle(answers=1)
    assert all(command["acks"] for command in peer.commands if command["op"] == "subscribe")
    log = peer.log(site.session)
    for client in log.listeners:
        client.send({"op": "session.mark", "session": site.session, "seq": log.head})
    while not (acks := [command for command in peer.commands if command["op"] == "ack"]):
        await room.frame()
    assert [(ack["session"], ack["seq"]) for ack in acks] == [(site.session, log.head)]


async def test_a_foreign_cursor_starts_afresh(peer: Peer, site: Site, room: Room) -> None:
    await room.join(site.link())
    await room.say("of the old world")
    await room.idle(answers=1)
    peer.epoch = "e2"
    site.proxy.cut()
    await room.say("of the new world")
    await room.idle(answers=2)
    assert await site.answers() == await room.texts(room.answers)


@pytest.mark.parametrize(
    ("code", "reason", "phase"),
    [
        (4200, {"code": "draining", "retry_after_ms": 50}, "live"),
        (4101, {"code": "heartbeat_timeout"}, "live"),
        (4300, {"code": "token_expired"}, "expired"),
        (4429, {"code": "flood"}, "refused"),
        (1001, {}, "closed"),
    ],
)
async def test_a_close_code_says_what_to_do(
    peer: Peer, site: Site, room: Room, code: int, reason: dict[str, object], phase: str
) -> None:
    await room.join(site.link())
    await peer.close_all(code, reason)
    if phase == "live":
        while len([command for command in peer.commands if command["op"] == "subscribe"]) < 2:
            await room.frame()
    await room.phase(phase)
    if phase == "expired":
        await room.page.fill("#join-token", site.token)
        await room.page.press("#join-token", "Enter")
        await room.phase("live")
        assert peer.commands[-1].get("after") == "e1:0", "goes on where it was"


async def test_a_silent_server_is_left(peer: Peer, site: Site, room: Room) -> None:
    peer.heartbeat_ms = 200
    peer.answers_pings = False
    await room.page.goto(site.link())
    while len([command for command in peer.commands if command["op"] == "hello"]) < 2:
        await room.frame()
    peer.answers_pings = True
    await room.phase("live")


async def test_earlier_messages_load_page_by_page(peer: Peer, site: Site, room: Room) -> None:
    peer.log(site.session).past(84)
    await room.join(site.link())
    await expect(room.sent).to_have_count(50)
    await room.page.get_by_role("button", name="Load earlier").click()
    await expect(room.sent).to_have_count(84)
    assert await room.texts(room.sent) == [f"Message {n} of long ago." for n in range(84)]
    await expect(room.page.get_by_role("button", name="Load earlier")).to_be_hidden()


async def test_a_reader_who_scrolled_up_stays_there(peer: Peer, site: Site, room: Room) -> None:
    peer.log(site.session).past(40)
    await room.join(site.link())
    await expect(room.sent).to_have_count(40)
    await room.state("document.getElementById('scroller').scrollTop = 100")
    latest = room.page.get_by_role("button", name="Jump to latest")
    await expect(latest).to_be_visible()
    peer.log(site.session).agent([{"type": "TEXT_MESSAGE_START", "messageId": "m", "role": "assistant"}])
    await expect(room.answers).to_have_count(1)
    assert await room.state("document.getElementById('scroller').scrollTop") == 100
    await latest.click()
    await expect(latest).to_be_hidden()
    at_end = "(({scrollTop, scrollHeight, clientHeight}) => scrollHeight - scrollTop - clientHeight)(scroller) < 2"
    assert await room.state(at_end)


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_a_phone_shows_all_of_it(site: Site, browser: Browser, scheme: str) -> None:
    room = await open_room(
        browser, viewport={"width": 360, "height": 640}, color_scheme=scheme, is_mobile=True, has_touch=True
    )
    await room.join(site.link())
    await room.say("```\n" + "a long line of code " * 20 + "\n```\n" + "w" * 300)
    await room.idle(answers=1)
    assert await room.state("document.documentElement.scrollWidth") == 360
    assert await room.state("document.getElementById('scroller').scrollWidth") <= 360
    await room.fits("draft", "send", width=360, height=640)
    assert room.faults == []
