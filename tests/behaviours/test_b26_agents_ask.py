"""B26: an agent asks another agent: the child run is visible, attributed, and cancelled with its parent.

Whichever worker is killed, each agent is asked once and the answer arrives; agents that ask in a circle are refused,
and pools of one slot each do not block each other.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from broker.config import LogSettings
from broker.state import Ended
from tests.behaviours.conftest import Figure
from tests.support.place import Frame, Place
from tests.support.plane import PlaneWorld
from tests.support.rawclient import Wire
from tests.support.stack import Process, Stack, open_log

POOLS = "default,helper,third"
RUN = "run_a"
TOKENS = 300
STREAM = f"stream {TOKENS} tokens at 100/s"
TEXT = "".join(f"t{i} " for i in range(TOKENS))
SESSIONS = 6

pytestmark = pytest.mark.timeout(120)


@dataclass(slots=True)
class Agents:
    """Two gateways, and a worker of each of three agents, with a pool of its own each and so many slots."""

    world: PlaneWorld
    slots: int
    workers: dict[str, Process] = field(default_factory=dict)

    async def start(self, agent: str) -> None:
        pool = "default" if agent == "lead" else agent
        name = f"tests.support.agents_people:{agent}"
        self.workers[agent] = await self.world.stack.worker(name, pool=pool, pools=POOLS, concurrency=str(self.slots))

    async def replace(self, agent: str) -> None:
        """Kill -9, and a new one."""
        await self.workers[agent].kill()
        await self.start(agent)


@contextlib.asynccontextmanager
async def _agents(stack: Stack, *, slots: int) -> AsyncIterator[Agents]:
    await stack.apply_topology(pools=POOLS)
    gateways = await stack.start(2, workers=0, pools=POOLS)
    async with open_log(stack.nats_url, LogSettings(lease_s=stack.lease_s, pools=POOLS)) as (connection, log):
        agents = Agents(PlaneWorld(stack, gateways, connection, log), slots)
        async with asyncio.TaskGroup() as tasks:
            for agent in ("lead", "helper", "third"):
                tasks.create_task(agents.start(agent))
        yield agents


@dataclass(slots=True)
class Room:
    """A session, and somebody who follows it."""

    wire: Wire
    place: Place

    async def follow(self, until: Callable[[Place], bool]) -> None:
        await self.wire.follow(self.place, until)

    async def told(self, times: int) -> list[tuple[str, str, Any, str]]:
        """When so many runs have ended: lane, role, who, text of each message."""
        await self.follow(lambda p: len(p.ended) == times)
        assert self.place.whole
        messages = (await self.wire.command("history", session=self.place.session))["messages"]
        return [(m["lane"], m["role"], (m["by"] or {}).get("id"), m["text"]) for m in messages]

    def events(self, kind: str) -> list[Frame]:
        return _events(self.place, kind)


@contextlib.asynccontextmanager
async def _asked(agents: Agents, session: str, content: str, gateway: int = 0) -> AsyncIterator[Room]:
    """Somebody tells the lead something."""
    async with await agents.world.wire("user-1", gateway=gateway) as wire:
        room = Room(wire, Place(session, frames=[]))
        await wire.subscribe(room.place)
        await wire.input(session, "a", content)
        yield room


async def test_asked_seen_and_cancelled(stack: Stack, figure: Figure) -> None:
    async with _agents(stack, slots=1) as agents:
        await _chain_and_circles(agents)
        took_s = await _cancelled_with_its_parent(agents)
        many_s = await _many_at_once(agents)
    figure(
        f"a chain of three, attributed; two circles refused; cancelled with its parent in {took_s * 1000:.0f} ms; "
        f"{SESSIONS} chains at once over pools of one slot each in {many_s:.1f} s"
    )


async def _chain_and_circles(agents: Agents) -> None:
    async with (
        _asked(agents, "chain", "ask helper ask third hello") as chain,
        _asked(agents, "circle", "ask helper ask lead hello", gateway=1) as circle,
        _asked(agents, "mirror", "ask lead hello") as mirror,
    ):
        assert await chain.told(3) == [
            ("main", "user", "user-1", "ask helper ask third hello"),
            ("helper", "user", "lead", "ask third hello"),
            ("third", "user", "helper", "hello"),
            ("third", "assistant", "third", "hello"),
            ("helper", "assistant", "helper", "third says hello"),
            ("main", "assistant", "lead", "helper says third says hello"),
        ]
        assert set(chain.place.ended.values()) == {"success"}
        assert (await circle.told(2))[-1][2:] == ("lead", "helper says lead says nothing, ask_cycle")
        assert (await mirror.told(1))[-1][2:] == ("lead", "lead says nothing, ask_cycle")


async def _cancelled_with_its_parent(agents: Agents) -> float:
    """Stops the parent from the other gateway, while the child's child streams; returns how long all took to end."""
    async with _asked(agents, "tree", f"ask helper ask third {STREAM}") as room:
        await room.follow(lambda p: _said(p, "third").count(" ") >= 20)
        state = await agents.world.state("tree")
        tree = {run.lane: (run.parent, run.agent) for run in state.runs.values()}
        runs = {run.lane: run.run_id for run in state.runs.values()}
        assert tree == {"main": (None, None), "helper": (RUN, "helper"), "third": (runs["helper"], "third")}
        begin = time.monotonic()
        async with await agents.world.wire("user-1", gateway=1) as other:
            await other.command("run.cancel", session="tree", runId=RUN)
        await room.follow(lambda p: len(p.ended) == 3)
        took_s = time.monotonic() - begin
        assert {lane: room.place.ended[run] for lane, run in runs.items()} == dict.fromkeys(runs, "cancelled")
        reasons = {frame["lane"]: e["outcome"]["reason"] for frame, e in _framed(room.place, "RUN_FINISHED")}
        assert reasons == {"main": "requested", "helper": "parent", "third": "parent"}
        said = _said(room.place, "third")
        assert said == TEXT[: len(said)] != TEXT
        after = await agents.world.state("tree")
        assert {run: after.end_of(run) for run in runs.values()} == {r: Ended(r, "cancelled") for r in runs.values()}
    return took_s


async def test_whichever_worker_dies(stack: Stack, figure: Figure) -> None:
    """The parent's, the child's, or the one in the middle of a chain, while the last one streams."""
    async with _agents(stack, slots=4) as agents, contextlib.AsyncExitStack() as rooms:
        chain = await rooms.enter_async_context(_asked(agents, "chain", f"ask helper ask third {STREAM}", gateway=1))
        pair = await rooms.enter_async_context(_asked(agents, "pair", f"ask third {STREAM}"))
        for room in (chain, pair):
            await room.follow(lambda p: _said(p, "third").count(" ") >= 20)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(agents.replace("lead"))
            tasks.create_task(agents.replace("helper"))
        # The answers may have come before anybody was there again to take them.
        assert (await chain.told(3))[-1][3] == f"helper says third says {TEXT}"
        assert (await pair.told(2))[-1][3] == f"third says {TEXT}"
        child = await rooms.enter_async_context(_asked(agents, "child", f"ask third {STREAM}"))
        await child.follow(lambda p: _said(p, "third").count(" ") >= 20)
        await agents.replace("third")
        assert (await child.told(2))[-1][3] == f"third says {TEXT}"
        for room, asked, taken_over in ((chain, 2, ["helper", "main"]), (pair, 1, ["main"]), (child, 1, ["third"])):
            assert len(room.events("run.requested")) == asked, "each is asked once"
            assert len(room.place.started) == asked + 1
            assert set(room.place.ended.values()) == {"success"}
            assert sorted(f["lane"] for f, _ in _framed(room.place, "run.taken_over")) == taken_over
            assert _said(room.place, "third") == TEXT
    figure("the workers of parent, child and the one between are killed: each asked once, each answer whole")


async def _many_at_once(agents: Agents) -> float:
    """As many chains as no pool has slots for: a run that waits for another agent does not keep its slot."""
    async with contextlib.AsyncExitStack() as stack:
        begin = time.monotonic()
        rooms = [
            await stack.enter_async_context(_asked(agents, f"small-{i}", "ask helper ask third hello", gateway=i % 2))
            for i in range(SESSIONS)
        ]
        for room in rooms:
            assert (await room.told(3))[-1][3] == "helper says third says hello"
        return time.monotonic() - begin


def _said(place: Place, lane: str) -> str:
    """All that was said in a lane."""
    opened = [event["messageId"] for frame, event in _framed(place, "TEXT_MESSAGE_START") if frame["lane"] == lane]
    return "".join(place.text(id_) for id_ in opened)


def _framed(place: Place, kind: str) -> list[tuple[Frame, Frame]]:
    return [(frame, event) for frame in place.frames or () for event in frame["events"] if event["type"] == kind]


def _events(place: Place, kind: str) -> list[Frame]:
    return [event for _, event in _framed(place, kind)]
