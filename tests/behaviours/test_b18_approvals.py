"""B18: approvals: deadline, default, role, a quorum of two, the approver named; forged and double answers are refused.

What waits for a decision outlives its worker, its gateway and the server of the log: it is asked once, and decided once.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from broker.config import LogSettings
from tests.behaviours.conftest import Figure
from tests.support.bare import until_status
from tests.support.nats import NatsNode
from tests.support.place import Frame, Place
from tests.support.plane import PlaneWorld, at_once, now_ms, refused
from tests.support.rawclient import Wire, join
from tests.support.stack import Process, Stack, open_log

AGENT = "tests.support.agents_people:approving"
RUN = "run_a"
SIZES = {"type": "object", "properties": {"size": {"enum": ["s", "m"]}}, "required": ["size"]}
DECIDES = ("approve", "read")

pytestmark = pytest.mark.timeout(120)


@contextlib.asynccontextmanager
async def _world(stack: Stack) -> AsyncIterator[PlaneWorld]:
    gateways = await stack.start(2, workers=0)
    async with open_log(stack.nats_url, LogSettings(lease_s=stack.lease_s)) as (connection, log):
        yield PlaneWorld(stack, gateways, connection, log)


@dataclass(slots=True)
class Asked:
    """A session in which something waits for a decision, and who follows it."""

    wire: Wire
    place: Place

    @property
    def request(self) -> Frame:
        (request,) = _events(self.place, "approval.requested")
        return request

    def says(self, option: str, **fields: Any) -> dict[str, Any]:
        return {"session": self.place.session, "approvalId": self.request["approvalId"], "option": option} | fields

    async def told(self) -> str:
        """What the agent says that was decided; it has asked once."""
        await self.wire.follow(self.place, lambda p: RUN in p.ended)
        assert self.place.whole
        assert self.place.ended == {RUN: "success"}
        assert self.request
        return self.place.answer(RUN)


async def _ask(world: PlaneWorld, stack: contextlib.AsyncExitStack, session: str, **options: Any) -> Asked:
    """Returns when it waits."""
    wire = await stack.enter_async_context(await world.wire("asker"))
    asked = Asked(wire, Place(session, frames=[]))
    await wire.subscribe(asked.place)
    await wire.input(session, "a", json.dumps(options))
    await wire.follow(asked.place, lambda p: bool(_events(p, "approval.requested")))
    return asked


# --- what counts -----------------------------------------------------------------------------------------------------


async def test_who_decides_and_when(stack: Stack, figure: Figure) -> None:
    async with _world(stack) as world, contextlib.AsyncExitStack() as wires:
        await stack.worker(AGENT)
        expiring = [
            await _ask(world, wires, f"expires-{default}", expires_s=1.0, default=default)
            for default in ("allow_once", "reject_once")
        ]
        await _quorum(world, await _ask(world, wires, "quorum", roles=["boss"], quorum=2))
        await _race(world, await _ask(world, wires, "race"))
        await _edited(world, await _ask(world, wires, "edited", response_schema=SIZES))
        await _forged(world, await _ask(world, wires, "forged", roles=["boss"]), expiring[0])
        for asked, default in zip(expiring, ("allow_once", "reject_once"), strict=True):
            assert await asked.told() == f"{default} expired by [] with null"
            async with await world.wire("one", DECIDES, gateway=1) as wire:
                late = await refused(wire, "already_resolved", "approval.respond", **asked.says("allow_once"))
                assert (late["status"], late["decision"], late["by"]) == ("expired", default, None)
    figure("deadline into either default; 2 of a role; edited arguments; forged, double and late answers refused")


async def _quorum(world: PlaneWorld, asked: Asked) -> None:
    """Two different people with the role, at two gateways; one of them has tried twice, a third has not the role."""
    async with (
        await world.wire("boss-1", DECIDES, ["boss"]) as one,
        await world.wire("boss-2", DECIDES, ["boss"], gateway=1) as two,
        await world.wire("clerk", ("admin",), ["clerk"], gateway=1) as clerk,
    ):
        assert (await refused(clerk, "role_required", "approval.respond", **asked.says("allow_once")))["roles"] == [
            "boss"
        ]
        for _ in range(2):
            reply = await one.command("approval.respond", **asked.says("allow_once"))
            assert (reply["status"], [vote["by"]["id"] for vote in reply["votes"]]) == ("pending", ["boss-1"])
        await refused(one, "already_voted", "approval.respond", **asked.says("reject_once"))
        reply = await two.command("approval.respond", **asked.says("allow_once"))
        assert (reply["status"], reply["decision"]) == ("resolved", "allow_once")
        assert [vote["by"]["id"] for vote in reply["votes"]] == ["boss-1", "boss-2"]
    assert await asked.told() == "allow_once resolved by [boss-1,boss-2] with null"


async def _race(world: PlaneWorld, asked: Asked) -> None:
    """Four people decide at the same time, differently: one of them has decided, the others are told who."""
    async with contextlib.AsyncExitStack() as stack:
        wires = [
            await stack.enter_async_context(await world.wire(f"user-{i}", DECIDES, gateway=i % 2)) for i in range(4)
        ]
        options = ("allow_once", "reject_once", "allow_once", "reject_once")
        commands = [(w, "approval.respond", asked.says(o)) for w, o in zip(wires, options, strict=True)]
        won, lost = await at_once(*commands)
    (winner,) = won
    assert {(reply["code"], reply["decision"]) for reply in lost} == {("already_resolved", winner["decision"])}
    (vote,) = winner["votes"]
    told = await asked.told()
    assert told == f"{winner['decision']} resolved by [{vote['by']['id']}] with null"


async def _edited(world: PlaneWorld, asked: Asked) -> None:
    async with await world.wire("one", DECIDES, gateway=1) as wire:
        reply = await refused(
            wire, "payload_invalid", "approval.respond", **asked.says("allow_once", payload={"size": "xl"})
        )
        assert reply["path"] == "/size"
        await wire.command("approval.respond", **asked.says("allow_once", payload={"size": "m"}))
    assert await asked.told() == 'allow_once resolved by [one] with {"size":"m"}'


async def _forged(world: PlaneWorld, asked: Asked, other: Asked) -> None:
    """An id of nobody's, one of another session, no right, no such option, no role: nothing of it is a decision."""
    async with (
        await world.wire("boss-1", DECIDES, ["boss"], gateway=1) as boss,
        await world.wire("guest", ("read", "send", "steer", "tools"), ["boss"]) as guest,
        await world.wire("boss-1", DECIDES) as no_boss,
    ):
        says = asked.says("allow_once")
        for forged in ("apr_forged", other.request["approvalId"]):
            await refused(boss, "approval_not_found", "approval.respond", **says | {"approvalId": forged})
        assert (await refused(guest, "not_allowed", "approval.respond", **says))["right"] == "approve"
        await refused(no_boss, "role_required", "approval.respond", **says)
        # Not offered without a key to remember it by.
        await refused(boss, "bad_option", "approval.respond", **asked.says("allow_always"))
        assert _events(asked.place, "approval.responded") == []
        await boss.command("approval.respond", **asked.says("reject_once"))
        await refused(boss, "already_resolved", "approval.respond", **says)
    assert await asked.told() == "reject_once resolved by [boss-1] with null"


# --- what outlives whom ----------------------------------------------------------------------------------------------


async def test_it_outlives_worker_gateway_and_server(stack: Stack, nats_server: NatsNode, figure: Figure) -> None:
    """Kill -9 of all three. What is decided while no worker is there counts, too."""
    async with _world(stack) as world, contextlib.AsyncExitStack() as wires:
        worker = await stack.worker(AGENT)
        cases = {
            "before": await _ask(world, wires, "before"),
            "after": await _ask(world, wires, "after", response_schema=SIZES),
            "quorum": await _ask(world, wires, "quorum", roles=["boss"], quorum=2),
            "question": await _ask(world, wires, "question", schema=SIZES),
            "expires": await _ask(world, wires, "expires", expires_s=3.0, default="allow_once"),
        }
        async with await world.wire("boss-1", DECIDES, ["boss"]) as wire:
            await wire.command("approval.respond", **cases["quorum"].says("allow_once"))
        await worker.kill()
        await world.gateways[1].kill()
        begin = time.monotonic()
        await nats_server.kill()
        await nats_server.start()
        new = await _back(world)
        away_s = time.monotonic() - begin
        for session, asked in cases.items():
            await _still_waits(world, new, asked, votes=["boss-1"] if session == "quorum" else [])
        async with await _wire_to(world, new, "one") as wire:
            await wire.command("approval.respond", **cases["before"].says("reject_once"))
        await _clock_passes(cases["expires"].request["expiresAt"])
        async with await _wire_to(world, new, "one") as wire:
            await refused(wire, "deadline_passed", "approval.respond", **cases["expires"].says("reject_once"))
        await stack.worker(AGENT)
        await _attempted_again(cases)
        async with await _wire_to(world, new, "boss-1", ["boss"]) as wire:
            await refused(wire, "already_voted", "approval.respond", **cases["quorum"].says("reject_once"))
        async with await _wire_to(world, new, "boss-2", ["boss"]) as wire:
            await wire.command("approval.respond", **cases["after"].says("allow_once", payload={"size": "s"}))
            await wire.command("approval.respond", **cases["question"].says("answer", payload={"size": "m"}))
            await wire.command("approval.respond", **cases["quorum"].says("allow_once"))
        assert {session: await asked.told() for session, asked in cases.items()} == {
            "before": "reject_once resolved by [one] with null",
            "after": 'allow_once resolved by [boss-2] with {"size":"s"}',
            "quorum": "allow_once resolved by [boss-1,boss-2] with null",
            "question": 'answer {"size":"m"}',
            "expires": "allow_once expired by [] with null",
        }
    figure(
        f"{len(cases)} outlive worker, gateway and server, {away_s:.1f} s without the log; each asked and decided once"
    )


async def _back(world: PlaneWorld) -> Process:
    """Returns when the surviving gateway has the log again, and there is another one, which is new."""
    await until_status(f"{world.gateways[0].url}/readyz", 200)
    return await world.stack.gateway()


async def _wire_to(world: PlaneWorld, gateway: Process, user: str, roles: list[str] | None = None) -> Wire:
    return await Wire.open(gateway.url, world.token(user, DECIDES, roles or []))


async def _still_waits(world: PlaneWorld, gateway: Process, asked: Asked, votes: list[str]) -> None:
    """Who comes now finds it, with the votes it has had, and so does the fold of what the log holds."""
    place = Place(asked.place.session, frames=[])
    await join(gateway.url, world.token("newcomer", ("read",)), place)
    assert _events(place, "approval.requested") == [asked.request]
    assert [f["by"]["id"] for f in place.frames or () if f["events"][0]["type"] == "approval.responded"] == votes
    state = await world.state(place.session)
    assert state.status == "requires_action"
    (approval,) = state.approvals.values()
    assert (approval.id, approval.status) == (asked.request["approvalId"], "pending")
    assert [vote.by.id for vote in approval.votes] == votes


async def _attempted_again(cases: Mapping[str, Asked]) -> None:
    """The new worker has all runs."""
    for asked in cases.values():
        await asked.wire.follow(asked.place, lambda p: bool(_events(p, "run.taken_over")))


async def _clock_passes(at_ms: int) -> None:
    """Deadlines are compared with the clock."""
    while now_ms() <= at_ms:
        await asyncio.sleep((at_ms - now_ms() + 1) / 1000)


def _events(place: Place, kind: str) -> list[Frame]:
    return [event for frame in place.frames or () for event in frame["events"] if event["type"] == kind]
