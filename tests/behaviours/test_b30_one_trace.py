"""B30: one trace from an input to the last delivered token; metrics tell resumes, gaps, duplicates.

The trace goes through two gateways, a worker that is killed, the one that takes over, a tool of the agent's, a tool of a
client's, a decision, and another agent. Spans come to a real collector over OTLP; `antiphon trace` tells the same from
the log alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.behaviours.conftest import Figure
from tests.support.agents_tracing import TEXT, TOKENS
from tests.support.collector import Collector, Received, collector
from tests.support.crew import owner_of
from tests.support.nats import NatsNode
from tests.support.place import Frame, Place
from tests.support.rawclient import WAIT_S, Wire, http_get, join
from tests.support.stack import Process, Stack, metric
from tests.support.tcp import Proxy, proxy_to

POOLS = "default,helper"
RUN, INPUT, SESSION = "run_a", "a", "traced"
MARKER = "marker-c0ffee"
"""What a user says, and nobody else: it must be in no log line and in no span."""
ARGS = '{}{"kind":"pdf"}'
"""Arguments of calls are texts, too."""
MS = 1_000_000
PICK = {"name": "pick_file", "parameters": {"type": "object"}, "idempotent": True}

pytestmark = pytest.mark.timeout(120)


@dataclass(slots=True)
class Span:
    """A span that a client makes itself, and tells the gateway of."""

    trace_id: str = field(default_factory=lambda: secrets.token_hex(16))
    span_id: str = field(default_factory=lambda: secrets.token_hex(8))
    flags: str = "01"

    @property
    def headers(self) -> dict[str, str]:
        return {"traceparent": f"00-{self.trace_id}-{self.span_id}-{self.flags}", "tracestate": "vendor=abc"}


@dataclass(slots=True)
class World:
    """Gateways, workers of the agent `traced`, one of `helper`, and a collector."""

    stack: Stack
    collector: Collector
    gateways: list[Process]
    workers: list[Process]

    @property
    def processes(self) -> list[Process]:
        return self.stack.processes


@contextlib.asynccontextmanager
async def _world(stack: Stack, gateways: int = 2, workers: int = 2) -> AsyncIterator[World]:
    """With fewer than two workers nobody serves the pool `helper`."""
    await stack.apply_topology(pools=POOLS)
    agents = "tests.support.agents_tracing:"
    async with collector() as found:
        env = {"pools": POOLS, "otlp_endpoint": found.url, "span_export_s": "0.1"}
        world = World(stack, found, await _started(*(stack.gateway(**env) for _ in range(gateways))), [])
        world.workers += await _started(*(stack.worker(f"{agents}traced", **env) for _ in range(workers)))
        if workers > 1:
            await stack.worker(f"{agents}helper", pool="helper", **env)
        yield world


async def _started(*starting: Coroutine[Any, Any, Process]) -> list[Process]:
    async with asyncio.TaskGroup() as tasks:
        started = [tasks.create_task(one) for one in starting]
    return [task.result() for task in started]


async def test_one_trace_to_the_last_token(stack: Stack, figure: Figure) -> None:
    async with _world(stack) as world:
        root = Span()
        mine, theirs, claimed = await _conversation(world, root)
        spans = await _all_spans(world, root)
        known = _one_connected_trace(spans, {root.span_id, *claimed})
        _nothing_is_missing(spans)
        _in_causal_order(known)
        _the_takeover(world.collector)
        _what_clients_got(root, spans, mine, theirs)
        _ends_with_the_last_token(world.collector, mine, theirs)
        lines = _logs_tell_ids_and_no_content(world, root)
        await _the_log_alone_tells_it(stack, root)
    attempts = len(world.collector.named("run", run=RUN))
    figure(
        f"{len(spans)} spans of {len({s.instance for s in spans})} processes in one trace, every parent there, "
        f"{attempts} attempts, {TOKENS} tokens to 2 readers; content in 0 of {lines} log lines"
    )


async def _conversation(world: World, root: Span) -> tuple[Place, Place, set[str]]:
    """From the input to its end, with the worker killed among the tokens; what both clients got, and a client's spans."""
    mine, theirs = Place(SESSION, frames=[]), Place(SESSION, frames=[])
    token = world.stack.token()
    async with (
        await Wire.open(world.gateways[0].url, token) as sender,
        await Wire.open(world.gateways[1].url, token) as other,
    ):
        mine.subscribed(await sender.command("subscribe", tools=[PICK], **mine.subscription()))
        await other.subscribe(theirs)
        await sender.follow(mine, lambda p: p.caught_up)
        await other.follow(theirs, lambda p: p.caught_up)
        reply = await sender.command("input.send", session=SESSION, inputId=INPUT, content=MARKER, **root.headers)
        assert reply["traceparent"].split("-")[1] == root.trace_id
        claimed = await _execute(sender, mine)
        approval = await _event(sender, mine, "approval.requested")
        await sender.command(
            "approval.respond", session=SESSION, approvalId=approval["approvalId"], option="allow_once"
        )
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(sender.follow(mine, lambda p: RUN in p.ended))
            tasks.create_task(other.follow(theirs, lambda p: RUN in p.ended))
            tasks.create_task(_kill_among_tokens(world, mine))
    for place in (mine, theirs):
        assert place.whole
        assert place.ended == {"run_" + _child(place): "success", RUN: "success"}
        assert place.answer(RUN) == ARGS + TEXT
    return mine, theirs, claimed


async def _kill_among_tokens(world: World, place: Place) -> None:
    while len(place.answer(RUN)) < 100:
        await asyncio.sleep(0.02)
    await owner_of(world.workers, SESSION).kill()


async def _execute(wire: Wire, place: Place) -> set[str]:
    """Executes the tool, in a span of the client's own below that of the run."""
    asked = await _event(wire, place, "tool.requested", executor="client")
    frame = next(f for f in _frames(place) if asked in f["events"])
    _, trace_id, _, flags = frame["traceparent"].split("-")
    span = Span(trace_id, flags=flags)
    call = {"session": SESSION, "toolCallId": asked["toolCallId"], "claimId": "c1"}
    await wire.command("tool.claim", **call, **span.headers)
    # Without a span of its own, the command continues the run's trace all the same.
    await wire.command("tool.result", **call, result={"file": "a.pdf"})
    return {span.span_id}


async def _event(wire: Wire, place: Place, kind: str, **fields: Any) -> Frame:
    """The first event of a kind."""

    def found() -> Frame | None:
        events = (event for frame in _frames(place) for event in frame["events"])
        return next((e for e in events if e["type"] == kind and fields.items() <= e.items()), None)

    await wire.follow(place, lambda _: found() is not None)
    event = found()
    assert event is not None
    return event


def _frames(place: Place) -> list[Frame]:
    assert place.frames is not None
    return place.frames


def _child(place: Place) -> str:
    events = (event for frame in _frames(place) for event in frame["events"])
    return next(e["inputId"] for e in events if e["type"] == "run.requested")


async def _all_spans(world: World, root: Span) -> list[Received]:
    """Returns when nothing of the request is to come: each gateway has told of what it delivered of both runs."""
    async with asyncio.timeout(WAIT_S):
        while len(world.collector.named("deliver")) < 4 or not world.collector.named("run", run=RUN, end="success"):
            await asyncio.sleep(0.05)
    for process in world.processes:
        await process.terminate()
    assert MARKER.encode() not in world.collector.raw
    assert TEXT[:30].encode() not in world.collector.raw
    return [span for span in world.collector.spans if span.trace_id == root.trace_id]


def _one_connected_trace(spans: list[Received], clients: set[str]) -> dict[str, Received]:
    """By id. Every parent is there, or is a client's own."""
    known = {span.span_id: span for span in spans}
    assert len(known) == len(spans), "a span was told of twice"
    assert not {span.name for span in spans if not span.parent}, "only the client's span has no parent"
    orphans = [span.name for span in spans if span.parent not in known.keys() | clients]
    assert not orphans
    return known


def _nothing_is_missing(spans: list[Received]) -> None:
    count: dict[str, int] = {}
    for span in spans:
        count[span.name] = count.get(span.name, 0) + 1
    assert count.pop("append") == 4  # of the four commands
    assert count.pop("step") == 2  # each attempt thinks
    # The second attempt finds what the first has asked, and waits no more: but it says so.
    assert count.pop("tool") == 4
    assert count.pop("approval") == 2
    assert count == {
        "input.send": 1,
        "tool.claim": 1,
        "tool.result": 1,
        "approval.respond": 1,
        "dispatch": 2,
        "run": 3,
        "first_token": 2,
        "model": 1,
        "deliver": 4,
    }


def _in_causal_order(known: dict[str, Received]) -> None:
    for span in known.values():
        assert span.start_ns <= span.end_ns, span.name
        above = known.get(span.parent)
        # The log has whole milliseconds.
        assert above is None or above.start_ns <= span.start_ns + MS, (above.name, span.name)


def _the_takeover(found: Collector) -> None:
    lost, went_on = found.named("run", run=RUN)
    assert (lost.attributes["antiphon.end"], lost.failed) == ("worker_lost", True)
    assert went_on.links == (lost.span_id,)
    assert {span.links for span in found.named("deliver", run=RUN)} == {(went_on.span_id,)}
    assert went_on.parent == lost.parent == found.named("input.send")[0].span_id
    (child,) = (span for span in found.named("run") if span.attributes["antiphon.lane"] == "helper")
    assert child.parent == lost.span_id
    (model,) = found.named("model")
    assert model.parent == lost.span_id, "an author's own instrumentation belongs to the run"


def _what_clients_got(root: Span, spans: list[Received], *places: Place) -> None:
    (stored,) = (span for span in spans if span.name == "input.send")
    assert stored.parent == root.span_id
    assert stored.state == "vendor=abc"
    runs = {span.span_id for span in spans if span.name == "run"}
    for place in places:
        records = [frame for frame in _frames(place) if frame.get("run") or "via" in frame]
        deltas = [frame for frame in _frames(place) if "off" in frame]
        assert len(records) > 10
        assert len(deltas) > 10
        assert all(frame["traceparent"].split("-")[1] == root.trace_id for frame in records)
        assert {frame["traceparent"].split("-")[2] for frame in records if frame.get("run")} == runs
        assert all(frame["tracestate"] == "vendor=abc" for frame in records)
        assert not any("traceparent" in frame for frame in deltas)
        (sent,) = (f for f in records if f["events"][0]["type"] == "input.sent")
        assert sent["traceparent"] == f"00-{root.trace_id}-{stored.span_id}-01"
        # The author has it, to pass it on.
        told = [e["value"] for f in records for e in f["events"] if e["type"] == "CUSTOM"]
        assert {headers["traceparent"].split("-")[2] for headers in told} < runs


def _ends_with_the_last_token(found: Collector, *places: Place) -> None:
    delivered = found.named("deliver", run=RUN)
    assert len({span.attributes["antiphon.gateway"] for span in delivered}) == 2
    for span in delivered:
        assert span.attributes["antiphon.readers"] == 1
    last = max(span.end_ns for span in delivered)
    for place in places:
        last_delta = max(frame["ts"] for frame in _frames(place) if "off" in frame and frame["lane"] == "main")
        assert last_delta * MS <= last
    assert all(span.start_ns <= last for span in found.spans)
    # Only what is around it ends later: the run, which has its end still to write.
    assert {span.name for span in found.spans if span.end_ns > last} <= {"run"}


def _logs_tell_ids_and_no_content(world: World, root: Span) -> int:
    """How many lines there are."""
    told: dict[str, list[dict[str, Any]]] = {}
    count = 0
    for process in world.processes:
        output = process.output()
        assert MARKER not in output
        assert "t17 t18" not in output
        for line in output.splitlines():
            if not line.startswith("ready "):
                said = json.loads(line)
                count += 1
                assert {"event", "level", "timestamp"} <= said.keys()
                told.setdefault(said["event"], []).append(said)
    (stored,) = told["input stored"]
    assert (stored["session"], stored["input"], stored["trace"]) == (SESSION, INPUT, root.trace_id)
    assert stored["connection"].startswith("c-")
    assert stored["process"].startswith("gw-")
    for event in ("run started", "run ended"):
        for line in told[event]:
            assert {"session", "lane", "run", "attempt", "trace", "process"} <= line.keys()
            assert (line["session"], line["trace"]) == (SESSION, root.trace_id)
    assert sorted(line["attempt"] for line in told["run started"] if line["run"] == RUN) == [1, 2]
    assert {line["session"] for line in told["lane claimed"]} == {SESSION}
    return count


async def _the_log_alone_tells_it(stack: Stack, root: Span) -> None:
    """`antiphon trace`, by each kind of id: no gateway runs any more, and no worker."""
    answers = []
    for command in ((INPUT,), (RUN,), (root.trace_id,), (RUN, "--session", SESSION)):
        code, output = await stack.run("trace", *command, "--json")
        assert code == 0, output
        answers.append(json.loads(output))
    assert all(answer["moments"] == answers[0]["moments"] for answer in answers)
    told = answers[0]
    assert (told["session"], told["traces"], told["ended"]) == (SESSION, [root.trace_id], True)
    whats = [moment["what"] for moment in told["moments"]]
    for before, after in (
        ("input stored", "lane claimed"),
        ("lane claimed", "run started"),
        ("run started", "step started"),
        ("tool requested", "tool claimed"),
        ("tool claimed", "tool resolved"),
        ("approval requested", "approval answered"),
        ("approval answered", "asks an agent"),
        ("asks an agent", "run taken over"),
        ("first token", "run taken over"),
    ):
        assert whats.index(before) < whats.index(after), (before, after)
    assert whats[0] == "input stored"
    assert whats[-3:] == ["last token", "text ended", "run ended"]
    first = told["moments"][0]["ids"]
    assert first["gateway"].startswith("gw-")
    assert first["characters"] == len(MARKER)
    assert MARKER not in json.dumps(told)
    code, output = await stack.run("trace", secrets.token_hex(16))
    assert code == 1
    assert "--session" in output


async def test_what_a_client_does_not_want_recorded_is_not(stack: Stack, figure: Figure) -> None:
    """The trace goes on all the same, for whoever is behind; and a gateway makes one where there is none."""
    async with _world(stack, gateways=1, workers=1) as world:
        async with await Wire.open(world.gateways[0].url, stack.token()) as wire:
            quiet = Span(flags="00")
            for session, headers in (
                ("quiet", quiet.headers),
                ("none", {}),
                ("bad", {"traceparent": f"00-{'0' * 32}-{'1' * 16}-01"}),
            ):
                place = Place(session, frames=[])
                await wire.subscribe(place)
                await wire.command("input.send", session=session, inputId="h", content="hello", **headers)
                parents = await _parents_of_one_run(wire, place)
                flags = {parent.split("-")[3] for parent in parents}
                assert flags == ({"00"} if session == "quiet" else {"03"})
                if session == "quiet":
                    assert {parent.split("-")[1] for parent in parents} == {quiet.trace_id}
        for process in world.processes:
            await process.terminate()
        # An author's own instrumentation (`model`) knows no sessions.
        sessions = {span.attributes["antiphon.session"] for span in world.collector.spans if span.name != "model"}
        assert sessions == {"none", "bad"}
        roots = [span for span in world.collector.named("input.send") if not span.parent]
        assert len(roots) == 2
    figure("unsampled: 0 spans, context kept; without or with a bad traceparent: a new trace")


async def _parents_of_one_run(wire: Wire, place: Place) -> list[str]:
    """The traceparents of the records up to where the run waits for a tool of a client, which nobody has."""
    await _event(wire, place, "tool.requested", executor="client")
    await wire.command("run.cancel", session=place.session, runId="run_h")
    await wire.follow(place, lambda p: "run_h" in p.ended)
    return [frame["traceparent"] for frame in _frames(place) if frame.get("run") or "via" in frame]


async def test_a_collector_that_hangs_or_is_away_costs_nothing_but_spans(stack: Stack, figure: Figure) -> None:
    async with collector() as hanging:
        hanging.hang = True
        env = {"span_queue": "8", "span_export_s": "0.05"}
        hangs = {"otlp_endpoint": hanging.url, "otlp_timeout_s": "60", **env}
        # A send is tried again until its time is up.
        nowhere = {"otlp_endpoint": "http://127.0.0.1:9", "otlp_timeout_s": "0.5", **env}
        stuck, away = await _started(stack.gateway(**hangs), stack.gateway(**nowhere))
        await stack.worker(**hangs)
        dropped = []
        for gateway, reason in ((stuck, "queue_full"), (away, "failed")):
            session = f"hang-{reason.replace('_', '-')}"
            async with await Wire.open(gateway.url, stack.token()) as wire:
                place = Place(session)
                await wire.subscribe(place)
                for n in range(12):
                    await wire.input(session, f"i{n}", f"hello {n}")
                    await wire.follow(place, lambda p, n=n: f"run_i{n}" in p.ended)  # type: ignore[misc]
            dropped.append(await _until(gateway, "antiphon_spans_dropped_total", 1, reason=reason))
            assert await gateway.terminate() == 0
        assert hanging.requests >= 1
        assert not hanging.spans
    figure(
        f"24 runs through; spans dropped: {dropped[0]:.0f} for want of room, {dropped[1]:.0f} that could not be sent"
    )


async def _until(process: Process, name: str, least: float, **labels: str) -> float:
    """The value of a counter, once it is that much."""
    async with asyncio.timeout(WAIT_S):
        while True:
            _, exposition = await http_get(f"{process.url}/metrics")
            value = metric(exposition, name, **labels)
            if value >= least:
                return value
            await asyncio.sleep(0.05)


async def test_metrics_tell_resumes_gaps_and_duplicates(tmp_path: Path, nats_server: NatsNode, figure: Figure) -> None:
    """Each is provoked once, in a gateway whose connection to NATS loses messages when told to."""
    async with proxy_to(nats_server.url) as lossy:
        lossy.losing = True
        async with Stack(tmp_path / "stack", nats_server.url) as stack:
            gateway = await stack.gateway(nats_url=lossy.url, ring_entries="64")
            await stack.worker()
            await _provoke(gateway, stack.token(), lossy)
            _, exposition = await http_get(f"{gateway.url}/metrics")
    assert _resumes(exposition) == {"snapshot": 1, "ring": 1, "log": 1, "gap": 1}
    assert metric(exposition, "antiphon_gateway_inputs_total", kind="duplicate") == 1
    assert metric(exposition, "antiphon_gateway_rewinds_total") == 1
    assert metric(exposition, "antiphon_log_gaps_repaired_total") == 1
    # The token that brought it to light was in what was read from the log, and came live as well.
    assert metric(exposition, "antiphon_log_duplicates_dropped_total") >= 1
    lags = metric(exposition, "antiphon_gateway_fan_out_lag_seconds_count")
    lag_ms = metric(exposition, "antiphon_gateway_fan_out_lag_seconds_sum") / lags * 1000
    figure(
        "1 resumed from the ring, 1 from the log, 1 duplicate input, 1 gap found and filled: each counted once; from "
        f"stored to written {lag_ms:.1f} ms, the mean of {lags:.0f} writes"
    )


def _resumes(exposition: str) -> dict[str, float]:
    """Readers that were brought up to date, by where from: each is timed, and joins are counted."""
    kinds = ("snapshot", "ring", "log", "gap")
    timed = {kind: metric(exposition, "antiphon_gateway_catch_up_seconds_count", kind=kind) for kind in kinds}
    joins = {kind: metric(exposition, "antiphon_gateway_joins_total", kind=kind) for kind in kinds[:3]}
    assert joins == {kind: timed[kind] for kind in kinds[:3]}
    return timed


async def _provoke(gateway: Process, token: str, lossy: Proxy) -> None:
    """A snapshot, a duplicate, a gap (and the snapshot after it), a resume from the log, and one from the ring."""
    place = Place("counted")
    async with await Wire.open(gateway.url, token) as wire:
        await wire.subscribe(place)
        for _ in range(2):
            await wire.input("counted", "a", "hello")
        await wire.follow(place, lambda p: "run_a" in p.ended)
        early = place.last
        await _gap(wire, place, lossy)
        await wire.follow(place, lambda p: "run_c" in p.ended)
    for after in (early, place.last):
        await join(gateway.url, token, Place("counted", epoch=place.epoch, last=after))


async def _gap(wire: Wire, place: Place, lossy: Proxy) -> None:
    """Tokens get lost, and an input passes them; the next token brings it to light, and the session is read afresh."""
    await wire.input("counted", "b", "stream 100 tokens at 50/s")
    await wire.follow(place, lambda p: len(p.answer("run_b")) > 20)
    lossy.lose = b".counted.d.main"
    async with asyncio.timeout(WAIT_S):
        while not lossy.lost:
            await asyncio.sleep(0.01)
    await wire.input("counted", "c", "hello")
    await wire.follow(place, lambda p: any(id_ == "c" for _, id_ in p.entries))
    lossy.lose = None
    await wire.follow(place, lambda p: p.gaps == 1 and p.snapshots == 2)
