"""The console and a server that misbehaves on command: gaps, holes, refusals, close codes, silence, and strange texts."""

from __future__ import annotations

import re

import pytest
from playwright.async_api import Browser, expect

from tests.browser.peer import Json, Log, Peer
from tests.browser.room import PHONE, Room, open_room
from tests.browser.site import Site

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(120)]

SYSTEM = {"kind": "system"}


async def commands(peer: Peer, room: Room, op: str, count: int = 1) -> list[Json]:
    """The commands of that kind, once the page has sent so many."""
    while len(found := [command for command in peer.commands if command["op"] == op]) < count:
        await room.frame()
    return found


async def test_a_link_hides_its_token(site: Site, room: Room) -> None:
    await room.join(site.link())
    assert await room.state("location.hash") == f"#session={site.session}"
    assert site.token in await room.state("JSON.stringify({...sessionStorage})")
    await expect(room.page.get_by_role("heading", level=1)).to_have_text(site.session)
    await room.page.reload()
    await room.online()


async def test_joining_by_the_form(site: Site, room: Room) -> None:
    await room.page.goto(site.url)
    session, token = room.page.get_by_label("Session"), room.page.get_by_label("Token")
    await session.fill("no such name!")
    await token.fill("nonsense")
    await room.press("Join")
    await expect(room.page.get_by_role("alert")).to_contain_text("128 letters")
    await session.fill(site.session)
    await token.press("Enter")
    await expect(room.page.get_by_role("alert")).to_contain_text("not valid")
    await token.fill(site.token)
    await token.press("Enter")
    await room.online()
    assert site.token not in await room.state("location.href")


async def test_a_message_is_text_whatever_is_in_it(site: Site, room: Room) -> None:
    await room.join(site.link())
    nasty = "<img src=x onerror=\"document.title='owned'\">\n\n```html\n<script>1</script>\n```\n\n\n  & done  "
    await room.field.fill("first line")
    await room.field.press("Shift+Enter")
    assert await room.field.input_value() == "first line\n"
    await room.say(nasty)
    await room.idle(answers=1)
    assert await room.sent.evaluate_all("nodes => nodes.map((node) => node.textContent)") == [nasty]
    await expect(room.answers).to_contain_text("<img src=x onerror=")
    assert await room.transcript.locator("img, script").count() == 0
    assert "owned" not in await room.page.title()


async def test_links_in_answers_lead_nowhere_bad(site: Site, room: Room) -> None:
    await room.join(site.link())
    await room.say(
        "[good](https://example.org/a) [bad](javascript:alert(1)) [data](data:text/html,x) ![](https://example.org/x.png)"
    )
    await room.idle(answers=1)
    links = room.answers.get_by_role("link")
    hrefs = await links.evaluate_all("nodes => nodes.map((node) => node.getAttribute('href'))")
    assert all(href.startswith("https://") for href in hrefs)
    assert "https://example.org/a" in hrefs
    rels = await links.evaluate_all("nodes => nodes.map((node) => node.rel)")
    assert all("noopener" in rel or "noreferrer" in rel for rel in rels)
    assert await room.transcript.locator("img").count() == 0


async def test_a_reload_in_mid_send_sends_once(peer: Peer, site: Site, room: Room) -> None:
    peer.refusals["input.send"] = {"code": "unavailable", "retryable": True, "retry_after_ms": 60_000}
    await room.join(site.link())
    await room.say("patience")
    await expect(room.queue).to_contain_text("sending")
    await room.page.reload()
    await room.idle(answers=1)
    sends = [command["inputId"] for command in peer.commands if command["op"] == "input.send"]
    assert len(sends) == 2
    assert len(set(sends)) == 1, "sent again under the same id"


async def test_a_refused_message_can_be_sent_again(peer: Peer, site: Site, room: Room) -> None:
    peer.refusals["input.send"] = {"code": "queue_full", "retryable": False}
    await room.join(site.link())
    await room.say("one too many")
    await expect(room.queue).to_contain_text("As many messages wait as may")
    await room.queue.get_by_role("button", name="Try again").click()
    await room.idle(answers=1)
    sends = [command["inputId"] for command in peer.commands if command["op"] == "input.send"]
    assert len(set(sends)) == 2, "a refused id is spent"


ASK = {"type": "approval.requested", "kind": "approval", "message": "Delete 3 files?", "quorum": 1}
ASK |= {"approvalId": "apr1", "options": ["allow_once", "reject_once"], "default": "reject_once"}


async def test_a_refusal_is_shown_where_it_was_met(peer: Peer, site: Site, room: Room) -> None:
    await room.join(site.link())
    log = peer.log(site.session)
    log.begin("run_1")
    log.agent([ASK], run="run_1")
    by = {"kind": "user", "id": "user-b", "name": "User B"}
    refused = {
        "code": "already_resolved",
        "retryable": False,
        "status": "resolved",
        "decision": "reject_once",
        "by": by,
    }
    peer.refusals["approval.respond"] = refused
    await room.waiting.get_by_role("button", name="Allow", exact=True).click()
    await expect(room.waiting.get_by_role("alert")).to_have_text("User B was first: Reject.")
    peer.refusals["run.cancel"] = {"code": "not_allowed", "retryable": False, "right": "cancel"}
    await room.press("Stop")
    await expect(room.page.get_by_role("alert").last).to_contain_text("Your token does not allow that")
    await room.waiting.get_by_role("button", name="Allow", exact=True).click()
    await expect(room.waiting).to_have_count(0)
    log.finish("run_1")


async def test_who_is_there_and_who_types(peer: Peer, site: Site, room: Room) -> None:
    await room.join(site.link())
    log = peer.log(site.session)
    log.present(person("user-a", "active"), person("user-b", "typing"))
    await expect(room.people).to_have_count(2)
    await expect(room.page.get_by_text("User B is typing")).to_be_visible()
    log.present(*(person(f"user{n}", "idle") for n in range(8)))
    await expect(room.people).to_have_count(8)
    await expect(room.page.get_by_text("is typing")).to_be_hidden()
    await room.field.press_sequentially("some words", delay=5)
    states = [command["state"] for command in await commands(peer, room, "presence.set")]
    assert states == ["typing"]


def person(ident: str, state: str) -> Json:
    devices = [{"device": "d", "state": state, "tools": []}]
    name = ident.replace("-", " ").title()
    return {"kind": "user", "id": ident, "name": name, "roles": [], "state": state, "devices": devices}


async def test_a_gap_is_folded_anew(peer: Peer, site: Site, room: Room) -> None:
    await room.join(site.link())
    await room.say("before the gap")
    await room.idle(answers=1)
    log = peer.log(site.session)
    client = next(iter(log.listeners))
    delta = next(entry for entry in log.entries if "off" in entry)
    log.messages[1]["text"] = delta["events"][0]["delta"] = "before the gap, and what was missed"
    client.send({"op": "session.gap", "session": log.name, "from": 1, "to": 2})
    client.join(log, None)
    await expect(room.answers).to_have_text("before the gap, and what was missed")
    await expect(room.sent).to_have_text("before the gap")


async def test_a_broken_chain_is_repaired(peer: Peer, site: Site, room: Room) -> None:
    await room.join(site.link())
    log = peer.log(site.session)
    listeners, log.listeners = log.listeners, set()
    log.append([{"type": "CUSTOM", "name": "lost on the way"}], by=SYSTEM, id="lost")
    log.listeners = listeners
    await room.say("after the hole")
    await room.idle(answers=1)
    cursors = [command.get("after") for command in peer.commands if command["op"] == "subscribe"]
    assert cursors == [None, "e1:0"]


async def test_a_gateway_that_asks_is_told_when_an_entry_is_seen(peer: Peer, site: Site, room: Room) -> None:
    await room.join(site.link())
    await room.say("hello")
    await room.idle(answers=1)
    assert all(command["acks"] for command in peer.commands if command["op"] == "subscribe")
    log = peer.log(site.session)
    for client in log.listeners:
        client.send({"op": "session.mark", "session": site.session, "seq": log.head})
    acks = await commands(peer, room, "ack")
    assert [(ack["session"], ack["seq"]) for ack in acks] == [(site.session, log.head)]


async def test_a_foreign_cursor_starts_afresh(peer: Peer, site: Site, room: Room) -> None:
    await room.join(site.link())
    await room.say("of the old world")
    await room.idle(answers=1)
    peer.epoch = "e2"
    site.proxy.cut()
    await room.say("of the new world")
    await room.idle(answers=2)
    await expect(room.answers).to_have_text(site.answers())


@pytest.mark.parametrize(
    ("code", "reason", "becomes"),
    [
        (4200, {"code": "draining", "retry_after_ms": 50}, "online"),
        (4101, {"code": "heartbeat_timeout"}, "online"),
        (4429, {"code": "flood"}, "stopped"),
        (1001, {}, "stopped"),
    ],
)
async def test_a_close_code_says_what_to_do(
    peer: Peer, site: Site, room: Room, code: int, reason: Json, becomes: str
) -> None:
    await room.join(site.link())
    await room.say("not lost")
    await room.idle(answers=1)
    await peer.close_all(code, reason)
    if becomes == "stopped":
        await room.is_connection("stopped")
        await room.press("Reconnect")
    subscribed = await commands(peer, room, "subscribe", 2)
    await room.online()
    await expect(room.answers).to_have_text("not lost")
    assert becomes == "stopped" or subscribed[-1]["after"] == f"e1:{peer.log(site.session).head}"


async def test_an_expired_token_asks_for_another(peer: Peer, site: Site, room: Room) -> None:
    await room.join(site.link())
    await room.say("before it expired")
    await room.idle(answers=1)
    await peer.close_all(4300, {"code": "token_expired"})
    await expect(room.page.get_by_role("alert")).to_contain_text("expired")
    await room.page.get_by_label("Token").fill(site.token)
    await room.press("Join")
    await room.online()
    await expect(room.answers).to_have_text("before it expired")


async def test_a_silent_server_is_left(peer: Peer, site: Site, room: Room) -> None:
    peer.heartbeat_ms = 200
    peer.answers_pings = False
    await room.page.goto(site.link())
    await commands(peer, room, "hello", 2)
    peer.answers_pings = True
    await room.online()


async def test_a_part_that_an_upgrade_has_taken_away(site: Site, room: Room) -> None:
    """A page of before the upgrade asks for a file that the new gateway does not have."""
    await room.page.route("**/web/inspector-*", lambda route: route.fulfill(status=404))
    await room.join(site.link())
    await room.use("Inspector")
    await expect(room.page.get_by_role("alert")).to_contain_text("updated")
    await room.page.unroute_all()
    await room.press("Reload the page")
    await room.online()
    await room.use("Inspector")
    await expect(room.page.get_by_role("complementary", name="Inspector")).to_be_visible()
    room.faults = [fault for fault in room.faults if "404" not in fault and "imported module" not in fault]


async def test_a_session_that_is_deleted_begins_anew(peer: Peer, site: Site, room: Room) -> None:
    await room.join(site.link())
    await room.say("to be forgotten")
    await room.idle(answers=1)
    log: Log = peer.log(site.session)
    log.append([{"type": "session.deleted"}], by=SYSTEM, id="gone")
    await expect(room.messages).to_have_count(0)
    old = {"id": "m0", "role": "assistant", "text": "of another session", "by": {"kind": "agent", "id": "w"}}
    log.append([{"type": "messages.imported", "messages": [old]}], by=SYSTEM, id="import")
    await expect(room.answers).to_have_text("of another session")


async def test_earlier_messages_load_by_scrolling(peer: Peer, site: Site, room: Room) -> None:
    peer.log(site.session).past(284)
    await room.join(site.link())
    await expect(room.sent.last).to_have_text("Message 283 of long ago.")
    shown = await room.conversation("old-0")
    assert [message.text for message in shown] == [f"Message {n} of long ago." for n in range(284)]


async def test_a_reader_who_scrolled_up_stays_there(peer: Peer, site: Site, room: Room) -> None:
    peer.log(site.session).past(60)
    await room.join(site.link())
    await expect(room.sent.last).to_be_in_viewport()
    box = await room.transcript.bounding_box()
    assert box is not None
    await room.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    await room.page.mouse.wheel(0, -800)
    latest = room.page.get_by_role("button", name=re.compile("To the end|New messages"))
    await expect(latest).to_be_visible()
    place = "document.querySelector('[role=log]').scrollTop"
    before = await room.state(place)
    log = peer.log(site.session)
    log.begin("run_1")
    log.agent([{"type": "TEXT_MESSAGE_START", "messageId": "m", "role": "assistant"}], run="run_1")
    log.agent([{"type": "TEXT_MESSAGE_CONTENT", "messageId": "m", "delta": "word " * 400}], off=0)
    await expect(latest).to_have_text("New messages")
    assert abs(await room.state(place) - before) < 2
    await latest.click()
    await expect(room.answers.last).to_be_in_viewport()
    await expect(latest).to_be_hidden()


#: What of the page reaches beyond the window, or what is in the composer beyond that, by its name.
BEYOND = """(() => {
  const beyond = (within, nodes) => {
    const { left, right } = within;
    return [...nodes].filter((node) => {
      const box = node.getBoundingClientRect();
      if (getComputedStyle(node).visibility === 'hidden') return false;
      return box.width > 1 && (box.left < left - 1 || box.right > right + 1);
    }).map((node) => `${node.tagName} ${node.className}`);
  };
  const composer = document.querySelector('.composer-box');
  return [
    ...beyond({ left: 0, right: innerWidth }, document.querySelectorAll('header *, .dock *')),
    ...beyond(composer.getBoundingClientRect(), composer.querySelectorAll('*')),
  ];
})()"""


@pytest.mark.parametrize("width", [320, 390])
async def test_a_phone_shows_all_of_it(peer: Peer, site: Site, browser: Browser, width: int) -> None:
    height = 640
    async with open_room(browser, **PHONE | {"viewport": {"width": width, "height": height}}) as room:
        await room.join(site.link())
        await room.say("```\n" + "a long line of code " * 20 + "\n```\n" + "w" * 300)
        await room.idle(answers=1)
        log = peer.log(site.session)
        log.begin("run_1")
        ask = {"type": "approval.requested", "approvalId": "apr1", "kind": "approval", "message": "w" * 80}
        ask |= {"options": ["allow_once", "allow_always", "reject_once"], "default": "reject_once", "quorum": 1}
        log.agent([ask | {"details": {"text": "w" * 400}}], run="run_1")
        log.append([{"type": "input.sent", "inputId": "i9", "content": "w" * 200}], by=SYSTEM, id="i9")
        await expect(room.waiting).to_have_count(1)
        await expect(room.queue).to_have_count(1)
        await room.waiting.locator("summary").first.click()
        assert await room.state("document.documentElement.scrollWidth") == width
        assert await room.state("document.documentElement.scrollHeight") == height
        assert await room.state("document.querySelector('[role=log]').scrollWidth") <= width
        assert await room.state(BEYOND) == []
        for shown in (room.field, room.button("Send"), room.button("Stop")):
            await expect(shown).to_be_in_viewport(ratio=1)
        await room.check()
