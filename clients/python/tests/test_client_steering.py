"""Commands that decide, take over and manage, against a scripted gateway: what is sent, returned, raised."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from antiphon_client import (
    AntiphonError,
    Created,
    Handoff,
    ModeRefused,
    NotAllowed,
    NotFirst,
    NotFound,
    NotYours,
    Response,
    RoleRequired,
    Session,
    SessionClosed,
    SessionInfo,
    TooLate,
    ValueRefused,
    Vote,
    WaitingHandoff,
)
from clients.python.tests.scripted_gateway import EPOCH, Frame, Peer, ScriptedGateway, client

USER = {"kind": "user", "id": "user-1"}
Work = Callable[[Session], Awaitable[Any]]


async def exchange(work: Work, expected: Frame, answer: Frame) -> Any:
    """What `work` returns when the gateway gets `expected` and answers `answer`."""

    async def script(peer: Peer) -> None:
        await peer.welcome()
        command = await peer.receive()
        assert {name: value for name, value in command.items() if name != "id"} == {"session": "demo", **expected}
        await peer.send({"op": "ok", "id": command["id"], **answer})

    async with ScriptedGateway(script) as gateway, client(gateway) as opened:
        return await work(opened.session("demo"))


@pytest.mark.parametrize(
    ("work", "expected", "answer", "result"),
    [
        (
            lambda s: s.cancel_run("r", "after_step"),
            {"op": "run.cancel", "runId": "r", "mode": "after_step"},
            {"status": "cancelling"},
            "cancelling",
        ),
        (lambda s: s.cancel_run("r"), {"op": "run.cancel", "runId": "r"}, {"status": "cancelled"}, "cancelled"),
        (
            lambda s: s.respond("a", "allow_once", {"n": 1}),
            {"op": "approval.respond", "approvalId": "a", "option": "allow_once", "payload": {"n": 1}},
            {"status": "resolved", "decision": "allow_once", "votes": [{"by": USER, "option": "allow_once"}, 7]},
            Response("resolved", "allow_once", (Vote(USER, "allow_once"),)),
        ),
        (
            lambda s: s.respond("a", "decline"),
            {"op": "approval.respond", "approvalId": "a", "option": "decline"},
            {"status": "pending", "decision": None},
            Response("pending", None, ()),
        ),
        (lambda s: s.revoke("k"), {"op": "approval.revoke", "key": "k"}, {"key": "k"}, None),
        (lambda s: s.claim_handoff(), {"op": "handoff.claim", "lane": "main"}, {"lane": "main", "fence": 7}, 7),
        (
            lambda s: s.claim_handoff("side", "h"),
            {"op": "handoff.claim", "lane": "side", "handoffId": "h"},
            {"lane": "side", "fence": 8},
            8,
        ),
        (
            lambda s: s.return_handoff("Go on", input_id="i"),
            {"op": "handoff.return", "lane": "main", "inputId": "i", "note": "Go on"},
            {"lane": "main"},
            "i",
        ),
        (
            lambda s: s.create("Trip", {"a": 1}, {"onBusy": "reject"}),
            {"op": "session.create", "title": "Trip", "metadata": {"a": 1}, "config": {"onBusy": "reject"}},
            {"seq": 1, "duplicate": True},
            Created(1, duplicate=True),
        ),
        (lambda s: s.create(), {"op": "session.create"}, {"seq": 1}, Created(1, duplicate=False)),
        (lambda s: s.update(title=""), {"op": "session.update", "title": ""}, {"seq": 5}, 5),
        (lambda s: s.close_session(), {"op": "session.close"}, {"closed": True}, None),
        (lambda s: s.reopen_session(), {"op": "session.reopen"}, {"closed": False}, None),
        (lambda s: s.delete(), {"op": "session.delete"}, {}, None),
        (lambda s: s.fork("new", before=9), {"op": "session.fork", "to": "new", "before": 9}, {"messages": 4}, 4),
    ],
)
async def test_what_is_sent_and_returned(work: Work, expected: Frame, answer: Frame, result: Any) -> None:
    assert await exchange(work, expected, answer) == result


async def test_an_input_for_a_note_is_named() -> None:
    async def script(peer: Peer) -> None:
        await peer.welcome()
        names = []
        for _ in range(2):
            command = await peer.expect("handoff.return", note=None)
            names.append(command["inputId"])
            await peer.ok(command, lane="main")
        assert len(set(names)) == 2

    async with ScriptedGateway(script) as gateway, client(gateway) as opened:
        ids = [await opened.session("demo").return_handoff() for _ in range(2)]
        assert all(len(name) == 32 for name in ids)


@pytest.mark.parametrize(
    ("work", "code", "kind", "data"),
    [
        (lambda s: s.respond("a", "x"), "bad_option", ValueRefused, {}),
        (lambda s: s.respond("a", "x"), "payload_invalid", ValueRefused, {"path": "$.n"}),
        (lambda s: s.respond("a", "x"), "already_resolved", NotFirst, {"decision": "reject_once", "by": USER}),
        (lambda s: s.respond("a", "x"), "already_voted", NotFirst, {}),
        (lambda s: s.respond("a", "x"), "deadline_passed", TooLate, {}),
        (lambda s: s.respond("a", "x"), "role_required", RoleRequired, {"roles": ["boss"]}),
        (lambda s: s.revoke("k"), "key_not_found", NotFound, {}),
        (lambda s: s.claim_handoff(), "handoff_not_found", NotFound, {}),
        (lambda s: s.claim_handoff(), "not_allowed", NotAllowed, {"right": "admin"}),
        (lambda s: s.return_handoff(), "not_owner", NotYours, {}),
        (lambda s: s.create(), "session_exists", NotFirst, {}),
        (lambda s: s.update(config={"maxQueue": 0}), "config_invalid", ValueRefused, {"field": "maxQueue"}),
        (lambda s: s.fork("x"), "session_exists", NotFirst, {}),
    ],
)
async def test_refusals_carry_their_code_and_data(
    work: Work, code: str, kind: type[AntiphonError], data: Frame
) -> None:
    async def script(peer: Peer) -> None:
        await peer.welcome()
        await peer.error(await peer.receive(), code, **data)

    async with ScriptedGateway(script) as gateway, client(gateway) as opened:
        with pytest.raises(kind) as caught:
            await work(opened.session("demo"))
        assert (caught.value.code, caught.value.data, caught.value.retryable) == (code, data, False)
        if isinstance(caught.value, ValueRefused):
            assert caught.value.path == data.get("path", data.get("field"))


@pytest.mark.parametrize("code", ["busy", "cannot_inject", "mode_not_allowed", "session_closed"])
async def test_inputs_that_are_refused(code: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.opened()
        await peer.error(await peer.expect("input.send", mode="reject"), code)

    async with ScriptedGateway(script) as gateway, client(gateway) as opened:
        with pytest.raises(SessionClosed if code == "session_closed" else ModeRefused, match=code):
            await opened.session("demo").send("hi", mode="reject")


@pytest.mark.parametrize(
    "work",
    [
        lambda s: s.respond("a", "answer", {1, 2}),
        lambda s: s.respond("a", "answer", float("nan")),
        lambda s: s.update(metadata={"a": object()}),
        lambda s: s.create(title="\ud800"),
        lambda s: s.return_handoff("\ud800"),
    ],
)
async def test_what_is_no_json_is_not_sent(work: Work) -> None:
    async def script(peer: Peer) -> None:
        await peer.welcome()
        await peer.ok(await peer.expect("session.delete"))

    async with ScriptedGateway(script) as gateway, client(gateway) as opened:
        with pytest.raises(ValueError, match="no JSON"):
            await work(opened.session("demo"))
        await opened.session("demo").delete()


class TestSessions:
    async def test_come_page_by_page(self) -> None:
        item = {
            "session": "a",
            "title": "T",
            "metadata": {"x": 1},
            "createdBy": USER,
            "updatedAt": 5,
            "status": "closed",
        }

        async def script(peer: Peer) -> None:
            await peer.welcome()
            command = await peer.expect("session.list", limit=2, after=None, session=None)
            await peer.ok(command, sessions=[item, {"title": "without a name"}, {"session": "b"}], after="p2")
            await peer.ok(
                await peer.expect("session.list", limit=2, after="p2"), sessions=[{"session": "c"}], after=None
            )

        async with ScriptedGateway(script) as gateway, client(gateway) as opened:
            found = [info async for info in opened.sessions(page_size=2)]
            assert found[0] == SessionInfo("a", "T", {"x": 1}, USER, 5, "closed")
            assert [info.session for info in found] == ["a", "b", "c"]
            assert found[1] == SessionInfo("b", None, {}, None, None, "idle")

    async def test_a_page_that_leads_to_itself_is_the_last(self) -> None:
        async def script(peer: Peer) -> None:
            await peer.welcome()
            for _ in range(2):
                await peer.ok(await peer.expect("session.list"), sessions=[], after="again")

        async with ScriptedGateway(script) as gateway, client(gateway) as opened:
            assert [info async for info in opened.sessions()] == []

    async def test_hand_overs_that_wait(self) -> None:
        item = {"handoffId": "h", "lane": "main", "runId": "r", "to": "support", "reason": "refund", "summary": "s"}

        async def script(peer: Peer) -> None:
            await peer.welcome()
            command = await peer.expect("handoff.list", limit=9, session=None)
            await peer.ok(command, handoffs=[{"session": "a", **item}, item, {"session": "b"}, 7])

        async with ScriptedGateway(script) as gateway, client(gateway) as opened:
            handoff = Handoff("h", "main", "r", "support", "refund", "s")
            assert await opened.handoffs(limit=9) == [WaitingHandoff("a", handoff)]

    async def test_are_asked_for_again_on_the_next_connection(self) -> None:
        async def first(peer: Peer) -> None:
            await peer.welcome()
            await peer.expect("session.list")
            peer.abort()

        async def second(peer: Peer) -> None:
            await peer.welcome()
            await peer.ok(await peer.expect("session.list"), sessions=[{"session": "a"}], after=None)

        async with ScriptedGateway(first, second) as gateway, client(gateway) as opened:
            assert [info.session async for info in opened.sessions()] == ["a"]


async def test_a_decision_is_sent_again_after_a_lost_connection() -> None:
    seen: list[Frame] = []

    async def first(peer: Peer) -> None:
        await peer.opened()
        seen.append(await peer.expect("approval.respond"))
        peer.abort()

    async def second(peer: Peer) -> None:
        await peer.welcome()
        await peer.subscribed(after=f"{EPOCH}:0")
        command = await peer.expect("approval.respond")
        assert command == seen[0]
        await peer.ok(command, status="resolved", decision="answer", votes=[])

    async with ScriptedGateway(first, second) as gateway, client(gateway) as opened:
        session = opened.session("demo")
        await anext(session.events())
        assert (await session.respond("a", "answer", "blue")).decision == "answer"
