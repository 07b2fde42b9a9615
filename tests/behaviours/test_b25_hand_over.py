"""B25: agent, human, agent: from one sequence on the agent writes nothing while the human owns; all is attributed.

The two sides are at different gateways. A worker that slept while a human took over wakes up as a zombie, and a gateway
that dies right after a human's claim leaves nothing open.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from broker.config import LogSettings
from broker.events import SessionOwner
from broker.lease import parse_write_id
from broker.state import Ended
from tests.behaviours.conftest import Figure
from tests.support.nats import NatsNode, free_ports
from tests.support.place import Frame, Place
from tests.support.plane import PlaneWorld, refused
from tests.support.rawclient import WAIT_S, Wire
from tests.support.stack import Stack, lanes_lost, open_log
from tests.support.tcp import proxy_to

AGENT = "tests.support.agents_people:desk"
TOKENS = 3000
STREAM = f"stream {TOKENS} tokens at 200/s"
TEXT = "".join(f"t{i} " for i in range(TOKENS))
RUN, NEXT_RUN = "run_a", "run_note"
REPAIR_S = 1.0
OPERATOR = ("read", "send", "steer")

pytestmark = pytest.mark.timeout(120)


@contextlib.asynccontextmanager
async def _world(stack: Stack, **first: str) -> AsyncIterator[PlaneWorld]:
    """Two gateways; settings of the first one alone."""
    async with asyncio.TaskGroup() as tasks:
        one = tasks.create_task(stack.gateway(job_repair_s=str(REPAIR_S), **first))
        two = tasks.create_task(stack.gateway(job_repair_s=str(REPAIR_S)))
    async with open_log(stack.nats_url, LogSettings(lease_s=stack.lease_s)) as (connection, log):
        yield PlaneWorld(stack, [one.result(), two.result()], connection, log)


# --- the way there and back ------------------------------------------------------------------------------------------


async def test_agent_human_agent(stack: Stack, figure: Figure) -> None:
    async with _world(stack) as world:
        worker = await stack.worker(AGENT)
        async with (
            await world.wire("user-1", ("read", "send")) as user,
            await world.wire("op-1", OPERATOR, ["support"], gateway=1) as operator,
        ):
            place = Place("refund", frames=[])
            await user.subscribe(place)
            await user.input("refund", "a", "hand over")
            await _wait_for(user, place, "handoff.requested")
            # Nobody is at work on the session for a while.
            await worker.kill()
            handoff = await _waits_for_support(world, operator, place)
            assert (await operator.command("handoff.claim", session="refund", handoffId=handoff))["lane"] == "main"
            assert (await operator.command("handoff.list"))["handoffs"] == []
            await _talk(user, operator, place)
            await operator.command(
                "handoff.return", session="refund", lane="main", inputId="note", note="They may have it back"
            )
            await stack.worker(AGENT)
            await user.follow(place, lambda p: NEXT_RUN in p.ended)
            assert place.whole
            assert place.ended == {RUN: "cancelled", NEXT_RUN: "success"}
            assert await _told(user, "refund") == [
                ("user", "user-1", "hand over"),
                ("assistant", "desk", "One moment. "),
                ("assistant", "op-1", "What is wrong?"),
                ("user", "user-1", "It is broken"),
                ("user", "op-1", "They may have it back"),
                ("assistant", "desk", "They may have it back"),
            ]
        assert await _stale(world, "refund") == []
        await _nobody_came(world)
    figure("agent, human, agent at two gateways, the worker killed while it waits: 6 messages, each by who said it")


async def _waits_for_support(world: PlaneWorld, operator: Wire, place: Place) -> str:
    """The hand-over as operators see it; who has not the role neither sees nor takes it."""
    (request,) = _events(place, "handoff.requested")
    (waiting,) = (await operator.command("handoff.list"))["handoffs"]
    assert {key: waiting[key] for key in ("session", "handoffId", "lane", "to", "reason", "summary")} == {
        "session": "refund",
        "handoffId": request["handoffId"],
        "lane": "main",
        "to": "support",
        "reason": "refund",
        "summary": "They want their money back",
    }
    claim = {"session": "refund", "handoffId": request["handoffId"]}
    async with (
        await world.wire("op-2", OPERATOR, ["sales"]) as other,
        await world.wire("op-3", ("read", "send")) as guest,
    ):
        assert (await other.command("handoff.list"))["handoffs"] == []
        assert (await refused(other, "role_required", "handoff.claim", **claim))["roles"] == ["support"]
        assert (await refused(guest, "not_allowed", "handoff.claim", **claim))["right"] == "steer"
        await refused(operator, "not_allowed", "handoff.claim", session="refund")
        await refused(operator, "handoff_not_found", "handoff.claim", session="refund", handoffId="forged")
    return str(request["handoffId"])


async def _talk(user: Wire, operator: Wire, place: Place) -> None:
    """What is said while the human owns is there at once; nobody else gives the lane back or takes it."""
    await user.follow(place, lambda p: RUN in p.ended)
    await operator.input("refund", "b", "What is wrong?")
    assert (await user.input("refund", "c", "It is broken"))["status"] == "applied"
    await refused(user, "not_allowed", "handoff.return", session="refund", inputId="mine", note="give it to me")


async def _nobody_came(world: PlaneWorld) -> None:
    """A hand-over to a role that nobody has ends in time; the agent has the lane still, and says so."""
    place = Place("nobody", frames=[])
    async with await world.wire("user-1", gateway=1) as wire:
        await wire.subscribe(place)
        await wire.input("nobody", "a", "hand over to astronauts for 0.5 s")
        await wire.follow(place, lambda p: RUN in p.ended)
    assert (place.answer(RUN), place.ended) == ("nobody came", {RUN: "success"})
    assert len(_events(place, "handoff.expired")) == 1


# --- unasked, in mid-stream ------------------------------------------------------------------------------------------


async def test_a_worker_that_sleeps_while_a_human_takes_over(
    stack: Stack, nats_server: NatsNode, figure: Figure
) -> None:
    (port,) = free_ports(1)
    async with proxy_to(nats_server.url) as proxy, _world(stack) as world:
        # What was on its way when it fell asleep is answered when it wakes; it must not give up on that before.
        zombie = await stack.worker(AGENT, worker_port=str(port), ack_timeout_s="60", nats_url=proxy.url)
        async with (
            await world.wire("user-1", ("read", "send")) as user,
            await world.wire("boss", ("admin",), gateway=1) as boss,
        ):
            place = await _streaming(user, "zombie")
            async with asyncio.timeout(WAIT_S):
                await proxy.hold([f" {world.log.subjects('zombie').deltas('main')} ".encode()])
            zombie.pause()
            fence = (await boss.command("handoff.claim", session="zombie"))["fence"]
            await user.follow(place, lambda p: RUN in p.ended)
            said = _handed_over(place)
            await boss.input("zombie", "b", "I go on with this")
            zombie.resume()
            proxy.release()
            await lanes_lost(port, 1)
            assert proxy.refusals >= 1
            # It is the same worker that works on, once the human is done.
            await boss.command("handoff.return", session="zombie", lane="main", inputId="note", note="thank you")
            await user.follow(place, lambda p: NEXT_RUN in p.ended)
            assert place.whole
            assert await _told(user, "zombie") == [
                ("user", "user-1", STREAM),
                ("assistant", "desk", said),
                ("assistant", "boss", "I go on with this"),
                ("user", "boss", "thank you"),
                ("assistant", "desk", "thank you"),
            ]
        assert zombie.running
        assert await _stale(world, "zombie") == []
    figure(
        f"fenced at sequence {fence} after {len(said.split())} tokens, asleep; {proxy.refusals} writes of the "
        "zombie refused, 0 in the log"
    )


async def test_a_gateway_dies_right_after_a_claim(stack: Stack, nats_server: NatsNode, figure: Figure) -> None:
    """It has claimed the lane for a human, and not closed what the agent was saying: another gateway does."""
    async with (
        proxy_to(nats_server.url) as proxy,
        # It does not come back to the log by itself as long as this test needs to kill it.
        _world(stack, nats_url=proxy.url, reconnect_wait_s="60") as world,
    ):
        await stack.worker(AGENT)
        async with (
            await world.wire("user-1", ("read", "send"), gateway=1) as user,
            await world.wire("boss", ("admin",)) as boss,
        ):
            place = await _streaming(user, "orphan")
            proxy.cut_at = f" {world.log.subjects('orphan').events('main')} ".encode()
            boss.send("handoff.claim", session="orphan")
            await _gone(lambda: proxy.cut_at is None)
            await world.gateways[0].kill()
            assert [e async for e in _written_by_the_human(world, "orphan")] == [], "it was killed before it closed"
            async with asyncio.timeout(WAIT_S):
                begin = asyncio.get_running_loop().time()
                await user.follow(place, lambda p: RUN in p.ended)
                took_s = asyncio.get_running_loop().time() - begin
            said = _handed_over(place)
            assert place.whole
            assert (await world.state("orphan")).end_of(RUN) == Ended(RUN, "cancelled")
            async with await world.wire("boss", ("admin",), gateway=1) as again:
                await again.input("orphan", "b", "I am back")
                await again.command("handoff.return", session="orphan", lane="main", inputId="note", note="go on")
                await user.follow(place, lambda p: NEXT_RUN in p.ended)
            assert await _told(user, "orphan") == [
                ("user", "user-1", STREAM),
                ("assistant", "desk", said),
                ("assistant", "boss", "I am back"),
                ("user", "boss", "go on"),
                ("assistant", "desk", "go on"),
            ]
        assert await _stale(world, "orphan") == []
    figure(f"a gateway killed right after its claim: another one closed the agent's text {took_s:.2f} s later")


async def _written_by_the_human(world: PlaneWorld, session: str) -> AsyncIterator[str]:
    """What stands in the lane behind the human's claim, which has to be there."""
    state = await world.state(session)
    assert state.lane("main").human is not None
    for entry in await world.entries(session):
        write = parse_write_id(entry.id)
        if write is not None and write.fence == state.lane("main").fence:
            yield entry.id


# --- what all of them need -------------------------------------------------------------------------------------------


async def _streaming(user: Wire, session: str) -> Place:
    """A session in which the agent is in the middle of a long answer."""
    place = Place(session, frames=[])
    await user.subscribe(place)
    await user.input(session, "a", STREAM)
    await user.follow(place, lambda p: p.answer(RUN).count(" ") >= 50)
    return place


def _handed_over(place: Place) -> str:
    """What the agent had said when it was interrupted: kept as it was, and ended."""
    (finished,) = _events(place, "RUN_FINISHED")
    assert finished["outcome"] == {"type": "cancelled", "reason": "handed_over"}
    assert [(text.done, text.reason) for text in place.texts.values()] == [(True, "handed_over")]
    said = place.answer(RUN)
    assert 50 <= len(said.split()) < TOKENS
    assert TEXT.startswith(said)
    return said


async def _told(wire: Wire, session: str) -> list[tuple[str, Any, str]]:
    """The transcript: role, who, text."""
    messages = (await wire.command("history", session=session))["messages"]
    assert all(message["status"] == "done" for message in messages)
    return [(message["role"], (message["by"] or {}).get("id"), message["text"]) for message in messages]


async def _stale(world: PlaneWorld, session: str) -> list[str]:
    """Entries of the lane that are not their owner's: under another fence than the last claim's before them."""
    fence, found = 0, []
    for seq, entry in await world.stack.entries(session):
        write = parse_write_id(entry.id)
        if entry.events and isinstance(entry.events[0], SessionOwner):
            fence = seq
        elif entry.lane is not None and (write is None or write.fence != fence):
            found.append(entry.id)
    return found


async def _wait_for(wire: Wire, place: Place, kind: str) -> None:
    await wire.follow(place, lambda p: bool(_events(p, kind)))


async def _gone(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not holds():
            await asyncio.sleep(0.002)


def _events(place: Place, kind: str) -> list[Frame]:
    return [event for frame in place.frames or () for event in frame["events"] if event["type"] == kind]
