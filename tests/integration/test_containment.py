"""An agent that blocks, leaks, raises in its cleanup or ignores its cancel: it is named, and the others go on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from broker.state import Ended
from broker.transcript import Transcript
from tests.support.agents_misbehaving import agent, keeper
from tests.support.nats import NatsNode
from tests.support.site import Site, open_site, said
from tests.support.stack import Process, Stack

pytestmark = [pytest.mark.timeout(300), pytest.mark.nats_roles]

COUNTED = "count " + "".join(f"{number} " for number in range(60))


@asynccontextmanager
async def one_worker(tmp_path: Path, url: str, **env: str) -> AsyncIterator[tuple[Site, Process]]:
    """A worker process with a lease that is longer than anything here, and nobody beside it."""
    settings = {"BLOCKED_WARN_S": "0.1", "BLOCKED_LIMIT_S": "1", "CANCEL_GRACE_S": "0.5", **env}
    async with (
        open_site(url) as site,
        Stack(tmp_path / "stack", url, partitions=2, lease_s=30.0, env=settings) as stack,
    ):
        yield site, await stack.worker("tests.support.agents_misbehaving:agent")


async def logged(worker: Process, event: str) -> dict[str, Any]:
    """The line of the worker's log, once it is there."""
    async with asyncio.timeout(60):
        while not (lines := [line for line in worker.logged() if line.get("event") == event]):
            await asyncio.sleep(0.02)
    return lines[0]


def untouched(transcript: Transcript, run_id: str) -> None:
    """The other run went on at the same worker, and said all."""
    assert transcript.state.end_of(run_id) == Ended(run_id, "success")
    assert said(transcript) == COUNTED
    assert [message.reason for message in transcript.messages] == ["complete", "complete"]


@pytest.mark.parametrize("word", ["sleep", "spin"])
async def test_an_agent_that_blocks_is_named_and_interrupted(nats_server: NatsNode, tmp_path: Path, word: str) -> None:
    async with one_worker(tmp_path, nats_server.url) as (site, worker):
        counting = await site.send("good", "count", "a")
        await site.streaming("good")
        blocking = await site.send("bad", word, "a")
        assert (await site.ended("bad", blocking)).state.end_of(blocking) == Ended(blocking, "error")
        (error,) = await site.errors("bad")
        assert (error.code, error.message) == ("agent_error", "the agent raised EventLoopBlocked")
        untouched(await site.ended("good", counting), counting)
        line = await logged(worker, "an agent holds up the event loop")
        assert (line["agent"], line["session"], line["run"]) == ("misbehaving", "bad", blocking)
        assert line["place"].endswith(" _run")
        assert "agents_misbehaving.py:" in line["place"]
        assert said(await site.ended("bad", await site.send("bad", "again", "b"))).endswith("again ")
        assert worker.running


async def test_a_short_block_is_named_alone(nats_server: NatsNode, tmp_path: Path) -> None:
    async with one_worker(tmp_path, nats_server.url) as (site, worker):
        run_id = await site.send("s", "stumble", "a")
        assert (await site.ended("s", run_id)).state.end_of(run_id) == Ended(run_id, "success")
        assert (await logged(worker, "an agent holds up the event loop"))["run"] == run_id


async def test_tasks_that_an_agent_leaves_behind_are_ended(nats_server: NatsNode) -> None:
    async with open_site(nats_server.url) as site, site.working(agent) as working:
        counting = await site.send("good", "count", "a")
        leaking = await site.send("bad", "leak", "a")
        assert (await site.ended("bad", leaking)).state.end_of(leaking) == Ended(leaking, "success")
        async with asyncio.timeout(60):
            while _forever_tasks():
                await asyncio.sleep(0.01)
        assert working.count("tasks_leaked_total") == 3
        untouched(await site.ended("good", counting), counting)


async def test_tasks_that_are_meant_to_live_on_do(nats_server: NatsNode) -> None:
    async with open_site(nats_server.url) as site, site.working(keeper) as working:
        await site.ended("s", await site.send("s", "leak", "a"))
        await site.has_jobs(0)
        assert (len(_forever_tasks()), working.count("tasks_leaked_total")) == (3, 0)
        for task in _forever_tasks():
            task.cancel()


def _forever_tasks() -> list[asyncio.Task[Any]]:
    return [task for task in asyncio.all_tasks() if "_forever" in str(task.get_coro())]


async def test_an_agent_that_raises_in_its_cleanup_is_named(nats_server: NatsNode, tmp_path: Path) -> None:
    async with one_worker(tmp_path, nats_server.url) as (site, worker):
        counting = await site.send("good", "count", "a")
        run_id = await site.send("bad", "cleanup", "a")
        await site.streaming("bad")
        await site.cancel("bad", run_id)
        assert (await site.ended("bad", run_id)).state.end_of(run_id) == Ended(run_id, "cancelled")
        line = await logged(worker, "the agent raised while it was stopped")
        assert (line["agent"], line["error"], line["run"]) == ("misbehaving", "LookupError", run_id)
        untouched(await site.ended("good", counting), counting)


async def test_an_agent_that_ignores_its_cancel_is_named(nats_server: NatsNode, tmp_path: Path) -> None:
    async with one_worker(tmp_path, nats_server.url) as (site, worker):
        counting = await site.send("good", "count", "a")
        run_id = await site.send("bad", "ignore", "a")
        await site.streaming("bad")
        await site.cancel("bad", run_id)
        assert (await site.ended("bad", run_id)).state.end_of(run_id) == Ended(run_id, "cancelled")
        line = await logged(worker, "the agent does not return after being cancelled")
        assert (line["agent"], line["run"]) == ("misbehaving", run_id)
        untouched(await site.ended("good", counting), counting)
        assert await worker.terminate() == 0
