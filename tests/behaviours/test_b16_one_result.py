"""B16: five tabs race to answer a tool call: one claim, one accepted result, one continuation, and all others are told.

In some rounds the worker that waits for the result is killed: while the call is open, while it is claimed, or just as
the result comes; another one goes on.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.behaviours.conftest import Figure
from tests.support.place import Frame, Place
from tests.support.plane import PlaneWorld
from tests.support.rawclient import Refusal, Wire
from tests.support.stack import Process

TABS = 5
AT_ONCE = 4
CALM_BATCHES = 7
AGENT = "tests.support.agents_people:picking"
RUN = "run_a"
TOOL = {
    "name": "pick_file",
    "parameters": {"type": "object", "properties": {"kind": {"type": "string"}}},
    "result": {"type": "object", "properties": {"file": {"type": "string"}}, "required": ["file"]},
    "idempotent": False,
}
_MAY_BE_TOLD = {
    "tool.claim": ("already_claimed", "already_resolved"),
    "tool.result": ("not_claimed", "already_resolved"),
}

pytestmark = pytest.mark.timeout(120)


@dataclass(slots=True)
class Tab:
    """A page that can pick a file; `won` and `lost` are the replies to what it did: command and code."""

    name: str
    wire: Wire
    place: Place
    claimed: bool = False
    won: list[str] = field(default_factory=list)
    lost: list[tuple[str, str]] = field(default_factory=list)

    async def does(self, op: str, **fields: Any) -> Frame:
        """Sends a command; returns the reply, whatever it is."""
        try:
            reply = await self.wire.command(op, session=self.place.session, **fields)
        except Refusal as refusal:
            self.lost.append((op, refusal.code))
            return refusal.reply
        self.won.append(op)
        return reply


@dataclass(slots=True)
class Round:
    """One call of a tool, and the tabs that race for it. Nobody claims before `claiming`, or answers before `answering`."""

    session: str
    anybody: bool
    tabs: list[Tab]
    claiming: asyncio.Event = field(default_factory=asyncio.Event)
    answering: asyncio.Event = field(default_factory=asyncio.Event)
    claimed: asyncio.Event = field(default_factory=asyncio.Event)
    answered: asyncio.Event = field(default_factory=asyncio.Event)
    winner: str = ""

    async def requested(self) -> None:
        for tab in self.tabs:
            await tab.wire.follow(tab.place, lambda p: bool(_events(p, "tool.requested")))

    async def run(self) -> None:
        """Returns when all tabs have seen the end of the run, and tried once more."""
        async with asyncio.TaskGroup() as tasks:
            for tab in self.tabs:
                tasks.create_task(self._race(tab))

    async def _race(self, tab: Tab) -> None:
        await tab.wire.follow(tab.place, lambda p: bool(_events(p, "tool.requested")))
        call = _events(tab.place, "tool.requested")[0]["toolCallId"]
        await self.claiming.wait()
        reply = await tab.does("tool.claim", toolCallId=call, claimId=tab.name, leaseMs=60_000)
        if reply["op"] == "ok":
            self.winner, tab.claimed = tab.name, True
            self.claimed.set()
        await self.answering.wait()
        await self.claimed.wait()
        # Of five people, those who have not won say that they have.
        claim = self.winner if self.anybody else tab.name
        result = {"toolCallId": call, "claimId": claim, "result": {"file": tab.name}}
        if (await tab.does("tool.result", **result))["op"] == "ok":
            self.answered.set()
            # Sent again it counts once; once the run is over, who had sent the result is not known any more.
            again = await tab.does("tool.result", **result)
            assert again["status"] == "resolved"
        await tab.wire.follow(tab.place, lambda p: RUN in p.ended)
        if not tab.claimed:
            await tab.does("tool.result", **result)
        late = await tab.does("tool.claim", toolCallId=call, claimId=f"{tab.name}-late")
        assert (late["code"], late["status"]) == ("already_resolved", "resolved")


async def test_one_result_however_many_answer(world: PlaneWorld, figure: Figure, seed: int) -> None:
    rng = random.Random(seed)
    worker = await world.stack.worker(AGENT)
    rounds: list[Round] = []
    for number in range(CALM_BATCHES):
        async with AsyncExitStack() as stack:
            batch = await _batch(world, stack, rng, f"calm-{number}")
            for each in batch:
                each.claiming.set()
                each.answering.set()
            await _raced(batch)
            rounds += batch
    async with AsyncExitStack() as stack:
        batches = {moment: await _batch(world, stack, rng, moment) for moment in ("open", "claimed", "answered")}
        await _killed_amid(world, worker, *batches.values())
        rounds += [each for batch in batches.values() for each in batch]
    lost = {moment: sum([await _lost(world, each) for each in batch]) for moment, batch in batches.items()}
    assert lost["open"] == lost["claimed"] == AT_ONCE, "who waits for a result has lost its worker"
    for each in rounds:
        await _check(world, each)
    codes = Counter(code for each in rounds for tab in each.tabs for _, code in tab.lost)
    told = ", ".join(f"{count} {code}" for code, count in sorted(codes.items()))
    figure(
        f"{len(rounds)} calls, {TABS} tabs on two gateways, {sum(lost.values())} runs lost their worker: one claim, one result, one "
        f"continuation each; refused: {told}; seed {seed}"
    )


async def _batch(world: PlaneWorld, stack: AsyncExitStack, rng: random.Random, name: str) -> list[Round]:
    """Sessions with five tabs each, in which the tool has been called."""
    batch = [Round(f"{name}-{i}", rng.random() < 0.5, []) for i in range(AT_ONCE)]
    for each in batch:
        for i in range(TABS):
            user = f"user-{i}" if each.anybody else "user-1"
            wire = await stack.enter_async_context(await world.wire(user, gateway=i % 2))
            tab = Tab(f"tab-{i}", wire, Place(each.session, frames=[]))
            tab.place.subscribed(await wire.command("subscribe", session=each.session, tools=[TOOL]))
            each.tabs.append(tab)
        rng.shuffle(each.tabs)
        async with await world.wire("user-1") as wire:
            await wire.input(each.session, "a", json.dumps({"anybody": each.anybody}))
    for each in batch:
        await each.requested()
    return batch


async def _raced(batch: list[Round]) -> None:
    async with asyncio.TaskGroup() as tasks:
        for each in batch:
            tasks.create_task(each.run())


async def _killed_amid(
    world: PlaneWorld, worker: Process, unclaimed: list[Round], claimed: list[Round], answered: list[Round]
) -> None:
    """Kills the worker of all these: some calls are still open, some are claimed, some are just being answered."""
    await world.stack.worker(AGENT)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_raced(unclaimed + claimed + answered))
        _set([each.claiming for each in claimed + answered])
        for each in claimed + answered:
            await each.claimed.wait()
        _set([each.answering for each in answered])
        await answered[0].answered.wait()
        await worker.kill()
        _set([gate for each in unclaimed + claimed for gate in (each.claiming, each.answering)])


def _set(gates: list[asyncio.Event]) -> None:
    for gate in gates:
        gate.set()


async def _check(world: PlaneWorld, each: Round) -> None:
    """What was told, what the log holds, and what everybody has read are the same."""
    (winner,) = [tab for tab in each.tabs if tab.claimed]
    for tab in each.tabs:
        assert tab.won[:2] == (["tool.claim", "tool.result"] if tab is winner else []), each
        for op, code in tab.lost:
            assert code in _MAY_BE_TOLD[op], tab
        assert tab.lost[-1] == ("tool.claim", "already_resolved")
        assert tab is winner or tab.lost[-2] == ("tool.result", "already_resolved")
        assert tab.place.whole
        assert _said(tab.place) == f"got {winner.name}"
        assert tab.place.ended == {RUN: "success"}
    (result,) = await world.events(each.session, "TOOL_CALL_RESULT")
    assert json.loads(result.content) == {"file": winner.name}
    assert len(await world.events(each.session, "tool.requested")) == 1
    assert await world.events(each.session, "tool.failed") == []
    assert len(await world.events(each.session, "RUN_FINISHED")) == 1


async def _lost(world: PlaneWorld, each: Round) -> bool:
    """Whether another worker has taken the run over."""
    return bool(await world.events(each.session, "run.taken_over"))


def _said(place: Place) -> str:
    return "".join(place.text(event["messageId"]) for event in _events(place, "TEXT_MESSAGE_START"))


def _events(place: Place, kind: str) -> list[Frame]:
    return [event for frame in place.frames or () for event in frame["events"] if event["type"] == kind]
