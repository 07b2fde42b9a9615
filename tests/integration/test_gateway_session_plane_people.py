"""Approvals and hand-overs over two real gateways: one decision, one owner, and a reason for all others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from broker.errors import WrongSequence
from broker.events import (
    ApprovalRequested,
    ApprovalResolved,
    HandoffExpired,
    HandoffRequested,
    MessageSegment,
    Participant,
    RunFinished,
    TextMessageStart,
    ToolCallEnd,
    ToolCallStart,
    ToolFailed,
    ToolRequested,
)
from broker.lease import Claim, judge_job
from tests.support.place import Place
from tests.support.plane import LaneOwner, PlaneWorld, at_once, now_ms, plane_world, refused
from tests.support.rawclient import Wire

pytestmark = pytest.mark.asyncio(loop_scope="module")

OPTIONS = ["allow_once", "allow_always", "reject_once", "reject_always"]
REPAIR_S = 0.3


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[PlaneWorld]:
    directory = tmp_path_factory.mktemp("plane")
    async with plane_world(directory, input_bytes="4096", job_repair_s=str(REPAIR_S)) as world:
        yield world


# --- approvals -------------------------------------------------------------------------------------------------------


async def asking(world: PlaneWorld, session: str, **fields: Any) -> LaneOwner:
    """A run that waits for the approval `a1`."""
    owner = await world.running(session)
    request = {"approval_id": "a1", "kind": "approval", "message": "?", "options": OPTIONS, "default": "reject_once"}
    await owner.write(ApprovalRequested(**{**request, **fields}))
    return owner


def says(session: str, option: str = "allow_once", **fields: Any) -> dict[str, Any]:
    return {"session": session, "approvalId": "a1", "option": option} | fields


async def test_a_decision_is_told_and_may_be_said_again(world: PlaneWorld) -> None:
    session = world.session()
    await asking(world, session)
    async with await world.wire("one", ("approve",)) as wire, await world.wire("one", gateway=1) as elsewhere:
        for at in (wire, wire, elsewhere):
            reply = await at.command("approval.respond", **says(session))
            assert (reply["approvalId"], reply["status"], reply["decision"]) == ("a1", "resolved", "allow_once")
            assert reply["votes"] == [{"by": {"kind": "user", "id": "one"}, "option": "allow_once"}]
        reply = await refused(wire, "already_resolved", "approval.respond", **says(session, "reject_once"))
        assert (reply["status"], reply["decision"], reply["by"]["id"]) == ("resolved", "allow_once", "one")
    assert len(await world.events(session, "approval.responded")) == 1


async def test_of_two_decisions_the_first_in_the_log_wins(world: PlaneWorld) -> None:
    async with await world.wire("one", gateway=0) as one, await world.wire("two", gateway=1) as two:
        for _ in range(10):
            session = world.session()
            await asking(world, session)
            won, lost = await at_once(
                (one, "approval.respond", says(session, "allow_once")),
                (two, "approval.respond", says(session, "reject_once")),
            )
            assert [len(won), [reply["code"] for reply in lost]] == [1, ["already_resolved"]]
            assert lost[0]["decision"] == won[0]["decision"]
            assert (await world.state(session)).approvals["a1"].decision == won[0]["decision"]


async def test_a_quorum_needs_different_people_with_the_role(world: PlaneWorld) -> None:
    session = world.session()
    await asking(world, session, quorum=2, roles=["boss"])
    async with (
        await world.wire("one", ("approve",), ["boss"]) as one,
        await world.wire("two", ("approve",), ["boss", "other"], gateway=1) as two,
        await world.wire("three", ("admin",), ["other"]) as three,
    ):
        first = await one.command("approval.respond", **says(session))
        assert (first["status"], first["decision"], len(first["votes"])) == ("pending", None, 1)
        await refused(one, "already_voted", "approval.respond", **says(session, "reject_once"))
        reply = await refused(three, "role_required", "approval.respond", **says(session))
        assert reply["roles"] == ["boss"]
        second = await two.command("approval.respond", **says(session))
        assert (second["status"], second["decision"], len(second["votes"])) == ("resolved", "allow_once", 2)


async def test_who_may_not_decide_is_told_why(world: PlaneWorld) -> None:
    session = world.session()
    owner = await asking(world, session, options=["allow_once", "reject_once"], expires_at=now_ms() - 1)
    async with await world.wire("guest", ("read", "send")) as guest, await world.wire("one") as wire:
        reply = await refused(guest, "not_allowed", "approval.respond", **says(session))
        assert reply["right"] == "approve"
        await refused(wire, "approval_not_found", "approval.respond", **says(session) | {"approvalId": "forged"})
        await refused(wire, "bad_name", "approval.respond", **says(session) | {"approvalId": "a:b"})
        await refused(wire, "deadline_passed", "approval.respond", **says(session))
        await owner.write(ApprovalResolved("a1", "expired"))
        reply = await refused(wire, "already_resolved", "approval.respond", **says(session))
        assert (reply["status"], reply["decision"], reply["by"]) == ("expired", "reject_once", None)
        await owner.finish()
        reply = await refused(wire, "already_resolved", "approval.respond", **says(session))
        assert (reply["status"], reply["decision"], reply["by"]) == ("expired", "reject_once", None)
    other = world.session()
    await asking(world, other, options=["allow_once", "reject_once"])
    async with await world.wire("one") as wire:
        reply = await refused(wire, "bad_option", "approval.respond", **says(other, "allow_always"))
        assert reply["options"] == ["allow_once", "reject_once"]
        await refused(wire, "bad_option", "approval.respond", **says(other, "yes"))


async def test_an_answer_is_checked(world: PlaneWorld) -> None:
    session = world.session()
    schema = {"type": "object", "properties": {"size": {"enum": ["s", "m"]}}, "required": ["size"]}
    await asking(
        world, session, kind="question", options=["answer", "decline"], default="decline", response_schema=schema
    )
    async with await world.wire() as wire:
        for payload, path in (({"size": "xl"}, "/size"), ({}, ""), (None, "")):
            reply = await refused(
                wire, "payload_invalid", "approval.respond", **says(session, "answer", payload=payload)
            )
            assert reply["path"] == path
        large = says(session, "answer", payload={"size": "x" * 4096})
        await refused(wire, "content_too_large", "approval.respond", **large)
        await wire.command("approval.respond", **says(session, "answer", payload={"size": "m"}))
    (responded,) = await world.events(session, "approval.responded")
    assert responded.payload == {"size": "m"}


async def test_declining_needs_no_answer(world: PlaneWorld) -> None:
    session = world.session()
    await asking(world, session, kind="question", options=["answer", "decline"], response_schema={"type": "string"})
    async with await world.wire() as wire:
        assert (await wire.command("approval.respond", **says(session, "decline")))["decision"] == "decline"


async def test_a_schema_of_the_agent_that_is_none_is_said_to_be(world: PlaneWorld) -> None:
    session = world.session()
    await asking(world, session, options=["answer", "decline"], response_schema={"$ref": "https://example.com/"})
    async with await world.wire() as wire:
        await refused(wire, "schema_invalid", "approval.respond", **says(session, "answer", payload=1))


async def test_what_was_decided_for_always_can_be_revoked_again_and_again(world: PlaneWorld) -> None:
    session = world.session()
    owner = await asking(world, session, key="tool:délété\n")
    key = {"session": session, "key": "tool:délété\n"}
    async with await world.wire(gateway=0) as one, await world.wire(gateway=1) as two:
        await refused(one, "key_not_found", "approval.revoke", **key)
        await one.command("approval.respond", **says(session, "allow_always"))
        assert (await two.command("approval.revoke", **key))["key"] == key["key"]
        await refused(two, "key_not_found", "approval.revoke", **key)
        await owner.write(ApprovalRequested("a2", "approval", "?", OPTIONS, "reject_once", key=key["key"]))
        await one.command("approval.respond", **says(session, "reject_always") | {"approvalId": "a2"})
        assert list((await world.state(session)).remembered) == [key["key"]]
        await one.command("approval.revoke", **key)
        assert not (await world.state(session)).remembered
        for bad in ("", "x" * 257, 5):
            await refused(one, "bad_command", "approval.revoke", session=session, key=bad)
    async with await world.wire("guest", ("send",)) as guest:
        await refused(guest, "not_allowed", "approval.revoke", **key)


# --- hand-overs ------------------------------------------------------------------------------------------------------


async def handing_over(world: PlaneWorld, session: str, **fields: Any) -> LaneOwner:
    """An agent in the middle of a sentence and of calls that wants somebody of `support`."""
    owner = await world.running(session, "inject")
    await owner.write(TextMessageStart("m1"))
    await owner.delta("m1", 0, "Let me ")
    await owner.write(MessageSegment("m1", 0, 7, "Let me "))
    await owner.delta("m1", 7, "see")
    request = {"handoff_id": "h1", "to": "support", "reason": "refund", "summary": "wants money"}
    await owner.write(HandoffRequested(**{**request, **fields}))
    return owner


def takes(session: str, **fields: Any) -> dict[str, Any]:
    return {"session": session, "handoffId": "h1"} | fields


async def messages(wire: Wire, session: str) -> list[tuple[Any, ...]]:
    page = await wire.command("history", session=session)
    return [(m["role"], m["text"], m["reason"], m["by"]["id"]) for m in page["messages"]]


async def test_a_human_takes_the_lane_talks_and_gives_it_back(world: PlaneWorld) -> None:
    session = world.session()
    owner = await handing_over(world, session)
    async with (
        await world.wire("desk", ("read", "send", "steer"), ["support"]) as desk,
        await world.wire("guest", ("read", "send"), gateway=1) as guest,
    ):
        await guest.input(session, "waits", "are you there?")
        claimed = await desk.command("handoff.claim", **takes(session))
        assert claimed["lane"] == "main"
        assert claimed["fence"] > owner.fence
        with pytest.raises(WrongSequence):
            await owner.delta("m1", 10, " more")
        assert (await desk.command("handoff.claim", **takes(session)))["fence"] == claimed["fence"], "said again"
        reply = await guest.input(session, "g1", "hello?")
        assert (reply["status"], reply["runId"], reply["position"]) == ("applied", None, None)
        await desk.input(session, "d1", "Yes.")
        assert await messages(desk, session) == [
            ("user", "do something", "complete", "user-1"),
            ("assistant", "Let me see", "handed_over", "w-test"),
            ("user", "are you there?", "complete", "guest"),
            ("user", "hello?", "complete", "guest"),
            ("assistant", "Yes.", "complete", "desk"),
        ]
        await refused(guest, "not_allowed", "handoff.return", session=session, inputId="n0")
        back = {"session": session, "inputId": "n1", "note": "give them the money"}
        for _ in range(2):
            assert (await desk.command("handoff.return", **back))["lane"] == "main"
        await refused(desk, "not_owner", "handoff.return", session=session, inputId="n2")
    state = await world.state(session)
    assert [(i.input_id, i.content) for i in state.inputs] == [("n1", "give them the money")]
    assert judge_job(state, "main") == Claim(claimed["fence"])
    (finished,) = await world.events(session, "RUN_FINISHED")
    assert finished.outcome == {"type": "cancelled", "reason": "handed_over"}
    assert len(await world.events(session, "handoff.returned")) == 1


async def test_what_the_agent_was_doing_is_closed(world: PlaneWorld) -> None:
    """Every call has a result afterwards, and what a client sent in time is not lost."""
    session = world.session()
    owner = await handing_over(world, session)
    for call in ("free", "claimed", "resolved", "own", "failed"):
        executor = "agent" if call == "own" else "client"
        await owner.write(ToolCallStart(call, "t"), ToolCallEnd(call), ToolRequested(call, "t", {}, executor=executor))
    await owner.write(ToolCallStart("half", "t"))
    await owner.write(ToolFailed("failed", "rejected"))
    await owner.write(ApprovalRequested("a1", "approval", "?", OPTIONS, "reject_once"))
    async with await world.wire("one") as wire:
        await wire.command("subscribe", session=session, tools=[{"name": "t"}])
        for call in ("claimed", "resolved"):
            await wire.command("tool.claim", session=session, toolCallId=call, claimId="k1")
        await wire.command("tool.result", session=session, toolCallId="resolved", claimId="k1", result={"a": 1})
        await wire.command("handoff.claim", session=session)
        found = [m for m in (await wire.command("history", session=session))["messages"] if m["role"] == "tool"]
        assert {m["toolCallId"]: m["text"] for m in found} == {
            "free": '{"error":"not_run"}',
            "claimed": '{"error":"outcome_unknown"}',
            "resolved": '{"a":1}',
            "own": '{"error":"outcome_unknown"}',
            "failed": '{"error":"rejected"}',
            "half": '{"error":"not_run"}',
        }
        assert {m["by"]["kind"] for m in found} == {"system"}
        reply = await refused(wire, "already_resolved", "tool.claim", session=session, toolCallId="free", claimId="k1")
        assert (reply["status"], reply["reason"]) == ("failed", "not_run")
        reply = await refused(wire, "already_resolved", "approval.respond", **says(session))
        assert reply["status"] == "cancelled"
        assert (await wire.command("run.cancel", session=session, runId="run_first"))["status"] == "cancelled"
    closing = [e for e in await world.entries(session) if any(isinstance(event, RunFinished) for event in e.events)]
    assert len(closing) == 1
    assert closing[0].id.endswith("-1"), "all of it is one record"
    state = await world.state(session)
    assert not state.runs
    assert not state.lane("main").streams


async def test_of_two_who_take_the_lane_one_gets_it(world: PlaneWorld) -> None:
    async with (
        await world.wire("one", ("steer",), ["support"], gateway=0) as one,
        await world.wire("two", ("steer",), ["support"], gateway=1) as two,
    ):
        for _ in range(10):
            session = world.session()
            await handing_over(world, session)
            won, lost = await at_once((one, "handoff.claim", takes(session)), (two, "handoff.claim", takes(session)))
            assert [len(won), [reply["code"] for reply in lost]] == [1, ["already_claimed"]]
            human = (await world.state(session)).lane("main").human
            assert human is not None
            assert lost[0]["by"]["id"] == human.id
            assert len(await world.events(session, "RUN_FINISHED")) == 1


async def test_a_human_gets_the_lane_while_workers_claim_it_too(world: PlaneWorld) -> None:
    """A claim that loses to an agent's is made again."""
    session = world.session()
    owner = await handing_over(world, session)
    async with await world.wire("desk", gateway=1) as desk, asyncio.TaskGroup() as tasks:
        claim = tasks.create_task(desk.command("handoff.claim", session=session))
        # Each of these takes one of the gateway's tries at most; it has eight.
        for _ in range(6):
            try:
                await owner.claim()
            except WrongSequence:
                break
        assert (await claim)["lane"] == "main"
    human = (await world.state(session)).lane("main").human
    assert human is not None
    assert human.id == "desk"


async def test_who_may_not_take_the_lane_is_told_why(world: PlaneWorld) -> None:
    session = world.session()
    owner = await handing_over(world, session)
    async with (
        await world.wire("guest", ("read", "send"), ["support"]) as guest,
        await world.wire("sales", ("steer",), ["sales"]) as sales,
        await world.wire("desk", ("steer",), ["support"]) as desk,
        await world.wire("boss", gateway=1) as boss,
    ):
        assert (await refused(guest, "not_allowed", "handoff.claim", **takes(session)))["right"] == "steer"
        assert (await refused(sales, "role_required", "handoff.claim", **takes(session)))["roles"] == ["support"]
        assert (await refused(desk, "not_allowed", "handoff.claim", session=session))["right"] == "admin"
        await refused(desk, "handoff_not_found", "handoff.claim", **takes(session) | {"handoffId": "forged"})
        await refused(desk, "handoff_not_found", "handoff.claim", **takes(session, lane="side"))
        await refused(desk, "bad_name", "handoff.claim", **takes(session) | {"handoffId": "a/b"})
        await refused(desk, "not_owner", "handoff.return", session=session, inputId="n1")
        await owner.write(HandoffExpired("h1"))
        await refused(desk, "handoff_not_found", "handoff.claim", **takes(session))
        await boss.command("handoff.claim", session=session)
        await refused(desk, "handoff_not_found", "handoff.claim", **takes(session))
        await refused(desk, "not_owner", "handoff.return", session=session, inputId="n1")
        reply = await refused(
            boss, "content_too_large", "handoff.return", session=session, inputId="n", note="x" * 5000
        )
        assert reply["limit"] == 4096
        reply = await refused(boss, "bad_command", "handoff.return", session=session, inputId="first", note="x")
        assert reply["field"] == "inputId"
    async with await world.wire("other") as other, await world.wire("boss") as boss:
        # An admin takes it from another human, too: who has the lane may have gone for good.
        await other.command("handoff.claim", session=session)
        await refused(boss, "not_owner", "handoff.return", session=session, inputId="n2")
        await other.command("handoff.return", session=session, inputId="n2")


async def test_an_idle_lane_can_be_taken_and_given_back(world: PlaneWorld) -> None:
    session = world.session()
    async with await world.wire() as wire:
        for lane in ("main", "side"):
            for n in range(2):
                claimed = await wire.command("handoff.claim", session=session, lane=lane)
                assert claimed["lane"] == lane
                await wire.command("handoff.return", session=session, lane=lane, inputId=f"{lane}-{n}")
    state = await world.state(session)
    assert state.status == "idle"


@pytest.mark.parametrize("written", [0, 1], ids=["nothing", "a part"])
async def test_another_gateway_closes_what_a_dead_one_left_open(world: PlaneWorld, written: int) -> None:
    session = world.session()
    owner = await handing_over(world, session)
    await owner.write(ToolRequested("c1", "t", {}, executor="client"))
    subjects = world.log.subjects(session)
    desk = Participant("user", "desk")
    # A gateway has claimed the lane for somebody, and died there.
    human = LaneOwner(world.log, session, run="run_first")
    human.fence = await world.log.claim(subjects, "main", owner.fence, desk, now_ms())
    if written:
        await human.write(MessageSegment("m1", 7, 3, "see", True, "handed_over"))
    place = Place(session)
    async with await world.wire(gateway=0) as one, await world.wire(gateway=1) as two:
        await two.subscribe(Place(session))
        await one.subscribe(place)
        await one.follow(place, lambda p: "run_first" in p.ended)
        assert place.ended["run_first"] == "cancelled"
        assert ("assistant", "Let me see", "handed_over", "w-test") in await messages(one, session)
        found = [m for m in (await one.command("history", session=session))["messages"] if m["role"] == "tool"]
        assert [(m["toolCallId"], m["text"]) for m in found] == [("c1", '{"error":"not_run"}')]
    assert not (await world.state(session)).runs
