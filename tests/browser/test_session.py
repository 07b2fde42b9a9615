"""The page's session plane in a real Chromium: steering, approvals, questions, tools, presence, hand-over, lanes.

All against the scripted peer: what the agent does here, the tests write into its log themselves.
"""

import asyncio
import re

import pytest
from playwright.async_api import Browser, expect

from tests.browser.peer import Json, Log, Peer
from tests.browser.room import Room, Site, open_room

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(60)]

ENDLESS = "stream 2000 tokens at 40/s"
SOME_TEXT = re.compile(r"\S")
SYSTEM = {"kind": "system"}
OTHER = {"kind": "user", "id": "user-b", "name": "User B"}
APPROVAL: Json = {
    "type": "approval.requested",
    "approvalId": "apr1",
    "kind": "approval",
    "message": "Delete 3 files?",
    "options": ["allow_once", "allow_always", "reject_once"],
    "default": "reject_once",
    "quorum": 1,
    "details": {"files": ["a.txt"]},
}
QUESTION = APPROVAL | {"kind": "question", "message": "Where to?", "options": ["answer", "decline"], "default": None}


async def sent(peer: Peer, op: str) -> Json:
    """The last command of that kind, once the page has sent one."""
    async with asyncio.timeout(10):
        while not (found := [command for command in peer.commands if command["op"] == op]):
            await asyncio.sleep(0.01)
    return found[-1]


async def joined(peer: Peer, site: Site, room: Room, more: str = "") -> Log:
    """In the session, with a run of the agent's that the test plays."""
    log = peer.log(site.session)
    await room.join(site.link(more=more))
    log.begin("run_1")
    await expect(room.status).to_have_text("Running")
    return log


def ask(log: Log, event: Json, **fields: object) -> None:
    log.agent([event | fields], run="run_1")


def refuse(peer: Peer, op: str, code: str, **fields: object) -> None:
    peer.refusals[op] = {"code": code, "retryable": False} | fields


async def test_the_status_says_what_is_going_on(peer: Peer, site: Site, room: Room) -> None:
    log = await joined(peer, site, room)
    log.agent([{"type": "session.state", "state": "paused", "reason": "unwatched"}])
    await expect(room.status).to_have_text("Paused: unwatched")
    log.agent([{"type": "session.state", "state": "running"}])
    await expect(room.status).to_have_text("Running")
    ask(log, APPROVAL)
    await expect(room.status).to_have_text("Waiting for a decision")
    log.finish("run_1")
    await expect(room.status).to_be_hidden()
    log.append([{"type": "session.closed"}], by=SYSTEM, id="closed")
    await expect(room.status).to_have_text("Closed: it takes no messages")


async def test_the_title_of_the_session(peer: Peer, site: Site, room: Room) -> None:
    await room.join(site.link())
    peer.log(site.session).append([{"type": "session.updated", "title": "A trip"}], by=SYSTEM, id="t")
    await expect(room.page.locator("#session")).to_have_text("A trip")
    await expect(room.page).to_have_title("A trip · Antiphon")


async def test_a_session_that_is_deleted_begins_anew(peer: Peer, site: Site, room: Room) -> None:
    await room.join(site.link())
    await room.say("to be forgotten")
    await room.idle(answers=1)
    peer.log(site.session).append([{"type": "session.deleted"}], by=SYSTEM, id="gone")
    await expect(room.page.locator(".message")).to_have_count(0)
    await expect(room.page.locator("#notice")).to_contain_text("begins anew")
    old = {"id": "m0", "role": "assistant", "text": "of another session", "by": {"kind": "agent", "id": "w"}}
    peer.log(site.session).append([{"type": "messages.imported", "messages": [old]}], by=SYSTEM, id="import")
    await expect(room.answers).to_have_text("of another session")


async def test_how_a_message_goes_can_be_chosen(peer: Peer, site: Site, room: Room) -> None:
    peer.log(site.session).can = ["inject"]
    await room.join(site.link())
    choice = room.page.get_by_label("While it works")
    await expect(choice).to_be_hidden()
    await room.say(ENDLESS)
    await expect(room.answers).to_have_text(SOME_TEXT)
    for mode, tag in (("enqueue", "queued"), ("inject", "steers")):
        await choice.select_option(mode)
        await room.say(f"as {mode}")
        await expect(room.queue.filter(has_text=f"as {mode}").locator(".tag")).to_have_text(tag)
        assert (await sent(peer, "input.send"))["mode"] == mode
    await choice.select_option("interrupt")
    await room.say("now")
    await expect(room.answers).to_have_count(4)
    assert await room.texts(room.sent) == [ENDLESS, "now", "as enqueue", "as inject"]
    await expect(choice).to_be_hidden()
    await room.say("as usual")
    await room.idle(answers=5)
    assert "mode" not in await sent(peer, "input.send")


async def test_an_agent_that_cannot_be_steered(peer: Peer, site: Site, room: Room) -> None:
    await joined(peer, site, room)
    await expect(room.page.locator("#mode option[value=inject]")).to_be_disabled()
    await room.page.get_by_label("While it works").select_option("interrupt")
    refuse(peer, "input.send", "not_allowed", right="steer")
    await room.say("let me in")
    await expect(room.queue).to_contain_text("Your token does not allow that")
    await room.press("Send after this")
    await expect(room.queue).to_have_count(0)
    assert "mode" not in await sent(peer, "input.send")


async def test_only_ones_own_can_be_taken_back(peer: Peer, site: Site, room: Room) -> None:
    log = await joined(peer, site, room)
    for by in (OTHER, {"kind": "user", "id": "user-a", "name": "User A"}):
        event = {"type": "input.sent", "inputId": by["id"], "content": f"of {by['id']}"}
        log.append([event], by=by, id=by["id"])
    await expect(room.queue).to_have_count(2)
    take_back = room.page.get_by_role("button", name="Take back")
    await expect(take_back).to_have_count(1)
    await expect(room.queue.first).to_contain_text("User B")
    refuse(peer, "input.cancel", "input_already_applied")
    await take_back.click()
    await expect(room.queue.last.locator(".error")).to_contain_text("Too late to take it back")


async def test_stop_is_immediate_and_may_be_refused(peer: Peer, site: Site, room: Room) -> None:
    await joined(peer, site, room)
    refuse(peer, "run.cancel", "not_allowed", right="cancel")
    await room.stop.click()
    await expect(room.page.locator("#notice")).to_contain_text("Your token does not allow that")
    await room.stop.click()
    await expect(room.stop).to_have_text("Stopping…")
    await expect(room.status).to_have_text("Stopping")
    command = await sent(peer, "run.cancel")
    assert (command["runId"], command["mode"]) == ("run_1", "immediate")


async def test_an_approval_is_a_card_until_it_is_decided(peer: Peer, site: Site, room: Room) -> None:
    log = await joined(peer, site, room)
    ask(log, APPROVAL)
    await expect(room.cards).to_contain_text("Delete 3 files?")
    await expect(room.cards.get_by_role("button")).to_have_text(["Allow", "Always allow", "Reject"])
    await room.cards.locator("summary").click()
    await expect(room.cards.locator("pre")).to_contain_text('"a.txt"')
    await room.page.reload()
    await room.phase("live")
    refuse(peer, "approval.respond", "role_required")
    await room.press("Allow")
    await expect(room.cards.locator(".error")).to_have_text("Somebody with another role has to do that.")
    await room.press("Reject")
    await expect(room.cards).to_have_count(0)
    command = await sent(peer, "approval.respond")
    assert (command["approvalId"], command["option"], "payload" in command) == ("apr1", "reject_once", False)


async def test_who_was_first_is_told(peer: Peer, site: Site, room: Room) -> None:
    log = await joined(peer, site, room)
    ask(log, APPROVAL)
    refuse(peer, "approval.respond", "already_resolved", by=OTHER, decision="allow_once", status="resolved")
    await room.press("Reject")
    await expect(room.page.locator("#notice")).to_contain_text("User B was first: Allow.")


async def test_several_have_to_agree(peer: Peer, site: Site, room: Room) -> None:
    log = await joined(peer, site, room)
    ask(log, APPROVAL, quorum=2, roles=[], expiresAt=4_000_000_000_000)
    await expect(room.cards.locator(".votes")).to_have_text("0 of 2 have decided")
    await expect(room.cards).to_contain_text("then “Reject”")
    await room.press("Allow")
    await expect(room.cards.locator(".votes")).to_have_text("1 of 2 have decided (User A: Allow)")
    await expect(room.cards.get_by_role("button", name="Reject")).to_be_disabled()
    log.append([{"type": "approval.responded", "approvalId": "apr1", "option": "allow_once"}], by=OTHER, id="vote")
    await expect(room.cards).to_have_count(0)


async def test_arguments_can_be_edited(peer: Peer, site: Site, room: Room) -> None:
    log = await joined(peer, site, room)
    call = {"type": "tool.requested", "toolCallId": "c1", "name": "delete", "args": {"path": "/"}, "executor": "agent"}
    ask(log, call)
    ask(log, APPROVAL, toolCallId="c1", responseSchema={"type": "object"}, details=None)
    await room.cards.locator("summary").click()
    field = room.page.get_by_label("Arguments to go on with")
    assert '"path": "/"' in await field.input_value()
    await field.fill('{"path": ')
    await room.press("Allow")
    await expect(room.cards.locator(".error")).to_have_text("This must be JSON.")
    await field.fill('{"path": "/tmp"}')
    refuse(peer, "approval.respond", "payload_invalid", message="too long", path="/path")
    await room.press("Allow")
    await expect(room.cards.locator(".error")).to_have_text("too long (at /path)")
    await room.press("Allow")
    await expect(room.cards).to_have_count(0)
    assert (await sent(peer, "approval.respond"))["payload"] == {"path": "/tmp"}


@pytest.mark.parametrize(
    ("schema", "written", "payload"),
    [
        (None, "To Ghent", "To Ghent"),
        ({"type": "string"}, '"quoted"', '"quoted"'),
        ({"type": "integer"}, "12", 12),
        ({"type": "object", "properties": {"city": {"type": "string"}}}, '{"city": "Ghent"}', {"city": "Ghent"}),
    ],
)
async def test_a_question_is_answered(
    peer: Peer, site: Site, room: Room, schema: Json | None, written: str, payload: object
) -> None:
    log = await joined(peer, site, room)
    ask(log, QUESTION, responseSchema=schema)
    await expect(room.status).to_have_text("Waiting for an answer")
    await room.page.get_by_label("Your answer").fill(written)
    log.agent([{"type": "CUSTOM", "name": "something else"}], run="run_1")
    await expect(room.page.get_by_label("Your answer")).to_have_value(written)
    await room.press("Answer")
    await expect(room.cards).to_have_count(0)
    command = await sent(peer, "approval.respond")
    assert (command["option"], command["payload"]) == ("answer", payload)


async def test_a_choice_is_a_list_and_can_be_declined(peer: Peer, site: Site, room: Room) -> None:
    log = await joined(peer, site, room)
    ask(log, QUESTION, responseSchema={"enum": ["Ghent", "Bruges"]})
    await room.page.get_by_label("Your answer").select_option("Bruges")
    await room.press("Answer")
    assert (await sent(peer, "approval.respond"))["payload"] == "Bruges"
    ask(log, QUESTION, approvalId="apr2", responseSchema={"type": "boolean"})
    await room.press("Decline")
    await expect(room.cards).to_have_count(0)
    assert "payload" not in await sent(peer, "approval.respond")


def person(ident: str, state: str, *tools: str) -> Json:
    devices = [{"device": "d", "state": state, "tools": list(tools)}]
    return {
        "kind": "user",
        "id": ident,
        "name": ident.replace("-", " ").title(),
        "roles": [],
        "state": state,
        "devices": devices,
    }


async def test_who_is_there_and_who_types(peer: Peer, site: Site, room: Room) -> None:
    log = peer.log(site.session)
    await room.join(site.link())
    log.present(person("user-a", "active"), person("user-b", "typing", "pick_file"))
    people = room.page.get_by_role("list", name="Who is here").get_by_role("listitem")
    await expect(people).to_have_text([re.compile("User A, active"), re.compile("User B, typing")])
    await expect(people.last).to_have_attribute("title", "User B, typing; can execute pick_file")
    await expect(room.page.locator("#typing")).to_have_text("User B is typing")
    log.present(person("user-a", "typing"), person("user-b", "away"))
    await expect(room.page.locator("#typing")).to_be_hidden()
    await expect(people.last).to_have_attribute("data-state", "away")
    log.present(*(person(f"user{n}", "idle") for n in range(8)))
    await expect(people).to_have_count(5)
    await expect(room.page.locator("#more-people")).to_have_text("+3")


async def test_what_one_does_is_told_to_the_others(peer: Peer, site: Site, room: Room) -> None:
    await room.join(site.link())
    await room.page.locator("#draft").press_sequentially("some words", delay=5)
    assert (await sent(peer, "presence.set"))["state"] == "typing"
    await room.page.press("#draft", "Enter")
    await room.idle(answers=1)
    for hidden in ("true", "false"):
        await room.state(f"Object.defineProperty(document, 'hidden', {{get: () => {hidden}, configurable: true}})")
        await room.state("document.dispatchEvent(new Event('visibilitychange'))")
    await room.say("the end")
    await room.idle(answers=2)
    states = [command["state"] for command in peer.commands if command["op"] == "presence.set"]
    assert states == ["typing", "active", "away", "active", "typing", "active"]


async def test_a_hand_over_there_and_back(peer: Peer, site: Site, room: Room, browser: Browser) -> None:
    log = await joined(peer, site, room)
    other = await open_room(browser)
    await other.join(site.link("token-user-b"))
    wish = {"handoffId": "ho1", "to": "support", "reason": "a refund", "summary": "It is about order 7."}
    log.agent([{"type": "handoff.requested"} | wish], run="run_1")
    await expect(room.banners).to_contain_text("The agent asks for a human (support): a refund")
    await expect(room.banners).to_contain_text("order 7")
    await expect(room.status).to_have_text("Waiting for a human to take over")
    refuse(peer, "handoff.claim", "role_required")
    await room.press("Take over")
    await expect(room.banners.locator(".error")).to_have_text("Somebody with another role has to do that.")
    await room.press("Take over")
    await expect(room.status).to_have_text("You have the conversation")
    await expect(other.status).to_have_text("user-a has the conversation")
    await expect(other.banners).to_have_count(0)
    await other.say("My order?")
    await expect(room.sent).to_have_text("My order?")
    await room.say("It is on its way.")
    await expect(other.answers).to_have_text("It is on its way.")
    await expect(other.page.locator(".message.assistant .author")).to_have_text("User A")
    await room.page.get_by_label("A note for the agent").fill("All done")
    await room.press("Give back")
    await expect(room.banners).to_have_count(0)
    command = await sent(peer, "handoff.return")
    assert (command["lane"], command["note"]) == ("main", "All done")
    assert other.faults == []


async def test_calls_and_who_executes_them(peer: Peer, site: Site, room: Room) -> None:
    log = await joined(peer, site, room)
    start = {"type": "TOOL_CALL_START", "toolCallId": "c1", "toolCallName": "pick_file"}
    request = {"type": "tool.requested", "toolCallId": "c1", "name": "pick_file", "args": {}, "executor": "client"}
    log.agent([start], run="run_1")
    log.agent([{"type": "TOOL_CALL_ARGS", "toolCallId": "c1", "delta": '{"kind": "image"}'}], off=0)
    log.agent([{"type": "TOOL_CALL_END", "toolCallId": "c1"}, request], run="run_1")
    call = room.message("c1")
    await expect(call.locator("summary")).to_have_text("Tool call: pick_file")
    await expect(call.locator(".text")).to_be_hidden()
    await expect(call.locator(".marks")).to_have_text("waits for somebody to execute it")
    claim = {"toolCallId": "c1", "claimId": "x"}
    log.append([{"type": "tool.claimed", "expiresAt": 4_000_000_000_000} | claim], by=OTHER, id="c")
    await expect(call.locator(".marks")).to_have_text("User B executes it")
    log.append([{"type": "tool.progress", "value": "half"} | claim], by=OTHER, id="p")
    await expect(call.locator(".marks")).to_have_text("User B executes it (half)")
    log.append([{"type": "tool.resolved", "result": {}} | claim], by=OTHER, id="r")
    await expect(call.locator(".marks")).to_have_text("executed by User B")
    log.agent([{"type": "TOOL_CALL_RESULT", "messageId": "m1", "toolCallId": "c1", "content": "a.png"}], run="run_1")
    result = room.message("m1")
    await expect(result.locator("summary")).to_have_text("Tool result: pick_file")
    await result.locator("summary").click()
    await expect(result.locator(".text")).to_have_text("a.png")
    ask(log, request, toolCallId="c2", participant="user-b")
    await expect(room.page.locator("#calls")).to_have_text("pick_file: waits for user-b to execute it")
    log.agent([start | {"toolCallId": "c3"}, request | {"toolCallId": "c3"}], run="run_1")
    log.agent([{"type": "tool.failed", "toolCallId": "c3", "code": "no_executor"}], run="run_1")
    await expect(room.message("c3").locator(".marks.bad")).to_have_text("it failed: nobody executed it")
    log.finish("run_1")
    await expect(room.page.locator("#calls li")).to_have_count(0)


async def test_another_agents_lane_is_set_apart(peer: Peer, site: Site, room: Room) -> None:
    log = await joined(peer, site, room)
    by = {"kind": "agent", "id": "finder"}
    wish = {"inputId": "i2", "parentRunId": "run_1", "childLane": "c-1", "agent": "finder", "content": "Find it"}
    log.agent([{"type": "run.requested"} | wish], run="run_1")
    await expect(room.queue).to_contain_text("Find it")
    owner = {"type": "session.owner", "lane": "c-1", "kind": "agent", "id": "w2"}
    fence = log.append([owner], lane="c-1", id="0-0")
    start = {"type": "RUN_STARTED", "threadId": log.name, "runId": "run_i2"}
    applied = {"type": "input.applied", "inputId": "i2", "runId": "run_i2", "messageId": "u2"}
    message = {"type": "TEXT_MESSAGE_START", "messageId": "m2", "role": "assistant"}
    log.append([start, applied, message], lane="c-1", run="run_i2", by=by, id=f"{fence}-1")
    await expect(room.message("m2")).to_have_class(re.compile(r"\bchild\b"))
    await expect(room.message("m2").locator(".author")).to_have_text("finder")
    await expect(room.queue).to_have_count(0)
    left = "document.querySelector('[data-id=m2]').getBoundingClientRect().left"
    assert await room.state(f"{left} > document.getElementById('messages').getBoundingClientRect().left")
    await room.stop.click()
    await expect(room.stop).to_have_text("Stopping…")


async def test_what_was_rolled_back_is_struck_through(peer: Peer, site: Site, room: Room) -> None:
    log = await joined(peer, site, room)
    message = {"type": "TEXT_MESSAGE_START", "messageId": "m1", "role": "assistant"}
    segment = {"type": "message.segment", "messageId": "m1", "offset": 0, "text": "Wrong", "length": 5, "final": True}
    log.agent([message, segment, {"type": "TEXT_MESSAGE_END", "messageId": "m1"}], run="run_1")
    log.append([{"type": "input.sent", "inputId": "i2", "content": "No:", "mode": "rollback"}], by=OTHER, id="i2")
    await expect(room.queue.locator(".tag")).to_have_text("in its place")
    log.finish("run_1")
    await expect(room.message("m1")).to_have_class(re.compile("rolled-back"))
    await expect(room.message("m1").locator(".text")).to_have_css("text-decoration-line", "line-through")
    await expect(room.message("m1").locator(".marks")).to_have_text("taken out of the conversation")


ASK: Json = {"type": "tool.requested", "toolCallId": "c1", "name": "ask_browser", "executor": "client"}


async def test_the_browsers_own_tool_is_declared_only_if_the_link_says_so(peer: Peer, site: Site, room: Room) -> None:
    log = await joined(peer, site, room)
    assert "tools" not in await sent(peer, "subscribe")
    ask(log, ASK, args={"question": "Which?"})
    await expect(room.page.locator("#calls")).to_have_text("ask_browser: waits for somebody to execute it")
    await expect(room.cards).to_have_count(0)
    assert not [command for command in peer.commands if command["op"] == "tool.claim"]


async def test_the_browser_is_asked_and_answers_once(peer: Peer, site: Site, room: Room) -> None:
    log = await joined(peer, site, room, "&tools=1")
    subscribed = await sent(peer, "subscribe")
    assert [tool["name"] for tool in subscribed["tools"]] == ["ask_browser"]
    assert subscribed["tools"][0]["idempotent"] is False
    ask(log, ASK, args={"question": "Which colour?"}, participant="user-a")
    await expect(room.cards).to_contain_text("Which colour?")
    first = await sent(peer, "tool.claim")
    await room.page.reload()
    await expect(room.cards).to_contain_text("Which colour?")
    assert (await sent(peer, "tool.claim"))["claimId"] == first["claimId"], "a reload goes on with its claim"
    await room.page.get_by_label("Your answer").fill("green")
    refuse(peer, "tool.result", "result_invalid", message="not a colour", path="/answer")
    await room.press("Answer")
    await expect(room.cards.locator(".error")).to_have_text("not a colour (at /answer)")
    await room.press("Answer")
    await expect(room.cards).to_have_count(0)
    result = await sent(peer, "tool.result")
    assert (result["claimId"], result["result"]) == (first["claimId"], {"answer": "green"})
    ask(log, ASK, toolCallId="c2", args={"question": "And which size?"})
    await expect(room.cards).to_contain_text("And which size?")
    await room.press("Decline")
    await expect(room.cards).to_have_count(0)
    assert "declined" in (await sent(peer, "tool.result"))["error"]


async def test_the_browser_leaves_what_is_not_for_it(peer: Peer, site: Site, room: Room) -> None:
    log = await joined(peer, site, room, "&tools=1")
    ask(log, ASK, args={"question": "For User B?"}, participant="user-b")
    ask(log, ASK, toolCallId="c2", args={"question": "For a phone?"}, device="phone")
    refuse(peer, "tool.claim", "not_allowed", right="tools")
    ask(log, ASK, toolCallId="c3", args={"question": "For anybody?"})
    await expect(room.page.locator("#notice")).to_contain_text("Your token does not allow that")
    await expect(room.page.locator("#calls li")).to_have_count(3)
    await expect(room.cards).to_have_count(0)
    claims = [command["toolCallId"] for command in peer.commands if command["op"] == "tool.claim"]
    assert claims == ["c3"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_a_phone_shows_what_waits(peer: Peer, site: Site, browser: Browser, scheme: str) -> None:
    room = await open_room(
        browser, viewport={"width": 360, "height": 640}, color_scheme=scheme, is_mobile=True, has_touch=True
    )
    log = await joined(peer, site, room)
    log.present(*(person(f"user{n}", "typing") for n in range(8)))
    ask(log, APPROVAL, details={"text": "w" * 400}, quorum=2)
    ask(log, QUESTION, approvalId="apr2", responseSchema={"type": "object"})
    log.agent([{"type": "handoff.requested", "handoffId": "ho1", "to": "support", "reason": "w" * 80, "summary": "x"}])
    await expect(room.cards).to_have_count(2)
    await expect(room.banners).to_have_count(1)
    await room.cards.locator("summary").first.click()
    assert await room.state("document.documentElement.scrollWidth") == 360
    assert await room.state("document.documentElement.scrollHeight") == 640
    await room.fits("draft", "stop", "mode", width=360, height=640)
    assert room.faults == []
