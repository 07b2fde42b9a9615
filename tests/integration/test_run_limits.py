"""What runs may not do, and what they must not lose: sizes, names, schemas, and attempts that go on for others."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from agent_worker.context import Agent, SessionContext
from agent_worker.errors import AskFailed
from agent_worker.tools import Invocation
from broker.errors import AntiphonError
from broker.events import ApprovalResponded
from broker.state import Ended
from tests.support.nats import NatsNode
from tests.support.site import open_site, said

LARGE = "x" * 2_000_000


async def large_result(_call: Invocation) -> str:
    return LARGE


async def no_json(_call: Invocation) -> object:
    return object()


@pytest.mark.parametrize(
    ("what", "error"),
    [
        (lambda ctx: ctx.ask("helper", LARGE), "ContentTooLarge"),
        (lambda ctx: ctx.tell("helper", LARGE), "ContentTooLarge"),
        (lambda ctx: ctx.tool_call("t", {"x": LARGE}), "ContentTooLarge"),
        (lambda ctx: ctx.tool("t", {"x": LARGE}, large_result), "ContentTooLarge"),
        (lambda ctx: ctx.tool("t", {}, large_result), "ContentTooLarge"),
        (lambda ctx: ctx.tool("t", {}, no_json), "TypeError"),
        (lambda ctx: ctx.client_tool("t", {"x": LARGE}), "ContentTooLarge"),
        (lambda ctx: ctx.approve("?", details={"x": LARGE}), "ContentTooLarge"),
        (lambda ctx: ctx.approve("?", response_schema={"type": "nonsense"}), "SchemaInvalid"),
        (lambda ctx: ctx.ask_user("?", {"type": "nonsense"}), "SchemaInvalid"),
        (lambda ctx: ctx.handoff("desk", reason="r", summary=LARGE), "ContentTooLarge"),
        (lambda ctx: ctx.custom("c", LARGE), "ContentTooLarge"),
        (lambda ctx: ctx.ask("my agent", "x"), "AskFailed bad_name"),
        (lambda ctx: ctx.ask("a.b", "x"), "AskFailed bad_name"),
    ],
)
async def test_what_is_too_much_is_said_to_the_author(
    nats_server: NatsNode, what: Callable[[SessionContext], Awaitable[Any]], error: str
) -> None:
    """And nothing is lost by it: the run goes on."""

    async def trying(ctx: SessionContext) -> None:
        try:
            await what(ctx)
        except (AntiphonError, TypeError) as raised:
            await ctx.text(f"{type(raised).__name__} {getattr(raised, 'code', '')}".strip())

    async with open_site(nats_server.url) as site, site.working(Agent("trying", trying)):
        transcript = await site.ended("s", await site.send("s", "go", "a"))
        assert said(transcript) == error
        calls = [m.id for m in transcript.messages if m.role == "tool_call"]
        assert [m.tool_call_id for m in transcript.messages if m.role == "tool"] == calls


async def test_a_worker_that_leaves_does_not_stop_whom_it_has_asked(nats_server: NatsNode) -> None:
    done = asyncio.Event()

    async def asking(ctx: SessionContext) -> None:
        await ctx.text(f"answer: {await ctx.ask('helper', 'x')}")

    async def helping(ctx: SessionContext) -> None:
        await done.wait()
        await ctx.text("hi")

    async with (
        open_site(nats_server.url, pools="default,helper") as site,
        site.working(Agent("helper", helping), pool="helper"),
    ):
        async with site.working(Agent("asking", asking), worker_drain_s=10) as first:
            run_id = await site.send("s", "go", "a")
            await site.until("s", lambda t: len(t.state.runs) == 2)
            async with asyncio.timeout(5):
                await first.left()  # it does not wait for a run that itself waits
        done.set()
        async with site.working(Agent("asking", asking)):
            transcript = await site.ended("s", run_id)
    assert said(transcript).endswith("answer: hi")


async def test_a_run_whose_child_was_stopped_with_it_does_nothing_more(nats_server: NatsNode) -> None:
    went_on: list[str] = []

    async def asking(ctx: SessionContext) -> None:
        try:
            await ctx.ask("helper", "x")
        except AskFailed as error:
            went_on.append(error.code)

    async def helping(ctx: SessionContext) -> None:
        await ctx.text("hanging")
        await asyncio.Event().wait()

    async with (
        open_site(nats_server.url, pools="default,helper") as site,
        site.working(Agent("helper", helping), pool="helper"),
        site.working(Agent("asking", asking)),
    ):
        for i in range(5):
            session = f"s{i}"
            run_id = await site.send(session, "go", "a")
            await site.streaming(session)
            await site.cancel(session, run_id)
            transcript = await site.ended(session, run_id)
            assert transcript.state.end_of(run_id) == Ended(run_id, "cancelled")
    assert went_on == []


async def test_edited_arguments_outlive_a_worker_though_the_decision_is_remembered(nats_server: NatsNode) -> None:
    async def approving(ctx: SessionContext) -> None:
        decision = await ctx.approve("ok?", key="k")
        await ctx.text(f"{decision.status} {decision.payload} ")
        await ctx.flush()
        if ctx.attempt == 1:
            await asyncio.Event().wait()

    agent = Agent("approving", approving)
    async with open_site(nats_server.url) as site:
        async with site.working(agent) as first:
            run_id = await site.send("s", "go", "a")
            waiting = await site.until("s", lambda t: t.state.approvals)
            (approval,) = waiting.state.approvals.values()
            await site.say("s", ApprovalResponded(approval.id, "allow_always", {"edited": 1}))
            await site.streaming("s")
            await first.die()
        async with site.working(agent):
            transcript = await site.ended("s", run_id)
    assert said(transcript) == "resolved {'edited': 1} " * 2
