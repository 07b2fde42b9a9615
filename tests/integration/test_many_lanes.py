"""500 lanes stream at once in one worker process: each is durable, and fenced against the worker that had it before."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from broker.events import Participant, RunTakenOver, SessionOwner
from broker.loading import load
from broker.transcript import Transcript
from tests.support.nats import NatsNode
from tests.support.site import Site, open_site
from tests.support.stack import Stack, read_entries

LANES = 500
AGENT = "tests.support.agents:until_open"
STOLEN = 10
"""Lanes that are claimed by somebody else while their worker is alive."""

pytestmark = pytest.mark.timeout(480)


async def streaming(site: Site, names: list[str], run_id: str, attempt: int) -> None:
    """Returns when every one of the sessions has text of that attempt, in the log, and goes on."""
    waiting = set(names)
    async with asyncio.timeout(180):
        while waiting:
            for name in sorted(waiting):
                loaded = await load(site.log, site.log.subjects(name))
                run = loaded.state.runs.get(run_id)
                streams = loaded.state.lane("main").streams
                if run is not None and run.attempt >= attempt and streams:
                    waiting.discard(name)
            await asyncio.sleep(0.2)


async def whole(site: Site, name: str, run_id: str) -> tuple[int, int]:
    """Asserts that each token was said once; returns the attempts that the run had, and the owners of its lane."""
    entries = await read_entries(site.log, name)
    transcript = Transcript()
    for seq, entry in entries:
        transcript.apply(seq, entry)
    assert transcript.state.end_of(run_id).status == "success"  # type: ignore[union-attr]
    said = "".join(m.text for m in transcript.messages if m.role == "assistant")
    *tokens, end = said.split(" ")
    assert end == "end"
    assert tokens == [f"t{number}" for number in range(len(tokens))]
    events = [event for _, entry in entries for event in entry.events]
    owners = sum(isinstance(e, SessionOwner) and e.kind == "agent" for e in events)
    return 1 + sum(isinstance(e, RunTakenOver) for e in events), owners


async def test_500_lanes_in_one_worker(nats_server: NatsNode, tmp_path: Path) -> None:
    gate, names = tmp_path / "gate", [f"many-{number}" for number in range(LANES)]
    env = {"CONCURRENCY": str(LANES), "MAX_ATTEMPTS": "9"}
    async with (
        open_site(nats_server.url) as site,
        Stack(tmp_path / "stack", nats_server.url, partitions=2, lease_s=10.0, env=env) as stack,
    ):
        first = await stack.worker(AGENT)
        for name in names:
            run_id = await site.send(name, str(gate), "a")
        await streaming(site, names, run_id, 1)
        assert first.claimed() == set(names), "all at the same time: none ends before the gate is open"
        stolen = names[:STOLEN]
        for name in stolen:
            # Who takes a lane is obeyed by the log at once, whatever its worker still writes.
            fence = (await load(site.log, site.log.subjects(name))).state.lane("main").fence
            await site.log.claim(site.log.subjects(name), "main", fence, Participant("agent", "w-other"), 1)
        await streaming(site, stolen, run_id, 2)
        assert first.running
        await first.kill()
        await stack.worker(AGENT)
        await streaming(site, names, run_id, 2)
        gate.touch()
        await site.has_no_jobs(wait_s=120)
        found = [await whole(site, name, run_id) for name in names]
    assert all(attempts == 3 and owners == 4 for attempts, owners in found[:STOLEN]), found[:STOLEN]
    assert all(attempts == 2 and owners == 2 for attempts, owners in found[STOLEN:]), found[STOLEN:]
