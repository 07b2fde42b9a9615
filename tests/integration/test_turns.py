"""Whose job goes first where more wait than workers have room for: priorities, and tenants in turn.

The order in which runs began is that of the log: all sessions here are in one partition.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from broker.codec import decode_at
from broker.config import LogSettings
from broker.events import Entry, InputSent, Participant, RunFinished, RunStarted, RunTakenOver, SessionCreated
from broker.interfaces import Of
from broker.jetstream.connection import Connection
from broker.jetstream.dispatch import JetStreamJobQueue
from broker.jetstream.log import JetStreamLog
from broker.jetstream.topology import WORK_STREAM
from broker.loading import load_state
from broker.queues import Layout
from broker.subjects import MAIN_LANE, place_of, pool_consumer, session_key, split_key
from tests.support.nats import NatsNode
from tests.support.rawclient import Refusal, Wire, http_get
from tests.support.releases import BEFORE_QUEUES, checked_out
from tests.support.stack import Process, Stack, metric, open_log

SHARES: Final = 16
LOWER_AFTER: Final = 3
SECOND: Final = "another job stands for the lane"
USER: Final = Participant("user", "user-1")
WAIT_S: Final = 150.0
CALM_LEASE_S: Final = 60.0
"""However busy the machine is, nobody loses a lease who has not died."""
LAYOUT: Final = Layout(priorities=True, shares=SHARES)

pytestmark = [pytest.mark.timeout(600), pytest.mark.nats_roles]


def tenants(count: int) -> list[str]:
    """Some of which no two are in one share."""
    found: dict[int, str] = {}
    for n in range(1000):
        found.setdefault(LAYOUT.queue("default", f"tenant-{n}", "normal").share, f"tenant-{n}")
    return [*found.values()][:count]


@dataclass(frozen=True, slots=True)
class Crowd:
    """A stack whose workers have less room than there is work."""

    stack: Stack
    connection: Connection
    log: JetStreamLog
    jobs: JetStreamJobQueue

    async def waits(self, key: str, content: str = "hello", priority: str = "normal", pool: str | None = None) -> str:
        """A new session with an input that waits, as gateways make them; returns its key."""
        subjects = self.log.subjects(key)
        config = SessionCreated(None, None, {"priority": priority} if priority != "normal" else {})
        await self.log.append_input(subjects, Entry("create:1", 1, (config,), by=USER), "create:1")
        await self.log.append_input(subjects, Entry("i1", 1, (InputSent("i1", content),), by=USER), "i1")
        await self.jobs.offer(subjects, MAIN_LANE, pool, priority)
        return key

    async def many(self, tenant: str, count: int, content: str = "hello", priority: str = "normal") -> list[str]:
        names = [f"{priority}-{n}" for n in range(count)]
        return [await self.waits(session_key(tenant, name), content, priority) for name in names]

    async def begun(self, keys: Sequence[str]) -> list[str]:
        """The sessions whose runs have begun, in the order in which they did."""
        found = {}
        for key in keys:
            for seq, entry in await self.entries(key):
                if any(isinstance(event, RunStarted) for event in entry.events):
                    found[seq] = key
        return [found[seq] for seq in sorted(found)]

    async def entries(self, key: str) -> list[tuple[int, Entry]]:
        subjects = self.log.subjects(key)
        found, position, end = [], 0, False
        while not end:
            page, end = await self.log.read(subjects, position, Of.RECORDS)
            for stored in page:
                position = stored.seq
                place = place_of(stored.subject)
                assert place is not None
                found.append((stored.seq, decode_at(place, stored.body)[0]))
        return found

    async def all_done(self) -> None:
        """Returns when no job is queued or leased."""
        await self.has_jobs(0)

    async def has_jobs(self, count: int) -> None:
        async with asyncio.timeout(WAIT_S):
            while (await self.connection.api(f"STREAM.INFO.{WORK_STREAM}"))["state"]["messages"] != count:
                await asyncio.sleep(0.05)

    async def outcomes(self, keys: Sequence[str]) -> tuple[int, int]:
        """Runs that have succeeded, and takeovers, of these sessions."""
        ended = taken_over = 0
        for key in keys:
            events = [event for _, entry in await self.entries(key) for event in entry.events]
            ended += sum(isinstance(event, RunFinished) for event in events)
            taken_over += sum(isinstance(event, RunTakenOver) for event in events)
        return ended, taken_over


@contextlib.asynccontextmanager
async def crowd(directory: Path, url: str, lease_s: float = CALM_LEASE_S, **env: str) -> AsyncIterator[Crowd]:
    own = {"TENANT_SHARES": str(SHARES), "CONCURRENCY": "1", "LOWER_AFTER": str(LOWER_AFTER), **env}
    async with (
        Stack(directory / "stack", url, partitions=1, lease_s=lease_s, env=own) as stack,
        open_log(url, LogSettings(lease_s=stack.lease_s)) as (connection, log),
    ):
        yield Crowd(stack, connection, log, JetStreamJobQueue(connection, "default"))


@pytest.fixture
async def place(tmp_path: Path, nats_server: NatsNode) -> AsyncIterator[Crowd]:
    async with crowd(tmp_path, nats_server.url) as made:
        yield made


# --- tenants -----------------------------------------------------------------------------------------------------------


async def test_tenants_take_turns(place: Crowd) -> None:
    """One has put many into the queue before the others come; each of these waits for one turn of each, not for all."""
    first, second, third = tenants(3)
    flood = await place.many(first, 40)
    few = [*await place.many(second, 4), *await place.many(third, 2), *await place.many("", 3)]
    await place.stack.worker()
    await place.all_done()
    order = [split_key(key)[0] for key in await place.begun([*flood, *few])]
    assert len(order) == 49
    # While all four wait, each has one of every four turns; then those that are left.
    assert [sorted(order[n : n + 4]) for n in (0, 4)] == [sorted(["", first, second, third])] * 2
    assert sorted(order[8:11]) == sorted(["", first, second])
    assert sorted(order[11:13]) == sorted([first, second])
    assert {*order[13:]} == {first}


async def test_within_a_tenant_the_oldest_goes_first(place: Crowd) -> None:
    first, second = tenants(2)
    keys = [*await place.many(first, 10), *await place.many(second, 10)]
    await place.stack.worker()
    await place.all_done()
    order = await place.begun(keys)
    for tenant in (first, second):
        own = [key for key in order if split_key(key)[0] == tenant]
        assert own == [key for key in keys if split_key(key)[0] == tenant]


async def test_who_comes_to_a_full_pool_is_next(place: Crowd) -> None:
    """A worker is at a run, and many of a tenant wait. One of another tenant's comes last, and goes first."""
    first, second = tenants(2)
    long = await place.waits(session_key(first, "long"), "hang")
    worker = await place.stack.worker()
    async with asyncio.timeout(WAIT_S):
        while not await place.begun([long]):
            await asyncio.sleep(0.05)
    flood = await place.many(first, 20)
    single = await place.waits(session_key(second, "single"))
    await cancel(place, long)
    await place.all_done()
    assert (await place.begun([*flood, single])).index(single) == 0
    assert worker.running


async def test_a_full_worker_keeps_nothing_from_one_with_room(tmp_path: Path, nats_server: NatsNode) -> None:
    """It has asked at all queues before it was full, and its requests stay open for longer than this test may take."""
    async with crowd(tmp_path, nats_server.url, lease_s=300.0, PULL_WAIT_S="300") as place:
        full = await place.stack.worker()
        async with asyncio.timeout(WAIT_S):
            while (await asked(place, "default")) < 1 or (await asked(place, "default+high")) < 1:
                await asyncio.sleep(0.05)
        long = await place.waits("long", "hang")
        async with asyncio.timeout(WAIT_S):
            while not await place.begun([long]):
                await asyncio.sleep(0.05)
        keys = await place.many("", 3, priority="high")
        other = await place.stack.worker(concurrency="4")
        await place.has_jobs(1)
        assert other.claimed() == {*keys}
        assert full.claimed() == {long}


async def asked(place: Crowd, queue: str) -> int:
    """Requests of workers that are open at a queue."""
    return int((await place.connection.api(f"CONSUMER.INFO.{WORK_STREAM}.{pool_consumer(queue)}"))["num_waiting"])


async def test_nothing_is_lost_with_a_worker_that_is_killed(tmp_path: Path, nats_server: NatsNode) -> None:
    """Two workers, of which one is killed amid its runs, and another one comes."""
    async with crowd(tmp_path, nats_server.url, lease_s=5.0) as place:
        await _killed(place)


async def _killed(place: Crowd) -> None:
    first, second, third = tenants(3)
    content = "stream 20 tokens at 100/s"
    keys = [*await place.many(first, 24, content), *await place.many(second, 4, content)]
    keys += [*await place.many(third, 4, content, "high"), *await place.many("", 4, content, "low")]
    doomed, other = await place.stack.worker(concurrency="3"), await place.stack.worker(concurrency="3")
    async with asyncio.timeout(WAIT_S):
        while len(doomed.claimed()) < 5:
            await asyncio.sleep(0.02)
    await doomed.kill()
    await place.stack.worker(concurrency="3")
    await place.all_done()
    ended, _ = await place.outcomes(keys)
    assert ended == len(keys)
    assert other.running
    order = [split_key(key)[0] for key in await place.begun(keys)]
    # Each of the three workers, with its three slots, gives every tenant that waits its turn; a first round each, a run
    # that is begun anew after the kill, and what a worker had before the others came, and all of these are through.
    assert max(n for n, tenant in enumerate(order) if tenant == second) < 30, order


# --- priorities --------------------------------------------------------------------------------------------------------


async def test_higher_ones_go_first_and_lower_ones_are_not_starved(place: Crowd) -> None:
    keys = [key for priority in ("low", "normal", "high") for key in await place.many("", 12, priority=priority)]
    await place.stack.worker()
    await place.all_done()
    order = [key.partition("-")[0] for key in await place.begun(keys)]
    assert sorted(order) == ["high"] * 12 + ["low"] * 12 + ["normal"] * 12
    first = {priority: order.index(priority) for priority in ("high", "normal", "low")}
    assert first["high"] == 0
    for priority in ("normal", "low"):
        assert _longest_wait(order, priority) <= LOWER_AFTER + 1
    # Of each five turns three are theirs: the owed ones of both others come between.
    assert order[:20].count("high") == 12
    lows = [n for n, priority in enumerate(order) if priority == "low"]
    normals = [n for n, priority in enumerate(order) if priority == "normal"]
    assert sum(normals) < sum(lows)


async def test_a_session_s_priority_may_change(place: Crowd) -> None:
    """A lane that waits is offered again as a more urgent one: that runs it, and nothing is done twice."""
    long = await place.waits("long", "hang")
    await place.stack.worker()
    async with asyncio.timeout(WAIT_S):
        while not await place.begun([long]):
            await asyncio.sleep(0.05)
    others = await place.many("", 5)
    urgent = await place.waits("urgent")
    assert await place.jobs.offer(place.log.subjects(urgent), MAIN_LANE, None, "high"), "a job in another queue"
    await cancel(place, long)
    await place.all_done()
    order = await place.begun([*others, urgent])
    assert order[0] == urgent
    assert await place.outcomes([*others, urgent]) == (6, 0)


async def test_a_second_job_of_a_lane_disturbs_nobody(place: Crowd) -> None:
    """While a run goes on, its lane is offered in other queues; other workers take these jobs, and leave it alone."""
    busy = await place.waits("busy", "hang")
    await place.stack.worker()
    async with asyncio.timeout(WAIT_S):
        while not await place.begun([busy]):
            await asyncio.sleep(0.05)
    other = await place.stack.worker(concurrency="4")
    for priority in ("high", "low"):
        assert await place.jobs.offer(place.log.subjects(busy), MAIN_LANE, None, priority)
        await place.has_jobs(1)
    assert [line["session"] for line in other.logged() if line.get("event") == SECOND] == [busy, busy]
    await cancel(place, busy)
    await place.all_done()
    assert await place.outcomes([busy]) == (1, 0), "it was taken over by who had a second job"
    assert not other.claimed()


async def test_a_second_job_is_good_once_the_first_is_gone(place: Crowd) -> None:
    """The worker dies that had claimed by the first one, and its job with it, as after a purge."""
    busy = await place.waits("busy", "hang")
    doomed = await place.stack.worker()
    async with asyncio.timeout(WAIT_S):
        while not await place.begun([busy]):
            await asyncio.sleep(0.05)
    await doomed.kill()
    await place.connection.purge(WORK_STREAM, "work.>")
    assert await place.jobs.offer(place.log.subjects(busy), MAIN_LANE, None, "high")
    other = await place.stack.worker()
    async with asyncio.timeout(WAIT_S):
        while other.claimed() != {busy}:
            await asyncio.sleep(0.05)


def _longest_wait(order: Sequence[str], priority: str) -> int:
    """Jobs of others between two of a priority, while some of it wait."""
    last = max(n for n, each in enumerate(order) if each == priority)
    longest = since = 0
    for each in order[:last]:
        since = 0 if each == priority else since + 1
        longest = max(longest, since)
    return longest


def token_of(stack: Stack, tenant: str) -> str:
    return stack.token(tenant=tenant) if tenant else stack.token()


async def cancel(place: Crowd, key: str) -> None:
    gateway = await place.stack.gateway()
    tenant, name = split_key(key)
    async with await Wire.open(gateway.url, token_of(place.stack, tenant)) as wire:
        await wire.command("run.cancel", session=name, runId="run_i1")


# --- beside earlier versions, and in an upgrade ------------------------------------------------------------------------


async def test_jobs_of_before_are_done_when_there_are_more_queues(nats_server: NatsNode, tmp_path: Path) -> None:
    """Inputs wait that a gateway of an earlier version has taken. It stays while the queues come, and so do new gateways,
    which offer the same lanes in other queues.
    """
    first, second = tenants(2)
    tree = checked_out(BEFORE_QUEUES, tmp_path)
    own = {"CONCURRENCY": "2", "JOB_REPAIR_S": "1"}
    async with Stack(
        tmp_path / "stack", nats_server.url, partitions=1, lease_s=CALM_LEASE_S, env=own, code=tree
    ) as stack:
        old = await stack.gateway()
        keys = await _sent(stack, old, "old", [first, second, ""], 4)
        stack.code = None
        await stack.apply_topology(tenant_shares=str(SHARES))
        new = await stack.gateway()
        keys += await _sent(stack, new, "new", [first, second, ""], 4)
        # Those that wait are offered once more, by the new gateway, where they belong now.
        keys_again = await _sent(stack, new, "old", [first, second, ""], 4)
        assert {*keys_again} <= {*keys}
        await stack.worker()
        await stack.worker()
        keys += await _sent(stack, old, "late", [first, second, ""], 2)
        await _ended_once(stack, keys)


async def test_an_earlier_worker_and_a_newer_one_share_what_waits(nats_server: NatsNode, tmp_path: Path) -> None:
    """With priorities, which are there by default, and which nobody uses yet."""
    [tenant] = tenants(1)
    stack = Stack(tmp_path / "stack", nats_server.url, partitions=1, lease_s=CALM_LEASE_S, env={"CONCURRENCY": "2"})
    async with stack:
        gateway = await stack.gateway()
        keys = await _sent(stack, gateway, "s", [tenant, ""], 12)
        stack.code = checked_out(BEFORE_QUEUES, tmp_path)
        await stack.worker()
        old_gateway = await stack.gateway()
        stack.code = None
        await stack.worker()
        keys += await _sent(stack, old_gateway, "t", [tenant, ""], 4)
        await _ended_once(stack, keys)


async def test_what_waits_in_queues_that_are_no_more_is_done(place: Crowd) -> None:
    first, second = tenants(2)
    keys = [*await place.many(first, 3, priority="high"), *await place.many(second, 3, priority="low")]
    await place.stack.apply_topology(tenant_shares="0", priorities="false")
    await place.stack.worker()
    await place.all_done()
    assert await place.outcomes(keys) == (6, 0)
    later = JetStreamJobQueue(place.connection, "default")
    assert await later.offer(place.log.subjects(keys[0]), MAIN_LANE, None, "high")
    [subject] = await waiting_subjects(place.connection)
    assert subject.startswith("work.default.")


async def _sent(stack: Stack, gateway: Process, name: str, tenants: Sequence[str], count: int) -> list[str]:
    """Inputs to sessions of each tenant; the sessions' keys."""
    keys = []
    for tenant in tenants:
        async with await Wire.open(gateway.url, token_of(stack, tenant)) as wire:
            for n in range(count):
                await wire.input(f"{name}-{n}", "i1", "hello")
                keys.append(session_key(tenant, f"{name}-{n}"))
    return [*keys]


async def _ended_once(stack: Stack, keys: Sequence[str]) -> None:
    """Each session's run has been begun and ended by one worker, and no job is left."""
    async with open_log(stack.nats_url, LogSettings(lease_s=stack.lease_s)) as (connection, log):
        place = Crowd(stack, connection, log, JetStreamJobQueue(connection, "default"))
        async with asyncio.timeout(WAIT_S):
            while (await place.outcomes(keys))[0] < len(keys):
                await asyncio.sleep(0.2)
        await place.all_done()
        assert await place.outcomes(keys) == (len(keys), 0)
        assert len(await place.begun(keys)) == len({*keys})


async def waiting_subjects(connection: Connection) -> list[str]:
    """Of all jobs that are queued or leased."""
    info = await connection.api(f"STREAM.INFO.{WORK_STREAM}", {"subjects_filter": "work.>"})
    return sorted(info["state"].get("subjects") or {})


# --- who may, and what is seen of it -----------------------------------------------------------------------------------


async def test_who_may_not_go_first_does_not(place: Crowd) -> None:
    gateway = await place.stack.gateway()
    rights = {"plain": ["read", "send"], "boss": ["read", "send", "priority"]}
    wires = {who: await Wire.open(gateway.url, place.stack.token(who, {"*": rights[who]})) for who in rights}
    async with wires["plain"] as plain, wires["boss"] as boss:
        for fields in ({"session": "p", "config": {"priority": "high"}},):
            with pytest.raises(Refusal, match="not_allowed") as refused:
                await plain.command("session.create", **fields)
            assert refused.value.reply["right"] == "priority"
        await plain.command("session.create", session="p", config={"priority": "low"})
        with pytest.raises(Refusal, match="not_allowed"):
            await plain.command("session.update", session="p", config={"priority": "high"})
        await plain.command("session.update", session="p", config={"priority": "normal"})
        await boss.command("session.create", session="b", config={"priority": "high"})
        await boss.input("b", "i1", "hello")
        await plain.input("p", "i1", "hello")
        subjects = await waiting_subjects(place.connection)
        assert subjects == ["work.default+high.00.b.main", "work.default.00.p.main"]
        # Neither does who copies a session of somebody who may.
        await plain.command("session.fork", session="b", to="copy-of-plain")
        await boss.command("session.fork", session="b", to="copy-of-boss")
        found = [(await load_state(place.log, place.log.subjects(f"copy-of-{who}"))).config for who in rights]
        assert [config.priority for config in found] == ["normal", "high"]


async def test_metrics_tell_what_waits_by_priority(place: Crowd) -> None:
    first, second = tenants(2)
    for tenant, count, priority in ((first, 3, "normal"), (second, 2, "normal"), ("", 1, "normal"), (first, 4, "low")):
        await place.many(tenant, count, priority=priority)
    gateway = await place.stack.gateway()
    status, body = await http_get(f"{gateway.url}/metrics")
    assert status == 200
    assert metric(body, "antiphon_pool_jobs", pool="default", state="waiting") == 10
    counts = [metric(body, "antiphon_pool_waiting_jobs", pool="default", priority=p) for p in ("high", "normal", "low")]
    assert counts == [0, 6, 4]
    assert metric(body, "antiphon_pool_oldest_waiting_job_seconds", pool="default", priority="low") > 0
    code, output = await place.stack.run("doctor", "--json")
    assert code == 1, "nobody serves it"
    assert output.count("pool default:") == 1
    assert "pool default: 10 jobs wait" in output
