"""B11: stop aborts a run within 100 ms (p95), at any time, twice, with no worker alive; or it is refused with a reason."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.behaviours.conftest import Figure
from tests.support.nats import NatsNode
from tests.support.place import Frame, Place
from tests.support.plane import at_once, refused
from tests.support.rawclient import Wire
from tests.support.stack import Process, Stack

RUNS = 64
P95_MS = 100.0
KILLED_RUNS = 6
STREAM = "stream 1000000 tokens at 200/s"
WALKER = "tests.support.agents_steering:walker"

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
async def hasty(tmp_path: Path, nats_server: NatsNode) -> AsyncIterator[Stack]:
    """A stack whose leases are short: a dead worker is replaced soon."""
    async with Stack(tmp_path / "stack", nats_server.url, lease_s=1.0) as running:
        yield running


async def test_click_to_abort(stack: Stack, figure: Figure) -> None:
    """Whoever stops the run and whoever sees it stop are at different gateways."""
    gateways = await stack.start(2)
    token, place, took_ms = stack.token(), Place("stopped", frames=[]), []
    async with await Wire.open(gateways[0].url, token) as one, await Wire.open(gateways[1].url, token) as other:
        await one.subscribe(place)
        for i in range(RUNS):
            stopping = (one, other)[i % 2]
            took_ms.append(await _abort_ms(stopping, one, place, f"i{i}"))
    p50, p95 = _percentiles(took_ms)
    _check_cancelled(place, [f"run_i{i}" for i in range(RUNS)])
    assert p95 < P95_MS
    figure(f"{RUNS} runs at two gateways: click to abort p50 {p50:.0f} ms, p95 {p95:.0f} ms, worst {max(took_ms):.0f}")


async def _abort_ms(stopping: Wire, watching: Wire, place: Place, input_id: str) -> float:
    """Begins a run, and stops it in mid-answer; returns the time from the command to the frame with its end."""
    run = f"run_{input_id}"
    await stopping.input(place.session, input_id, STREAM)
    await watching.follow(place, lambda p: len(p.answer(run)) >= 20)
    begin = time.monotonic()
    id_ = stopping.send("run.cancel", session=place.session, runId=run)
    await watching.follow(place, lambda p: run in p.ended)
    took_s = time.monotonic() - begin
    assert (await _reply(stopping, id_))["status"] in ("cancelling", "cancelled")
    return took_s * 1000


async def test_acknowledged_or_refused_with_a_reason(hasty: Stack, figure: Figure) -> None:
    one, two = await hasty.start(2, workers=0)
    token, place = hasty.token(), Place("told", frames=[])
    async with await Wire.open(one.url, token) as near, await Wire.open(two.url, token) as far:
        await far.subscribe(place)

        # No worker is alive: what waits never starts.
        for input_id in ("a", "b"):
            await near.input("told", input_id, STREAM)
        await refused(far, "run_not_found", "run.cancel", session="told", runId="run_x")
        assert await _stop(far, "a") == await _stop(near, "a") == "cancelled"
        first = await hasty.worker()
        await far.follow(place, lambda p: len(p.answer("run_b")) >= 20)
        assert place.started == ["run_b"]

        # Before its turn, then while it runs: twice at once, at both gateways.
        await near.input("told", "c", STREAM)
        assert await _stop(far, "c") == "cancelled"
        fields = {"session": "told", "runId": "run_b"}
        won, lost = await at_once((near, "run.cancel", fields), (far, "run.cancel", fields))
        assert {reply["status"] for reply in won} <= {"cancelling", "cancelled"}
        assert (len(won), lost) == (2, [])
        await far.follow(place, lambda p: "run_b" in p.ended)
        assert await _stop(near, "b") == "cancelled"

        # A run that has ended is beyond it, and the run after it is not touched.
        await near.input("told", "d", "four words and no more")
        await far.follow(place, lambda p: "run_d" in p.ended)
        await near.input("told", "e", STREAM)
        await refused(near, "run_ended", "run.cancel", session="told", runId="run_d")
        await far.follow(place, lambda p: len(p.answer("run_e")) >= 20)

        # Its worker is dead, and no other alive.
        await first.kill()
        assert await _stop(far, "e") == await _stop(near, "e") == "cancelling"
        await hasty.worker()
        await far.follow(place, lambda p: "run_e" in p.ended)
    assert place.started == [f"run_{i}" for i in "bde"]
    assert place.applied == list("bde")
    _check_cancelled(place, ["run_b", "run_e"], others={"run_d": "success"})
    figure(
        "acknowledged before start, in the queue, twice at once, with no worker; an unknown and an ended run refused"
    )


async def test_after_the_step(stack: Stack, figure: Figure) -> None:
    async with asyncio.TaskGroup() as tasks:
        starting = [tasks.create_task(stack.gateway()) for _ in range(2)]
        tasks.create_task(stack.worker(WALKER))
    one, two = [task.result() for task in starting]
    token, place, runs = stack.token(), Place("walk", frames=[]), [f"run_w{i}" for i in range(5)]
    async with await Wire.open(one.url, token) as near, await Wire.open(two.url, token) as far:
        await near.subscribe(place)
        for run in runs:
            await far.input("walk", run.removeprefix("run_"), "walk")
            await near.follow(place, lambda p, run=run: "begin 1 " in p.answer(run))  # type: ignore[misc]
            await far.command("run.cancel", session="walk", runId=run, mode="after_step")
            await near.follow(place, lambda p, run=run: run in p.ended)  # type: ignore[misc]

        # A step that does not end is stopped by the other mode.
        await far.input("walk", "long", "one long step")
        await near.follow(place, lambda p: "begin" in p.answer("run_long"))
        fields = {"session": "walk", "runId": "run_long"}
        status = (await far.command("run.cancel", **fields, mode="after_step"))["status"]
        assert status == (await near.command("run.cancel", **fields, mode="after_step"))["status"] == "cancelling"
        assert "run_long" not in place.ended
        await far.command("run.cancel", **fields)
        await near.follow(place, lambda p: "run_long" in p.ended)
    for run in runs:
        steps = place.answer(run).count("begin")
        assert place.answer(run) == "".join(f"begin {i} end {i} " for i in range(steps))
        assert _steps(place, run) == (steps, steps)
    assert place.answer("run_long") == "begin 0 "
    _check_cancelled(place, [*runs, "run_long"], text_reasons={"cancelled", "complete"})
    figure(f"after_step ended {len(runs)} runs with whole steps; `immediate` outdid it in a step without end")


async def test_the_worker_is_killed_when_the_stop_is_acknowledged(hasty: Stack, figure: Figure) -> None:
    """Every other time it cannot have begun to stop; else it may be anywhere on the way."""
    gateways = await hasty.start(2, workers=2)
    workers = [process for process in hasty.processes if process.name.startswith("worker")]
    token, place = hasty.token(), Place("killed", frames=[])
    async with await Wire.open(gateways[0].url, token) as near, await Wire.open(gateways[1].url, token) as far:
        await near.subscribe(place)
        for i in range(KILLED_RUNS):
            run = f"run_i{i}"
            await far.input("killed", f"i{i}", STREAM)
            await near.follow(place, lambda p, run=run: len(p.answer(run)) >= 20)  # type: ignore[misc]
            owner = _owner(workers)
            if i % 2 == 0:
                owner.pause()
            assert await _stop(far, f"i{i}", "killed") == "cancelling" or i % 2
            await owner.kill()
            workers.remove(owner)
            async with asyncio.TaskGroup() as tasks:
                new = tasks.create_task(hasty.worker())
                tasks.create_task(near.follow(place, lambda p, run=run: run in p.ended))  # type: ignore[misc]
            workers.append(new.result())
    _check_cancelled(place, [f"run_i{i}" for i in range(KILLED_RUNS)])
    figure(f"{KILLED_RUNS} workers killed just when the stop was acknowledged: all runs cancelled by the next")


def _owner(workers: list[Process]) -> Process:
    """The worker that has claimed the lane last. Only one session is worked on."""
    return max(workers, key=lambda worker: max(_fences(worker), default=0))


def _fences(worker: Process) -> list[int]:
    said = [json.loads(line) for line in worker.output().splitlines() if line.startswith("{")]
    return [line["fence"] for line in said if line.get("event") == "lane claimed"]


async def _stop(wire: Wire, input_id: str, session: str = "told") -> str:
    reply = await wire.command("run.cancel", session=session, runId=f"run_{input_id}")
    assert reply["runId"] == f"run_{input_id}"
    return str(reply["status"])


async def _reply(wire: Wire, id_: int) -> Frame:
    """The reply to a command that was sent before."""
    async with asyncio.timeout(10):
        while id_ not in wire._replies:
            await wire._pump()
    reply = wire._replies.pop(id_)
    assert reply["op"] == "ok", reply
    return reply


def _percentiles(values: list[float]) -> tuple[float, float]:
    parts = statistics.quantiles(values, n=20)
    return parts[9], parts[18]


def _check_cancelled(
    place: Place,
    runs: list[str],
    *,
    others: dict[str, str] | None = None,
    text_reasons: set[str] | None = None,
) -> None:
    """Each of the runs has ended once, as cancelled; what was said stays, and nothing is open."""
    assert place.whole, place
    assert place.ended == dict.fromkeys(runs, "cancelled") | (others or {})
    finished = [event["runId"] for event in _events(place, "RUN_FINISHED")]
    assert sorted(finished) == sorted(place.ended)
    for id_, text in place.texts.items():
        assert text.done
        if place.said_in[id_] in runs:
            assert text.reason in (text_reasons or {"cancelled", "worker_lost"})
            assert text.length > 0


def _steps(place: Place, run: str) -> tuple[int, int]:
    """Steps of a run that have begun and ended."""
    kinds = [event["type"] for frame in place.frames or () if frame.get("run") == run for event in frame["events"]]
    return kinds.count("STEP_STARTED"), kinds.count("STEP_FINISHED")


def _events(place: Place, kind: str) -> list[dict[str, Any]]:
    return [event for frame in place.frames or () for event in frame["events"] if event["type"] == kind]
