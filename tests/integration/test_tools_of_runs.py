"""Tools: of clients and of the agent's own, against a real worker; the test plays the gateway."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from agent_worker.context import Agent, SessionContext
from agent_worker.errors import ToolFailed
from agent_worker.tools import Invocation, Target
from broker.events import Participant, ToolClaimed, ToolReleased, ToolResolved
from broker.state import Call, Ended
from broker.transcript import Transcript
from tests.support.nats import NatsNode
from tests.support.site import USER, Site, Working, open_site, said

OTHER = Participant("user", "user-2")

Ask = Callable[[SessionContext], Awaitable[Any]]


def asking(ask: Ask) -> Agent:
    """Says what came of it: the result, or the code of its failure."""

    async def run(ctx: SessionContext) -> None:
        try:
            await ctx.text(f"got {await ask(ctx)}")
        except ToolFailed as error:
            await ctx.text(f"failed {error.code}")

    return Agent("asking", run)


async def called(site: Site) -> Call:
    """The call, once it is in the log."""
    transcript = await site.until("s", lambda t: t.state.calls)
    (call,) = transcript.state.calls.values()
    return call


async def claim(site: Site, call: Call, claim_id: str, *, by: Participant = USER, lease_ms: int = 30_000) -> None:
    await site.say("s", ToolClaimed(call.id, claim_id, int(time.time() * 1000) + lease_ms), by=by)


def results(transcript: Transcript) -> list[tuple[str | None, str]]:
    return [(m.tool_call_id, m.text) for m in transcript.messages if m.role == "tool"]


async def test_a_client_executes_a_tool(nats_server: NatsNode) -> None:
    agent = asking(lambda ctx: ctx.client_tool("pick", {"kind": "png"}))
    async with open_site(nats_server.url) as site, site.working(agent):
        run_id = await site.send("s", "go", "a")
        call = await called(site)
        assert (call.name, call.args, call.participant, call.idempotent) == ("pick", {"kind": "png"}, "user-1", False)
        await claim(site, call, "c1")
        await site.say("s", ToolResolved(call.id, "c2", "forged"))
        await site.say("s", ToolResolved(call.id, "c1", "forged"), by=OTHER)
        await site.say("s", ToolResolved(call.id, "c1", {"file": "a.png"}))
        await site.say("s", ToolResolved(call.id, "c1", {"file": "b.png"}))
        transcript = await site.ended("s", run_id)
        assert said(transcript) == "got {'file': 'a.png'}"
        assert results(transcript) == [(call.id, '{"file":"a.png"}')]
        assert transcript.state.end_of(call.id) == Ended(call.id, "resolved")


async def test_a_tool_that_fails_says_so(nats_server: NatsNode) -> None:
    async with open_site(nats_server.url) as site, site.working(asking(lambda ctx: ctx.client_tool("pick"))):
        run_id = await site.send("s", "go", "a")
        call = await called(site)
        await claim(site, call, "c1")
        await site.say("s", ToolResolved(call.id, "c1", error="no camera"))
        transcript = await site.ended("s", run_id)
        assert said(transcript) == "failed error"
        assert results(transcript) == [(call.id, '{"error":"error","message":"no camera"}')]


@pytest.mark.parametrize(("claims", "code"), [(False, "no_executor"), (True, "deadline")])
async def test_a_call_ends_at_its_deadline(nats_server: NatsNode, claims: bool, code: str) -> None:
    agent = asking(lambda ctx: ctx.client_tool("pick", deadline_s=0.4))
    async with open_site(nats_server.url) as site, site.working(agent):
        run_id = await site.send("s", "go", "a")
        call = await called(site)
        if claims:
            await claim(site, call, "c1")
        transcript = await site.ended("s", run_id)
        assert said(transcript) == f"failed {code}"
        assert transcript.state.end_of(call.id) == Ended(call.id, "failed", code)
        # Too late, and said again: nothing changes.
        await site.say("s", ToolResolved(call.id, "c1", "late"))
        assert results(await site.ended("s", run_id)) == [(call.id, f'{{"error":"{code}"}}')]


@pytest.mark.parametrize("idempotent", [True, False])
async def test_the_claimant_dies(nats_server: NatsNode, idempotent: bool) -> None:
    """An idempotent call is offered again; another one ends as outcome_unknown."""
    agent = asking(lambda ctx: ctx.client_tool("pick", idempotent=idempotent, target=Target()))
    async with open_site(nats_server.url) as site, site.working(agent):
        run_id = await site.send("s", "go", "a")
        call = await called(site)
        await claim(site, call, "c1", lease_ms=300)
        if idempotent:
            await site.until("s", lambda t: any(c.claims and not c.claim for c in t.state.calls.values()))
            await claim(site, call, "c2", by=OTHER)
            await site.say("s", ToolResolved(call.id, "c1", "the dead one's"))
            await site.say("s", ToolResolved(call.id, "c2", "another's"), by=OTHER)
        transcript = await site.ended("s", run_id)
        assert said(transcript) == ("got another's" if idempotent else "failed outcome_unknown")


async def test_a_call_is_first_for_the_user_who_asked_and_later_for_all(nats_server: NatsNode) -> None:
    agent = asking(lambda ctx: ctx.client_tool("pick", target=Target(user="user-1", grace_s=0.5)))
    async with open_site(nats_server.url) as site, site.working(agent):
        run_id = await site.send("s", "go", "a")
        call = await called(site)
        await claim(site, call, "early", by=OTHER)
        await site.say("s", ToolReleased(call.id, "early"), by=OTHER)
        async with asyncio.timeout(5):
            while time.time() * 1000 < (call.any_after or 0):
                await asyncio.sleep(0.02)
        await claim(site, call, "later", by=OTHER)
        await site.say("s", ToolResolved(call.id, "early", "no"), by=OTHER)
        await site.say("s", ToolResolved(call.id, "later", "yes"), by=OTHER)
        assert said(await site.ended("s", run_id)) == "got yes"


async def test_a_run_that_is_stopped_leaves_no_call_without_a_result(nats_server: NatsNode) -> None:
    """Exactly one result for each: not_run for what nobody had claimed, outcome_unknown else."""

    async def calling(ctx: SessionContext) -> None:
        async with asyncio.TaskGroup() as tasks:
            for name in ("one", "two"):
                tasks.create_task(ctx.client_tool(name, target=Target()))

    async with open_site(nats_server.url) as site, site.working(Agent("calling", calling)):
        run_id = await site.send("s", "go", "a")
        waiting = await site.until("s", lambda t: len(t.state.calls) == 2)
        calls = {call.name: call for call in waiting.state.calls.values()}
        await claim(site, calls["two"], "c1")
        await site.cancel("s", run_id)
        transcript = await site.ended("s", run_id)
        assert dict(results(transcript)) == {
            calls["one"].id: '{"error":"not_run"}',
            calls["two"].id: '{"error":"outcome_unknown"}',
        }
        assert len(results(transcript)) == 2
        assert transcript.state.end_of(calls["one"].id) == Ended(calls["one"].id, "failed", "not_run")


async def test_a_call_outlives_its_worker(nats_server: NatsNode) -> None:
    """The new attempt asks the same, and gets what was asked, and what has been answered meanwhile."""
    agent = asking(lambda ctx: ctx.client_tool("pick"))
    async with open_site(nats_server.url) as site:
        async with site.working(agent) as first:
            run_id = await site.send("s", "go", "a")
            call = await called(site)
            await claim(site, call, "c1")
            await first.die()
        await site.say("s", ToolResolved(call.id, "c1", "once"))
        async with site.working(agent):
            transcript = await site.ended("s", run_id)
        assert said(transcript) == "got once"
        assert [m.role for m in transcript.messages].count("tool_call") == 1
        assert results(transcript) == [(call.id, "once")]


# --- the agent's own -------------------------------------------------------------------------------------------------


async def dies_in(site: Site, agent: Agent, reached: asyncio.Event) -> str:
    """Runs the agent until `reached`, and ends its worker there; another one goes on. Returns the run's id."""
    async with site.working(agent) as first:
        run_id = await site.send("s", "go", "a")
        async with asyncio.timeout(10):
            await reached.wait()
        await first.die()
    return run_id


async def test_a_tool_that_has_a_result_is_not_made_again(nats_server: NatsNode) -> None:
    made: list[str] = []
    reached = asyncio.Event()

    async def search(call: Invocation) -> dict[str, int]:
        made.append(call.idempotency_key)
        return {"hits": 3}

    async def searching(ctx: SessionContext) -> None:
        found = await ctx.tool("search", {"q": "x"}, search)
        reached.set()
        if ctx.attempt == 1:
            await asyncio.Event().wait()
        await ctx.text(f"got {found}")

    agent = Agent("searching", searching)
    async with open_site(nats_server.url) as site:
        run_id = await dies_in(site, agent, reached)
        async with site.working(agent):
            transcript = await site.ended("s", run_id)
    assert said(transcript) == "got {'hits': 3}"
    assert len(made) == 1
    assert made[0].startswith("s/")


@pytest.mark.parametrize("idempotent", [True, False])
async def test_a_tool_that_was_interrupted(nats_server: NatsNode, idempotent: bool) -> None:
    """It is made again with the same key if it may be; else its outcome is not known, and the agent is told so."""
    keys: list[str] = []
    reached = asyncio.Event()

    async def pay(call: Invocation) -> str:
        keys.append(call.idempotency_key)
        reached.set()
        if len(keys) == 1:
            await asyncio.Event().wait()
        return "paid"

    agent = asking(lambda ctx: ctx.tool("pay", {"sum": 5}, pay, idempotent=idempotent))
    async with open_site(nats_server.url) as site:
        run_id = await dies_in(site, agent, reached)
        async with site.working(agent):
            transcript = await site.ended("s", run_id)
    if idempotent:
        assert said(transcript) == "got paid"
        assert len(keys) == 2
        assert keys[0] == keys[1]
    else:
        assert said(transcript) == "failed outcome_unknown"
        assert len(keys) == 1
    assert len(results(transcript)) == 1


async def test_a_wait_gives_the_slot_of_the_worker_up(nats_server: NatsNode) -> None:
    """A worker with one slot works on another session while a run waits for a person."""
    agent = asking(lambda ctx: ctx.client_tool("pick") if ctx.session == "s" else asyncio.sleep(0, "other"))
    async with open_site(nats_server.url) as site, site.working(agent, concurrency=1) as working:
        run_id = await site.send("s", "go", "a")
        call = await called(site)
        assert said(await site.ended("t", await site.send("t", "go", "a"))) == "got other"
        assert parked(working) == 1
        await claim(site, call, "c1")
        await site.say("s", ToolResolved(call.id, "c1", "ok"))
        assert said(await site.ended("s", run_id)) == "got ok"
        assert parked(working) == 0


def parked(working: Working) -> float:
    return working.count("parked")
