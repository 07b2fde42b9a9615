"""Tools that clients execute, over two real gateways: one claim, one result, and a reason for all others."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from broker.events import RunFinished, ToolCallResult, ToolFailed, ToolLapsed, ToolRequested
from tests.support.plane import LaneOwner, PlaneWorld, at_once, now_ms, plane_world, refused
from tests.support.rawclient import Wire

pytestmark = pytest.mark.asyncio(loop_scope="module")

PICK = {
    "name": "pick_file",
    "description": "Lets the user choose a file",
    "parameters": {"type": "object", "properties": {"kind": {"type": "string"}}},
    "result": {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]},
}
ANYTHING = {"name": "anything"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[PlaneWorld]:
    async with plane_world(tmp_path_factory.mktemp("plane"), input_bytes="4096") as world:
        yield world


async def calling(world: PlaneWorld, session: str, **fields: Any) -> LaneOwner:
    """A run that waits for the call `c1`."""
    owner = await world.running(session)
    await owner.write(ToolRequested(**{**CALL, **fields}))
    return owner


CALL: dict[str, Any] = {"tool_call_id": "c1", "name": "pick_file", "args": {"kind": "csv"}, "executor": "client"}


async def declare(wire: Wire, session: str, *tools: dict[str, Any]) -> None:
    await wire.command("subscribe", session=session, tools=list(tools or (PICK,)))


def one(session: str, claim_id: str = "k1", **fields: Any) -> dict[str, Any]:
    return {"session": session, "toolCallId": "c1", "claimId": claim_id} | fields


async def test_claim_progress_result(world: PlaneWorld) -> None:
    session = world.session()
    await calling(world, session)
    async with await world.wire(rights=("read", "tools"), roles=["r"]) as wire:
        await declare(wire, session)
        before = now_ms()
        claimed = await wire.command("tool.claim", **one(session))
        assert before + 14_000 < claimed["expiresAt"] < now_ms() + 16_000
        assert await wire.command("tool.progress", **one(session, value={"done": 0.5})) == {"op": "ok", "id": 4}
        for _ in range(2):
            reply = await wire.command("tool.result", **one(session, result={"path": "/a"}))
            assert (reply["toolCallId"], reply["status"]) == ("c1", "resolved")
    assert len(await world.events(session, "tool.resolved")) == 1
    (progress,) = await world.events(session, "tool.progress")
    assert progress.body["value"] == {"done": 0.5}
    claims = [entry for entry in await world.entries(session) if entry.id.startswith("claim:c1:k1:")]
    assert claims[0].by is not None
    assert claims[0].by.roles == ("r",)


async def test_a_result_may_be_anything_where_no_schema_is(world: PlaneWorld) -> None:
    for result in (None, False, 0, "", [], {"a": [1.5, None]}):
        session = world.session()
        await calling(world, session, name="anything")
        async with await world.wire() as wire:
            await declare(wire, session, ANYTHING)
            await wire.command("tool.claim", **one(session))
            await wire.command("tool.result", **one(session, result=result))
        assert (await world.state(session)).calls["c1"].status == "resolved"


async def test_an_error_is_a_result(world: PlaneWorld) -> None:
    session = world.session()
    await calling(world, session)
    async with await world.wire() as wire:
        await declare(wire, session)
        await wire.command("tool.claim", **one(session))
        await wire.command("tool.result", **one(session, error="the disk is full"))
    (resolved,) = await world.events(session, "tool.resolved")
    assert (resolved.result, resolved.error) == (None, "the disk is full")


async def test_of_five_tabs_one_claims_and_resolves(world: PlaneWorld) -> None:
    async with contextlib.AsyncExitStack() as stack:
        wires = [await stack.enter_async_context(await world.wire(f"user-{n}", gateway=n % 2)) for n in range(5)]
        for round_ in range(5):
            await race(world, wires, idempotent=bool(round_ % 2))


async def race(world: PlaneWorld, wires: list[Wire], *, idempotent: bool) -> None:
    session = world.session()
    await calling(world, session, idempotent=idempotent)
    for wire in wires:
        await declare(wire, session)
    claims = [(wire, "tool.claim", one(session, f"k{n}")) for n, wire in enumerate(wires)]
    won, lost = await at_once(*claims)
    assert [len(won), {reply["code"] for reply in lost}] == [1, {"already_claimed"}]
    winner = won[0]["claimId"]
    assert {reply["by"]["id"] for reply in lost} == {f"user-{winner[1:]}"}
    results = [(wire, "tool.result", one(session, f"k{n}", result={"path": f"/{n}"})) for n, wire in enumerate(wires)]
    won, lost = await at_once(*results)
    assert len(won) == 1
    assert {reply["code"] for reply in lost} <= {"not_claimed", "already_resolved"}
    (resolved,) = await world.events(session, "tool.resolved")
    assert resolved.result == {"path": f"/{winner[1:]}"}
    for n, wire in enumerate(wires):
        if f"k{n}" != winner:
            reply = await refused(wire, "already_resolved", "tool.claim", **one(session, f"k{n}"))
            assert reply["status"] == "resolved"
    for wire in wires:
        await wire.command("unsubscribe", session=session)


async def test_the_same_claim_again_renews_it(world: PlaneWorld) -> None:
    session = world.session()
    await calling(world, session)
    async with await world.wire(gateway=0) as first, await world.wire(gateway=1) as second:
        await declare(first, session)
        await declare(second, session)
        short = await first.command("tool.claim", **one(session, leaseMs=1000))
        longer = await second.command("tool.claim", **one(session, leaseMs=60_000))
        assert longer["expiresAt"] > short["expiresAt"] + 50_000
        call = (await world.state(session)).calls["c1"]
        assert call.claim is not None
        assert (call.claim.expires_at, call.claims) == (longer["expiresAt"], 1)
        await refused(first, "already_claimed", "tool.claim", **one(session, "k2"))
        for lease in (999, 120_001, "1", 1.5):
            reply = await refused(first, "bad_command", "tool.claim", **one(session, leaseMs=lease))
            assert reply["field"] == "leaseMs"


async def test_another_s_claim_id_gives_nothing(world: PlaneWorld) -> None:
    session = world.session()
    await calling(world, session)
    async with await world.wire("one") as one_wire, await world.wire("two", gateway=1) as two:
        await declare(one_wire, session)
        await declare(two, session)
        await one_wire.command("tool.claim", **one(session))
        await refused(two, "already_claimed", "tool.claim", **one(session))
        for op, fields in (("result", {"result": {"path": "/"}}), ("progress", {"value": 1}), ("release", {})):
            await refused(two, "not_claimed", f"tool.{op}", **one(session, **fields))
            await refused(one_wire, "not_claimed", f"tool.{op}", **one(session, "k9", **fields))
        await one_wire.command("tool.result", **one(session, result={"path": "/"}))


async def test_what_there_is_not_cannot_be_claimed(world: PlaneWorld) -> None:
    session = world.session()
    owner = await calling(world, session)
    async with await world.wire() as wire:
        await declare(wire, session, PICK, ANYTHING)
        for op, fields in (("claim", {}), ("result", {"result": 1}), ("progress", {"value": 1}), ("release", {})):
            forged = one(session, **fields) | {"toolCallId": "forged"}
            await refused(wire, "call_not_found", f"tool.{op}", **forged)
            await refused(wire, "bad_name", f"tool.{op}", **forged | {"toolCallId": "a b"})
            await refused(wire, "bad_name", f"tool.{op}", **forged | {"claimId": "x" * 65})
        await owner.finish()
        reply = await refused(wire, "already_resolved", "tool.claim", **one(session))
        assert (reply["status"], reply["reason"]) == ("failed", "run_ended")


async def test_a_tool_must_be_declared_by_the_connection_in_the_session(world: PlaneWorld) -> None:
    session = world.session()
    await calling(world, session)
    async with await world.wire() as wire, await world.wire("two", ("read", "send")) as other:
        await refused(wire, "not_declared", "tool.claim", **one(session))
        await declare(wire, session, ANYTHING)
        await refused(wire, "not_declared", "tool.claim", **one(session))
        await refused(other, "not_allowed", "tool.claim", **one(session))
        reply = await refused(other, "not_allowed", "subscribe", session=session, tools=[PICK])
        assert reply["right"] == "tools"


async def test_a_targeted_call_is_for_its_target(world: PlaneWorld) -> None:
    session = world.session()
    await calling(world, session, participant="one", device="d1", any_after=now_ms() + 3_600_000)
    async with await world.wire("two") as other, await world.wire("one", gateway=1) as no_device:
        await declare(other, session)
        await declare(no_device, session)
        await refused(other, "not_targeted", "tool.claim", **one(session))
        await refused(no_device, "not_targeted", "tool.claim", **one(session))
    async with await world.wire("one", gateway=1) as wire:
        await declare(wire, session)
    later = world.session()
    await calling(world, later, participant="one", any_after=now_ms() - 1)
    async with await world.wire("two") as wire:
        await declare(wire, later)
        await wire.command("tool.claim", **one(later))


async def test_a_call_of_the_agent_s_own_is_nobody_s(world: PlaneWorld) -> None:
    session = world.session()
    await calling(world, session, executor="agent")
    async with await world.wire() as wire:
        await declare(wire, session)
        await refused(wire, "not_targeted", "tool.claim", **one(session))


async def test_arguments_and_results_are_checked(world: PlaneWorld) -> None:
    session = world.session()
    await calling(world, session, args={"kind": 5})
    async with await world.wire() as wire:
        await declare(wire, session)
        reply = await refused(wire, "arguments_invalid", "tool.claim", **one(session))
        assert reply["path"] == "/kind"
    session = world.session()
    await calling(world, session, result_schema={"type": "object", "properties": {"size": {"type": "integer"}}})
    async with await world.wire() as wire:
        await declare(wire, session)
        await wire.command("tool.claim", **one(session))
        reply = await refused(wire, "result_invalid", "tool.result", **one(session, result={"size": "big"}))
        assert reply["path"] == "/size"
        assert "big" not in reply["message"], "nothing is said back"
        # The call's own schema counts, not the declaration's.
        await wire.command("tool.result", **one(session, result={"size": 1}))


async def test_a_refused_result_leaves_the_claim(world: PlaneWorld) -> None:
    session = world.session()
    await calling(world, session)
    async with await world.wire() as wire:
        await declare(wire, session)
        await wire.command("tool.claim", **one(session))
        reply = await refused(wire, "result_invalid", "tool.result", **one(session, result={}))
        assert (reply["path"], "path" in reply["message"]) == ("", True)
        await refused(wire, "content_too_large", "tool.result", **one(session, result={"path": "x" * 4096}))
        await refused(wire, "content_too_large", "tool.result", **one(session, error="x" * 4096))
        await refused(wire, "content_too_large", "tool.progress", **one(session, value="x" * 4096))
        for fields in ({}, {"result": 1, "error": "x"}, {"error": 5}):
            await refused(wire, "bad_command", "tool.result", **one(session, **fields))
        await refused(wire, "bad_command", "tool.progress", **one(session))
        await wire.command("tool.result", **one(session, result={"path": "/"}))
    assert len(await world.events(session, "tool.resolved")) == 1


async def test_a_schema_of_the_agent_that_is_none_is_said_to_be(world: PlaneWorld) -> None:
    session = world.session()
    await calling(world, session, result_schema={"type": "wrong"})
    async with await world.wire() as wire:
        await declare(wire, session)
        await wire.command("tool.claim", **one(session))
        await refused(wire, "schema_invalid", "tool.result", **one(session, result={"path": "/"}))
        await wire.command("tool.result", **one(session, error="cannot"))


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "wrong"},
        {"$ref": "https://example.com/schema.json"},
        {"$ref": "file:///etc/passwd"},
        {"pattern": "(?=a)b"},
        {"$ref": "#/$defs/none"},
        [],
    ],
    ids=str,
)
async def test_a_tool_with_a_schema_that_is_none_is_not_declared(world: PlaneWorld, schema: Any) -> None:
    async with await world.wire() as wire:
        code = "bad_command" if schema == [] else "schema_invalid"
        tool = {"name": "t", "parameters": schema}
        await refused(wire, code, "subscribe", session=world.session(), tools=[tool])


async def test_a_released_call_is_free(world: PlaneWorld) -> None:
    session = world.session()
    await calling(world, session)
    async with await world.wire("one") as first, await world.wire("two", gateway=1) as second:
        for wire in (first, second):
            await declare(wire, session)
        for _ in range(2):
            # Twice with the same ids, within the time in which the log knows an id again.
            await first.command("tool.claim", **one(session))
            assert (await first.command("tool.release", **one(session)))["toolCallId"] == "c1"
            await refused(first, "not_claimed", "tool.release", **one(session))
        await second.command("tool.claim", **one(session, "k2"))
        await refused(first, "not_claimed", "tool.result", **one(session, result={"path": "/"}))


async def test_a_lapsed_claim_may_be_made_again(world: PlaneWorld) -> None:
    session = world.session()
    owner = await calling(world, session, idempotent=True)
    async with await world.wire() as wire:
        await declare(wire, session)
        expires_at = (await wire.command("tool.claim", **one(session, leaseMs=1000)))["expiresAt"]
        while now_ms() <= expires_at:
            await asyncio.sleep(0.05)
        await owner.write(ToolLapsed("c1", "k1"))
        await refused(wire, "not_claimed", "tool.result", **one(session, result={"path": "/"}))
        await wire.command("tool.claim", **one(session))
        await wire.command("tool.result", **one(session, result={"path": "/"}))


async def test_what_comes_too_late_is_told_so(world: PlaneWorld) -> None:
    session = world.session()
    owner = await calling(world, session, deadline=now_ms() + 1500)
    async with await world.wire() as wire:
        await declare(wire, session)
        await wire.command("tool.claim", **one(session))
        while now_ms() <= (await world.state(session)).calls["c1"].deadline:  # type: ignore[operator]
            await asyncio.sleep(0.05)
        for op, fields in (
            ("claim", {}),
            ("result", {"result": {"path": "/"}}),
            ("progress", {"value": 1}),
            ("release", {}),
        ):
            await refused(wire, "deadline_passed", f"tool.{op}", **one(session, **fields))
        await owner.write(ToolFailed("c1", "deadline"))
        for op, fields in (
            ("claim", {}),
            ("result", {"result": {"path": "/"}}),
            ("progress", {"value": 1}),
            ("release", {}),
        ):
            reply = await refused(wire, "already_resolved", f"tool.{op}", **one(session, **fields))
            assert (reply["status"], reply["reason"]) == ("failed", "deadline")


async def test_who_resolved_it_is_told_so_though_the_run_is_over_at_once(world: PlaneWorld) -> None:
    """The agent goes on, and may end the run, before the gateway has answered."""
    for _ in range(10):
        session = world.session()
        owner = await calling(world, session)
        async with (
            await world.wire() as wire,
            world.log.tail(world.log.subjects(session), 0) as tail,
            asyncio.TaskGroup() as tasks,
        ):
            await declare(wire, session)
            await wire.command("tool.claim", **one(session))
            reply = tasks.create_task(wire.command("tool.result", **one(session, result={"path": "/"})))
            while not any(b"tool.resolved" in found.body for found in await tail.next()):  # type: ignore[union-attr]
                pass
            await owner.write(ToolCallResult("res_c1", "c1", "{}"), RunFinished(session, "run_first"))
            assert (await reply)["status"] == "resolved"
