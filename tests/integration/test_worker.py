"""A worker at its work, against a real nats-server: it runs in this process, beside a reader of the log."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent_worker.context import Agent, SessionContext
from agent_worker.errors import RunEnded
from agent_worker.loading import load_agent
from broker.config import LogSettings
from broker.errors import ConfigError
from broker.jetstream.dispatch import JetStreamJobQueue
from broker.state import Cancel, Ended
from broker.subjects import MAIN_LANE
from tests.support.lagging import LaggingLog
from tests.support.nats import NatsNode
from tests.support.site import LEASE_S, USER, WAIT_S, Site, open_site, said, tokens
from tests.support.stack import Stack, open_log

pytestmark = pytest.mark.nats_roles

LONG_LEASE_S = 40.0
"""No machine is so busy that what waits for a lease could be taken for what is only slow, or the other way round."""


# --- leaving -------------------------------------------------------------------------------------------------------


async def test_a_leaving_worker_ends_its_run_and_hands_over_what_waits(nats_server: NatsNode) -> None:
    async with open_site(nats_server.url, lease_s=LONG_LEASE_S) as site:
        async with site.working() as first:
            running = await site.send("s", "stream 40 tokens at 80/s", "a")
            waiting = await site.send("s", "then this", "b")
            await site.streaming("s")
            await first.left()
        state = (await site.until("s", lambda t: t.state.lane(MAIN_LANE).owner is None and t.state.lanes)).state
        state = (await site.ended("s", running)).state
        assert state.end_of(running) == Ended(running, "success")
        assert state.queued("b") is not None, "no run was taken after the worker was told to leave"
        assert await site.queued_jobs() == 1
        begin = time.monotonic()
        async with site.working():
            transcript = await site.ended("s", waiting)
            assert time.monotonic() - begin < LONG_LEASE_S / 2, "the job was handed over, not left to its lease"
            assert said(transcript) == tokens(40) + "then this"
            assert transcript.state.runs == {}
            await site.has_jobs(0)


async def test_a_run_that_outlasts_the_drain_goes_on_at_another_worker(nats_server: NatsNode) -> None:
    async with open_site(nats_server.url) as site:
        async with site.working(worker_drain_s=0.1) as first:
            run_id = await site.send("s", "stream 100 tokens at 100/s", "a")
            await site.streaming("s")
            await first.left()
        async with site.working():
            transcript = await site.ended("s", run_id)
        assert transcript.state.end_of(run_id) == Ended(run_id, "success")
        assert said(transcript) == tokens(100)
        assert [m.reason for m in transcript.messages if m.role == "assistant"] == ["worker_lost", "complete"]


async def test_an_idle_worker_leaves_and_takes_no_job_with_it(nats_server: NatsNode) -> None:
    async with open_site(nats_server.url, lease_s=LONG_LEASE_S) as site:
        async with site.working() as first:
            await first.left()
        run_id = await site.send("s", "hello", "a")
        begin = time.monotonic()
        async with site.working():
            await site.ended("s", run_id)
        assert time.monotonic() - begin < LONG_LEASE_S / 2


async def test_a_second_signal_leaves_at_once(nats_server: NatsNode, tmp_path: Path) -> None:
    async with Stack(tmp_path / "stack", nats_server.url, lease_s=LEASE_S) as stack, open_site_of(stack) as site:
        worker = await stack.worker(worker_drain_s="30")
        run_id = await site.send("s", "stream 100 tokens at 50/s", "a")
        await site.streaming("s")
        worker.terminate_soon()
        async with asyncio.timeout(WAIT_S):
            while "draining" not in worker.output():
                await asyncio.sleep(0.01)
        assert await worker.terminate() == 0
        assert (await site.streaming("s")).state.runs, "the run is left to others"
        await stack.worker()
        assert said(await site.ended("s", run_id)) == tokens(100)


@contextlib.asynccontextmanager
async def open_site_of(stack: Stack) -> AsyncIterator[Site]:
    """The log of a stack, whose topology has been applied."""
    settings = LogSettings(partitions=stack.partitions, lease_s=stack.lease_s)
    async with open_log(stack.nats_url, settings) as (connection, log):
        yield Site(stack.nats_url, settings, connection, log, JetStreamJobQueue(connection, "default"))


# --- how much, and how soon ---------------------------------------------------------------------------------------------


async def test_no_more_lanes_are_worked_on_than_there_is_room_for(nats_server: NatsNode) -> None:
    active, most, release = 0, 0, asyncio.Semaphore(0)
    entered = asyncio.Semaphore(0)

    async def counting(ctx: SessionContext) -> None:
        nonlocal active, most
        active += 1
        most = max(most, active)
        entered.release()
        await release.acquire()
        active -= 1
        await ctx.text("done")

    async with open_site(nats_server.url) as site, site.working(Agent("counting", counting), concurrency=2) as worker:
        runs = [await site.send(f"s{i}", "go", f"a{i}") for i in range(5)]
        async with asyncio.timeout(WAIT_S):
            await entered.acquire()
            for _ in range(4):
                await entered.acquire()
                release.release()
        release.release()
        for i, run_id in enumerate(runs):
            assert (await site.ended(f"s{i}", run_id)).state.end_of(run_id) == Ended(run_id, "success")
        assert most == 2
        assert worker.count("capacity") == 2


async def test_inputs_sent_the_moment_a_run_ends_do_not_wait_for_a_lease(nats_server: NatsNode) -> None:
    """The next input comes while the lane is being let go of, again and again."""
    async with open_site(nats_server.url, lease_s=LONG_LEASE_S) as site, site.working():
        slowest_s = 0.0
        for i in range(50):
            begin = time.monotonic()
            await site.ended("s", await site.send("s", "nothing", f"a{i}"))
            slowest_s = max(slowest_s, time.monotonic() - begin)
        assert slowest_s < LONG_LEASE_S / 2
        await site.has_jobs(0)


async def test_inputs_that_a_lagging_replica_does_not_show_yet_are_run(
    nats_server: NatsNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job is done when the log says so, and not when some replica of it does not say otherwise yet."""
    monkeypatch.setattr("antiphon.worker_process.JetStreamLog", LaggingLog)
    async with open_site(nats_server.url) as site, site.working():
        for i in range(3):
            await site.ended("s", await site.send("s", f"word{i}", f"a{i}"))
        run_id = await site.send("s", "stream 30 tokens", "b")
        await site.send("s", "last", "c")
        transcript = await site.ended("s", "run_c")
        assert transcript.state.end_of(run_id) == Ended(run_id, "success")
        assert said(transcript) == "word0word1word2" + tokens(30) + "last"
        await site.has_jobs(0)


async def test_a_takeover_through_a_lagging_replica_loses_no_text(
    nats_server: NatsNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_site(nats_server.url) as site:
        async with site.working(worker_drain_s=0.0) as first:
            run_id = await site.send("s", "stream 60 tokens at 100/s", "a")
            await site.streaming("s")
            await first.left()
        monkeypatch.setattr("antiphon.worker_process.JetStreamLog", LaggingLog)
        async with site.working():
            transcript = await site.ended("s", run_id)
    assert said(transcript) == tokens(60)
    partial, rest = (m for m in transcript.messages if m.role == "assistant")
    assert (partial.status, partial.reason) == ("done", "worker_lost")
    assert rest.text


# --- agents that misbehave -------------------------------------------------------------------------------------------------


async def test_an_agent_that_raises_ends_its_run_and_no_more(nats_server: NatsNode) -> None:
    """People learn that it failed, not what it had in hand; the next input runs."""

    async def raising(ctx: SessionContext) -> None:
        await ctx.text("so far ")
        if ctx.input is not None and ctx.input.content == "raise":
            raise ValueError("secret-words")
        await ctx.text("so good")

    async with open_site(nats_server.url) as site, site.working(Agent("raising", raising)) as worker:
        transcript = await site.ended("s", await site.send("s", "raise", "a"))
        assert transcript.state.end_of("run_a") == Ended("run_a", "error")
        (message,) = (m for m in transcript.messages if m.role == "assistant")
        assert (message.text, message.status, message.reason) == ("so far ", "done", "error")
        (error,) = await site.errors("s")
        assert (error.code, error.message) == ("agent_error", "the agent raised ValueError")
        transcript = await site.ended("s", await site.send("s", "again", "b"))
        assert transcript.state.end_of("run_b") == Ended("run_b", "success")
        assert worker.count("runs_total", end="error") == 1
        assert worker.count("runs_total", end="success") == 1
        await site.has_jobs(0)


async def test_an_agent_that_says_nothing_ends_well(nats_server: NatsNode) -> None:
    async with open_site(nats_server.url) as site, site.working():
        transcript = await site.ended("s", await site.send("s", "nothing", "a"))
        assert transcript.state.end_of("run_a") == Ended("run_a", "success")
        assert [m.role for m in transcript.messages] == ["user"]


async def test_an_agent_that_hangs_is_ended_by_a_cancel(nats_server: NatsNode) -> None:
    reasons: list[object] = []

    async def hanging(ctx: SessionContext) -> None:
        await ctx.text("thinking ")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            reasons.append(ctx.cancel_reason)
            await ctx.text("stopped")
            raise

    async with open_site(nats_server.url) as site, site.working(Agent("hanging", hanging)):
        run_id = await site.send("s", "go", "a")
        await site.streaming("s")
        await site.cancel("s", run_id)
        transcript = await site.ended("s", run_id)
        assert transcript.state.end_of(run_id) == Ended(run_id, "cancelled")
        (message,) = (m for m in transcript.messages if m.role == "assistant")
        assert (message.text, message.reason) == ("thinking stopped", "cancelled")
        (reason,) = reasons
        assert isinstance(reason, Cancel)
        assert reason.by == USER


async def test_an_agent_that_ignores_its_cancel_is_left_behind(nats_server: NatsNode) -> None:
    """Its run ends, its lane is free, and what it says later reaches nobody."""
    said_later = asyncio.Event()
    let_go = asyncio.Event()

    async def stubborn(ctx: SessionContext) -> None:
        await ctx.text("first ")
        if ctx.input is not None and ctx.input.content == "again":
            return
        while not let_go.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await let_go.wait()
        with pytest.raises(RunEnded):
            await ctx.text("second")
        with pytest.raises(RunEnded):
            await ctx.custom("third", {})
        said_later.set()

    async with (
        open_site(nats_server.url) as site,
        site.working(Agent("stubborn", stubborn), cancel_grace_s=0.2) as worker,
    ):
        run_id = await site.send("s", "go", "a")
        await site.streaming("s")
        await site.cancel("s", run_id)
        transcript = await site.ended("s", run_id)
        assert transcript.state.end_of(run_id) == Ended(run_id, "cancelled")
        assert worker.count("agents_abandoned_total") == 1
        let_go.set()
        async with asyncio.timeout(WAIT_S):
            await said_later.wait()
        transcript = await site.ended("s", await site.send("s", "again", "b"))
        assert said(transcript) == "first first "


async def test_a_worker_with_an_agent_left_behind_still_ends(nats_server: NatsNode, tmp_path: Path) -> None:
    async with Stack(tmp_path / "stack", nats_server.url, lease_s=LEASE_S) as stack, open_site_of(stack) as site:
        worker = await stack.worker("tests.support.agents:stubborn", cancel_grace_s="0.2")
        run_id = await site.send("s", "go", "a")
        await site.streaming("s")
        await site.cancel("s", run_id)
        assert (await site.ended("s", run_id)).state.end_of(run_id) == Ended(run_id, "cancelled")
        assert await worker.terminate() == 0


async def test_a_run_that_takes_too_long_is_ended(nats_server: NatsNode) -> None:
    async with open_site(nats_server.url) as site, site.working(run_timeout_s=0.3) as worker:
        transcript = await site.ended("s", await site.send("s", "stream 10000 tokens at 50/s", "a"))
        assert transcript.state.end_of("run_a") == Ended("run_a", "error")
        (error,) = await site.errors("s")
        assert error.code == "run_timeout"
        (message,) = (m for m in transcript.messages if m.role == "assistant")
        assert message.status == "done"
        assert message.reason == "error"
        assert message.text == tokens(len(message.text.split()))
        assert worker.count("runs_total", end="timeout") == 1
        await site.ended("s", await site.send("s", "next", "b"))


async def test_an_event_that_is_too_large_ends_the_run(nats_server: NatsNode) -> None:
    async def large(ctx: SessionContext) -> None:
        await ctx.text("see ")
        await ctx.custom("picture", "x" * 2_000_000)

    async with open_site(nats_server.url) as site, site.working(Agent("large", large)):
        await site.ended("s", await site.send("s", "go", "a"))
        assert [error.code for error in await site.errors("s")] == ["content_too_large"]


# --- modules ------------------------------------------------------------------------------------------------------------------


WRONG_AGENTS = {
    "no_such_agent": "neither built in",
    "no_such_module:agent": "importing no_such_module failed: ModuleNotFoundError",
    "tests.support.agents:absent": "has no 'absent'",
    "tests.support.agents:NOT_AN_AGENT": "neither an Agent nor an async function",
    "broken_module:agent": "importing broken_module failed: ZeroDivisionError",
}


@pytest.mark.parametrize("name", WRONG_AGENTS)
def test_what_is_wrong_with_an_agent_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "broken_module.py").write_text("agent = 1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError) as caught:
        load_agent(name)
    assert WRONG_AGENTS[name] in str(caught.value)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


async def test_a_worker_whose_agent_cannot_be_had_ends_with_one_line(
    nats_server: NatsNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it is not there, or says itself that it cannot work."""
    (tmp_path / "unready_module.py").write_text(
        "from agent_worker.context import Agent\n"
        "from broker.errors import ConfigError\n"
        "async def run(ctx):\n    pass\n"
        "async def prepare():\n    raise ConfigError('the model is not there')\n"
        "agent = Agent('unready', run, prepare=prepare)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    async with Stack(tmp_path / "stack", nats_server.url) as stack:
        for name, why in (
            ("no_such_module:agent", "importing no_such_module failed"),
            ("unready_module:agent", "the model is not there"),
        ):
            code, output = await stack.run("worker", name)
            assert code == 1
            (line,) = (line for line in output.splitlines() if line.startswith("antiphon: "))
            assert why in line
            assert "Traceback" not in output


# --- NATS away ------------------------------------------------------------------------------------------------------------------


async def test_a_run_goes_on_through_a_restart_of_nats(nats_server: NatsNode) -> None:
    async with open_site(nats_server.url) as site, site.working():
        run_id = await site.send("s", "stream 150 tokens at 100/s", "a")
        await site.streaming("s")
        await nats_server.kill()
        await nats_server.start()
        transcript = await site.ended("s", run_id)
        assert transcript.state.end_of(run_id) == Ended(run_id, "success")
        assert said(transcript) == tokens(150)


async def test_a_run_is_continued_after_an_outage_beyond_its_lease(nats_server: NatsNode) -> None:
    """The lane is lost, and taken over when NATS is back, by the same worker if it is the only one."""
    async with open_site(nats_server.url) as site, site.working() as worker:
        run_id = await site.send("s", "stream 150 tokens at 100/s", "a")
        await site.streaming("s")
        nats_server.pause()
        async with asyncio.timeout(WAIT_S):
            while not worker.count("jobs_total", end="lost"):
                await asyncio.sleep(0.02)
        nats_server.resume()
        transcript = await site.ended("s", run_id)
        assert transcript.state.end_of(run_id) == Ended(run_id, "success")
        assert said(transcript) == tokens(150)
        await site.has_jobs(0)
