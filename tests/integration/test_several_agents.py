"""Agents that ask each other, each with workers of its own pool."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from agent_worker.asking import FAN_OUT_MAX
from agent_worker.context import Agent, SessionContext
from agent_worker.errors import AskFailed
from broker.state import Ended
from broker.transcript import Transcript
from tests.support.nats import NatsNode
from tests.support.site import Site, open_site, said

pytestmark = pytest.mark.nats_roles

POOLS = "default,helper,third"


async def ask(ctx: SessionContext) -> None:
    """Does what its input says: ``ask AGENT CONTENT``, ``tell …``, ``hang``, or says it back."""
    content = ctx.input.content if ctx.input is not None else ""
    verb, _, rest = content.partition(" ")
    agent, _, rest = rest.partition(" ")
    try:
        match verb:
            case "ask":
                answer = await ctx.ask(agent, rest, timeout_s=20)
                await ctx.text(f"{agent} says: {answer}")
            case "hurry":
                await ctx.ask(agent, rest, timeout_s=0.3)
            case "tell":
                await ctx.tell(agent, rest)
                await ctx.text("told")
            case "many":
                async with asyncio.TaskGroup() as tasks:
                    for i in range(int(rest)):
                        tasks.create_task(ctx.ask(agent, f"hang {i}"))
            case "hang":
                await ctx.text("hanging")
                await asyncio.Event().wait()
            case "break":
                raise RuntimeError("told to break")
            case _:
                await ctx.text(content)
    except* AskFailed as group:
        (error, *_) = group.exceptions
        assert isinstance(error, AskFailed)
        await ctx.text(f"{error.agent}: {error.code}")


@asynccontextmanager
async def working(site: Site, **settings: float) -> AsyncIterator[None]:
    async with (
        site.working(Agent("main", ask), **settings),
        site.working(Agent("helper", ask), pool="helper", **settings),
        site.working(Agent("third", ask), pool="third", **settings),
    ):
        yield


def words(transcript: Transcript) -> list[tuple[str | None, str | None, str]]:
    """Who says what: lane, agent, text."""
    return [(m.lane, m.by.id if m.by else None, m.text) for m in transcript.messages if m.role == "assistant"]


async def test_an_agent_asks_another(nats_server: NatsNode) -> None:
    """The child's run is visible, attributed, and told apart."""
    async with open_site(nats_server.url, pools=POOLS) as site, working(site):
        run_id = await site.send("s", "ask helper ask third hello", "a")
        transcript = await site.ended("s", run_id)
    assert words(transcript) == [
        ("third", "third", "hello"),
        ("helper", "helper", "third says: hello"),
        ("main", "main", "helper says: third says: hello"),
    ]
    asked = [(m.lane, m.by.id if m.by else None, m.text) for m in transcript.messages if m.role == "user"]
    assert asked == [
        ("main", "user-1", "ask helper ask third hello"),
        ("helper", "main", "ask third hello"),
        ("third", "helper", "hello"),
    ]


async def test_no_deadlock_where_each_worker_has_one_slot(nats_server: NatsNode) -> None:
    async with open_site(nats_server.url, pools=POOLS) as site, working(site, concurrency=1):
        runs = [await site.send(f"s{i}", "ask helper ask third hello", "a") for i in range(4)]
        for i, run_id in enumerate(runs):
            assert said(await site.ended(f"s{i}", run_id)).endswith("helper says: third says: hello")


async def test_a_cancel_goes_down_to_the_children(nats_server: NatsNode) -> None:
    async with open_site(nats_server.url, pools=POOLS) as site, working(site):
        run_id = await site.send("s", "ask helper ask third hang", "a")
        running = await site.until("s", lambda t: len(t.state.runs) == 3 and said(t) == "hanging")
        runs = set(running.state.runs)
        await site.cancel("s", run_id)
        transcript = await site.until("s", lambda t: all(t.state.end_of(run) for run in runs))
        assert {transcript.state.end_of(run) for run in runs} == {Ended(run, "cancelled") for run in runs}
        await site.has_jobs(0)


@pytest.mark.parametrize(
    ("content", "answer"),
    [
        ("ask main hello", "main: ask_cycle"),
        ("ask helper ask main hello", "helper says: main: ask_cycle"),
        ("ask helper ask helper hello", "helper says: helper: ask_cycle"),
        ("ask helper break", "helper: error"),
        ("hurry nobody hello", "nobody: timeout"),
        ("hurry helper hang", "helper: timeout"),
    ],
)
async def test_an_ask_that_fails_says_why(nats_server: NatsNode, content: str, answer: str) -> None:
    async with open_site(nats_server.url, pools=POOLS) as site, working(site):
        run_id = await site.send("s", content, "a")
        transcript = await site.ended("s", run_id)
        assert words(transcript)[-1] == ("main", "main", answer)
        idle = await site.until("s", lambda t: t.state.idle)
        assert idle.state.idle, "who is not waited for any more is stopped"


async def test_a_run_asks_so_many_at_once(nats_server: NatsNode) -> None:
    async with open_site(nats_server.url, pools=POOLS) as site, working(site):
        run_id = await site.send("s", f"many helper {FAN_OUT_MAX + 1}", "a")
        assert "helper: ask_fan_out" in said(await site.ended("s", run_id))
        await site.until("s", lambda t: t.state.end_of(run_id) and t.state.idle)


async def test_who_is_told_goes_on_alone(nats_server: NatsNode) -> None:
    async with open_site(nats_server.url, pools=POOLS) as site, working(site):
        run_id = await site.send("s", "tell helper hang", "a")
        assert "told" in said(await site.ended("s", run_id))
        alone = await site.until("s", lambda t: t.state.end_of(run_id) and t.state.runs)
        (child,) = alone.state.runs.values()
        assert (child.parent, child.cancel, child.agent) == (run_id, None, "helper")
        await site.cancel("s", child.run_id)
        await site.ended("s", child.run_id)


async def test_an_ask_outlives_its_worker(nats_server: NatsNode) -> None:
    """It is asked once, and the answer that comes meanwhile is found."""
    async with (
        open_site(nats_server.url, pools=POOLS) as site,
        site.working(Agent("third", ask), pool="third"),
    ):
        async with site.working(Agent("main", ask)) as first:
            run_id = await site.send("s", "ask helper ask third hello", "a")
            await site.until("s", lambda t: t.state.inputs and t.state.inputs[0].lane == "helper")
            # Its job is offered after it is stored; if not, it would be for a gateway to do so, and there is none.
            await site.has_jobs(2)
            await first.die()
        async with site.working(Agent("helper", ask), pool="helper"):
            await site.until("s", lambda t: ("helper", "helper", "third says: hello") in words(t))
            async with site.working(Agent("main", ask)):
                transcript = await site.ended("s", run_id)
    assert words(transcript)[-1] == ("main", "main", "helper says: third says: hello")
    assert [m.text for m in transcript.messages if m.lane == "helper" and m.role == "user"] == ["ask third hello"]
