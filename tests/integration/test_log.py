"""The session log over JetStream: what is stored, what is refused, what is known after trouble."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import orjson
import pytest

from broker.codec import decode_at
from broker.config import LogSettings, NatsSettings
from broker.errors import InvalidName, Unavailable, WrongSequence
from broker.events import Entry, InputSent, OtherEvent, Participant, SessionOwner, TextMessageContent
from broker.interfaces import Of
from broker.jetstream.connection import Connection
from broker.jetstream.direct import TooManySubjects
from broker.jetstream.log import JetStreamLog
from broker.jetstream.topology import Topology
from broker.subjects import MAIN_LANE, SessionSubjects, place_of
from broker.tail import Rewound
from tests.support.lagging import LaggingLog
from tests.support.nats import NatsCluster, NatsNode
from tests.support.stack import read_entries
from tests.support.tcp import Proxy, proxy_to

WAIT_S = 20.0
W1, W2 = Participant("agent", "w-1"), Participant("agent", "w-2")
SETTINGS = LogSettings(partitions=1, lease_s=5.0, catchup_batch=16, join_recheck_s=0.2)


@dataclass(frozen=True, slots=True)
class Opened:
    """A log over a connection of its own, and the subjects of one session."""

    connection: Connection
    log: JetStreamLog
    subjects: SessionSubjects

    async def input(self, input_id: str, content: str = "hello") -> int:
        entry = Entry(id=input_id, ts=1, events=(InputSent(input_id, content),), by=Participant("user", "u"))
        return (await self.log.append_input(self.subjects, entry, input_id)).seq

    async def claim(self, expected: int, owner: Participant = W1) -> int:
        return await self.log.claim(self.subjects, MAIN_LANE, expected, owner, 1)

    async def append(self, fence: int, n: int, *, off: int | None = None) -> int:
        """A record, or with `off` a delta."""
        return await self.log.append(self.subjects, MAIN_LANE, fence, written(fence, n, off=off))

    async def ids(self) -> list[str]:
        """The ids of all entries, in order."""
        return [entry.id for _, entry in await read_entries(self.log, self.subjects.session)]


def written(fence: int, n: int, *, off: int | None = None) -> Entry:
    if off is None:
        return Entry(f"{fence}-{n}", 1, (OtherEvent("CUSTOM", {"type": "CUSTOM", "value": n}),), lane=MAIN_LANE)
    return Entry(f"{fence}-{n}", 1, (TextMessageContent("m", f"{n} "),), lane=MAIN_LANE, off=off)


@contextlib.asynccontextmanager
async def opened(url: str, settings: LogSettings = SETTINGS, **nats: float) -> AsyncIterator[Opened]:
    """Opens a log; the first to come makes the streams."""
    values = {"reconnect_wait_s": 0.02, "connect_timeout_s": 0.5, "ack_timeout_s": 1.0, **nats}
    async with Connection(NatsSettings(nats_url=url, **values), name="test") as connection:  # type: ignore[arg-type]
        await Topology(connection, settings).apply()
        async with JetStreamLog(connection, settings) as log:
            await log.prepare()
            yield Opened(connection, log, log.subjects("s"))


def clustered(cluster: NatsCluster) -> tuple[str, LogSettings]:
    return ",".join(cluster.urls), LogSettings(
        partitions=1, replicas=3, lease_s=10.0, catchup_batch=16, join_recheck_s=0.2
    )


# --- storing and reading -------------------------------------------------------------------------------------------


async def test_everything_is_in_one_order(nats_server: NatsNode) -> None:
    async with opened(nats_server.url) as it:
        seqs = [await it.input("a")]
        fence = await it.claim(0)
        seqs += [fence, await it.append(fence, 1), await it.append(fence, 2, off=0), await it.append(fence, 3)]
        await it.log.release(it.subjects, MAIN_LANE, fence, W1, 1)
        entries = await read_entries(it.log, "s")
        assert [seq for seq, _ in entries][:-1] == seqs
        assert [entry.id for _, entry in entries][2:5] == [f"{fence}-{n}" for n in (1, 2, 3)]
        assert entries[0][1].events == (InputSent("a", "hello"),)
        assert entries[1][1].events == (SessionOwner(MAIN_LANE, "agent", "w-1"),)
        assert entries[5][1].events == (SessionOwner(MAIN_LANE, "none"),)
        head = await it.log.head(it.subjects)
        assert head is not None
        assert head.seq == entries[-1][0]


async def test_the_last_records_up_to_a_record(nats_server: NatsNode) -> None:
    """By which a gateway knows whether it has missed anything: of this session alone, and no deltas."""
    async with opened(nats_server.url) as it:
        other = Opened(it.connection, it.log, it.log.subjects("s-2"))
        first = await it.input("a")
        fence = await it.claim(0)
        early = await it.append(fence, 1)
        await other.input("b")
        delta = await it.append(fence, 2, off=0)
        second = await it.input("c")
        late = await it.append(fence, 3)
        inputs, events, owner = it.subjects.inputs, it.subjects.events(MAIN_LANE), it.subjects.owner(MAIN_LANE)
        assert await it.log.lasts(it.subjects, first) == {inputs: first}
        assert await it.log.lasts(it.subjects, early) == {inputs: first, owner: fence, events: early}
        assert await it.log.lasts(it.subjects, second) == {inputs: second, owner: fence, events: early}
        assert await it.log.lasts(it.subjects, late) == {inputs: second, owner: fence, events: late}
        for no_record in (delta, late + 1):
            assert await it.log.lasts(it.subjects, no_record) is None


async def test_a_session_with_more_lanes_than_can_be_asked_for_is_followed_all_the_same(nats_server: NatsNode) -> None:
    async with opened(nats_server.url) as it:
        for number in range(1025):
            last = await it.log.claim(it.subjects, f"lane-{number}", 0, W1, 1)
        with pytest.raises(TooManySubjects):
            await it.log.lasts(it.subjects, last)
        async with it.log.tail(it.subjects, last) as tail:
            assert await tail.next() == []
            assert await tail.has_all(last)


async def test_sessions_do_not_see_each_other(nats_server: NatsNode) -> None:
    async with opened(nats_server.url) as it:
        other = Opened(it.connection, it.log, it.log.subjects("s-2"))
        await it.input("a")
        await other.input("b")
        await it.input("c")
        assert await it.ids() == ["a", "c"]
        head = await other.log.head(other.subjects)
        assert head is not None
        assert head.seq == 2
        assert await it.log.head(it.log.subjects("never-written")) is None
        assert await it.log.read(it.log.subjects("never-written"), 0) == ([], True)
        with pytest.raises(InvalidName):
            it.log.subjects("s.>")


async def test_a_question_that_was_lost_with_a_leader_is_asked_again(nats_server: NatsNode) -> None:
    """It is answered long before its time is up. A write is not: it may have been stored."""
    async with proxy_to(nats_server.url) as proxy, opened(proxy.url, ack_timeout_s=10 * WAIT_S) as it:
        stored = await it.input("a")
        proxy.swallow_requests = True
        async with asyncio.timeout(WAIT_S), asyncio.TaskGroup() as tasks:
            asking = tasks.create_task(it.log.head(it.subjects))
            await proxy.swallowed.wait()
            proxy.swallow_requests = False
        head = asking.result()
        assert head is not None
        assert head.seq == stored


async def test_reading_comes_in_pages(nats_server: NatsNode) -> None:
    async with opened(nats_server.url) as it:
        fence = await it.claim(0)
        stored = [await it.append(fence, n, off=n if n % 3 else None) for n in range(1, 41)]
        everything, pages = await _read_all(it, Of.EVERYTHING)
        assert everything == [fence, *stored]
        assert pages == 3, "41 entries by 16"
        records, _ = await _read_all(it, Of.RECORDS)
        assert records == [fence, *stored[2::3]]
        deltas, end = await it.log.read_deltas(it.subjects, MAIN_LANE, stored[20])
        assert [entry.seq for entry in deltas] == [seq for n, seq in enumerate(stored, 1) if n > 21 and n % 3][:16]
        assert end == (len(deltas) < 16)
        assert await it.log.read_deltas(it.subjects, "other", 0) == ([], True)


async def _read_all(it: Opened, of: Of) -> tuple[list[int], int]:
    seqs: list[int] = []
    pages, end = 0, False
    while not end:
        page, end = await it.log.read(it.subjects, seqs[-1] if seqs else 0, of)
        seqs += [entry.seq for entry in page]
        pages += 1
    return seqs, pages


async def test_a_large_page_is_cut_by_bytes(nats_server: NatsNode) -> None:
    """No page holds more than about a megabyte, whatever its entries are."""
    async with opened(nats_server.url) as it:
        for i in range(12):
            await it.input(f"a{i}", "x" * 200_000)
        page, end = await it.log.read(it.subjects, 0)
        assert 1 <= len(page) <= 6
        assert not end
        assert len(await it.ids()) == 12


async def test_the_same_message_id_is_stored_once(nats_server: NatsNode) -> None:
    async with opened(nats_server.url) as it:
        entry = Entry(id="a", ts=1, events=(InputSent("a", "hello"),))
        first = await it.log.append_input(it.subjects, entry, "a")
        again = await it.log.append_input(it.subjects, entry, "a")
        assert (again.seq, again.duplicate) == (first.seq, True)
        elsewhere = await it.log.append_input(it.log.subjects("s-2"), entry, "a")
        assert not elsewhere.duplicate, "ids belong to their session"
        async with asyncio.TaskGroup() as tasks:
            at_once = [tasks.create_task(it.log.append_input(it.subjects, entry, "b")) for _ in range(20)]
        assert sorted(task.result().duplicate for task in at_once) == [False, *[True] * 19]
        assert await it.ids() == ["a", "a"]


async def test_holds_says_whether_an_entry_is_there(nats_server: NatsNode) -> None:
    async with opened(nats_server.url) as it:
        seq = await it.input("a")
        assert await it.log.holds(it.subjects, seq)
        assert not await it.log.holds(it.subjects, seq + 1)
        await it.connection.api("STREAM.MSG.DELETE.S00", {"seq": seq})
        assert not await it.log.holds(it.subjects, seq)


async def test_a_new_stream_is_a_new_epoch(nats_server: NatsNode) -> None:
    async with opened(nats_server.url) as it:
        before = await it.log.epoch(it.subjects)
        await it.input("a")
        assert await it.log.epoch(it.subjects) == before
        async with opened(nats_server.url) as other:
            assert await other.log.epoch(other.subjects) == before, "the same for everybody"
        await nats_server.restart()
        async with opened(nats_server.url) as other:
            assert await other.log.epoch(other.subjects) == before, "a restart changes nothing"
            await other.connection.api("STREAM.DELETE.S00")
            await Topology(other.connection, SETTINGS).apply()
        async with opened(nats_server.url) as other:
            assert await other.log.epoch(other.subjects) != before


async def test_the_checkpoint_is_the_newest_alone(nats_server: NatsNode) -> None:
    async with opened(nats_server.url) as it:

        async def newest() -> bytes | None:
            stored = await it.log.read_checkpoint(it.subjects)
            return None if stored is None else stored.body

        assert await newest() is None
        fence = await it.claim(0)
        for body in (b'{"v":1}', b'{"v":2}', b'{"v":3}'):
            await it.log.write_checkpoint(it.subjects, MAIN_LANE, fence, body)
        assert await newest() == b'{"v":3}'
        assert (await it.connection.api("STREAM.INFO.S00"))["state"]["messages"] == 2, "the claim and one checkpoint"
        assert await it.ids() == [(await it.ids())[0]], "it is no entry of the log"
        later = await it.claim(fence, W2)
        with pytest.raises(WrongSequence):
            await it.log.write_checkpoint(it.subjects, MAIN_LANE, fence, b'{"v":4}')
        await it.log.write_checkpoint(it.subjects, MAIN_LANE, later, b'{"v":5}')
        assert await newest() == b'{"v":5}'


# --- fences ----------------------------------------------------------------------------------------------------------


async def test_a_stale_fence_is_refused(nats_server: NatsNode) -> None:
    async with opened(nats_server.url) as it:
        await _stale_fence(it)


@pytest.mark.cluster
async def test_a_stale_fence_is_refused_in_a_cluster(nats_cluster: NatsCluster) -> None:
    url, settings = clustered(nats_cluster)
    async with opened(url, settings) as it:
        await _stale_fence(it)


async def _stale_fence(it: Opened) -> None:
    first = await it.claim(0)
    await it.append(first, 1)
    second = await it.claim(first, W2)
    for off in (None, 0):
        with pytest.raises(WrongSequence):
            await it.append(first, 2, off=off)
        with pytest.raises(WrongSequence):
            await it.append(second + 100, 1, off=off)
    with pytest.raises(WrongSequence):
        await it.log.release(it.subjects, MAIN_LANE, first, W1, 1)
    await it.append(second, 1)
    await it.log.release(it.subjects, MAIN_LANE, second, W2, 1)
    with pytest.raises(WrongSequence):
        await it.append(second, 2)
    written_ids = [id_ for id_ in await it.ids() if not id_.startswith("own-")]
    assert written_ids == [f"{first}-1", f"{second}-1"]
    other_lane = await it.log.claim(it.subjects, "side", 0, W1, 1)
    await it.log.append(it.subjects, "side", other_lane, written(other_lane, 1))


async def test_of_many_claimants_one_wins(nats_server: NatsNode) -> None:
    async with opened(nats_server.url) as it:
        await _claim_race(it, [nats_server.url])


@pytest.mark.cluster
async def test_of_many_claimants_one_wins_in_a_cluster(nats_cluster: NatsCluster) -> None:
    url, settings = clustered(nats_cluster)
    async with opened(url, settings) as it:
        await _claim_race(it, nats_cluster.urls)


async def _claim_race(it: Opened, urls: list[str]) -> None:
    """Eight at once, through all servers, ten times, each time from where the last winner stands."""
    async with contextlib.AsyncExitStack() as stack:
        claimants = [await stack.enter_async_context(opened(url, it.log.settings)) for url in (urls * 8)[:8]]
        held = 0
        for _ in range(10):
            async with asyncio.TaskGroup() as tasks:
                tries = [
                    tasks.create_task(_try_claim(each, held, Participant("agent", f"w-{i}")))
                    for i, each in enumerate(claimants)
                ]
            won = [(i, task.result()) for i, task in enumerate(tries) if task.result() is not None]
            assert len(won) == 1
            winner, fence = won[0]
            assert fence is not None
            assert fence > held
            head = await it.log.head(it.subjects)
            assert head is not None
            assert head.seq == fence
            assert orjson.loads(head.body)["by"]["id"] == f"w-{winner}"
            held = fence


async def _try_claim(it: Opened, expected: int, who: Participant) -> int | None:
    try:
        return await it.claim(expected, who)
    except WrongSequence:
        return None


# --- outcomes that are not known -----------------------------------------------------------------------------------------


async def sent(it: Opened) -> int:
    """As a client does: the same input again, until somebody says that it is stored."""
    async with asyncio.timeout(WAIT_S):
        while True:
            with contextlib.suppress(Unavailable):
                return await it.input("a")


Write = Callable[[Opened, int], Coroutine[Any, Any, object]]
WRITES: dict[str, Write] = {
    "record": lambda it, fence: it.append(fence, 1),
    "delta": lambda it, fence: it.append(fence, 1, off=0),
    "claim": lambda it, fence: it.claim(fence, W2),
    "release": lambda it, fence: it.log.release(it.subjects, MAIN_LANE, fence, W1, 1),
    "input": lambda it, fence: sent(it),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=list(WRITES))
async def test_a_lost_acknowledgement_is_found_out(nats_server: NatsNode, write: Write) -> None:
    """The write is stored, and the connection breaks before the acknowledgement comes."""

    async def trouble(proxy: Proxy) -> None:
        proxy.swallow_answers = True
        await proxy.swallowed.wait()
        proxy.cut()

    await _write_in_trouble(nats_server, write, trouble)


@pytest.mark.parametrize("write", WRITES.values(), ids=list(WRITES))
async def test_a_lost_write_is_written_again(nats_server: NatsNode, write: Write) -> None:
    """The write never reaches the server."""

    async def trouble(proxy: Proxy) -> None:
        proxy.swallow_requests = True
        await proxy.swallowed.wait()
        proxy.cut()

    await _write_in_trouble(nats_server, write, trouble)


@pytest.mark.parametrize("write", WRITES.values(), ids=list(WRITES))
async def test_a_write_that_is_held_up_counts_once(nats_server: NatsNode, write: Write) -> None:
    """It arrives after its writer has given up waiting, and is asking what became of it."""

    async def trouble(proxy: Proxy) -> None:
        proxy.freeze()
        await asyncio.sleep(0.35)  # beyond the time for an acknowledgement, twice
        proxy.thaw()

    await _write_in_trouble(nats_server, write, trouble, ack_timeout_s=0.15)


async def _write_in_trouble(
    server: NatsNode, write: Write, trouble: Callable[[Proxy], Coroutine[Any, Any, None]], **nats: float
) -> None:
    async with (
        proxy_to(server.url) as proxy,
        opened(server.url) as witness,
        opened(proxy.url, **{"ack_timeout_s": 2.0, **nats}) as it,
    ):
        fence = await it.claim(0)
        before = len(await witness.ids())
        async with asyncio.timeout(WAIT_S), asyncio.TaskGroup() as tasks:
            writing = tasks.create_task(write(it, fence))
            await trouble(proxy)
        after = await witness.ids()
        assert len(after) == before + 1, "stored, and once"
        head = await witness.log.head(witness.subjects)
        assert head is not None
        result = writing.result()
        assert result in (None, head.seq), "the writer knows where"


async def test_a_claim_lost_in_trouble_is_known_to_be_lost(nats_server: NatsNode) -> None:
    """Another claims while the outcome of ours is not known: whoever is first in the log has the lane."""
    async with proxy_to(nats_server.url) as proxy, opened(nats_server.url) as other, opened(proxy.url) as it:
        first = await it.claim(0)
        proxy.swallow_requests = True
        async with asyncio.TaskGroup() as tasks:
            claiming = tasks.create_task(_try_claim(it, first, W1))
            await proxy.swallowed.wait()
            second = await other.claim(first, W2)
            proxy.cut()
        assert claiming.result() is None
        proxy.swallowed.clear()
        proxy.swallow_answers = True
        async with asyncio.TaskGroup() as tasks:
            winning = tasks.create_task(_try_claim(it, second, W1))
            await proxy.swallowed.wait()
            assert await _try_claim(other, second, W2) is None
            proxy.cut()
        head = await other.log.head(other.subjects)
        assert head is not None
        assert winning.result() == head.seq


async def test_a_server_that_holds_still_is_waited_for(nats_server: NatsNode) -> None:
    """SIGSTOP beyond the time for an acknowledgement, SIGCONT within the lease."""
    async with opened(nats_server.url, ack_timeout_s=0.2) as it:
        fence = await it.claim(0)
        nats_server.pause()
        async with asyncio.timeout(WAIT_S), asyncio.TaskGroup() as tasks:
            writing = tasks.create_task(it.append(fence, 1))
            await asyncio.sleep(0.7)
            nats_server.resume()
        assert (await it.ids())[1:] == [f"{fence}-1"]
        assert await it.log.holds(it.subjects, writing.result())


async def test_a_server_that_stays_away_is_unavailable_at_the_end_of_the_lease(nats_server: NatsNode) -> None:
    settings = LogSettings(partitions=1, lease_s=1.0)
    async with opened(nats_server.url, settings, ack_timeout_s=0.2) as it:
        fence = await it.claim(0)
        await nats_server.kill()
        loop = asyncio.get_running_loop()
        begin = loop.time()
        with pytest.raises(Unavailable):
            await it.append(fence, 1)
        assert 0.5 < loop.time() - begin < 4.0
        with pytest.raises(Unavailable):
            await it.log.head(it.subjects)
        with pytest.raises(Unavailable):
            await it.log.read(it.subjects, 0)


# --- following -----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Follower:
    """What one reader has been given, as a reader of a session keeps it."""

    ids: list[str]
    seqs: list[int]
    rewinds: int = 0


async def follow(it: Opened, follower: Follower, until: str, after: int = 0, of: Of = Of.EVERYTHING) -> None:
    """Reads until entry `until`; forgets what a rewind says to forget."""
    async with asyncio.timeout(WAIT_S), it.log.tail(it.subjects, after, of) as tail:
        while until not in follower.ids:
            for delivery in await tail.next():
                if isinstance(delivery, Rewound):
                    keep = sum(seq <= delivery.to for seq in follower.seqs)
                    del follower.ids[keep:], follower.seqs[keep:]
                    follower.rewinds += 1
                    continue
                place = place_of(delivery.subject)
                assert place is not None
                follower.ids.append(decode_at(place, delivery.body)[0].id)
                follower.seqs.append(delivery.seq)


async def write_many(it: Opened, fence: int, count: int, pause_s: float = 0.0) -> list[str]:
    """Writes as an owner does, one after another; returns the ids that were acknowledged."""
    acknowledged = []
    for n in range(1, count + 1):
        await it.append(fence, n, off=n if n % 4 else None)
        acknowledged.append(f"{fence}-{n}")
        await asyncio.sleep(pause_s)
    return acknowledged


async def test_joining_a_live_session_misses_nothing(nats_server: NatsNode) -> None:
    """Many join while it is being written, some from a place of their own."""
    async with opened(nats_server.url) as writer, opened(nats_server.url) as it:
        fence = await writer.claim(0)
        followers = [Follower([], []) for _ in range(20)]
        async with asyncio.TaskGroup() as tasks:
            writing = tasks.create_task(write_many(writer, fence, 300))
            for i, follower in enumerate(followers):
                after = 0 if i % 2 else fence
                of = Of.RECORDS if i % 5 == 0 else Of.EVERYTHING
                tasks.create_task(follow(it, follower, f"{fence}-300", after, of))
                await asyncio.sleep(0.005)
        entries = await read_entries(it.log, "s")
        assert [entry.id for _, entry in entries][1:] == writing.result()
        for i, follower in enumerate(followers):
            wanted = [seq for seq, entry in entries if (i % 2 or seq > fence) and (i % 5 or entry.off is None)]
            assert follower.seqs == wanted
            assert follower.rewinds == 0


async def test_an_empty_batch_says_that_the_reader_has_caught_up(nats_server: NatsNode) -> None:
    async with opened(nats_server.url) as it:
        await it.input("a")
        async with asyncio.timeout(WAIT_S), it.log.tail(it.subjects, 0) as tail:
            assert len(await tail.next()) == 1
            assert tail.seen == 1
            assert await tail.next() == []
            assert tail.caught_up
            await it.input("b")
            (entry,) = await tail.next()
            assert (entry.seq if not isinstance(entry, Rewound) else None) == 2


async def test_cancelling_next_loses_nothing(nats_server: NatsNode) -> None:
    async with opened(nats_server.url) as writer, opened(nats_server.url) as it:
        fence = await writer.claim(0)
        seqs: list[int] = []
        async with asyncio.timeout(WAIT_S), asyncio.TaskGroup() as tasks, it.log.tail(it.subjects, 0) as tail:
            writing = tasks.create_task(write_many(writer, fence, 200))
            while len(seqs) < 201:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.001):
                        while True:
                            batch = await tail.next()
                            seqs += [entry.seq for entry in batch if not isinstance(entry, Rewound)]
        assert seqs == list(range(1, 202))
        assert len(writing.result()) == 200


async def test_following_goes_on_through_a_restart(nats_server: NatsNode) -> None:
    """Kill -9 of the server in mid-stream: the writer goes on under its fence, and the readers miss nothing."""
    async with (
        opened(nats_server.url, LogSettings(partitions=1, lease_s=20.0)) as writer,
        opened(nats_server.url) as it,
    ):
        fence = await writer.claim(0)
        follower = Follower([], [])
        async with asyncio.TaskGroup() as tasks:
            writing = tasks.create_task(write_many(writer, fence, 150, pause_s=0.002))
            tasks.create_task(follow(it, follower, f"{fence}-150"))
            for at in (30, 90):
                async with asyncio.timeout(WAIT_S):
                    while f"{fence}-{at}" not in follower.ids:
                        await asyncio.sleep(0.005)
                await nats_server.kill()
                await nats_server.start()
        assert _once(follower.ids)[1:] == writing.result()
        assert follower.seqs == [seq for seq, _ in await read_entries(it.log, "s")]


@pytest.mark.cluster
async def test_following_goes_on_through_new_leaders(nats_cluster: NatsCluster) -> None:
    """The stream's leader steps down again and again."""
    url, settings = clustered(nats_cluster)
    async with contextlib.AsyncExitStack() as stack:
        writer = await stack.enter_async_context(opened(url, settings, ack_timeout_s=1.0))
        readers = [await stack.enter_async_context(opened(each, settings)) for each in [*nats_cluster.urls, url]]
        fence = await writer.claim(0)
        followers = [Follower([], []) for _ in readers]
        async with asyncio.TaskGroup() as tasks:
            writing = tasks.create_task(write_many(writer, fence, 200, pause_s=0.005))
            for reader, follower in zip(readers, followers, strict=True):
                tasks.create_task(follow(reader, follower, f"{fence}-200"))
            for at in (40, 80, 120):
                await _read_up_to(followers[-1], f"{fence}-{at}")
                with contextlib.suppress(Unavailable):
                    await writer.connection.api("STREAM.LEADER.STEPDOWN.S00")
        log = [seq for seq, _ in await read_entries(writer.log, "s")]
        for follower in followers:
            assert follower.seqs == log
            assert _once(follower.ids)[1:] == writing.result()


async def _read_up_to(follower: Follower, id_: str) -> None:
    async with asyncio.timeout(WAIT_S):
        while id_ not in follower.ids:
            await asyncio.sleep(0.005)


def _once(ids: list[str]) -> list[str]:
    """Without the writes that an unknown outcome made twice, one right after the other: the fold counts them once."""
    return [id_ for i, id_ in enumerate(ids) if i == 0 or ids[i - 1] != id_]


async def test_deltas_are_read_as_the_leader_has_them(nats_server: NatsNode) -> None:
    """Whoever takes a run over by a replica that lags behind must not take the text for shorter than it is."""
    async with opened(nats_server.url) as it, LaggingLog(it.connection, SETTINGS) as lagging:
        await lagging.prepare()
        fence = await it.claim(0)
        stored = [await it.append(fence, n, off=n) for n in range(40)]
        assert await lagging.read(it.subjects, 0, Of.EVERYTHING) == ([], True), "other reads may lag"
        seqs: list[int] = []
        end = False
        while not end:
            page, end = await lagging.read_deltas(it.subjects, MAIN_LANE, seqs[-1] if seqs else 0)
            seqs += [entry.seq for entry in page]
        assert seqs == stored
