"""Steering: what becomes of inputs that come in the middle of a run, against a real worker."""

from __future__ import annotations

import asyncio

import pytest

from agent_worker.context import Agent, SessionContext
from broker.events import InputCancelRequested, InputSent, RunCancelRequested, SessionUpdated
from broker.state import Ended
from broker.subjects import MAIN_LANE
from broker.transcript import Transcript
from tests.support.nats import NatsNode
from tests.support.site import Site, open_site, said

pytestmark = pytest.mark.nats_roles


async def steps(ctx: SessionContext) -> None:
    """Says "one", waits for "more" in steps, says what it was steered to."""
    heard: list[str] = []
    await ctx.text("begun ")
    for _ in range(500):
        async with ctx.step("thinking"):
            await asyncio.sleep(0.01)
        heard += [i.content for i in await ctx.take_steering()]
        if "end" in heard:
            break
    await ctx.text(f"heard {','.join(heard)}")


STEERABLE = Agent("steerable", steps, accepts_steering=True)


async def hanging(ctx: SessionContext) -> None:
    """Answers "quick" at once, hangs on anything else."""
    await ctx.text(f"<{ctx.input.content if ctx.input else ''}> ")
    if ctx.input is None or not ctx.input.content.startswith("quick"):
        await asyncio.Event().wait()


HANGING = Agent("hanging", hanging)


async def begun(site: Site, content: str = "go") -> str:
    run_id = await site.send("s", content, "a")
    await site.streaming("s")
    return run_id


def users(transcript: Transcript) -> list[tuple[str, str | None]]:
    return [(m.text, m.run) for m in transcript.messages if m.role == "user"]


async def test_an_input_is_injected_at_the_next_step(nats_server: NatsNode) -> None:
    async with open_site(nats_server.url) as site, site.working(STEERABLE):
        run_id = await begun(site)
        await site.say("s", InputSent("b", "left"))
        await site.say("s", InputSent("c", "end"))
        transcript = await site.ended("s", run_id)
        assert said(transcript) == "begun heard left,end"
        assert users(transcript) == [("go", run_id), ("left", run_id), ("end", run_id)]
        assert [transcript.state.fate(i).run for i in "abc"] == [run_id] * 3  # type: ignore[union-attr]
        assert transcript.state.idle
        assert [m.role for m in transcript.messages] == ["user", "assistant", "user", "user", "assistant"] or [
            m.role for m in transcript.messages
        ] == ["user", "assistant", "user", "assistant", "user", "assistant"]


async def test_what_comes_too_late_to_be_injected_is_the_next_run(nats_server: NatsNode) -> None:
    """Never dropped: an agent that takes steering, but not any more."""
    late = asyncio.Event()

    async def deaf(ctx: SessionContext) -> None:
        await ctx.text(f"<{ctx.input.content if ctx.input else ''}> ")
        if ctx.run_id == "run_a":
            await late.wait()

    async with open_site(nats_server.url) as site, site.working(Agent("deaf", deaf, accepts_steering=True)):
        await begun(site)
        await site.say("s", InputSent("b", "too late"))
        waiting = await site.until("s", lambda t: t.state.queued("b"))
        assert [i.mode for i in waiting.state.inputs] == ["inject"]
        late.set()
        transcript = await site.ended("s", "run_b")
        assert said(transcript) == "<go> <too late> "
        assert users(transcript) == [("go", "run_a"), ("too late", "run_b")]


async def test_an_injected_input_that_is_taken_back_is_not_applied(nats_server: NatsNode) -> None:
    taken = asyncio.Event()
    heard: list[str] = []

    async def patient(ctx: SessionContext) -> None:
        await ctx.text("begun ")
        await taken.wait()
        heard.extend(i.content for i in await ctx.take_steering())

    async with open_site(nats_server.url) as site, site.working(Agent("patient", patient, accepts_steering=True)):
        run_id = await begun(site)
        await site.say("s", InputSent("b", "no"))
        await site.say("s", InputSent("c", "yes"))
        await site.say("s", InputCancelRequested("b"))
        await site.until("s", lambda t: t.state.fate("b"))
        taken.set()
        transcript = await site.ended("s", run_id)
        assert heard == ["yes"]
        assert users(transcript) == [("go", run_id), ("yes", run_id)]


async def test_steering_can_be_followed(nats_server: NatsNode) -> None:
    async def following(ctx: SessionContext) -> None:
        await ctx.text("begun ")
        async for queued in ctx.steering():
            await ctx.text(f"[{queued.content}]")
            if queued.content == "end":
                return

    async with open_site(nats_server.url) as site, site.working(Agent("following", following, accepts_steering=True)):
        run_id = await begun(site)
        await site.say("s", InputSent("b", "one"))
        await site.until("s", lambda t: "[one]" in said(t))
        await site.say("s", InputSent("c", "end"))
        assert said(await site.ended("s", run_id)) == "begun [one][end]"


@pytest.mark.parametrize("mode", ["interrupt", "rollback"])
async def test_an_interrupt_stops_the_run_and_starts_the_next(nats_server: NatsNode, mode: str) -> None:
    """With no code of the author's. The partial text stays; a rollback takes it out of the conversation."""
    async with open_site(nats_server.url) as site, site.working(HANGING):
        run_id = await begun(site)
        await site.say("s", InputSent("b", "quick later"))
        await site.say("s", InputSent("c", "quick now", mode))
        transcript = await site.ended("s", "run_b")
        assert transcript.state.end_of(run_id) == Ended(run_id, "cancelled")
        assert said(transcript) == "<go> <quick now> <quick later> "
        undone = [m.text for m in transcript.messages if m.rolled_back]
        assert undone == (["go", "<go> "] if mode == "rollback" else [])
        partial = next(m for m in transcript.messages if m.role == "assistant")
        assert (partial.text, partial.reason) == ("<go> ", "cancelled")


async def test_a_rolled_back_run_is_not_in_the_history_of_the_next(nats_server: NatsNode) -> None:
    histories: list[list[str]] = []

    async def remembering(ctx: SessionContext) -> None:
        histories.append([m.text for m in await ctx.history()])
        await hanging(ctx)

    async with open_site(nats_server.url) as site, site.working(Agent("remembering", remembering)):
        await begun(site)
        await site.say("s", InputSent("b", "quick", "rollback"))
        await site.ended("s", "run_b")
    assert histories == [["go"], ["quick"]]


async def test_inputs_that_wait_become_one_run(nats_server: NatsNode) -> None:
    contents: list[list[str]] = []

    async def merging(ctx: SessionContext) -> None:
        contents.append([i.content for i in ctx.inputs])
        await ctx.text("begun ")
        if ctx.run_id == "run_a":
            await release.wait()

    release = asyncio.Event()
    async with open_site(nats_server.url) as site:
        await site.say("s", SessionUpdated(config={"coalesce": "merge"}))
        async with site.working(Agent("merging", merging)):
            await begun(site)
            for input_id in "bcd":
                await site.say("s", InputSent(input_id, input_id))
            await site.until("s", lambda t: t.state.queued("d"))
            release.set()
            transcript = await site.ended("s", "run_b")
    assert contents == [["go"], ["b", "c", "d"]]
    assert users(transcript) == [("go", "run_a"), ("b", "run_b"), ("c", "run_b"), ("d", "run_b")]


# --- cancelling ------------------------------------------------------------------------------------------------------


async def test_a_run_is_cancelled_after_its_step(nats_server: NatsNode) -> None:
    """Not in the middle of it."""
    finish = asyncio.Event()
    done: list[str] = []

    async def stepping(ctx: SessionContext) -> None:
        async with ctx.step("one"):
            await ctx.text("begun ")
            await finish.wait()
            done.append("one")
        done.append("two")

    async with open_site(nats_server.url) as site, site.working(Agent("stepping", stepping)):
        run_id = await begun(site)
        await site.cancel("s", run_id, "after_step")
        await site.until("s", lambda t: any(run.cancel for run in t.state.runs.values()))
        finish.set()
        transcript = await site.ended("s", run_id)
    assert transcript.state.end_of(run_id) == Ended(run_id, "cancelled")
    assert done == ["one"]


async def test_immediate_outdoes_after_step(nats_server: NatsNode) -> None:
    async with open_site(nats_server.url) as site, site.working(HANGING):
        run_id = await begun(site)
        await site.cancel("s", run_id, "after_step")
        await site.cancel("s", run_id, "immediate")
        assert (await site.ended("s", run_id)).state.end_of(run_id) == Ended(run_id, "cancelled")


async def test_a_cancel_works_before_the_start_and_twice_and_without_a_worker(nats_server: NatsNode) -> None:
    async with open_site(nats_server.url) as site:
        await site.send("s", "never", "a")
        await site.say("s", RunCancelRequested("run_a"))
        await site.say("s", RunCancelRequested("run_a"))
        run_id = await site.send("s", "quick", "b")
        async with site.working(HANGING):
            transcript = await site.ended("s", run_id)
        assert users(transcript) == [("quick", "run_b")]
        assert transcript.state.fate("a").status == "cancelled"  # type: ignore[union-attr]
        assert transcript.state.end_of("run_a") is None


async def test_a_run_that_was_cancelled_while_its_worker_was_dead_is_ended_by_the_next(nats_server: NatsNode) -> None:
    async with open_site(nats_server.url) as site:
        async with site.working(HANGING) as first:
            run_id = await begun(site)
            await first.die()
        await site.cancel("s", run_id, "after_step")
        async with site.working(HANGING):
            transcript = await site.ended("s", run_id)
    assert transcript.state.end_of(run_id) == Ended(run_id, "cancelled")
    assert said(transcript) == "<go> "
    assert transcript.state.lane(MAIN_LANE).run is None
