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
from broker.jetstream.dispatch import JetStreamJob, JetStreamJobQueue, JetStreamJobSource
from broker.jetstream.topology import Topology
from broker.subjects import MAIN_LANE, SessionSubjects
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
                while leaving._asked_until == 0.0:
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
