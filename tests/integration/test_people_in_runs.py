"""Approvals, questions and hand-overs, against a real worker; the test plays the gateway."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from agent_worker.approvals import Decision
from agent_worker.context import Agent, SessionContext
from agent_worker.errors import NoAnswer, NobodyCame
from broker.endings import closing_events
from broker.events import (
    ApprovalResponded,
    ApprovalRevoked,
    Entry,
    HandoffReturned,
    InputSent,
    Participant,
    RunFinished,
    SessionUpdated,
)
from broker.lease import WriteId
from broker.loading import load_state
from broker.state import Approval, Ended
from broker.subjects import MAIN_LANE
from tests.support.nats import NatsNode
from tests.support.site import USER, WAIT_S, Site, open_site, said

pytestmark = pytest.mark.nats_roles

BOSS = Participant("user", "boss", roles=("boss",))
CHIEF = Participant("user", "chief", roles=("boss",))
SUPPORT = Participant("user", "user-9", "Support", ("support",))

Ask = Callable[[SessionContext], Awaitable[Any]]


def told(decision: Decision) -> str:
    return f"{decision.option} {decision.status} {','.join(by.id for by in decision.by)} {decision.payload}"


def approving(**options: Any) -> Agent:
    async def run(ctx: SessionContext) -> None:
        await ctx.text(told(await ctx.approve("Delete?", **options)))

    return Agent("approving", run)


async def asked(site: Site, run_id: str = "run_a") -> Approval:
    """What the run waits for, once it does."""
    transcript = await site.until("s", lambda t: any(a.run == run_id for a in t.state.approvals.values()))
    (approval,) = transcript.state.approvals.values()
    return approval


async def respond(site: Site, approval: Approval, option: str, by: Participant = USER, payload: Any = None) -> None:
    await site.say("s", ApprovalResponded(approval.id, option, payload), by=by)


# --- approvals -------------------------------------------------------------------------------------------------------


async def test_the_first_authorised_decision_wins(nats_server: NatsNode) -> None:
    agent = approving(roles=["boss"], key="tool:delete")
    async with open_site(nats_server.url) as site, site.working(agent):
        run_id = await site.send("s", "go", "a")
        approval = await asked(site)
        await respond(site, approval, "reject_once")
        await respond(site, approval, "perhaps", BOSS)
        await respond(site, approval, "allow_once", BOSS, {"edited": 1})
        await respond(site, approval, "reject_once", CHIEF)
        assert said(await site.ended("s", run_id)) == "allow_once resolved boss {'edited': 1}"


async def test_a_quorum_decides(nats_server: NatsNode) -> None:
    async with open_site(nats_server.url) as site, site.working(approving(roles=["boss"], quorum=2)):
        run_id = await site.send("s", "go", "a")
        approval = await asked(site)
        await respond(site, approval, "allow_once", BOSS)
        await respond(site, approval, "allow_once", BOSS)
        waiting = await site.until("s", lambda t: any(a.votes for a in t.state.approvals.values()))
        assert [a.status for a in waiting.state.approvals.values()] == ["pending"]
        await respond(site, approval, "allow_once", CHIEF)
        assert said(await site.ended("s", run_id)) == "allow_once resolved boss,chief None"


@pytest.mark.parametrize("default", ["allow_once", "reject_once"])
async def test_an_approval_expires_into_its_default(nats_server: NatsNode, default: str) -> None:
    async with open_site(nats_server.url) as site, site.working(approving(expires_s=0.2, default=default)):
        run_id = await site.send("s", "go", "a")
        assert said(await site.ended("s", run_id)) == f"{default} expired  None"


async def test_a_decision_for_always_is_not_asked_again_until_it_is_revoked(nats_server: NatsNode) -> None:
    async with open_site(nats_server.url) as site, site.working(approving(key="tool:delete")):
        await site.send("s", "go", "a")
        await respond(site, await asked(site), "allow_always")
        await site.ended("s", "run_a")
        await site.send("s", "go", "b")
        assert said(await site.ended("s", "run_b")).endswith("allow_always remembered user-1 None")
        await site.say("s", ApprovalRevoked("tool:delete"))
        await site.send("s", "go", "c")
        await respond(site, await asked(site, "run_c"), "reject_once")
        assert said(await site.ended("s", "run_c")).endswith("reject_once resolved user-1 None")


async def test_an_approval_outlives_its_worker(nats_server: NatsNode) -> None:
    """It is asked once, and an answer that comes while no worker is there counts."""
    async with open_site(nats_server.url) as site:
        async with site.working(approving()) as first:
            run_id = await site.send("s", "go", "a")
            approval = await asked(site)
            await first.die()
        await respond(site, approval, "allow_once")
        async with site.working(approving()):
            transcript = await site.ended("s", run_id)
    assert said(transcript) == "allow_once resolved user-1 None"
    assert transcript.state.end_of(approval.id) == Ended(approval.id, "resolved", "allow_once")


async def test_an_input_may_cancel_what_waits_for_approval(nats_server: NatsNode) -> None:
    async with open_site(nats_server.url) as site, site.working(approving()):
        await site.say("s", SessionUpdated(config={"approvalOnInput": "cancel"}))
        run_id = await site.send("s", "go", "a")
        await asked(site)
        await site.say("s", InputSent("b", "forget it"))
        assert said(await site.ended("s", run_id)) == "None cancelled  None"


async def test_a_question_is_answered_or_declined(nats_server: NatsNode) -> None:
    async def asking(ctx: SessionContext) -> None:
        for _ in range(2):
            try:
                answer = await ctx.ask_user("Which?", {"type": "string"})
            except NoAnswer as error:
                answer = error.code
            await ctx.text(f"[{answer}]")

    async with open_site(nats_server.url) as site, site.working(Agent("asking", asking)):
        run_id = await site.send("s", "go", "a")
        first = await asked(site)
        await respond(site, first, "answer", payload="the red one")
        waiting = await site.until("s", lambda t: len(t.state.approvals) == 2)
        second = next(a for a in waiting.state.approvals.values() if a.id != first.id)
        await respond(site, second, "decline")
        assert said(await site.ended("s", run_id)) == "[the red one][declined]"


# --- hand-over -------------------------------------------------------------------------------------------------------


async def handing(ctx: SessionContext) -> None:
    """Hands over when it is told to; else says what it was given, and what it remembers."""
    content = ctx.input.content if ctx.input is not None else ""
    if content.startswith("hand"):
        await ctx.text("one moment ")
        try:
            await ctx.handoff("support", reason="refund", summary="They want it back", expires_s=_seconds(content))
        except NobodyCame:
            await ctx.text("nobody is there")
    elif content.startswith("stream"):
        for i in range(2000):
            await ctx.text(f"t{i} ")
            await asyncio.sleep(0.005)
    else:
        await ctx.text("|".join(f"{m.role}:{m.text}" for m in await ctx.history()))


HANDING = Agent("handing", handing)


def _seconds(content: str) -> float | None:
    return float(content.rsplit(maxsplit=1)[-1]) if content != "hand" else None


async def take(site: Site, by: Participant) -> int:
    """Takes the lane for a human, as a gateway does."""
    subjects = site.log.subjects("s")
    state = await load_state(site.log, subjects)
    fence = await site.log.claim(subjects, MAIN_LANE, state.lane(MAIN_LANE).fence, by, 1)
    state = await load_state(site.log, subjects)
    run = state.lane_run(MAIN_LANE)
    if run is not None:
        events = await closing_events(site.log, subjects, state, MAIN_LANE, fence, "handed_over")
        ending = RunFinished("s", run.run_id, {"type": "cancelled", "reason": "handed_over"})
        entry = Entry(str(WriteId(fence, 1)), 1, (*events, ending), lane=MAIN_LANE, run=run.run_id, by=by)
        await site.log.append(subjects, MAIN_LANE, fence, entry)
    return fence


async def test_agent_to_human_and_back(nats_server: NatsNode) -> None:
    async with open_site(nats_server.url) as site, site.working(HANDING):
        run_id = await site.send("s", "hand", "a")
        await site.until("s", lambda t: t.state.handoffs)
        await take(site, SUPPORT)
        transcript = await site.ended("s", run_id)
        assert transcript.state.end_of(run_id) == Ended(run_id, "cancelled")
        await site.say("s", InputSent("b", "What is wrong?"), by=SUPPORT)
        await site.say("s", InputSent("c", "It is broken"))
        await site.say("s", HandoffReturned(MAIN_LANE, "nope", "mine now"))
        await site.has_jobs(0)
        await site.say("s", HandoffReturned(MAIN_LANE, "d", "They may have it back"), by=SUPPORT)
        await site.jobs.offer(site.log.subjects("s"), MAIN_LANE)
        transcript = await site.ended("s", "run_d")
    assert said(transcript).endswith(
        "user:hand|assistant:one moment |assistant:What is wrong?|user:It is broken|user:They may have it back"
    )
    spoken = {m.id: m.by for m in transcript.messages if m.id in ("msg_b", "msg_c")}
    assert {id_: by.id for id_, by in spoken.items() if by is not None} == {"msg_b": "user-9", "msg_c": "user-1"}


async def test_nobody_comes(nats_server: NatsNode) -> None:
    async with open_site(nats_server.url) as site, site.working(HANDING):
        transcript = await site.ended("s", await site.send("s", "hand for 0.2", "a"))
        assert said(transcript) == "one moment nobody is there"


async def test_a_human_takes_over_unasked_in_mid_stream(nats_server: NatsNode) -> None:
    """From one entry on, nothing of the agent counts; what it had said stays, whole."""
    async with open_site(nats_server.url) as site, site.working(HANDING) as working:
        run_id = await site.send("s", "stream", "a")
        await site.streaming("s")
        fence = await take(site, SUPPORT)
        transcript = await site.ended("s", run_id)
        (partial,) = (m for m in transcript.messages if m.role == "assistant")
        words = partial.text.split()
        assert words == [f"t{i}" for i in range(len(words))]
        assert (partial.status, partial.reason) == ("done", "handed_over")
        await site.has_jobs(0)
        async with asyncio.timeout(WAIT_S):
            while working.worker.busy:
                await asyncio.sleep(0.01)
        assert transcript.state.lane(MAIN_LANE).fence == fence
        # The agent may not come back by an input: a human has the lane.
        await site.send("s", "hello?", "b")
        transcript = await site.until("s", lambda t: t.message("msg_b"))
        assert transcript.state.idle
        await site.has_jobs(0)


async def test_a_hand_over_outlives_its_worker(nats_server: NatsNode) -> None:
    async with open_site(nats_server.url) as site:
        async with site.working(HANDING) as first:
            run_id = await site.send("s", "hand", "a")
            await site.until("s", lambda t: t.state.handoffs)
            await first.die()
        async with site.working(HANDING):
            await site.until("s", lambda t: any(r.attempt == 2 for r in t.state.runs.values()))
            await take(site, SUPPORT)
            transcript = await site.ended("s", run_id)
            await site.has_jobs(0)
    assert transcript.state.lane(MAIN_LANE).human == Participant("user", "user-9", "Support")
