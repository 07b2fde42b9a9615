"""The HTTP API over two real gateways: every operation, and what it is refused with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from broker.events import ApprovalRequested, HandoffRequested, ToolRequested
from tests.support.http import Http
from tests.support.plane import LaneOwner, PlaneWorld, now_ms, plane_world

pytestmark = pytest.mark.asyncio(loop_scope="module")

BY_USER_2 = {"kind": "user", "id": "user-2"}
MANY = {"requests_per_second": "10000", "requests_burst": "10000"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[PlaneWorld]:
    async with plane_world(tmp_path_factory.mktemp("http"), **MANY) as world:
        yield world


def client(world: PlaneWorld, user: str = "user-1", *, gateway: int = 0, **token: Any) -> Http:
    return Http(world.gateways[gateway].url, world.token(user, **token))


# --- sessions --------------------------------------------------------------------------------------------------------


async def test_a_session_is_created_once(world: PlaneWorld) -> None:
    session = world.session()
    async with client(world) as http, client(world, "user-2", rights=["send", "read"]) as other:
        about = {"session": session, "title": "Trip", "metadata": {"a": 1}, "config": {"onBusy": "reject"}}
        first = await http.ask("POST", "/v1/sessions", about)
        assert (first.status, first.json()["duplicate"]) == (201, False)
        assert first.headers["Location"] == f"/v1/sessions/{session}"
        again = await http.ask("POST", "/v1/sessions", about)
        assert (again.status, again.json()) == (200, first.json() | {"duplicate": True})
        await other.refused(409, "session_exists", "POST", "/v1/sessions", about)
        found = await other.ok("GET", f"/v1/sessions/{session}")
        assert (found["state"]["title"], found["state"]["metadata"]) == ("Trip", {"a": 1})
        assert (found["state"]["config"]["onBusy"], found["createdBy"]["id"]) == ("reject", "user-1")


async def test_a_session_without_a_name_gets_one(world: PlaneWorld) -> None:
    async with client(world) as http:
        made = [await http.ok("POST", "/v1/sessions"), await http.ok("POST", "/v1/sessions", {})]
        names = {reply["session"] for reply in made}
        assert len(names) == 2
        listed = await http.ok("GET", "/v1/sessions", limit=2)
        assert {s["session"] for s in listed["sessions"]} == names
        older = await http.ok("GET", "/v1/sessions", limit=2, after=listed["after"] or "0")
        assert not names & {s["session"] for s in older["sessions"]}


async def test_a_session_s_life(world: PlaneWorld) -> None:
    session, copy = world.session(), world.session()
    path = f"/v1/sessions/{session}"
    async with client(world) as http, client(world, "user-2", rights=["read", "send"]) as other:
        await http.refused(404, "not_found", "GET", path)
        await http.ok("POST", "/v1/sessions", {"session": session})
        await http.ok("PATCH", path, {"title": "New", "config": {"maxQueue": 2}})
        await other.refused(403, "not_allowed", "PATCH", path, {"title": "Mine"})
        problem = await http.refused(422, "config_invalid", "PATCH", path, {"config": {"maxQueue": 0}})
        assert problem["data"]["field"] == "config/maxQueue"
        await http.refused(422, "config_invalid", "POST", "/v1/sessions", {"session": copy, "config": {"x": 1}})
        await http.refused(413, "content_too_large", "PATCH", path, {"title": "x" * 201})
        assert await http.ok("POST", f"{path}/close") == {"session": session, "closed": True}
        await http.refused(409, "session_closed", "POST", f"{path}/inputs", {"content": "hello"})
        await other.refused(403, "not_allowed", "POST", f"{path}/close")
        await other.refused(403, "not_allowed", "POST", f"{path}/reopen")
        await http.ok("POST", f"{path}/reopen")
        forked = await http.ask("POST", f"{path}/fork", {"to": copy})
        assert (forked.status, forked.headers["Location"]) == (201, f"/v1/sessions/{copy}")
        await http.refused(409, "session_exists", "POST", f"{path}/fork", {"to": copy})
        assert (await http.ok("GET", f"/v1/sessions/{copy}"))["state"]["title"] == "New"
        await other.refused(403, "not_allowed", "DELETE", path)
        assert await http.ok("DELETE", path) == {"session": session}
        await http.refused(404, "not_found", "GET", path)
        await http.ok("DELETE", path)


# --- inputs ------------------------------------------------------------------------------------------------------------


async def test_an_input_counts_once_whatever_names_it(world: PlaneWorld) -> None:
    session = world.session()
    path = f"/v1/sessions/{session}/inputs"
    async with client(world) as http, client(world, gateway=1) as elsewhere:
        first = await http.ask("POST", path, {"content": "hello"}, headers={"Idempotency-Key": "k-1"})
        assert (first.status, first.json()["inputId"], first.json()["status"]) == (201, "k-1", "queued")
        assert first.headers["Location"] == f"/v1/sessions/{session}/runs/run_k-1"
        again = await elsewhere.ask("POST", path, {"content": "hello", "inputId": "k-1"})
        assert (again.status, again.json()["duplicate"], again.json()["seq"]) == (200, True, first.json()["seq"])
        async with await world.wire() as wire:
            reply = await wire.command("input.send", session=session, inputId="k-1", content="hello")
            assert reply["duplicate"]
        made = await http.ok("POST", path, {"content": "no id"})
        assert made["runId"] == f"run_{made['inputId']}"
        body = {"content": "x", "inputId": "a"}
        problem = await http.refused(400, "bad_command", "POST", path, body, headers={"Idempotency-Key": "b"})
        assert problem["data"]["field"] == "inputId"
        await http.refused(400, "bad_command", "POST", path, {"content": "x"}, headers={"Idempotency-Key": "no good"})
    assert len(await world.events(session, "input.sent")) == 2


async def test_the_trace_of_a_request_is_the_input_s(world: PlaneWorld) -> None:
    session, trace = world.session(), "4bf92f3577b34da6a3ce929d0e0e4736"
    headers = {"traceparent": f"00-{trace}-00f067aa0ba902b7-01", "tracestate": "vendor=1"}
    async with client(world) as http:
        made = await http.ok("POST", f"/v1/sessions/{session}/inputs", {"content": "hello"}, headers=headers)
    assert made["traceparent"].split("-")[1] == trace
    (stored,) = [entry for entry in await world.entries(session) if entry.trace is not None]
    assert stored.trace is not None
    assert (stored.trace.trace_id, stored.trace.state) == (trace, "vendor=1")


async def test_inputs_and_runs_are_taken_back(world: PlaneWorld) -> None:
    session = world.session()
    path = f"/v1/sessions/{session}"
    async with client(world) as http, client(world, "user-2", rights=["send", "cancel"]) as other:
        await http.ok("POST", f"{path}/inputs", {"content": "one", "inputId": "one"})
        await other.refused(403, "not_allowed", "DELETE", f"{path}/inputs/one")
        assert await http.ok("DELETE", f"{path}/inputs/one") == {"inputId": "one", "status": "cancelled"}
        await http.refused(404, "input_not_found", "DELETE", f"{path}/inputs/two")
        await http.ok("POST", f"{path}/inputs", {"content": "two", "inputId": "two"})
        stopped = await other.ok("POST", f"{path}/runs/run_two/cancel")
        assert stopped == {"runId": "run_two", "status": "cancelled"}
        await http.refused(404, "run_not_found", "POST", f"{path}/runs/run_three/cancel", {"mode": "immediate"})
        owner = await world.running(world.session())
        started = f"/v1/sessions/{owner.session}"
        await http.refused(409, "input_already_applied", "DELETE", f"{started}/inputs/first")
        cancelling = await http.ok("POST", f"{started}/runs/run_first/cancel", {"mode": "after_step"})
        assert cancelling["status"] == "cancelling"
        await owner.finish()
        await http.refused(409, "run_ended", "POST", f"{started}/runs/run_first/cancel", {"mode": "immediate"})


async def test_modes_and_queues(world: PlaneWorld) -> None:
    owner = await world.running(world.session())
    path = f"/v1/sessions/{owner.session}"
    async with client(world) as http, client(world, "user-2", rights=["send"], roles=["guest"]) as guest:
        config = {"maxQueue": 1, "roles": {"guest": {"modes": ["enqueue"]}}}
        await http.ok("PATCH", path, {"config": config})
        await http.refused(409, "busy", "POST", f"{path}/inputs", {"content": "x", "mode": "reject"})
        await http.refused(409, "cannot_inject", "POST", f"{path}/inputs", {"content": "x", "mode": "inject"})
        await guest.refused(403, "mode_not_allowed", "POST", f"{path}/inputs", {"content": "x", "mode": "reject"})
        await guest.refused(403, "not_allowed", "POST", f"{path}/inputs", {"content": "x", "mode": "interrupt"})
        await guest.ok("POST", f"{path}/inputs", {"content": "x", "mode": "enqueue"})
        problem = await http.refused(429, "queue_full", "POST", f"{path}/inputs", {"content": "x"})
        assert (problem["retryable"], problem["data"]["limit"]) == (True, 1)


# --- tools, approvals, hand-overs --------------------------------------------------------------------------------------


async def calling(world: PlaneWorld, **fields: Any) -> LaneOwner:
    owner = await world.running(world.session())
    wanted = {"tool_call_id": "c1", "name": "pick", "args": {"kind": "csv"}, "executor": "client", "idempotent": True}
    await owner.write(ToolRequested(**{**wanted, **fields}))
    return owner


async def test_a_call_is_executed(world: PlaneWorld) -> None:
    owner = await calling(world)
    path = f"/v1/sessions/{owner.session}/calls/c1"
    wants_number = {"parameters": {"type": "object", "properties": {"kind": {"type": "number"}}}}
    async with client(world) as http, client(world, "user-2", gateway=1) as other:
        problem = await http.refused(
            422, "arguments_invalid", "POST", f"{path}/claim", {"claimId": "k", "tool": wants_number}
        )
        assert problem["data"]["path"] == "/kind"
        bad = {"claimId": "k", "tool": {"parameters": {"type": "nonsense"}}}
        await http.refused(422, "schema_invalid", "POST", f"{path}/claim", bad)
        await http.refused(409, "not_claimed", "POST", f"{path}/progress", {"claimId": "k", "value": 1})
        claimed = await http.ok("POST", f"{path}/claim", {"claimId": "k", "leaseMs": 60_000, "tool": {}})
        assert claimed["claimId"] == "k"
        problem = await other.refused(409, "already_claimed", "POST", f"{path}/claim", {"claimId": "j"})
        assert problem["data"]["by"]["id"] == "user-1"
        assert await http.ok("POST", f"{path}/progress", {"claimId": "k", "value": [1]}) == {}
        await http.ok("POST", f"{path}/release", {"claimId": "k"})
        await http.refused(409, "not_claimed", "POST", f"{path}/release", {"claimId": "k"})
        await other.ok("POST", f"{path}/claim", {"claimId": "j"})
        refuses = {"result": {"type": "string"}}
        body = {"claimId": "j", "result": 5, "tool": refuses}
        await other.refused(422, "result_invalid", "POST", f"{path}/result", body)
        await http.refused(409, "not_claimed", "POST", f"{path}/result", {"claimId": "k", "result": 5})
        await other.refused(422, "schema_invalid", "POST", f"{path}/result", bad | {"claimId": "j", "result": 1})
        await other.refused(400, "bad_command", "POST", f"{path}/result", {"claimId": "j"})
        for _ in range(2):
            reply = await other.ok("POST", f"{path}/result", {"claimId": "j", "result": {"path": "/a"}})
            assert reply == {"toolCallId": "c1", "status": "resolved"}
        for action, body in (
            ("claim", {"claimId": "k"}),
            ("progress", {"claimId": "k", "value": 1}),
            ("release", {"claimId": "k"}),
            ("result", {"claimId": "k", "error": "no"}),
        ):
            await http.refused(409, "already_resolved", "POST", f"{path}/{action}", body)
    (resolved,) = await world.events(owner.session, "tool.resolved")
    assert resolved.result == {"path": "/a"}


async def test_calls_that_are_not_there_or_for_others_or_too_late(world: PlaneWorld) -> None:
    owner = await calling(world, participant="somebody", device="phone")
    path = f"/v1/sessions/{owner.session}/calls"
    bodies = (
        ("claim", {"claimId": "k"}),
        ("progress", {"claimId": "k", "value": 1}),
        ("release", {"claimId": "k"}),
        ("result", {"claimId": "k", "result": 1}),
    )
    async with client(world) as http, client(world, "somebody") as somebody:
        await http.refused(403, "not_targeted", "POST", f"{path}/c1/claim", {"claimId": "k"})
        await somebody.refused(403, "not_targeted", "POST", f"{path}/c1/claim", {"claimId": "k"})
        await somebody.ok("POST", f"{path}/c1/claim", {"claimId": "k", "device": "phone"})
        for action, body in bodies:
            await http.refused(404, "call_not_found", "POST", f"{path}/none/{action}", body)
        await owner.write(ToolRequested("late", "pick", {}, "client", deadline=now_ms() + 1000))
        await http.ok("POST", f"{path}/late/claim", {"claimId": "k"})
        async with asyncio.timeout(10):
            while (await http.ask("POST", f"{path}/late/progress", {"claimId": "k", "value": 1})).status == 200:
                await asyncio.sleep(0.05)
        for action, body in bodies:
            await http.refused(409, "deadline_passed", "POST", f"{path}/late/{action}", body)


async def test_approvals(world: PlaneWorld) -> None:
    owner = await world.running(world.session())
    options = ["allow_once", "allow_always", "reject_once"]
    path = f"/v1/sessions/{owner.session}/approvals"
    for id_, more in (
        ("a1", {"quorum": 2, "key": "tool:x/y"}),
        ("a2", {"roles": ("boss",)}),
        ("a3", {"expires_at": 1}),
        ("a4", {"response_schema": {"type": "object"}}),
    ):
        asked = ApprovalRequested(id_, "approval", "Delete?", options, "reject_once", **{"quorum": 1, **more})
        await owner.write(asked)
    async with client(world) as http, client(world, "user-2", gateway=1) as other:
        allow = {"option": "allow_always"}
        first = await http.ok("POST", f"{path}/a1/respond", allow)
        assert (first["status"], first["decision"], len(first["votes"])) == ("pending", None, 1)
        await http.refused(409, "already_voted", "POST", f"{path}/a1/respond", {"option": "reject_once"})
        second = await other.ok("POST", f"{path}/a1/respond", allow)
        assert (second["status"], second["decision"]) == ("resolved", "allow_always")
        async with client(world, "user-3") as third:
            problem = await third.refused(409, "already_resolved", "POST", f"{path}/a1/respond", allow)
            assert problem["data"] == {"status": "resolved", "decision": "allow_always", "by": BY_USER_2}
        await http.refused(403, "role_required", "POST", f"{path}/a2/respond", allow)
        problem = await http.refused(422, "bad_option", "POST", f"{path}/a4/respond", {"option": "maybe"})
        assert problem["data"]["options"] == options
        await http.refused(409, "deadline_passed", "POST", f"{path}/a3/respond", allow)
        await http.refused(422, "payload_invalid", "POST", f"{path}/a4/respond", allow | {"payload": 5})
        await http.refused(404, "approval_not_found", "POST", f"{path}/a5/respond", allow)
        found = await http.ok("GET", f"/v1/sessions/{owner.session}")
        assert found["state"]["status"] == "requires_action"
        assert await http.ok("POST", f"{path}/revoke", {"key": "tool:x/y"}) == {"key": "tool:x/y"}
        await http.refused(409, "key_not_found", "POST", f"{path}/revoke", {"key": "tool:x/y"})


async def test_hand_overs(world: PlaneWorld) -> None:
    owner = await world.running(world.session())
    role = f"role-{owner.session}"
    await owner.write(HandoffRequested("h1", role, "refund", "They want their money"))
    path = f"/v1/sessions/{owner.session}"
    rights = ["read", "send", "steer"]
    async with (
        client(world, "agent-1", rights=rights, roles=[role]) as support,
        client(world, "agent-2", rights=rights, roles=[role], gateway=1) as late,
        client(world, "agent-3", rights=rights) as stranger,
        client(world) as admin,
    ):
        await stranger.refused(403, "role_required", "POST", f"{path}/handoffs/h1/claim")
        await stranger.refused(404, "handoff_not_found", "POST", f"{path}/handoffs/h2/claim")
        taken = await support.ok("POST", f"{path}/handoffs/h1/claim")
        assert taken["lane"] == "main"
        await late.refused(409, "already_claimed", "POST", f"{path}/handoffs/h1/claim")
        await stranger.refused(403, "not_allowed", "POST", f"{path}/lanes/main/claim")
        await stranger.refused(409, "not_owner", "POST", f"{path}/lanes/main/return", {"note": "x"})
        back = {"note": "go on", "inputId": "n1"}
        assert await support.ok("POST", f"{path}/lanes/main/return", back) == {"lane": "main"}
        assert await support.ok("POST", f"{path}/lanes/main/return", back) == {"lane": "main"}
        taken = await admin.ok("POST", f"{path}/lanes/main/claim")
        assert taken["fence"] > 0
        assert await admin.ok("POST", f"{path}/lanes/main/return") == {"lane": "main"}
        assert (await support.ok("GET", "/v1/handoffs", limit=10))["handoffs"] == []


# --- reading -------------------------------------------------------------------------------------------------------------


async def test_messages_come_in_pages(world: PlaneWorld) -> None:
    session = world.session()
    async with client(world) as http:
        await http.ok("POST", f"/v1/sessions/{session}/lanes/main/claim")
        for n in range(5):
            await http.ok("POST", f"/v1/sessions/{session}/inputs", {"content": f"m{n}"})
        path = f"/v1/sessions/{session}/messages"
        page = await http.ok("GET", path, limit=3)
        assert [m["text"] for m in page["messages"]] == ["m2", "m3", "m4"]
        page = await http.ok("GET", path, limit=3, before=page["before"])
        assert ([m["text"] for m in page["messages"]], page["before"]) == (["m0", "m1"], None)


async def test_commands_of_both_wires_meet_in_one_log(world: PlaneWorld) -> None:
    session = world.session()
    async with client(world) as http, await world.wire(gateway=1) as wire:
        await http.ok("POST", f"/v1/sessions/{session}/inputs", {"content": "by http", "inputId": "h"})
        reply = await wire.command("input.send", session=session, inputId="w", content="by websocket")
        assert reply["position"] == 2
        state = (await http.ok("GET", f"/v1/sessions/{session}"))["state"]
        assert [i["content"] for i in state["inputs"]] == ["by http", "by websocket"]
        async with asyncio.TaskGroup() as tasks:
            both = [
                tasks.create_task(http.ask("POST", f"/v1/sessions/{session}/inputs", {"content": "x", "inputId": "z"})),
                tasks.create_task(wire.command("input.send", session=session, inputId="z", content="x")),
            ]
        duplicates = [both[0].result().json()["duplicate"], both[1].result()["duplicate"]]
        assert sorted(duplicates) == [False, True]


# --- administration --------------------------------------------------------------------------------------------------------


async def test_what_is_revoked_is_listed(world: PlaneWorld) -> None:
    async with Http(world.gateways[0].url, world.token("admin")) as http:
        body = {"kind": "session", "whose": "nowhere", "user": "user-9", "ttl": 60}
        made = await http.ok("POST", "/v1/revocations", body)
        assert made["until"] - made["before"] in (60, 61)
        assert made in (await http.ok("GET", "/v1/revocations"))["revocations"]
