"""Steering and session management over a real gateway: what becomes of inputs, and every refusal to its sender."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
import pytest_asyncio

from broker.depth import SENT_DEPTH_MAX
from broker.events import ApprovalRequested, InputApplied, InputFailed, SessionStateChanged
from broker.jetstream.dispatch import JetStreamJobQueue
from broker.subjects import MAIN_LANE
from tests.support.plane import PlaneWorld, at_once, plane_world, refused
from tests.support.rawclient import Refusal, Wire

EVERY = ("admin",)
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[PlaneWorld]:
    async with plane_world(tmp_path_factory.mktemp("plane"), input_bytes="4096") as world:
        yield world


async def send(wire: Wire, session: str, input_id: str, **fields: Any) -> dict[str, Any]:
    return await wire.command("input.send", **{"session": session, "inputId": input_id, "content": "c"} | fields)


def told(receipt: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(receipt[name] for name in ("status", "mode", "position", "reason", "duplicate"))


# --- inputs ----------------------------------------------------------------------------------------------------------


async def test_a_receipt_says_where_an_input_waits(world: PlaneWorld) -> None:
    session = world.session()
    await world.running(session, "inject")
    async with await world.wire() as wire:
        assert told(await send(wire, session, "i1")) == ("queued", "inject", 1, None, False)
        assert told(await send(wire, session, "i2", mode="enqueue")) == ("queued", "enqueue", 2, None, False)
        assert told(await send(wire, session, "i3", mode="interrupt")) == ("queued", "interrupt", 1, None, False)
        assert told(await send(wire, session, "i4", mode="rollback")) == ("queued", "rollback", 2, None, False)
        assert told(await send(wire, session, "i2", mode="enqueue")) == ("queued", "enqueue", 4, None, True)
    run = (await world.state(session)).runs["run_first"]
    assert run.cancel is not None
    assert run.cancel.reason == "interrupt"


async def test_a_receipt_says_what_has_become_of_an_input(world: PlaneWorld) -> None:
    session = world.session()
    owner = await world.running(session, "inject")
    async with await world.wire() as wire:
        for input_id in ("joins", "fails", "goes"):
            await send(wire, session, input_id)
        await owner.write(InputApplied("joins", "run_first", "msg_joins"), InputFailed("fails", "content_too_large"))
        await wire.command("input.cancel", session=session, inputId="goes")
        joined = await send(wire, session, "joins")
        assert (joined["status"], joined["runId"], joined["duplicate"]) == ("applied", "run_first", True)
        failed = await send(wire, session, "fails")
        assert (failed["status"], failed["reason"]) == ("failed", "content_too_large")
        assert (await send(wire, session, "goes"))["status"] == "cancelled"
        await owner.finish()
        await refused(wire, "run_ended", "run.cancel", session=session, runId="run_first")
        assert (await send(wire, session, "joins"))["status"] == "ended"


async def test_an_input_that_has_to_wait_says_for_what(world: PlaneWorld) -> None:
    session = world.session()
    owner = await world.running(session)
    async with await world.wire() as wire:
        await owner.write(ApprovalRequested("a1", "approval", "?", ["allow_once", "reject_once"], "reject_once"))
        assert told(await send(wire, session, "i1")) == ("pending", "enqueue", 1, "approval", False)
        await wire.command("approval.respond", session=session, approvalId="a1", option="allow_once")
        await owner.write(SessionStateChanged("paused", "unwatched"))
        assert told(await send(wire, session, "i2")) == ("pending", "enqueue", 2, "paused", False)
        assert told(await send(wire, session, "i3", mode="interrupt")) == ("queued", "interrupt", 1, None, False)


async def test_steering_needs_the_right_and_a_mode_that_there_is(world: PlaneWorld) -> None:
    session = world.session()
    async with await world.wire("guest", ("read", "send")) as wire:
        for mode in ("inject", "interrupt", "rollback"):
            reply = await refused(
                wire, "not_allowed", "input.send", session=session, inputId="i", content="c", mode=mode
            )
            assert reply["right"] == "steer"
        for mode in ("reject", "auto", "enqueue"):
            await send(wire, session, f"i-{mode}", mode=mode)
        for bad in ("faster", "", 1, ["auto"]):
            reply = await refused(
                wire, "bad_command", "input.send", session=session, inputId="i", content="c", mode=bad
            )
            assert reply["field"] == "mode"
    async with await world.wire("guest", ("send", "steer")) as wire:
        assert (await send(wire, session, "i-interrupt", mode="interrupt"))["position"] == 1


@pytest.mark.parametrize(
    ("config", "can", "fields", "code"),
    [
        ({}, ("inject",), {"mode": "reject"}, "busy"),
        ({}, (), {"mode": "inject"}, "cannot_inject"),
        ({"onBusy": "reject"}, (), {}, "busy"),
        ({"roles": {"*": {"modes": ["auto"]}}}, (), {"mode": "enqueue"}, "mode_not_allowed"),
        ({"roles": {"*": {"maxQueue": 0}}}, (), {}, "queue_full"),
        ({}, (), {"content": "x" * 5000}, "content_too_large"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_refused_input_is_not_stored(
    world: PlaneWorld, config: dict[str, Any], can: Sequence[str], fields: dict[str, Any], code: str
) -> None:
    session = world.session()
    async with await world.wire() as wire:
        owner = await world.running(session, *can)
        await wire.command("session.update", session=session, config=config)
        before = len(await world.entries(session))
        reply = await refused(wire, code, "input.send", **{"session": session, "inputId": "i", "content": "c"} | fields)
        assert reply["retryable"] == (code == "queue_full")
        assert len(await world.entries(session)) == before
        await wire.command("session.update", session=session, config={"onBusy": "auto", "roles": {}})
        await owner.finish()
        assert not (await send(wire, session, "i"))["duplicate"], "the id is free still"


async def test_a_limit_of_a_role_is_that_of_its_members(world: PlaneWorld) -> None:
    session = world.session()
    await world.running(session)
    async with (
        await world.wire("guest", ("send", "steer"), ["guest"]) as guest,
        await world.wire("host", EVERY, ["guest", "host"]) as host,
    ):
        limits = {"guest": {"modes": ["enqueue"], "maxQueue": 1, "cancel": False}, "host": {}}
        await host.command("session.update", session=session, config={"roles": limits})
        assert (await send(guest, session, "g1", mode="enqueue"))["position"] == 1
        reply = await refused(
            guest, "queue_full", "input.send", session=session, inputId="g2", content="c", mode="enqueue"
        )
        assert reply["limit"] == 1
        await refused(guest, "mode_not_allowed", "input.send", session=session, inputId="g2", content="c")
        assert (await send(host, session, "h1", mode="interrupt"))["position"] == 1


async def test_of_two_inputs_that_may_not_wait_one_is_taken(world: PlaneWorld) -> None:
    async with await world.wire("one", gateway=0) as one, await world.wire("two", gateway=1) as two:
        for _ in range(10):
            session = world.session()
            fields = {"session": session, "content": "c", "mode": "reject"}
            won, lost = await at_once(
                (one, "input.send", fields | {"inputId": "i1"}), (two, "input.send", fields | {"inputId": "i2"})
            )
            assert [len(won), len(lost)] == [1, 1]
            assert lost[0]["code"] == "busy"
            assert len((await world.state(session)).inputs) == 1


async def test_the_job_goes_to_the_session_s_pool(world: PlaneWorld) -> None:
    session = world.session()
    subjects = world.log.subjects(session)
    async with await world.wire() as wire:
        await wire.command("session.create", session=session, config={"pool": "gpu"})
        await send(wire, session, "i1")
    jobs = JetStreamJobQueue(world.connection, "default")
    assert not await jobs.offer(subjects, MAIN_LANE, "gpu"), "it is there already"
    assert await jobs.offer(subjects, MAIN_LANE), "and in no other pool"


async def test_an_input_is_taken_back_by_its_sender_or_an_admin(world: PlaneWorld) -> None:
    session = world.session()
    async with (
        await world.wire("one", ("send",)) as one,
        await world.wire("two", ("send",)) as two,
        await world.wire("boss", EVERY, gateway=1) as boss,
    ):
        await send(one, session, "i1")
        await send(one, session, "i2")
        await refused(two, "not_allowed", "input.cancel", session=session, inputId="i1")
        await refused(two, "input_not_found", "input.cancel", session=session, inputId="nothing")
        for wire, input_id in ((one, "i1"), (one, "i1"), (boss, "i2"), (boss, "i1")):
            reply = await wire.command("input.cancel", session=session, inputId=input_id)
            assert reply["status"] == "cancelled"


# --- runs ------------------------------------------------------------------------------------------------------------


async def test_a_run_is_stopped_more_and_more(world: PlaneWorld) -> None:
    session = world.session()
    await world.running(session)
    async with await world.wire("one", ("cancel",)) as one, await world.wire("two", ("cancel",), gateway=1) as two:
        for wire, mode in ((one, "after_step"), (two, "after_step"), (one, "immediate"), (two, "after_step")):
            reply = await wire.command("run.cancel", session=session, runId="run_first", mode=mode)
            assert reply["status"] == "cancelling"
        await refused(one, "run_not_found", "run.cancel", session=session, runId="run_none")
        reply = await refused(one, "bad_command", "run.cancel", session=session, runId="run_first", mode="soon")
        assert reply["field"] == "mode"
    run = (await world.state(session)).runs["run_first"]
    assert run.cancel is not None
    assert (run.cancel.mode, run.cancel.by and run.cancel.by.id) == ("immediate", "one")
    assert len(await world.events(session, "run.cancel.requested")) == 2, "what changes nothing is not stored"


async def test_a_run_that_waits_never_starts_once_cancelled(world: PlaneWorld) -> None:
    session = world.session()
    async with await world.wire() as wire:
        await send(wire, session, "i1")
        for _ in range(2):
            reply = await wire.command("run.cancel", session=session, runId="run_i1")
            assert reply["status"] == "cancelled"
        assert (await send(wire, session, "i1"))["status"] == "cancelled"


async def test_the_config_may_keep_roles_from_cancelling(world: PlaneWorld) -> None:
    session = world.session()
    await world.running(session)
    async with await world.wire("guest", ("cancel",)) as guest, await world.wire("boss", EVERY, ["boss"]) as boss:
        await boss.command("session.update", session=session, config={"roles": {"*": {"cancel": False}}})
        reply = await refused(guest, "not_allowed", "run.cancel", session=session, runId="run_first")
        assert reply["right"] == "cancel"
        await boss.command("session.update", session=session, config={"roles": {"*": {"cancel": False}, "boss": {}}})
        await boss.command("run.cancel", session=session, runId="run_first")


# --- sessions --------------------------------------------------------------------------------------------------------


async def test_a_session_is_created_once(world: PlaneWorld) -> None:
    session = world.session()
    async with (
        await world.wire("one", ("read", "send")) as one,
        await world.wire("two", ("send",), gateway=1) as two,
    ):
        about = {"title": "Trip", "metadata": {"a": 1}, "config": {"onBusy": "enqueue"}}
        created = await one.command("session.create", session=session, **about)
        assert not created["duplicate"]
        again = await one.command("session.create", session=session, title="Other")
        assert (again["duplicate"], again["seq"]) == (True, created["seq"])
        await refused(two, "session_exists", "session.create", session=session)
    state = await world.state(session)
    assert (state.title, state.metadata, state.config.on_busy) == ("Trip", {"a": 1}, "enqueue")


async def test_of_two_creators_one_wins(world: PlaneWorld) -> None:
    async with await world.wire("one", gateway=0) as one, await world.wire("two", gateway=1) as two:
        for _ in range(10):
            fields = {"session": world.session()}
            won, lost = await at_once((one, "session.create", fields), (two, "session.create", fields))
            assert [len(won), [reply["code"] for reply in lost]] == [1, ["session_exists"]]


async def test_only_its_creator_or_an_admin_manages_a_session(world: PlaneWorld) -> None:
    session = world.session()
    async with (
        await world.wire("one", ("read", "send")) as one,
        await world.wire("two", ("read", "send", "steer", "approve")) as two,
        await world.wire("boss", EVERY, gateway=1) as boss,
    ):
        for op in ("session.update", "session.close", "session.reopen"):
            fields = {"title": "x"} if op == "session.update" else {}
            await refused(two, "not_allowed", op, session=session, **fields)
        await one.command("session.create", session=session)
        for op in ("session.update", "session.close", "session.reopen"):
            fields = {"title": "x"} if op == "session.update" else {}
            await refused(two, "not_allowed", op, session=session, **fields)
            await one.command(op, session=session, **fields)
            await boss.command(op, session=session, **fields)


async def test_a_closed_session_takes_no_inputs_until_it_is_opened(world: PlaneWorld) -> None:
    session = world.session()
    async with await world.wire(gateway=0) as one, await world.wire(gateway=1) as two:
        for round_ in range(2):
            for wire in (one, two):
                assert (await wire.command("session.close", session=session))["closed"] is True
            for wire in (one, two):
                await refused(wire, "session_closed", "input.send", session=session, inputId=f"i{round_}", content="c")
            assert (await two.command("session.reopen", session=session))["closed"] is False
            await send(two, session, f"i{round_}")


@pytest.mark.parametrize(
    ("fields", "code", "data"),
    [
        ({"title": "x" * 201}, "content_too_large", {"limit": 200}),
        ({"metadata": {"a": "x" * 8192}}, "content_too_large", {"limit": 8192}),
        ({"metadata": []}, "bad_command", {"field": "metadata"}),
        ({"title": 5}, "bad_command", {"field": "title"}),
        ({"config": {"onBusy": "never"}}, "config_invalid", {"field": "onBusy"}),
        ({"config": {"maxQueue": 0}}, "config_invalid", {"field": "maxQueue"}),
        ({"config": {"speed": 1}}, "config_invalid", {"field": "speed"}),
        ({}, "bad_command", {"field": "title"}),
    ],
)
async def test_what_a_session_is_told_has_a_form(
    world: PlaneWorld, fields: dict[str, Any], code: str, data: dict[str, Any]
) -> None:
    session = world.session()
    async with await world.wire() as wire:
        reply = await refused(wire, code, "session.update", session=session, **fields)
        assert reply.items() >= data.items()
        if fields:
            await refused(wire, code, "session.create", session=session, **fields)
    assert await world.entries(session) == []


async def test_metadata_may_be_nested_as_deeply_as_a_frame(world: PlaneWorld) -> None:
    """What is more than that is no frame, whatever it would say."""

    def nested(levels: int) -> Any:
        return [] if levels == 1 else [nested(levels - 1)]

    session = world.session()
    async with await world.wire() as wire:
        await wire.command("session.create", session=session, metadata={"a": nested(SENT_DEPTH_MAX - 2)})
        wire.send("session.create", session=world.session(), metadata={"a": nested(SENT_DEPTH_MAX - 1)})
        assert (await wire.complaint())["code"] == "bad_json"
    (entry,) = await world.entries(session)
    assert entry.events


async def test_roles_of_a_token_have_a_form(world: PlaneWorld) -> None:
    for roles in (["r"] * 33, [""], [1], ["a\nb"], ["x" * 129]):
        with pytest.raises(Refusal, match="roles"):
            await world.wire(roles=roles)  # type: ignore[arg-type]
    session = world.session()
    async with await world.wire("one", roles=["support", "support", "ops"]) as wire:
        await send(wire, session, "i1")
    (entry,) = await world.entries(session)
    assert entry.by is not None
    assert entry.by.roles == ("support", "ops")
