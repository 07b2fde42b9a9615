"""What gateways and workers count, seen at `/metrics` of real processes."""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest
import pytest_asyncio
from prometheus_client.parser import text_string_to_metric_families

from antiphon_client import Client, Tool
from tests.soak.books import Due, parsed
from tests.support.bare import get
from tests.support.nats import NatsNode, cluster, free_ports, single_server
from tests.support.place import Place
from tests.support.rawclient import WAIT_S, Wire
from tests.support.stack import Process, Stack

PEOPLE = "tests.support.agents_people"


class Samples:
    """One exposition."""

    def __init__(self, text: str) -> None:
        self._values = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def __call__(self, name: str, **labels: str) -> float:
        """A sample that must be there."""
        return self._values[f"antiphon_{name}", frozenset(labels.items())]

    def has(self, name: str, **labels: str) -> bool:
        return (f"antiphon_{name}", frozenset(labels.items())) in self._values


async def scrape(url: str) -> Samples:
    return Samples((await get(f"{url}/metrics")).text)


async def until(url: str, holds: Callable[[Samples], bool], wait_s: float = WAIT_S) -> Samples:
    """Scrapes until that holds."""
    async with asyncio.timeout(wait_s):
        while True:
            with contextlib.suppress(KeyError):  # not there yet
                if holds(samples := await scrape(url)):
                    return samples
            await asyncio.sleep(0.05)


@dataclass(frozen=True, slots=True)
class World:
    stack: Stack
    gateway: Process
    worker_url: str
    sessions: count[int]

    def session(self) -> str:
        """A session that no other test has."""
        return f"s{next(self.sessions)}"

    async def wire(self) -> Wire:
        return await Wire.open(self.gateway.url, self.stack.token())


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    directory = tmp_path_factory.mktemp("metrics")
    (port,) = free_ports(1)
    async with single_server(directory / "nats") as nats, Stack(directory / "stack", nats.url) as stack:
        gateway = await stack.gateway(ack_sample_s="0.05")
        await stack.worker(worker_port=str(port))
        yield World(stack, gateway, f"http://127.0.0.1:{port}", count())


shared = pytest.mark.asyncio(loop_scope="module")


# --- reading -------------------------------------------------------------------------------------------------------------


@shared
async def test_joins_and_how_long_they_take(world: World) -> None:
    before, place = await scrape(world.gateway.url), Place(world.session())
    async with await world.wire() as wire:
        await wire.subscribe(place)
        await wire.follow(place, lambda p: p.caught_up)
        await wire.input(place.session, "i", "stream 30 tokens")
        await wire.follow(place, lambda p: "run_i" in p.ended)
    place.caught_up = False
    async with await world.wire() as wire:
        await wire.subscribe(place)
        await wire.follow(place, lambda p: p.caught_up)
    after = await scrape(world.gateway.url)
    for kind in ("snapshot", "ring"):
        for name in ("gateway_joins_total", "gateway_catch_up_seconds_count"):
            assert after(name, kind=kind) - before(name, kind=kind) == 1
    assert (
        after("gateway_upgrades_total", outcome="accepted") - before("gateway_upgrades_total", outcome="accepted") == 2
    )
    assert after("gateway_command_seconds_count", command="input.send") >= 1
    assert after("gateway_command_seconds_count", command="subscribe") >= 2


@shared
async def test_fan_out_lag_is_from_stored_to_written(world: World) -> None:
    before, place = await scrape(world.gateway.url), Place(world.session())
    async with await world.wire() as wire:
        await wire.subscribe(place)
        await wire.follow(place, lambda p: p.caught_up)
        await wire.input(place.session, "i", "stream 30 tokens at 100/s")
        await wire.follow(place, lambda p: "run_i" in p.ended)
    after = await scrape(world.gateway.url)
    writes = after("gateway_fan_out_lag_seconds_count") - before("gateway_fan_out_lag_seconds_count")
    entries = after("gateway_entries_delivered_total") - before("gateway_entries_delivered_total")
    # One for each write, in which there may be several entries; the clocks are the same here.
    assert 10 < writes <= entries
    assert entries >= len(place.entries)
    lag_s = (after("gateway_fan_out_lag_seconds_sum") - before("gateway_fan_out_lag_seconds_sum")) / writes
    assert 0 < lag_s < 1


@shared
async def test_a_client_that_acknowledges_is_asked_and_measured(world: World) -> None:
    before, place = await scrape(world.gateway.url), Place(world.session())
    async with await world.wire() as wire:
        place.subscribed(await wire.command("subscribe", session=place.session, acks=True))
        await wire.input(place.session, "i", "stream 10 tokens")
        seen = 0
        while "run_i" not in place.ended or not seen:
            frame = await wire.receive()
            place.take(frame)
            if frame["op"] == "session.mark":
                # It follows what it is about.
                assert frame == {"op": "session.mark", "session": place.session, "seq": place.last}
                seen = frame["seq"]
                # One that names less, or another session, is not what was asked for.
                await wire.command("ack", session=place.session, seq=seen - 1)
                await wire.command("ack", session="another", seq=seen)
                assert (await wire.command("ack", session=place.session, seq=seen))["op"] == "ok"
                await wire.command("ack", session=place.session, seq=seen)
    after = await scrape(world.gateway.url)
    asked = after("gateway_marks_total") - before("gateway_marks_total")
    measured = after("gateway_end_to_end_lag_seconds_count") - before("gateway_end_to_end_lag_seconds_count")
    assert asked == measured >= 1
    assert after("gateway_end_to_end_lag_seconds_sum") < 10 * after("gateway_end_to_end_lag_seconds_count")


@shared
async def test_who_does_not_acknowledge_is_not_asked(world: World) -> None:
    before, place = await scrape(world.gateway.url), Place(world.session())
    async with await world.wire() as wire:
        await wire.subscribe(place)
        await wire.input(place.session, "i", "stream 40 tokens at 100/s")
        ops = set()
        while "run_i" not in place.ended:
            frame = await wire.receive()
            place.take(frame)
            ops.add(frame["op"])
    assert "session.mark" not in ops
    assert (await scrape(world.gateway.url))("gateway_marks_total") == before("gateway_marks_total")


@shared
async def test_nobody_is_asked_if_the_operator_does_not_want_it(world: World) -> None:
    gateway = await world.stack.gateway(ack_sample_s="0")
    place = Place(world.session())
    async with await Wire.open(gateway.url, world.stack.token()) as wire:
        place.subscribed(await wire.command("subscribe", session=place.session, acks=True))
        await wire.input(place.session, "i", "stream 40 tokens at 100/s")
        await wire.follow(place, lambda p: "run_i" in p.ended)
    samples = await scrape(gateway.url)
    assert samples("gateway_fan_out_lag_seconds_count") > 0
    assert samples("gateway_marks_total") == 0


@shared
async def test_the_python_client_acknowledges(world: World) -> None:
    before = await scrape(world.gateway.url)
    async with Client(world.gateway.url, world.stack.token()) as client:
        session = client.session(world.session())
        receipt = await session.send("stream 40 tokens at 100/s")
        await receipt.finished()
        name = "gateway_end_to_end_lag_seconds_count"
        await until(world.gateway.url, lambda now: now(name) > before(name))


@shared
async def test_slow_readers_and_what_they_have_not_taken(world: World) -> None:
    place = Place(world.session())
    async with await world.wire() as wire, await world.wire() as sender:
        wire._writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        await wire.subscribe(place)
        await wire.follow(place, lambda p: p.caught_up)
        await sender.input(place.session, "i", "say 12000000 bytes")
        slow = await until(world.gateway.url, lambda now: now("gateway_readers_behind") == 1)
        assert slow("gateway_outbox_bytes") >= slow("gateway_outbox_largest_bytes") > 262_144
        await wire.follow(place, lambda p: "run_i" in p.ended, wait_s=40)
        after = await until(world.gateway.url, lambda now: now("gateway_readers_behind") == 0)
        assert after("gateway_readers_held_back_total") >= 1
        assert after("gateway_catch_up_seconds_count", kind="held_back") >= 1


@shared
async def test_what_was_due_to_readers_is_found_again(world: World) -> None:
    """At every look: delivered, caught up, or in flight; and readers have got just what the gateway says it gave."""
    gateway = await world.stack.gateway(outbox_bytes="4096", kernel_unsent_bytes="4096")
    token = world.stack.token()
    slow = Place(world.session())
    fast = Place(slow.session)
    async with (
        await Wire.open(gateway.url, token, receive_buffer=4096) as stalled,
        await Wire.open(gateway.url, token) as wire,
    ):
        for place, over in ((slow, stalled), (fast, wire)):
            await over.subscribe(place)
            await over.follow(place, lambda p: p.caught_up)
        stalled._writer.transport.pause_reading()
        await wire.input(fast.session, "i", "stream 400 tokens at 400/s")
        behind = 0
        while "run_i" not in fast.ended:
            fast.take(await wire.receive())
            due = Due.of(parsed((await get(f"{gateway.url}/metrics")).text))
            assert due.missing == 0, due
            behind = max(behind, due.in_flight)
        stalled._writer.transport.resume_reading()
        await stalled.follow(slow, lambda p: "run_i" in p.ended)
        for place, over in ((slow, stalled), (fast, wire)):
            await over.command("unsubscribe", session=place.session)
            while over._frames:
                place.take(over._frames.popleft())
    samples = parsed((await get(f"{gateway.url}/metrics")).text)
    due = Due.of(samples)
    assert due.missing == due.in_flight == 0
    assert behind > 0
    assert due.caught_up["merged"] > 0
    given = due.delivered + due.caught_up["frame"] + samples['antiphon_gateway_entries_replayed_total{how="frame"}']
    assert given == len(slow.entries) + len(fast.entries)
    # Each of them was subscribed all the while, and nothing had been there before.
    assert due.due == 2 * samples["antiphon_gateway_entries_taken_total"]


# --- workers -------------------------------------------------------------------------------------------------------------


@shared
async def test_what_a_worker_does_with_a_run(world: World) -> None:
    before, place = await scrape(world.worker_url), Place(world.session())
    async with await world.wire() as wire:
        await wire.subscribe(place)
        await wire.input(place.session, "i", "stream 100000 tokens at 100/s")
        during = await until(world.worker_url, lambda now: now("worker_runs_active", state="working") == 1)
        assert during("worker_text_pieces_total") >= before("worker_text_pieces_total")
        more = await until(
            world.worker_url, lambda now: now("worker_text_pieces_total") > during("worker_text_pieces_total")
        )
        assert more("worker_runs_total", end="cancelled") == before("worker_runs_total", end="cancelled")
        await wire.command("run.cancel", session=place.session, runId="run_i")
        await wire.follow(place, lambda p: "run_i" in p.ended)
    after = await until(world.worker_url, lambda now: now("worker_sessions") == 0)
    for name in ("worker_first_text_seconds_count", "worker_run_seconds_count", "worker_job_wait_seconds_count"):
        assert after(name) - before(name) == 1, name
    assert after("worker_runs_active", state="working") == 0
    assert after("worker_runs_total", end="cancelled") - before("worker_runs_total", end="cancelled") == 1
    assert after("log_append_seconds_count") > before("log_append_seconds_count")
    assert after("worker_info", pool="default", agent="echo", version="") == 1


@shared
async def test_the_connection_to_nats_is_measured_when_it_is_scraped(world: World) -> None:
    for url in (world.gateway.url, world.worker_url):
        samples = await scrape(url)
        assert samples("nats_connected") == 1
        assert 0 < samples("nats_round_trip_seconds") < 1
        assert abs(samples("nats_clock_offset_seconds")) < 1
        await until(url, lambda now: now("event_loop_lag_seconds_count") >= 1)


@pytest.mark.parametrize(
    ("agent", "content", "kind"),
    [
        ("approving", "{}", "approval"),
        ("approving", '{"schema": {"type": "string"}}', "question"),
        ("desk", "hand over", "handoff"),
        ("picking", "{}", "client_tool"),
    ],
)
async def test_waits_for_people(tmp_path: Path, nats_server: NatsNode, agent: str, content: str, kind: str) -> None:
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    async with Stack(tmp_path / "stack", nats_server.url) as stack:
        gateway = await stack.gateway()
        await stack.worker(f"{PEOPLE}:{agent}", worker_port=str(port))
        picker = Tool("pick_file", execute=_pick)
        async with Client(gateway.url, stack.token()) as client:
            session = client.session("demo", tools=[picker] if kind == "client_tool" else [])
            receipt = await session.send(content)
            if kind != "client_tool":
                waiting = await until(url, lambda now: now("worker_waits", kind=kind) == 1)
                assert waiting("worker_runs_active", state="waiting") == 1
                await until(url, lambda now: now("worker_oldest_wait_seconds", kind=kind) > 0.1)
                await session.cancel_run(receipt.run_id)
            await receipt.finished()
            after = await until(url, lambda now: now("worker_sessions") == 0)
            assert after("worker_waits", kind=kind) == 0
            # A wait whose run was stopped has no length.
            assert after("worker_wait_seconds_count", kind=kind) == (kind == "client_tool")


async def _pick(_: object) -> dict[str, str]:
    await asyncio.sleep(0)
    return {"file": "a.pdf"}


# --- pools and the log ---------------------------------------------------------------------------------------------------


async def test_jobs_that_wait_are_seen_without_a_worker(tmp_path: Path, nats_server: NatsNode) -> None:
    async with Stack(tmp_path / "stack", nats_server.url) as stack:
        gateway = await stack.gateway()
        empty = await scrape(gateway.url)
        assert empty("pool_jobs", pool="default", state="waiting") == 0
        assert empty("pool_oldest_job_seconds", pool="default") == 0
        assert empty("pool_workers_asking", pool="default") == 0
        assert empty("log_streams_silent") == empty("log_replicas_offline") == empty("log_replica_lag_entries") == 0
        async with await Wire.open(gateway.url, stack.token()) as wire:
            for session in ("a", "b"):
                await wire.input(session, "i", "stream 100000 tokens at 50/s")
        waiting = await until(gateway.url, lambda now: now("pool_jobs", pool="default", state="waiting") == 2)
        assert 0 < waiting("pool_oldest_job_seconds", pool="default") < WAIT_S
        assert waiting("log_bytes") > 0
        assert waiting("log_entries") > empty("log_entries")
        assert waiting("log_asked_timestamp_seconds") > empty("log_asked_timestamp_seconds")
        await stack.worker()
        leased = await until(gateway.url, lambda now: now("pool_jobs", pool="default", state="leased") == 2)
        assert leased("pool_jobs", pool="default", state="waiting") == 0
        assert leased("pool_oldest_job_seconds", pool="default") == 0
        # Between an answer and the next question there is a moment in which it asks for nothing.
        await until(gateway.url, lambda now: now("pool_workers_asking", pool="default") == 1)


async def test_while_nats_is_away_old_figures_are_gone(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    async with single_server(tmp_path / "nats") as nats:
        env = {"ACK_TIMEOUT_S": "1", "RECONNECT_WAIT_S": "0.05"}
        async with Stack(tmp_path / "stack", nats.url, env=env) as stack:
            gateway = await stack.gateway()
            await stack.worker(worker_port=str(port))
            urls = gateway.url, f"http://127.0.0.1:{port}"
            for url in urls:
                assert (await scrape(url))("nats_connected") == 1
            await nats.kill()
            for url in urls:
                away = await until(url, lambda now: math.isnan(now("nats_round_trip_seconds")))
                assert away("nats_connected") == 0
                assert math.isnan(away("nats_clock_offset_seconds"))
            assert not (await scrape(gateway.url)).has("pool_jobs", pool="default", state="waiting")
            await nats.start()
            for url in urls:
                back = await until(url, lambda now: now("nats_connected") == 1)
                assert back("nats_reconnects_total") == 1
                await until(url, lambda now: now("nats_round_trip_seconds") < 1)


@pytest.mark.cluster
async def test_a_server_that_is_away_is_seen(tmp_path: Path) -> None:
    async with cluster(tmp_path / "nats") as servers:
        urls = ",".join(servers.urls)
        async with Stack(tmp_path / "stack", urls, replicas=3) as stack:
            gateway = await stack.gateway()
            whole = await scrape(gateway.url)
            assert whole("log_replicas_offline") == whole("log_streams_silent") == 0
            lost: NatsNode = servers.nodes[0]
            await lost.kill()
            await until(gateway.url, lambda now: now("log_replicas_offline") > 0, wait_s=45)
            await lost.start()
            await until(gateway.url, lambda now: now("log_replicas_offline") == 0, wait_s=45)


async def test_a_gateway_that_leaves_says_so_and_turns_others_away(tmp_path: Path, nats_server: NatsNode) -> None:
    async with Stack(tmp_path / "stack", nats_server.url, env={"DRAIN_S": "4"}) as stack:
        gateway = await stack.gateway()
        limited = await stack.gateway(connections="1")
        assert (await scrape(limited.url))("gateway_connection_limit") == 1
        async with await Wire.open(limited.url, stack.token()), await Wire.open(gateway.url, stack.token()):
            with pytest.raises(Exception, match="503"):
                await Wire.open(limited.url, stack.token())
            assert (await scrape(limited.url))("gateway_upgrades_total", outcome="overloaded") == 1
            assert (await scrape(gateway.url))("gateway_draining") == 0
            gateway.terminate_soon()
            leaving = await until(gateway.url, lambda now: now("gateway_draining") == 1)
            assert leaving("gateway_connections") <= 1
