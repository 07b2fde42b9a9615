"""Runs that nobody watches: held, stopped, and going on when somebody comes. The test plays a gateway's presence."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from agent_worker.context import Agent, SessionContext
from broker.config import NatsSettings
from broker.events import SessionUpdated
from broker.interfaces import Attendance
from broker.jetstream.connection import Connection
from broker.jetstream.presence import NatsPresence
from broker.presence import Member
from broker.state import Ended
from broker.subjects import MAIN_LANE
from broker.transcript import Transcript
from tests.support.nats import NatsNode
from tests.support.site import WAIT_S, Site, Working, open_site, said

pytestmark = pytest.mark.nats_roles

USER_1 = (Member("user-1", "laptop"),)


async def streaming(ctx: SessionContext) -> None:
    """Says a token every 5 ms."""
    for i in range(len(ctx.said.split()), 200):
        await ctx.text(f"t{i} ")
        await asyncio.sleep(0.005)


AGENT = Agent("streaming", streaming)


@asynccontextmanager
async def present(site: Site) -> AsyncIterator[Attendance]:
    """A gateway's part in the session `s`."""
    async with (
        Connection(NatsSettings(nats_url=site.url), name="gateway") as connection,
        NatsPresence(connection, "gw-1", heartbeat_s=0.2, grace_s=0.1) as presence,
        presence.attend(site.log.subjects("s"), lambda: None) as attendance,
    ):
        yield attendance


async def configure(site: Site, when: str) -> None:
    await site.say("s", SessionUpdated(config={"whenUnwatched": when, "unwatchedGraceMs": 200}))


def paused(transcript: Transcript) -> bool:
    return transcript.state.lane(MAIN_LANE).paused is not None


async def still(site: Site, seconds: float = 0.3) -> None:
    """Nothing is written meanwhile."""
    head = await site.log.head(site.log.subjects("s"))
    await asyncio.sleep(seconds)
    now = await site.log.head(site.log.subjects("s"))
    assert head is not None
    assert now is not None
    assert head.seq == now.seq


def whole(transcript: Transcript) -> None:
    assert said(transcript).split() == [f"t{i}" for i in range(200)]


def metric(working: Working, name: str) -> float:
    return working.worker._services.metrics.registry.get_sample_value(name) or 0.0


async def test_a_run_is_held_while_nobody_watches(nats_server: NatsNode) -> None:
    async with open_site(nats_server.url) as site, present(site) as room:
        await configure(site, "pause")
        room.announce(USER_1, 0)
        async with site.working(AGENT) as working:
            run_id = await site.send("s", "go", "a")
            await site.streaming("s")
            room.announce((), 0)
            held = await site.until("s", paused)
            assert held.state.status == "paused"
            await still(site)
            assert metric(working, "antiphon_worker_paused") == 1
            room.announce(USER_1, 0)
            transcript = await site.ended("s", run_id)
            whole(transcript)
            assert transcript.state.end_of(run_id) == Ended(run_id, "success")
            assert len([m for m in transcript.messages if m.role == "assistant"]) == 1, "the same run, the same message"
            assert metric(working, "antiphon_paused_seconds_total") >= 0.3
            assert metric(working, "antiphon_paused_tokens_estimate_total") > 10
            assert metric(working, "antiphon_worker_paused") == 0


async def test_a_run_is_stopped_when_nobody_watches(nats_server: NatsNode) -> None:
    async with open_site(nats_server.url) as site, site.working(AGENT):
        await configure(site, "stop")
        run_id = await site.send("s", "go", "a")
        transcript = await site.ended("s", run_id)
        assert transcript.state.end_of(run_id) == Ended(run_id, "cancelled")
        assert 0 < len(said(transcript).split()) < 200


@pytest.mark.parametrize("when", ["pause", "stop"])
async def test_a_run_that_is_watched_goes_on(nats_server: NatsNode, when: str) -> None:
    async with open_site(nats_server.url) as site, present(site) as room, site.working(AGENT):
        await configure(site, when)
        room.announce(USER_1, 0)
        whole(await site.ended("s", await site.send("s", "go", "a")))


async def test_nobody_watches_and_nobody_minds(nats_server: NatsNode) -> None:
    async with open_site(nats_server.url) as site, site.working(AGENT):
        whole(await site.ended("s", await site.send("s", "go", "a")))


async def test_a_held_run_is_held_by_the_next_worker_too(nats_server: NatsNode) -> None:
    async with open_site(nats_server.url) as site, present(site) as room:
        await configure(site, "pause")
        async with site.working(AGENT) as first:
            run_id = await site.send("s", "go", "a")
            await site.until("s", paused)
            await first.die()
        async with site.working(AGENT):
            await site.until("s", lambda t: any(run.attempt == 2 for run in t.state.runs.values()))
            await still(site)
            room.announce(USER_1, 0)
            whole(await site.ended("s", run_id))


async def test_a_held_run_can_be_stopped(nats_server: NatsNode) -> None:
    async with open_site(nats_server.url) as site, site.working(AGENT):
        await configure(site, "pause")
        run_id = await site.send("s", "go", "a")
        await site.until("s", paused)
        await site.cancel("s", run_id)
        transcript = await site.ended("s", run_id)
        assert transcript.state.end_of(run_id) == Ended(run_id, "cancelled")
        assert not paused(transcript)


async def test_the_config_lets_a_held_run_go_on(nats_server: NatsNode) -> None:
    async with open_site(nats_server.url) as site, site.working(AGENT):
        await configure(site, "pause")
        run_id = await site.send("s", "go", "a")
        await site.until("s", paused)
        await configure(site, "continue")
        whole(await site.ended("s", run_id))


async def test_an_agent_knows_who_watches(nats_server: NatsNode) -> None:
    async def looking(ctx: SessionContext) -> None:
        await ctx.text(",".join(p.id for p in await ctx.watchers()))

    async with open_site(nats_server.url) as site, present(site) as room, site.working(Agent("looking", looking)):
        room.announce((*USER_1, Member("user-2", "bot", watching=False)), 0)
        async with asyncio.timeout(WAIT_S):
            transcript = await site.ended("s", await site.send("s", "go", "a"))
        assert said(transcript) == "user-1"
