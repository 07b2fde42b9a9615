"""Recorded steps: what is done once, what again, and what is refused, against a real worker and a gateway."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from agent_worker.context import Agent, SessionContext
from agent_worker.errors import ContentTooLarge, StepChanged, StepFailed, TooManySteps
from broker.events import Participant, RunError, StepFinished, StepRecorded, StepStarted
from broker.state import MAX_STEPS
from tests.support.nats import NatsNode
from tests.support.place import Place
from tests.support.rawclient import Wire, join
from tests.support.site import Site, open_site, said
from tests.support.stack import Stack, read_entries

pytestmark = [pytest.mark.nats_roles, pytest.mark.timeout(180)]


async def twice(site: Site, run: Callable[[SessionContext], Awaitable[None]], input_id: str = "a") -> str:
    """Runs an agent whose first worker dies where it hangs on `hang`; returns what the run has said in the end."""
    hanging = asyncio.Event()

    async def main(ctx: SessionContext) -> None:
        await run(ctx)
        await ctx.flush()
        if ctx.attempt == 1:
            hanging.set()
            await asyncio.Event().wait()

    agent = Agent("steps", main, on_takeover="restart")
    async with site.working(agent) as first:
        run_id = await site.send("s", "go", input_id)
        async with asyncio.timeout(60):
            await hanging.wait()
        await first.die()
    async with site.working(agent):
        transcript = await site.ended("s", run_id)
    return "".join(m.text for m in transcript.messages if m.run == run_id and m.role == "assistant")


async def events(site: Site, kind: type) -> list[Any]:
    return [
        event for _, entry in await read_entries(site.log, "s") for event in entry.events if isinstance(event, kind)
    ]


async def test_a_step_is_done_once(nats_server: NatsNode) -> None:
    done: list[int] = []

    async def double(number: int) -> dict[str, int]:
        done.append(number)
        return {"doubled": 2 * number}

    async def doubling(ctx: SessionContext) -> None:
        results = [await ctx.step("double", double, number) for number in (1, 2, 3)]
        await ctx.text(f"{ctx.attempt}: {[r['doubled'] for r in results]} ")

    async with open_site(nats_server.url) as site:
        assert await twice(site, doubling) == "1: [2, 4, 6] 2: [2, 4, 6] "
        assert done == [1, 2, 3]
        recorded = await events(site, StepRecorded)
        assert [step.result for step in recorded] == [{"doubled": n} for n in (2, 4, 6)]
        assert len({step.step_id for step in recorded}) == 3
        assert len(await events(site, StepStarted)) == len(await events(site, StepFinished)) == 3


async def test_a_step_that_was_cut_short_is_done_again(nats_server: NatsNode) -> None:
    keys: list[str] = []
    begun = asyncio.Event()

    async def paying(ctx: SessionContext) -> None:
        async def pay() -> str:
            keys.append(ctx.idempotency_key("pay"))
            begun.set()
            if ctx.attempt == 1:
                await asyncio.Event().wait()
            return "paid"

        await ctx.text(await ctx.step("pay", pay))

    agent = Agent("paying", paying)
    async with open_site(nats_server.url) as site:
        async with site.working(agent) as first:
            run_id = await site.send("s", "go", "a")
            async with asyncio.timeout(60):
                await begun.wait()
            await first.die()
        async with site.working(agent):
            assert said(await site.ended("s", run_id)) == "paid"
    assert len(keys) == 2
    assert keys[0] == keys[1]


async def test_a_step_fails_in_the_same_way_in_every_attempt(nats_server: NatsNode) -> None:
    tried: list[int] = []

    async def failing() -> None:
        tried.append(1)
        raise OSError("secret words of somebody")

    async def trying(ctx: SessionContext) -> None:
        with pytest.raises(StepFailed) as caught:
            await ctx.step("send", failing, retries=1)
        assert isinstance(caught.value.__cause__, OSError if ctx.attempt == 1 else type(None))
        await ctx.text(f"{caught.value.step} {caught.value.error} ")

    async with open_site(nats_server.url) as site:
        assert await twice(site, trying) == "send OSError send OSError "
        assert len(tried) == 2
        (recorded,) = await events(site, StepRecorded)
        assert "secret" not in repr(recorded)


async def test_a_step_that_fails_once_is_tried_again(nats_server: NatsNode) -> None:
    tried: list[int] = []

    async def flaky() -> int:
        tried.append(1)
        if len(tried) == 1:
            raise OSError
        return len(tried)

    async def trying(ctx: SessionContext) -> None:
        await ctx.text(str(await ctx.step("flaky", flaky, retries=3)))

    async with open_site(nats_server.url) as site, site.working(Agent("trying", trying)):
        assert said(await site.ended("s", await site.send("s", "go", "a"))) == "2"


async def test_what_a_step_raises_and_nobody_catches_is_named(nats_server: NatsNode) -> None:
    async def failing() -> None:
        raise OSError

    async def trying(ctx: SessionContext) -> None:
        await ctx.step("send", failing)

    async with open_site(nats_server.url) as site, site.working(Agent("trying", trying)):
        await site.ended("s", await site.send("s", "go", "a"))
        assert await site.errors("s") == [RunError("the agent raised OSError", "agent_error")]


async def test_another_step_under_the_same_name_is_noticed(nats_server: NatsNode) -> None:
    """The agent asks for something else in its second attempt: it must not get the answer to what it asked before."""

    async def echo(value: Any) -> Any:
        return value

    async def changing(ctx: SessionContext) -> None:
        keyed = await ctx.step("keyed", echo, ctx.attempt, key="same")
        try:
            plain = str(await ctx.step("plain", echo, ctx.attempt))
        except StepChanged as error:
            plain = f"changed {error.step}"
        await ctx.text(f"{keyed} {plain}; ")

    async with open_site(nats_server.url) as site:
        assert await twice(site, changing) == "1 1; 1 changed plain; "


async def test_steps_in_another_order_are_found_by_their_names(nats_server: NatsNode) -> None:
    done: list[str] = []

    async def note(name: str) -> str:
        done.append(name)
        return name.upper()

    async def shuffled(ctx: SessionContext) -> None:
        names = ("a", "b", "c") if ctx.attempt == 1 else ("d", "c", "a", "b")
        async with asyncio.TaskGroup() as tasks:
            results = [tasks.create_task(ctx.step(name, note, name)) for name in names]
        await ctx.text("".join(r.result() for r in results) + " ")

    async with open_site(nats_server.url) as site:
        assert await twice(site, shuffled) == "ABC DCAB "
    assert sorted(done) == ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    "result", [(1, 2), float("nan"), {1: 2}, object(), "x" * 300_000], ids=lambda r: type(r).__name__
)
async def test_a_result_must_be_found_again_as_it_is(nats_server: NatsNode, result: Any) -> None:
    async def make() -> Any:
        return result

    async def trying(ctx: SessionContext) -> None:
        with pytest.raises(ContentTooLarge):
            await ctx.step("make", make)
        await ctx.text("refused")

    async with open_site(nats_server.url) as site, site.working(Agent("trying", trying)):
        assert said(await site.ended("s", await site.send("s", "go", "a"))) == "refused"
        assert await events(site, StepRecorded) == []
        assert len(await events(site, StepFinished)) == 1


async def test_a_run_has_a_bounded_number_of_steps(nats_server: NatsNode) -> None:
    async def nothing() -> None:
        return None

    async def many(ctx: SessionContext) -> None:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(MAX_STEPS):
                tasks.create_task(ctx.step("one of many", nothing))
        with pytest.raises(TooManySteps):
            await ctx.step("one more", nothing)
        await ctx.text("enough")

    async with open_site(nats_server.url) as site, site.working(Agent("many", many)):
        assert said(await site.ended("s", await site.send("s", "go", "a"))) == "enough"


async def test_a_zombies_step_is_refused_by_the_log(nats_server: NatsNode) -> None:
    """A worker that has lost its lane in the middle of a step cannot record it: its successor does it again."""
    begun, go_on, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()
    done: list[int] = []

    async def running(ctx: SessionContext) -> None:
        async def work() -> int:
            done.append(ctx.attempt)
            if ctx.attempt == 1:
                begun.set()
                await go_on.wait()
            return ctx.attempt

        try:
            await ctx.text(f"by {await ctx.step('work', work)}")
        finally:
            if ctx.attempt == 1:
                ended.set()

    async with open_site(nats_server.url) as site, site.working(Agent("running", running)):
        run_id = await site.send("s", "go", "a")
        async with asyncio.timeout(60):
            await begun.wait()
        # Somebody else claims the lane, as a worker does whose predecessor is thought dead.
        state = (await site.until("s", lambda t: t.state.runs)).state
        fence = state.lane("main").fence
        await site.log.claim(site.log.subjects("s"), "main", fence, Participant("agent", "w-other"), 1)
        go_on.set()
        async with asyncio.timeout(60):
            await ended.wait()
        recorded = await events(site, StepRecorded)
        assert recorded == []
        await site.jobs.offer(site.log.subjects("s"), "main")
        assert said(await site.ended("s", run_id)) == "by 2"
    assert done == [1, 2]


async def test_no_client_is_told_what_a_step_came_to(nats_server: NatsNode, tmp_path: Path) -> None:
    """Neither live nor in any replay, also where the step shares its record with the end of a text."""
    agent = "tests.support.agents:secretive"
    async with Stack(tmp_path / "stack", nats_server.url) as stack:
        gateway, _ = await stack.gateway(), await stack.worker(agent)
        live = Place("s", frames=[])
        async with await Wire.open(gateway.url, stack.token()) as wire:
            await wire.subscribe(live)
            await wire.input("s", "a", "go")
            await wire.follow(live, lambda p: "run_a" in p.ended)
        late, every = Place("s", frames=[]), Place("s", every=True, frames=[])
        for place in (late, every):
            await join(gateway.url, stack.token(), place)
        for place in (live, every):
            told = json.dumps(place.frames)
            assert '"step.recorded"' in told
            assert "secret-of-a-step" not in told
        assert all("secret-of-a-step" not in json.dumps(place.frames) for place in (live, late, every))
        async with stack.log() as log:
            stored = [
                e for _, entry in await read_entries(log, "s") for e in entry.events if isinstance(e, StepRecorded)
            ]
    assert [step.result for step in stored] == ["secret-of-a-step"] * 2
