"""Jobs as leases, against a real nats-server."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from broker.config import LogSettings, NatsSettings
from broker.errors import Unavailable
from broker.jetstream.connection import Connection
from broker.jetstream.dispatch import JetStreamJob, JetStreamJobQueue
from broker.jetstream.taking import JetStreamJobSource
from broker.jetstream.topology import Topology
from broker.queues import Layout, Priority, Queue
from broker.subjects import MAIN_LANE, SessionSubjects, session_key
from tests.support.nats import NatsCluster, NatsNode

LEASE_S = 1.0
WAIT_S = 10.0


@dataclass(frozen=True, slots=True)
class Place:
    """A queue, and connections of our own to it."""

    url: str
    connection: Connection
    queue: JetStreamJobQueue

    @contextlib.asynccontextmanager
    async def source(self, pool: str = "default") -> AsyncIterator[JetStreamJobSource]:
        """A taker on a connection of its own, as each worker is."""
        async with (
            Connection(NatsSettings(nats_url=self.url), name="taker") as connection,
            JetStreamJobSource(connection, pool) as source,
        ):
            yield source

    async def stored(self) -> int:
        """Jobs that are queued or leased."""
        return int((await self.connection.api("STREAM.INFO.WORK"))["state"]["messages"])


@contextlib.asynccontextmanager
async def open_place(url: str, *, replicas: int = 1, lease_s: float = LEASE_S) -> AsyncIterator[Place]:
    settings = LogSettings(partitions=1, replicas=replicas, lease_s=lease_s, pools="default,other")
    async with Connection(NatsSettings(nats_url=url), name="queue") as connection:
        await Topology(connection, settings).apply()
        yield Place(url, connection, JetStreamJobQueue(connection, "default"))


def session(name: str) -> SessionSubjects:
    return SessionSubjects.of(name, 1)


async def taken(source: JetStreamJobSource) -> JetStreamJob:
    """The next job, whenever it comes."""
    async with asyncio.timeout(WAIT_S):
        while True:
            job = await source.take(1.0)
            if job is not None:
                return job


async def test_a_job_names_its_lane(nats_server: NatsNode) -> None:
    async with open_place(nats_server.url) as place, place.source() as source:
        assert await place.queue.offer(session("demo"), "side")
        job = await taken(source)
        assert (job.session, job.lane, job.delivery) == ("demo", "side", 1)


async def test_a_lane_has_one_job_for_as_long_as_it_is_queued_or_leased(nats_server: NatsNode) -> None:
    async with open_place(nats_server.url) as place, place.source() as source:
        assert await place.queue.offer(session("s"), MAIN_LANE)
        assert not await place.queue.offer(session("s"), MAIN_LANE)
        assert await place.queue.offer(session("s"), "side"), "another lane is another job"
        jobs = [await taken(source), await taken(source)]
        assert {job.lane for job in jobs} == {MAIN_LANE, "side"}
        assert not await place.queue.offer(session("s"), MAIN_LANE), "leased, and so still one"
        for job in jobs:
            await job.done()
        assert await place.stored() == 0
        assert await place.queue.offer(session("s"), MAIN_LANE), "done frees the subject"


@pytest.mark.cluster
async def test_done_frees_the_lane_in_a_cluster(nats_cluster: NatsCluster) -> None:
    """As soon as `done` returns, an offer from anywhere makes a new job: one that is refused would be lost."""
    async with open_place(",".join(nats_cluster.urls), replicas=3) as place, contextlib.AsyncExitStack() as stack:
        source = await stack.enter_async_context(place.source())
        queues = []
        for url in nats_cluster.urls:
            connection = await stack.enter_async_context(Connection(NatsSettings(nats_url=url), name="gateway"))
            queues.append(JetStreamJobQueue(connection, "default"))
        assert await queues[0].offer(session("s"), MAIN_LANE)
        for i in range(100):
            await (await taken(source)).done()
            assert await queues[i % 3].offer(session("s"), MAIN_LANE)


async def test_offers_at_once_make_one_job(nats_server: NatsNode) -> None:
    async with open_place(nats_server.url) as place:
        await _offers_at_once(place)


@pytest.mark.cluster
async def test_offers_at_once_make_one_job_in_a_cluster(nats_cluster: NatsCluster) -> None:
    async with open_place(",".join(nats_cluster.urls), replicas=3) as place:
        await _offers_at_once(place)


async def _offers_at_once(place: Place) -> None:
    """Of many gateways that offer a lane at the same time, through different servers, one makes the job."""
    async with contextlib.AsyncExitStack() as stack:
        queues = []
        for url in place.url.split(","):
            connection = await stack.enter_async_context(Connection(NatsSettings(nats_url=url), name="gateway"))
            queues.append(JetStreamJobQueue(connection, "default"))
        for i in range(20):
            async with asyncio.TaskGroup() as tasks:
                offers = [tasks.create_task(queue.offer(session(f"s{i}"), MAIN_LANE)) for queue in queues * 8]
            assert [offer.result() for offer in offers].count(True) == 1
    assert await place.stored() == 20


async def test_a_job_whose_lease_runs_out_comes_again(nats_server: NatsNode) -> None:
    async with open_place(nats_server.url) as place, place.source() as first, place.source() as second:
        await place.queue.offer(session("s"), MAIN_LANE)
        job = await taken(first)
        begin = time.monotonic()
        again = await taken(second)
        assert (again.session, again.delivery) == (job.session, 2)
        assert time.monotonic() - begin > LEASE_S / 2, "not before its lease has run out"


async def test_a_renewed_job_stays_with_its_holder(nats_server: NatsNode) -> None:
    async with open_place(nats_server.url) as place, place.source() as first, place.source() as second:
        await place.queue.offer(session("s"), MAIN_LANE)
        job = await taken(first)
        begin = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(taken(second))
            while time.monotonic() - begin < 1.7 * LEASE_S:
                assert not waiting.done()
                await job.renew()
                await asyncio.wait({waiting}, timeout=LEASE_S / 5)
            # From here on nobody renews it.
        assert waiting.result().delivery == 2


async def test_a_job_given_back_comes_at_once(nats_server: NatsNode) -> None:
    async with open_place(nats_server.url, lease_s=30.0) as place, place.source() as first, place.source() as second:
        await place.queue.offer(session("s"), MAIN_LANE)
        await (await taken(first)).give_back()
        assert (await taken(second)).delivery == 2


async def test_a_job_given_back_with_a_delay_comes_after_it(nats_server: NatsNode) -> None:
    async with open_place(nats_server.url, lease_s=30.0) as place, place.source() as first, place.source() as second:
        await place.queue.offer(session("s"), MAIN_LANE)
        job = await taken(first)
        begin = time.monotonic()
        await job.give_back(0.5)
        assert (await taken(second)).delivery == 2
        assert time.monotonic() - begin >= 0.5


async def test_take_returns_none_when_nothing_comes(nats_server: NatsNode) -> None:
    async with open_place(nats_server.url) as place, place.source() as source:
        begin = time.monotonic()
        assert await source.take(0.3) is None
        assert 0.25 < time.monotonic() - begin < 2.0


async def test_pools_do_not_see_each_others_jobs(nats_server: NatsNode) -> None:
    async with open_place(nats_server.url) as place, place.source("other") as other, place.source() as own:
        await place.queue.offer(session("s"), MAIN_LANE)
        assert await other.take(0.3) is None
        assert (await taken(own)).session == "s"


async def test_cancelling_take_loses_no_job(nats_server: NatsNode) -> None:
    """The wait is cancelled at any moment around the coming of a job; the next `take` has it."""
    async with open_place(nats_server.url, lease_s=30.0) as place, place.source() as source:
        for i in range(60):
            async with asyncio.TaskGroup() as tasks:
                taking = tasks.create_task(source.take(5.0))
                await place.queue.offer(session(f"s{i}"), MAIN_LANE)
                for _ in range(i % 12):
                    await asyncio.sleep(0)
                taking.cancel()
            job = taking.result() if not taking.cancelled() else await taken(source)
            assert job is not None
            assert (job.session, job.delivery) == (f"s{i}", 1)
            await job.done()


async def test_a_worker_that_leaves_takes_no_job_with_it(nats_server: NatsNode) -> None:
    async with open_place(nats_server.url) as place:
        await _leaving(place, rounds=100, late_max=3)


@pytest.mark.cluster
async def test_a_worker_that_leaves_takes_no_job_with_it_in_a_cluster(nats_cluster: NatsCluster) -> None:
    async with open_place(",".join(nats_cluster.urls), replicas=3) as place:
        await _leaving(place, rounds=20, late_max=5)


async def _leaving(place: Place, rounds: int, late_max: int) -> None:
    """A worker leaves, its request for a job still open, at the moment the job is offered; the next one gets it.

    At once, but for a window of microseconds: NATS looks whether the worker is there, hands the job over to its sender,
    and only then hears that the worker has gone. Such a job comes when its lease has run out.
    """
    late = 0
    async with place.source() as next_worker:
        for i in range(rounds):
            async with asyncio.TaskGroup() as tasks, place.source() as leaving:
                taking = tasks.create_task(leaving.take(5.0))
                while not leaving._asked:
                    await asyncio.sleep(0)
                tasks.create_task(place.queue.offer(session(f"s{i}"), MAIN_LANE))
                for _ in range(i % 16):
                    await asyncio.sleep(0)
                taking.cancel()
                await asyncio.wait({taking})
                job = None if taking.cancelled() else taking.result()
                if job is not None:
                    await job.done()
            if job is None:
                begin = time.monotonic()
                await (await taken(next_worker)).done()
                late += time.monotonic() - begin > LEASE_S / 2
    assert await place.stored() == 0
    assert late <= late_max


async def test_done_twice_and_by_a_former_holder_does_no_harm(nats_server: NatsNode) -> None:
    async with open_place(nats_server.url) as place, place.source() as first, place.source() as second:
        await place.queue.offer(session("s"), MAIN_LANE)
        former = await taken(first)
        holder = await taken(second)
        await holder.done()
        await holder.done()
        assert await place.queue.offer(session("s"), MAIN_LANE)
        await former.done()
        assert await place.stored() == 1, "an old lease says nothing about the new job"


async def test_taking_goes_on_after_an_outage(nats_server: NatsNode) -> None:
    async with open_place(nats_server.url) as place, place.source() as source:
        assert await source.take(0.1) is None
        await nats_server.kill()
        with pytest.raises(Unavailable):
            await _for_ever(source)
        await nats_server.start()
        async with asyncio.timeout(WAIT_S):
            while True:
                with contextlib.suppress(Unavailable):
                    await place.queue.offer(session("s"), MAIN_LANE)
                    break
                await asyncio.sleep(0.02)
            while True:
                with contextlib.suppress(Unavailable):
                    if (job := await source.take(0.5)) is not None:
                        break
                await asyncio.sleep(0.02)
        assert job.session == "s"


async def _for_ever(source: JetStreamJobSource) -> None:
    async with asyncio.timeout(WAIT_S):
        while True:
            await source.take(0.2)


async def test_no_topology_is_unavailable(nats_server: NatsNode) -> None:
    async with Connection(NatsSettings(nats_url=nats_server.url), name="test") as connection:
        with pytest.raises(Unavailable):
            await JetStreamJobQueue(connection, "default").offer(session("s"), MAIN_LANE)
        async with JetStreamJobSource(connection, "default") as source:
            with pytest.raises(Unavailable):
                await source.take(1.0)


async def test_who_has_stopped_taking_may_begin_again(nats_server: NatsNode) -> None:
    """What it had asked for before is void, and it asks anew at once."""
    async with open_place(nats_server.url, lease_s=60.0) as place, place.source() as first, place.source() as second:
        async with asyncio.TaskGroup() as tasks, asyncio.timeout(WAIT_S):
            asking = tasks.create_task(first.take(60.0))
            while not (await place.connection.api("CONSUMER.INFO.WORK.pool-default"))["num_waiting"]:
                await asyncio.sleep(0.01)
            asking.cancel()
        await first.close()
        await place.queue.offer(session("a"), MAIN_LANE)
        job = await taken(second)
        assert (job.session, job.delivery) == ("a", 1)
        await place.queue.offer(session("b"), MAIN_LANE)
        again = await taken(first)
        assert (again.session, again.delivery) == ("b", 1)


# --- several queues of a pool --------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def open_queues(url: str, **layout: int) -> AsyncIterator[Place]:
    """As `open_place`, with a long lease: what comes soon has been given back, and has not been waited for."""
    settings = LogSettings(partitions=1, lease_s=60.0, **layout)  # type: ignore[arg-type]
    async with Connection(NatsSettings(nats_url=url), name="queue") as connection:
        await Topology(connection, settings).apply()
        yield Place(url, connection, JetStreamJobQueue(connection, "default"))


async def test_a_job_comes_from_whichever_queue_it_is_in(nats_server: NatsNode) -> None:
    async with open_queues(nats_server.url, tenant_shares=4) as place, place.source() as source:
        assert await source.take(0.2) is None
        for n, (tenant, priority) in enumerate((t, p) for t in ("", "a", "b", "c") for p in Priority):
            key = session_key(tenant, f"s{n}")
            assert await place.queue.offer(session(key), MAIN_LANE, None, priority)
            job = await taken(source)
            assert (job.session, job.delivery) == (key, 1)
            assert job.queue == Layout(priorities=True, shares=4).queue("default", tenant, priority)
            await job.done()
        assert await place.stored() == 0


async def test_a_worker_at_its_limit_keeps_no_job(nats_server: NatsNode) -> None:
    """It still has requests open when it has no room any more: what they bring is another one's at once."""
    async with open_queues(nats_server.url) as place, place.source() as full, place.source() as other:
        assert await full.take(0.2) is None
        async with asyncio.TaskGroup() as tasks:
            taking = tasks.create_task(full.take(30.0))
            while len(full._asked) < len(Priority):
                await asyncio.sleep(0)
            await place.queue.offer(session("first"), MAIN_LANE, None, "low")
        # One of the short requests from before may have ended, and with it the first `take`.
        job = taking.result() or await full.take(30.0) or await taken(full)
        assert job.session == "first"
        await full.rest()
        assert full._asked, "its other requests are open"
        for priority in Priority:
            await place.queue.offer(session(priority), MAIN_LANE, None, priority)
        found = [await taken(other) for _ in Priority]
        assert {job.session for job in found} == {*Priority}
        for job in found:
            await job.done()
        assert await place.stored() == 1


async def test_what_was_asked_for_too_much_goes_back(nats_server: NatsNode) -> None:
    """Jobs come at the same moment to all of a worker's requests; it has room for one."""
    async with open_queues(nats_server.url, tenant_shares=8) as place, place.source() as eager:
        assert await eager.take(0.2) is None
        async with asyncio.TaskGroup() as tasks:
            taking = tasks.create_task(eager.take(30.0))
            while not eager._asked:
                await asyncio.sleep(0)
            for n in range(8):
                for priority in Priority:
                    tasks.create_task(place.queue.offer(session(f"t{n}~s-{priority}"), MAIN_LANE, None, priority))
        job = taking.result() or await taken(eager)
        await eager.rest()
        async with place.source() as other:
            found = {job.session for job in [await taken(other) for _ in range(23)]}
        assert len(found | {job.session}) == 24


async def test_who_has_had_no_room_takes_the_most_urgent_first(nats_server: NatsNode) -> None:
    async with open_queues(nats_server.url) as place, place.source() as source:
        assert await source.take(0.2) is None
        await source.rest()
        for priority in reversed(Priority):
            for n in range(2):
                await place.queue.offer(session(f"{priority}-{n}"), MAIN_LANE, None, priority)
        order = []
        for _ in range(6):
            order.append((await taken(source)).session)
            await source.rest()
        assert order == [f"{priority}-{n}" for priority in Priority for n in range(2)]


async def test_a_queue_that_answers_nothing_does_not_hold_up_the_others(nats_server: NatsNode) -> None:
    """One of a pool's consumers is gone: that is told, and the jobs of the others are done."""
    async with open_queues(nats_server.url) as place, place.source() as source:
        await place.connection.api("CONSUMER.DELETE.WORK.pool-default+high")
        for n in range(3):
            await place.queue.offer(session(f"s{n}"), MAIN_LANE)
        found, told = set[str](), 0
        async with asyncio.timeout(WAIT_S):
            while len(found) < 3:
                try:
                    job = await source.take(1.0)
                except Unavailable:
                    told += 1
                    continue
                found.add(job.session if job is not None else "")
                found.discard("")
                await source.rest()
        assert told


async def test_queues_are_learnt_of_and_stay(nats_server: NatsNode, monkeypatch: pytest.MonkeyPatch) -> None:
    """More queues need no restart, and what waits in those that are no more is done."""
    monkeypatch.setattr("broker.jetstream.dispatch.TOPOLOGY_AGE_S", 0.0)
    monkeypatch.setattr("broker.jetstream.taking.TOPOLOGY_AGE_S", 0.0)
    plain = {"priorities": False}
    async with open_queues(nats_server.url, **plain) as place, place.source() as source:
        assert await place.queue.offer(session("acme~a"), MAIN_LANE, None, "high")
        job = await taken(source)
        assert job.queue == Queue("default")
        await job.done()
        async with open_queues(nats_server.url, tenant_shares=3):
            await place.queue.offer(session("acme~b"), MAIN_LANE, None, "high")
            job = await taken(source)
            assert job.queue == Layout(priorities=True, shares=3).queue("default", "acme", "high")
            await job.done()
            await place.queue.offer(session("acme~c"), MAIN_LANE, None, "high")
        async with open_queues(nats_server.url, **plain):
            await place.queue.offer(session("acme~d"), MAIN_LANE, None, "high")
            assert {(await taken(source)).session, (await taken(source)).session} == {"acme~c", "acme~d"}


@pytest.mark.parametrize("first", ["queued", "leased", "done"])
async def test_which_job_stands_for_a_lane(nats_server: NatsNode, first: str) -> None:
    async with open_queues(nats_server.url) as place, place.source() as source:
        await place.queue.offer(session("s"), MAIN_LANE)
        await place.queue.offer(session("other"), MAIN_LANE)
        one = await taken(source)
        stranger = await taken(source)
        await place.queue.offer(session("s"), MAIN_LANE, None, "low")
        second = await taken(source)
        if first == "queued":
            await one.give_back(30.0)
        elif first == "done":
            await one.done()
        assert await second.is_second_to(one.seq) == (first != "done")
        assert not await second.is_second_to(second.seq), "by which the lane was claimed: its lease has run out"
        assert not await second.is_second_to(stranger.seq), "of another lane, as after an import from another log"
        assert await second.is_second_to(None) == (first != "done"), "earlier versions have the plain queue alone"
        if first != "done":
            assert not await one.is_second_to(None)
