"""`antiphon worker --worker-processes N`: agents in processes of their own, which start again and leave together."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from broker.state import Ended
from tests.support.nats import NatsNode, free_ports
from tests.support.rawclient import http_get
from tests.support.site import Site, open_site, said
from tests.support.stack import Process, Stack

pytestmark = [pytest.mark.timeout(180), pytest.mark.nats_roles]

AGENT = "tests.support.agents_misbehaving:agent"
WAIT_S = 60.0


@pytest.fixture
async def site(nats_server: NatsNode) -> AsyncIterator[Site]:
    async with open_site(nats_server.url) as site:
        yield site


@pytest.fixture
async def stack(tmp_path: Path, nats_server: NatsNode, site: Site) -> AsyncIterator[Stack]:
    # Longer than anything here: what a worker has is its own.
    assert site.log.partitions == 2
    async with Stack(tmp_path / "stack", nats_server.url, partitions=2, lease_s=60.0) as running:
        yield running


def _children(workers: Process) -> list[psutil.Process]:
    return psutil.Process(workers.pid).children()


async def _gone(processes: list[psutil.Process]) -> None:
    async with asyncio.timeout(WAIT_S):
        while any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in processes):
            await asyncio.sleep(0.05)


async def test_an_agent_that_blocks_holds_up_nobody(site: Site, stack: Stack) -> None:
    settings = {"worker_processes": "2", "concurrency": "1", "blocked_limit_s": "0"}
    workers = await stack.worker(AGENT, **settings)
    children = _children(workers)
    assert len(children) == 2
    try:
        blocking = await site.send("blocked", "sleep", "a")
        await site.until("blocked", said)
        for n in range(3):
            run = await site.send(f"free-{n}", "stumble", "a")
            ended = await site.ended(f"free-{n}", run)
            assert ended.state.end_of(run) == Ended(run, "success")
        still = await site.until("blocked", lambda t: bool(t.state.runs))
        assert still.state.end_of(blocking) is None, "it blocks its own process alone"
    finally:
        for child in children:
            child.kill()


async def test_one_that_is_killed_is_started_again(stack: Stack) -> None:
    workers = await stack.worker(AGENT, worker_processes="2")
    victim, other = _children(workers)
    os.kill(victim.pid, signal.SIGKILL)
    async with asyncio.timeout(WAIT_S):
        while len(now := {child.pid for child in _children(workers)}) < 2 or victim.pid in now:
            await asyncio.sleep(0.05)
    assert other.pid in now
    ended = [line for line in workers.logged() if line.get("event") == "a process has ended"]
    assert [(line["kind"], line["code"]) for line in ended] == [("worker", -signal.SIGKILL)]


async def test_what_agents_print_is_printed(site: Site, stack: Stack) -> None:
    workers = await stack.worker(AGENT, worker_processes="2")
    run = await site.send("prints", "print", "a")
    await site.ended("prints", run)
    async with asyncio.timeout(WAIT_S):
        while "a line that is longer than a pipe: " + "x" * 200_000 not in workers.output():
            await asyncio.sleep(0.05)
    assert len(_children(workers)) == 2
    assert "a process has ended" not in workers.output()


async def test_they_leave_together(stack: Stack) -> None:
    workers = await stack.worker(AGENT, worker_processes="3")
    children = _children(workers)
    assert await workers.terminate() == 0
    await _gone(children)


async def test_they_leave_when_their_parent_is_killed(stack: Stack) -> None:
    workers = await stack.worker(AGENT, worker_processes="2")
    children = _children(workers)
    await workers.kill()
    await _gone(children)


async def test_each_has_a_port_of_its_own(stack: Stack) -> None:
    ports = sorted(free_ports(500))
    first = next(port for port, after in pairwise(ports) if after == port + 1)
    workers = await stack.worker(AGENT, worker_processes="2", worker_port=str(first))
    assert len(_children(workers)) == 2
    for port in (first, first + 1):
        assert (await http_get(f"http://127.0.0.1:{port}/healthz"))[0] == 200


async def test_what_cannot_start_is_told(stack: Stack) -> None:
    code, output = await stack.run("worker", "no.such.module:agent", "--worker-processes", "2")
    assert code != 0
    assert "no.such.module" in output
