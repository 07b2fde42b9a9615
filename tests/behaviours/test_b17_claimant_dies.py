"""B17: who has claimed a tool call dies: an idempotent call is offered again, another ends `outcome_unknown`.

And a deadline ends a call that nobody has claimed, or nobody has finished. In all cases what comes too late is refused,
and all agree on what came of the call.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.behaviours.conftest import Figure
from tests.support.place import Frame, Place
from tests.support.plane import PlaneWorld, now_ms, refused
from tests.support.rawclient import Wire
from tests.support.stack import Process

LEASE_MS = 1000
LONG_MS = 60_000
AGENT = "tests.support.agents_people:picking"
RUN = "run_a"
TOOL = {"name": "pick_file", "idempotent": False}
OURS, THEIRS = {"file": "ours"}, {"file": "theirs"}

pytestmark = pytest.mark.timeout(120)


@dataclass(slots=True)
class Case:
    """A session in which the tool has been called, and who follows it."""

    session: str
    wire: Wire
    place: Place
    call: Frame = field(default_factory=dict)

    @property
    def id(self) -> str:
        return str(self.call["toolCallId"])

    def claim(self, claim_id: str, lease_ms: int = LONG_MS) -> dict[str, Any]:
        return {"session": self.session, "toolCallId": self.id, "claimId": claim_id, "leaseMs": lease_ms}

    def result(self, claim_id: str, result: Any) -> dict[str, Any]:
        return {"session": self.session, "toolCallId": self.id, "claimId": claim_id, "result": result}

    async def follow(self, until: Callable[[Place], bool]) -> None:
        await self.wire.follow(self.place, until)

    async def ended(self, says: str) -> None:
        """The run's end. It says what came of the call, once, and so does the call's result."""
        await self.follow(lambda p: RUN in p.ended)
        assert self.place.whole
        assert self.place.ended == {RUN: "success"}
        said = "".join(self.place.text(e["messageId"]) for e in self.events("TEXT_MESSAGE_START"))
        assert said == says
        assert len(self.events("tool.requested")) == len(self.events("TOOL_CALL_RESULT")) == 1

    def events(self, kind: str) -> list[Frame]:
        return _events(self.place, kind)


@contextlib.asynccontextmanager
async def _called(world: PlaneWorld, session: str, **options: Any) -> AsyncIterator[Case]:
    """Its follower has the tool and is who started the run, at the first gateway; the call is there."""
    async with await world.wire("user-1") as wire:
        case = Case(session, wire, Place(session, frames=[]))
        case.place.subscribed(await wire.command("subscribe", session=session, tools=[TOOL]))
        await wire.input(session, "a", json.dumps(options))
        await case.follow(lambda p: bool(_events(p, "tool.requested")))
        (case.call,) = case.events("tool.requested")
        yield case


async def _tab(world: PlaneWorld, session: str, gateway: int) -> Wire:
    """Another page of the same user, with the tool."""
    wire = await world.wire("user-1", gateway=gateway)
    await wire.command("subscribe", session=session, tools=[TOOL])
    return wire


@dataclass(slots=True)
class Deaths:
    """Claims two calls at the second gateway, one that may be offered again and one that may not, and lets go of both."""

    world: PlaneWorld
    name: str
    stack: contextlib.AsyncExitStack
    again: Case = field(init=False)
    unknown: Case = field(init=False)
    tabs: list[Wire] = field(default_factory=list)

    async def claim(self) -> int:
        """Returns when the claims run out, ms since 1970."""
        until = 0
        for kind in ("again", "unknown"):
            session = f"{self.name}-{kind}"
            case = await self.stack.enter_async_context(_called(self.world, session, idempotent=kind == "again"))
            setattr(self, kind, case)
            tab = await self.stack.enter_async_context(await _tab(self.world, session, gateway=1))
            self.tabs.append(tab)
            until = (await tab.command("tool.claim", **case.claim("dead", LEASE_MS)))["expiresAt"]
            reply = await refused(case.wire, "already_claimed", "tool.claim", **case.claim("early"))
            assert reply["by"]["id"] == "user-1"
        return until

    def die(self) -> None:
        """The page's connection is cut; nothing renews its claims."""
        for tab in self.tabs:
            tab.cut()

    async def check(self, *, lapsed: bool) -> None:
        """Another page has finished the one call, and nobody may finish the other one."""
        await self.again.ended("got theirs")
        assert self.again.events("tool.failed") == []
        assert len(self.again.events("tool.lapsed")) == lapsed
        await self.unknown.ended("failed: outcome_unknown")
        assert [e["code"] for e in self.unknown.events("tool.failed")] == ["outcome_unknown"]
        # The claimant was not dead: it comes back with what it has.
        late = await refused(self.again.wire, "already_resolved", "tool.result", **self.again.result("dead", OURS))
        assert (late["status"], late["reason"]) == ("resolved", None)
        late = await refused(self.unknown.wire, "already_resolved", "tool.result", **self.unknown.result("dead", OURS))
        assert (late["status"], late["reason"]) == ("failed", "outcome_unknown")


async def test_a_claimant_dies(world: PlaneWorld, figure: Figure) -> None:
    worker = await world.stack.worker(AGENT)
    waits: list[float] = []
    async with contextlib.AsyncExitStack() as stack:
        cut = Deaths(world, "cut", stack)
        await cut.claim()
        cut.die()
        waits.append(await _offered_again(cut))
        await cut.check(lapsed=True)

        worker = await _dies_with_the_worker(Deaths(world, "worker", stack), worker)

        gateway = Deaths(world, "gateway", stack)
        await gateway.claim()
        await world.gateways[1].kill()
        waits.append(await _offered_again(gateway))
        await gateway.check(lapsed=True)
    figure(
        f"claimant cut, its gateway killed, the worker killed as well: 3 idempotent calls finished by another, 3 others "
        f"`outcome_unknown`; offered again after {waits[0]:.2f} and {waits[1]:.2f} s (claims of {LEASE_MS / 1000:g} s)"
    )


async def _offered_again(deaths: Deaths) -> float:
    """The log says that the call is free; another page takes it. Returns how long that took, in seconds."""
    begin, again = time.monotonic(), deaths.again
    await again.follow(lambda p: bool(_events(p, "tool.lapsed")))
    took_s = time.monotonic() - begin
    await again.wire.command("tool.claim", **again.claim("heir"))
    # The dead one's claim counts no more.
    await refused(again.wire, "not_claimed", "tool.result", **again.result("dead", OURS))
    await again.wire.command("tool.result", **again.result("heir", THEIRS))
    return took_s


async def _dies_with_the_worker(deaths: Deaths, worker: Process) -> Process:
    """Nobody is there to say that the claims have run out: who comes may take the one, and not the other."""
    until = await deaths.claim()
    again, unknown = deaths.again, deaths.unknown
    deaths.die()
    await worker.kill()
    await _clock_passes(until)
    await again.wire.command("tool.claim", **again.claim("heir"))
    await again.wire.command("tool.result", **again.result("heir", THEIRS))
    await refused(unknown.wire, "already_claimed", "tool.claim", **unknown.claim("heir"))
    heir = await deaths.world.stack.worker(AGENT)
    await deaths.check(lapsed=False)
    return heir


async def test_a_deadline_ends_a_call(world: PlaneWorld, figure: Figure) -> None:
    """Nobody claims it; or it is claimed and not finished, and the result comes too late: with no worker alive, too."""
    worker = await world.stack.worker(AGENT)
    async with contextlib.AsyncExitStack() as stack:
        nobody, held = [
            await stack.enter_async_context(_called(world, name, deadline_s=2.0)) for name in ("nobody", "held")
        ]
        await _held(world, stack, held)
        await _others_may_not(world, nobody)
        await nobody.ended("failed: no_executor")
        await held.ended("failed: deadline")
        for case, reason in ((nobody, "no_executor"), (held, "deadline")):
            late = await refused(case.wire, "already_resolved", "tool.result", **case.result("slow", OURS))
            assert (late["status"], late["reason"]) == ("failed", reason)

        orphan = await stack.enter_async_context(_called(world, "orphan", deadline_s=1.0))
        tab = await _held(world, stack, orphan)
        await worker.kill()
        await _clock_passes(orphan.call["deadline"])
        await refused(tab, "deadline_passed", "tool.result", **orphan.result("slow", OURS))
        await refused(tab, "deadline_passed", "tool.claim", **orphan.claim("slow"))
        await refused(orphan.wire, "deadline_passed", "tool.claim", **orphan.claim("heir"))
        await world.stack.worker(AGENT)
        await orphan.ended("failed: deadline")
        assert [e["code"] for e in orphan.events("tool.failed")] == ["deadline"]
    figure("deadlines: no_executor, deadline, and with the worker killed before; every late result refused")


async def _held(world: PlaneWorld, stack: contextlib.AsyncExitStack, case: Case) -> Wire:
    """A page at the second gateway claims the call for longer than it lasts."""
    tab = await stack.enter_async_context(await _tab(world, case.session, gateway=1))
    await tab.command("tool.claim", **case.claim("slow"))
    return tab


async def _others_may_not(world: PlaneWorld, case: Case) -> None:
    """The call is for who started the run; and one needs the tool."""
    async with await world.wire("user-2", gateway=1) as wire:
        await refused(wire, "not_declared", "tool.claim", **case.claim("theirs"))
    async with await world.wire("user-2", gateway=1) as wire:
        await wire.command("subscribe", session=case.session, tools=[TOOL])
        await refused(wire, "not_targeted", "tool.claim", **case.claim("theirs"))
        await refused(wire, "not_claimed", "tool.result", **case.result("theirs", THEIRS))


async def _clock_passes(at_ms: int) -> None:
    """Claims and deadlines are compared with the clock."""
    while now_ms() <= at_ms:
        await asyncio.sleep((at_ms - now_ms() + 1) / 1000)


def _events(place: Place, kind: str) -> list[Frame]:
    return [event for frame in place.frames or () for event in frame["events"] if event["type"] == kind]
