"""The table of docs/AGENTS.md, row by row: a worker process dies of kill -9 at each place, and another goes on."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from broker.events import (
    ApprovalRequested,
    ApprovalResponded,
    InputSent,
    MessageAttached,
    OtherEvent,
    RunRequested,
    StepStarted,
    ToolClaimed,
    ToolRequested,
    ToolResolved,
)
from broker.transcript import Transcript
from tests.support.agents_dying import PLACES
from tests.support.nats import NatsNode
from tests.support.site import LEASE_S, Site, open_site
from tests.support.stack import Process, Stack, read_entries

AGENT = "tests.support.agents_dying:agent"
SESSION = "s"
PAGE = Path(__file__).parents[2] / "docs/AGENTS.md"
FAR_MS = 10**13

pytestmark = pytest.mark.timeout(300)


@dataclass(frozen=True, slots=True)
class Ended:
    """A run that has lost its first worker, and ended."""

    effects: list[str]
    """What it did to the world, in order."""
    said: str
    events: list[Any]

    def count(self, kind: type) -> int:
        return sum(isinstance(event, kind) for event in self.events)


@dataclass(frozen=True, slots=True)
class Row:
    """Of the table: its first words, what the test does while the first worker is there, and what must be so."""

    words: str
    holds: Callable[[Ended], bool]
    meanwhile: Callable[[Site, Process], Awaitable[None]] | None = None
    """By default the worker dies by itself."""
    pools: tuple[str, ...] = field(default=("default",))


async def _kill(worker: Process) -> None:
    await worker.kill()


async def _call(site: Site, worker: Process) -> None:
    transcript = await site.until(SESSION, lambda t: t.state.calls)
    (call,) = transcript.state.calls.values()
    await worker.kill()
    await site.say(SESSION, ToolClaimed(call.id, "c1", FAR_MS))
    await site.say(SESSION, ToolResolved(call.id, "c1", "picked"))


async def _approve(site: Site, worker: Process) -> None:
    transcript = await site.until(SESSION, lambda t: t.state.approvals)
    (approval,) = transcript.state.approvals.values()
    await worker.kill()
    await site.say(SESSION, ApprovalResponded(approval.id, "allow_once"))


async def _answer(site: Site, worker: Process) -> None:
    await site.until(SESSION, lambda t: any(m.lane == "helper" for m in t.messages))
    await worker.kill()


async def _steer(site: Site, worker: Process) -> None:
    await site.until(SESSION, lambda t: t.state.runs)
    await site.say(SESSION, InputSent("b", "left"))
    await _gone(worker)


async def _finish(site: Site, worker: Process) -> None:
    await site.until(SESSION, lambda t: t.state.end_of("run_a"))
    await worker.kill()


async def _gone(worker: Process) -> None:
    async with asyncio.timeout(30):
        await worker.process.wait()


ROWS = {
    "plain_code": Row("in code of its own", lambda e: e.effects == ["done", "done"]),
    "shown_step": Row(
        "in or after `async with ctx.step(name)`",
        lambda e: e.effects == ["done", "done"] and e.count(StepStarted) == 2,
    ),
    "in_step": Row(
        "in `ctx.step(name, function)`",
        lambda e: len(e.effects) == 2 and len(set(e.effects)) == 1 and e.said == "worked",
    ),
    "after_step": Row("after `ctx.step(name, function)`", lambda e: e.effects == ["done"] and e.said == "worked in 1"),
    "in_idempotent_tool": Row(
        "in `ctx.tool(…, idempotent=True)`",
        lambda e: (
            len(e.effects) == 2 and len(set(e.effects)) == 1 and e.said == "worked" and e.count(ToolRequested) == 1
        ),
    ),
    "in_tool": Row("in `ctx.tool(…)`", lambda e: len(e.effects) == 1 and e.said == "outcome_unknown"),
    "after_tool": Row("after `ctx.tool(…)`", lambda e: len(e.effects) == 1 and e.said == "worked"),
    "waiting_for_client_tool": Row(
        "while `ctx.client_tool(…)` waits", lambda e: e.count(ToolRequested) == 1 and e.said == "picked", _call
    ),
    "waiting_for_approval": Row(
        "while `ctx.approve(…)` or `ctx.ask_user(…)` waits",
        lambda e: e.count(ApprovalRequested) == 1 and e.said == "allow_once",
        _approve,
    ),
    "waiting_for_agent": Row(
        "while `ctx.ask(…)` waits",
        lambda e: e.count(RunRequested) == 1 and e.said == "say it",
        _answer,
        ("default", "helper"),
    ),
    "text_in_the_log": Row("after text that is stored", lambda e: e.said == "one two"),
    "text_on_its_way": Row("after text that is not stored yet", lambda e: e.said == "one and '' before"),
    "steering_taken": Row(
        "after `ctx.take_steering()`",
        lambda e: e.effects == ["waiting", "left", "waiting"] and e.said == "left",
        _steer,
    ),
    "attached": Row("after `ctx.attach(…)`", lambda e: e.count(MessageAttached) == 2),
    "custom_event": Row("after `ctx.custom(…)` or `ctx.state_snapshot(…)`", lambda e: e.count(OtherEvent) == 2),
    "returning": Row(
        "after the function has returned, before the end is stored",
        lambda e: e.effects == ["done", "done"] and e.said == "end",
    ),
    "ended": Row("after the end of the run is stored", lambda e: e.effects == ["done"] and e.said == "end", _finish),
}


@pytest.mark.parametrize("place", ROWS)
async def test_a_worker_dies(nats_server: NatsNode, tmp_path: Path, place: str) -> None:
    row, effects = ROWS[place], tmp_path / "effects"
    async with (
        open_site(nats_server.url, pools=",".join(row.pools)) as site,
        Stack(
            tmp_path / "stack",
            nats_server.url,
            partitions=2,
            lease_s=LEASE_S,
            env={"POOLS": ",".join(row.pools)},
        ) as stack,
    ):
        worker = await stack.worker(AGENT)
        if "helper" in row.pools:
            await stack.worker("echo", pool="helper")
        run_id = await site.send(SESSION, f"{place} {effects}", "a")
        await row.meanwhile(site, worker) if row.meanwhile is not None else await _gone(worker)
        assert not worker.running
        await stack.worker(AGENT)
        transcript = await site.ended(SESSION, run_id)
        await site.has_jobs(0)
        entries = await read_entries(site.log, SESSION)
    assert transcript.state.end_of(run_id).status == "success"  # type: ignore[union-attr]
    lines = effects.read_text(encoding="utf-8").splitlines() if effects.exists() else []
    ended = Ended(lines, _said(transcript, run_id), [event for _, entry in entries for event in entry.events])
    assert row.holds(ended), ended


def _said(transcript: Transcript, run_id: str) -> str:
    return "".join(m.text for m in transcript.messages if m.run == run_id and m.role == "assistant")


def test_every_row_of_the_page_is_shown_here() -> None:
    table = PAGE.read_text(encoding="utf-8").partition("| where the worker dies |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| (.+?) \|", table, re.MULTILINE)
    assert [re.sub(r"\s+", " ", row) for row in rows] == [row.words for row in ROWS.values()]
    assert set(ROWS) == set(PLACES)
