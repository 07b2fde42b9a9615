"""One worker process for several pools, each with an agent of its own: both serve, ask each other, and drain together."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.nats import NatsNode
from tests.support.site import LEASE_S, Site, open_site, said, tokens
from tests.support.stack import Process, Stack

POOLS = "default,helper"
AGENTS = ("--agent", "default=tests.support.agents:asks_helper", "--agent", "helper=echo")

pytestmark = [pytest.mark.timeout(300), pytest.mark.nats_roles]


async def hire(stack: Stack) -> Process:
    return await stack.start_worker(AGENTS)


def stack_of(tmp_path: Path, url: str, lease_s: float = LEASE_S) -> Stack:
    return Stack(tmp_path / "stack", url, partitions=2, lease_s=lease_s, env={"POOLS": POOLS, "WORKER_DRAIN_S": "1"})


async def ends(site: Site, session: str, run_id: str) -> str:
    transcript = await site.ended(session, run_id)
    assert transcript.state.end_of(run_id).status == "success"  # type: ignore[union-attr]
    return said(transcript)


async def test_agents_of_several_pools_in_one_process(nats_server: NatsNode, tmp_path: Path) -> None:
    async with open_site(nats_server.url, pools=POOLS) as site, stack_of(tmp_path, nats_server.url) as stack:
        worker = await hire(stack)
        assert await ends(site, "s", await site.send("s", "say this", "a")) == "say thisthe helper says: say this"
        run_id = await site.send("t", "stream 30 tokens at 50/s", "a")
        assert tokens(30) in await ends(site, "t", run_id)
        assert await worker.terminate() == 0


async def test_runs_of_all_pools_are_handed_over(nats_server: NatsNode, tmp_path: Path) -> None:
    """The lease is long: what moves at once has been handed over."""
    stack = stack_of(tmp_path, nats_server.url, lease_s=60.0)
    async with open_site(nats_server.url, pools=POOLS) as site, stack:
        first = await hire(stack)
        run_id = await site.send("s", "stream 300 tokens at 100/s", "a")
        await site.until("s", lambda t: any(m.lane == "helper" and len(m.text) > 50 for m in t.messages))
        second = await hire(stack)
        assert await first.terminate() == 0
        whole = await ends(site, "s", run_id)
        assert whole.endswith(f"the helper says: {tokens(300).rstrip()}")
        assert second.running


@pytest.mark.parametrize(
    "args",
    [
        (),
        ("echo", "--agent", "default=echo"),
        ("--agent", "echo"),
        ("--agent", "default=echo", "--agent", "default=echo"),
        ("--agent", "a.b=echo"),
        ("--agent", "default=nowhere:agent"),
    ],
)
async def test_what_is_wrong_is_said_in_one_line(nats_server: NatsNode, tmp_path: Path, args: tuple[str, ...]) -> None:
    code, output = await stack_of(tmp_path, nats_server.url).run("worker", *args)
    assert code == 1
    (line,) = output.splitlines()
    assert line.startswith("antiphon: ")
