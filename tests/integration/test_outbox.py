"""The outbox of webhooks, against real servers: one sender at a time, and what a former one may still do."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from broker.config import LogSettings, NatsSettings
from broker.errors import WrongSequence
from broker.events import Participant
from broker.jetstream.connection import Connection
from broker.jetstream.log import JetStreamLog
from broker.jetstream.outbox import JetStreamOutbox, JetStreamPartitions
from broker.jetstream.topology import Topology
from broker.outbox import Kept
from tests.support.nats import cluster, single_server

LEASE_S = 2.0
WAIT_S = 30.0
WORDS = {"mark": (b"2",), "put": ("one", "s", "b", b"B"), "refuse": ("one", b""), "renew": ()}


@contextlib.asynccontextmanager
async def opened(url: str, *holders: str, replicas: int) -> AsyncIterator[list[JetStreamOutbox]]:
    """An outbox for each holder, each over a connection of its own."""
    async with contextlib.AsyncExitStack() as stack:
        found = []
        for holder in holders:
            connection = await stack.enter_async_context(Connection(NatsSettings(nats_url=url), name=holder))
            await Topology(connection, LogSettings(partitions=2, replicas=replicas)).apply()
            found.append(JetStreamOutbox(connection, holder, lease_s=LEASE_S, keep_s=3600))
        yield found


@pytest.fixture(params=[1, pytest.param(3, marks=pytest.mark.cluster)])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[str, int]]:
    """The servers, and how many copies of everything they keep."""
    if request.param == 1:
        async with single_server(tmp_path) as node:
            yield node.url, 1
    else:
        async with cluster(tmp_path) as running:
            yield ",".join(running.urls), 3


async def waiting(outbox: JetStreamOutbox, receiver: str, count: int) -> list[Kept]:
    """What waits, once a replica that lags has so much."""
    async with asyncio.timeout(WAIT_S):
        while len(page := (await outbox.waiting(receiver, 0))[0]) != count:
            await asyncio.sleep(0.02)
    return page


@pytest.mark.timeout(120)
async def test_one_sends_and_the_next_takes_over(place: tuple[str, int]) -> None:
    url, replicas = place
    async with opened(url, "wh-1", "wh-2", replicas=replicas) as (first, second), asyncio.timeout(WAIT_S * 2):
        async with first.term() as former:
            assert former.started == (0, None)
            await former.mark(b"1")
            await former.put("one", "s", "a", b"A")
            # While it renews its lease, nobody else has it.
            claiming = asyncio.Event()

            async def claim() -> None:
                async with second.term():
                    claiming.set()
                    await refused.wait()

            refused = asyncio.Event()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(claim())
                for _ in range(4):
                    await former.renew()
                    await asyncio.sleep(LEASE_S / 2)
                assert not claiming.is_set()
                # It falls silent: the other has the lease, and this one may write nothing any more.
                await claiming.wait()
                for write in (former.mark, former.put, former.refuse, former.renew):
                    with pytest.raises(WrongSequence):
                        await write(*WORDS[write.__name__])  # type: ignore[operator]
                assert not former.valid
                refused.set()
        async with second.term() as term:
            _, mark = term.started
            assert mark == b"1"
            assert [kept.id for kept in await waiting(second, "one", 1)] == ["a"]


@pytest.mark.timeout(120)
async def test_what_waits_is_settled_given_up_and_forgotten(place: tuple[str, int]) -> None:
    url, replicas = place
    async with opened(url, "wh-1", replicas=replicas) as (outbox,), outbox.term() as term:
        for session, id_ in (("s", "a"), ("s", "b"), ("t", "c"), ("t", "d")):
            await term.put("one", session, id_, id_.encode())
        await term.put("two", "s", "a", b"a")
        page = await waiting(outbox, "one", 4)
        assert [(kept.session, kept.id, kept.body) for kept in page] == [
            *(("s", "a", b"a"), ("s", "b", b"b"), ("t", "c", b"c"), ("t", "d", b"d"))
        ]
        assert [kept.id for kept in await outbox.waiting_since(page[1].place)] == ["b", "c", "d", "a"]
        await term.settle(page[0].place)
        await term.settle(page[0].place)
        await term.give_up(page[2], b"why")
        assert [kept.id for kept in await waiting(outbox, "one", 2)] == ["b", "d"]
        (dead,) = (await outbox.given_up("one", 0))[0]
        await outbox.send_again(dead, b"again")
        assert [(kept.id, kept.body) for kept in await waiting(outbox, "one", 3)][-1] == ("c", b"again")
        assert (await outbox.given_up("*", 0))[0] == []
        await term.forget("s")
        assert [kept.id for kept in await waiting(outbox, "*", 2)] == ["d", "c"]
        await term.refuse("one", b"x")
        assert await outbox.refused() == {"one": b"x"}
        await outbox.accept_again("one")
        assert await outbox.refused() == {}


async def test_a_lease_that_was_let_go_is_free_at_once(place: tuple[str, int]) -> None:
    url, replicas = place
    async with opened(url, "wh-1", "wh-2", replicas=replicas) as (first, second):
        async with first.term() as term:
            await term.renew()
        loop = asyncio.get_running_loop()
        begun = loop.time()
        async with second.term():
            # No quarter of a lease has been waited for.
            assert loop.time() - begun < LEASE_S / 4


async def test_records_of_all_sessions_of_a_partition(place: tuple[str, int]) -> None:
    url, replicas = place
    settings = LogSettings(partitions=2, replicas=replicas)
    async with Connection(NatsSettings(nats_url=url), name="test") as connection:
        await Topology(connection, settings).apply()
        async with JetStreamLog(connection, settings) as log, JetStreamPartitions(connection, 2) as partitions:
            await log.prepare()
            assert await partitions.last(0) == 0
            assert await partitions.read(0, 0) == ([], True)
            sessions = [name for name in map("s{}".format, range(20)) if log.subjects(name).partition == 0][:3]
            for name in sessions:
                await partitions.written(0, 0)
                await log.claim(log.subjects(name), "main", 0, Participant("agent", "w"), 1)
                # Word of it comes long before the reader would look by itself.
                async with asyncio.timeout(WAIT_S):
                    await partitions.written(0, 2 * WAIT_S)
            async with asyncio.timeout(WAIT_S):
                while len(page := (await partitions.read(0, 0))[0]) < 3:
                    await asyncio.sleep(0.02)
            assert [stored.subject for stored in page] == [f"s.00.{name}.r.own.main" for name in sessions]
            assert await partitions.last(0) == page[-1].seq
            assert (await partitions.read(0, page[1].seq))[0] == page[2:]
