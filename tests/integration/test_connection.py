"""The connection to NATS: what it does when the server, or the network, does not."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest

from broker.config import LogSettings, NatsSettings
from broker.errors import LogFull, Unavailable, WrongSequence
from broker.events import Entry, InputSent, OtherEvent, Participant
from broker.jetstream.answers import ServerRefused
from broker.jetstream.client import LiveClient
from broker.jetstream.connection import Connection
from broker.jetstream.dispatch import JetStreamJobQueue
from broker.jetstream.log import JetStreamLog
from broker.jetstream.server import EmbeddedServer, ServerOptions
from broker.jetstream.topology import Topology
from broker.subjects import MAIN_LANE
from tests.support.nats import NatsNode, free_ports
from tests.support.stack import read_entries
from tests.support.tcp import proxy_to

WAIT_S = 10.0

# nats-py leaves the socket of an attempt that failed to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <StreamWriter:ResourceWarning")

T = TypeVar("T")


def settings(url: str, **values: float) -> NatsSettings:
    """Short times."""
    return NatsSettings(
        nats_url=url,
        **{"ack_timeout_s": 0.5, "reconnect_wait_s": 0.05, "connect_timeout_s": 0.5, **values},  # type: ignore[arg-type]
    )


@contextlib.asynccontextmanager
async def open_connection(url: str, **values: float) -> AsyncIterator[Connection]:
    async with Connection(settings(url, **values), name="test") as connection:
        yield connection


async def make_stream(connection: Connection) -> None:
    await connection.api("STREAM.CREATE.S", {"name": "S", "subjects": ["s.>"], "storage": "file"})


async def eventually(call: Callable[[], Awaitable[T]]) -> T:
    """The result, once NATS is there."""
    async with asyncio.timeout(WAIT_S):
        while True:
            try:
                return await call()
            except Unavailable:
                await asyncio.sleep(0.02)


async def disconnected(connection: Connection) -> None:
    async with asyncio.timeout(WAIT_S):
        while connection.connected:
            await asyncio.sleep(0.01)


def at_rest(connection: Connection) -> bool:
    """Nothing is kept of what was asked."""
    return not connection._waiting and not connection._queues


async def test_publish_and_its_refusals(nats_server: NatsNode) -> None:
    async with open_connection(nats_server.url) as connection:
        await make_stream(connection)
        first = await connection.publish("s.a", b"1", {"Nats-Msg-Id": "x"})
        again = await connection.publish("s.a", b"1", {"Nats-Msg-Id": "x"})
        assert (first.seq, first.duplicate, again.seq, again.duplicate) == (1, False, 1, True)
        with pytest.raises(ServerRefused) as refused:
            await connection.publish("s.a", b"2", {"Nats-Expected-Last-Subject-Sequence": "7"})
        assert refused.value.code == 10071
        with pytest.raises(Unavailable, match="no NATS server answers"):
            await connection.publish("nowhere", b"")
        assert at_rest(connection)


async def test_starts_while_nats_is_away_and_recovers(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    heard: list[bool] = []
    async with open_connection(f"nats://127.0.0.1:{port}") as connection:
        connection.on_connectivity(heard.append)
        assert not connection.connected
        for call in (connection.publish("s.a", b""), connection.api("INFO"), connection.send("x", b"")):
            with pytest.raises(Unavailable, match="NATS is away"):
                await call
        async with EmbeddedServer(ServerOptions(data_dir=tmp_path, port=port)):
            async with asyncio.timeout(WAIT_S):
                await connection.wait_connected()
            await make_stream(connection)
            assert (await connection.publish("s.a", b"1")).seq == 1
            assert heard == [False, True]
        async with asyncio.timeout(WAIT_S):
            while len(heard) < 3:
                await asyncio.sleep(0.01)
        assert heard == [False, True, False]
        assert not connection.connected


async def test_ends_while_nats_has_never_been_there() -> None:
    (port,) = free_ports(1)
    begin = time.monotonic()
    async with open_connection(f"nats://127.0.0.1:{port}", connect_timeout_s=0.2):
        pass
    assert time.monotonic() - begin < 3


async def test_a_restart_of_the_server_is_survived(nats_server: NatsNode) -> None:
    async with open_connection(nats_server.url) as connection:
        disturbed: list[object] = []
        forget = connection.on_disturbed(disturbed.append)
        await make_stream(connection)
        received: list[bytes] = []

        async def take(msg: object) -> None:
            received.append(msg.data)  # type: ignore[attr-defined]

        await connection.subscribe("live.>", take)
        await nats_server.kill()
        await disconnected(connection)
        with pytest.raises(Unavailable):
            await connection.publish("s.a", b"1")
        await nats_server.start()
        await eventually(lambda: connection.publish("s.a", b"2"))
        await connection.send("live.x", b"again")
        async with asyncio.timeout(WAIT_S):
            while not (disturbed and received):
                await asyncio.sleep(0.01)
        assert disturbed == [None], "those who follow the log are told that they may have missed something"
        assert received == [b"again"], "subscriptions are restored"
        forget()
        assert at_rest(connection)


async def test_pending_requests_fail_when_the_connection_goes(nats_server: NatsNode) -> None:
    """At once, not at their time-outs."""
    async with proxy_to(nats_server.url) as proxy, open_connection(proxy.url, ack_timeout_s=30) as connection:
        await make_stream(connection)
        proxy.swallow_answers = True
        async with asyncio.timeout(WAIT_S), asyncio.TaskGroup() as tasks:
            calls = [tasks.create_task(_failing(connection.publish(f"s.{i}", b""))) for i in range(20)]
            await proxy.swallowed.wait()
            proxy.cut()
        assert all("outcome is not known" in str(call.result()) for call in calls)
        assert at_rest(connection)
        assert (await eventually(lambda: connection.publish("s.last", b""))).seq > 1


async def _failing(call: Awaitable[object]) -> Unavailable:
    with pytest.raises(Unavailable) as caught:
        await call
    return caught.value


async def test_unavailable_comes_within_the_time_out(nats_server: NatsNode) -> None:
    """A server that holds still, its sockets open, as does a network that swallows everything."""
    async with open_connection(nats_server.url) as connection:
        await make_stream(connection)
        nats_server.pause()
        for call in (
            lambda: connection.publish("s.a", b"1"),
            lambda: connection.api("STREAM.INFO.S"),
            connection.flush,
        ):
            begin = time.monotonic()
            with pytest.raises(Unavailable):
                await call()
            assert time.monotonic() - begin < 2.5
        nats_server.resume()
        await eventually(lambda: connection.publish("s.b", b"2"))
        assert at_rest(connection)


async def test_a_silent_network_is_noticed_by_pings(nats_server: NatsNode) -> None:
    async with proxy_to(nats_server.url) as proxy, open_connection(proxy.url, ping_interval_s=0.1) as connection:
        await make_stream(connection)
        proxy.freeze()
        proxy.up = False
        await disconnected(connection)
        proxy.thaw()
        proxy.bring_up()
        await eventually(lambda: connection.publish("s.a", b"1"))


@pytest.mark.parametrize("command", [b"SUB ", b"PING", b"CONNECT"], ids=lambda c: c.decode().strip())
async def test_a_cut_while_connecting_is_survived(nats_server: NatsNode, command: bytes) -> None:
    """The connection breaks at any step of its making, and comes up all the same."""
    async with proxy_to(nats_server.url) as proxy:
        proxy.cut_at = command
        async with open_connection(proxy.url) as connection:
            async with asyncio.timeout(WAIT_S):
                while proxy.cut_at is not None:
                    await asyncio.sleep(0.01)
                await connection.wait_connected()
            await eventually(lambda: make_stream_again(connection))
            assert (await eventually(lambda: connection.publish("s.a", b"1"))).seq >= 1


async def make_stream_again(connection: Connection) -> None:
    """The stream may exist already: the answer of the first try may have been cut off."""
    with contextlib.suppress(ServerRefused):
        await make_stream(connection)


async def test_cancelled_requests_leave_nothing(nats_server: NatsNode) -> None:
    async with open_connection(nats_server.url) as connection:
        await make_stream(connection)
        for i in range(200):
            async with asyncio.TaskGroup() as tasks:
                call = tasks.create_task(connection.publish("s.a", b"x"))
                for _ in range(i % 8):
                    await asyncio.sleep(0)
                call.cancel()
        assert at_rest(connection)
        assert (await connection.publish("s.b", b"y")).seq >= 1


async def test_answers_that_come_too_late_are_dropped(nats_server: NatsNode) -> None:
    async with proxy_to(nats_server.url) as proxy, open_connection(proxy.url, ack_timeout_s=0.2) as connection:
        await make_stream(connection)
        proxy.freeze()
        with pytest.raises(Unavailable, match="in time"):
            await connection.publish("s.late", b"1")
        proxy.thaw()
        ack = await connection.publish("s.next", b"2")
        assert ack.seq == 2, "its own answer, not the late one"
        assert at_rest(connection)


async def test_a_slow_handler_is_told_of(nats_server: NatsNode) -> None:
    """Messages beyond a subscription's limit are dropped, and whoever follows it hears of that."""
    async with open_connection(nats_server.url) as connection:
        release = asyncio.Event()
        disturbed: list[object] = []
        connection.on_disturbed(disturbed.append)

        async def slow(_: object) -> None:
            await release.wait()

        sub = await connection.subscribe("live.>", slow, max_messages=10)
        for _ in range(50):
            await connection.send("live.x", b"")
        async with asyncio.timeout(WAIT_S):
            while sub not in disturbed:
                await connection.flush()
        release.set()


async def test_full_storage_is_said_and_recovered_from(tmp_path: Path) -> None:
    """Nothing that was acknowledged is lost, and writing goes on when there is room."""
    log_settings = LogSettings(partitions=1, lease_s=1.0)
    options = ServerOptions(data_dir=tmp_path, max_store_bytes=3 << 20, sync_always=False)
    async with EmbeddedServer(options) as server, open_connection(server.url) as connection:
        await Topology(connection, log_settings).apply()
        async with JetStreamLog(connection, log_settings) as log:
            await log.prepare()
            subjects = log.subjects("s")
            stored = 0
            fence = await log.claim(subjects, MAIN_LANE, 0, Participant("agent", "w-1"), 1)
            with contextlib.suppress(LogFull):
                for i in range(100):
                    await log.append_input(subjects, _input(f"a{i}", 60_000), f"a{i}")
                    stored += 1
            assert 10 < stored < 100
            with pytest.raises(LogFull, match="storage is full"):
                await log.append_input(subjects, _input("more", 60_000), "more")
            with pytest.raises(LogFull, match="storage is full"):
                await log.append(subjects, MAIN_LANE, fence, _record(fence, 1, 60_000))
            with pytest.raises(LogFull, match="storage is full"):
                await _offer_many(connection, log)
            assert len(await read_entries(log, "s")) >= stored, "reading goes on"
            await connection.api("STREAM.PURGE.S00", {"filter": "s.00.s.r.in", "keep": 1})
            await connection.api("STREAM.PURGE.WORK")
            assert (await log.append_input(subjects, _input("last", 100), "last")).seq > stored


async def _offer_many(connection: Connection, log: JetStreamLog) -> None:
    """A job is small, but there is room for so many only."""
    queue = JetStreamJobQueue(connection, "default")
    for i in range(10_000):
        await queue.offer(log.subjects(f"full-{i}-{'x' * 100}"), MAIN_LANE)


def _input(input_id: str, size: int) -> Entry:
    return Entry(id=input_id, ts=1, events=(InputSent(input_id, "x" * size),), by=Participant("user", "u"))


def _record(fence: int, n: int, size: int) -> Entry:
    custom = OtherEvent("CUSTOM", {"type": "CUSTOM", "value": "x" * size})
    return Entry(id=f"{fence}-{n}", ts=1, events=(custom,), lane=MAIN_LANE)


async def test_a_message_above_the_servers_limit_is_refused_alone(nats_server: NatsNode) -> None:
    """It raises, and the connection goes on."""
    log_settings = LogSettings(partitions=1, lease_s=1.0)
    async with open_connection(nats_server.url) as connection:
        await Topology(connection, log_settings).apply()
        async with JetStreamLog(connection, log_settings) as log:
            await log.prepare()
            subjects = log.subjects("s")
            fence = await log.claim(subjects, MAIN_LANE, 0, Participant("agent", "w"), 1)
            with pytest.raises(Exception, match=r"(?i)payload"):
                await log.append(subjects, MAIN_LANE, fence, _record(fence, 1, 2 << 20))
            assert connection.connected
            await log.append(subjects, MAIN_LANE, fence, _record(fence, 1, 10))
            with pytest.raises(WrongSequence):
                await log.append(subjects, MAIN_LANE, fence - 1, _record(fence - 1, 2, 10))
        assert at_rest(connection)


async def test_live_messages_are_cut_out_where_they_are_read(
    nats_server: NatsNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `broker.jetstream.client` uses of nats-py's inside: if that changes, they come the long way, or not at all."""
    long_way: list[int] = []
    process = LiveClient._process_msg

    async def watched(self: LiveClient, sid: int, *message: bytes) -> None:
        long_way.append(sid)
        await process(self, sid, *message)

    monkeypatch.setattr(LiveClient, "_process_msg", watched)
    heard: list[tuple[bytes, bytes]] = []
    async with open_connection(nats_server.url) as connection:
        await Topology(connection, LogSettings(partitions=1)).apply()
        sub = await connection.subscribe_live("live.00.s.>", lambda headers, data: heard.append((headers, data)))
        for i in range(50):
            await connection.publish("s.00.s.r.in", b"%d" % i)
        await connection.flush()
        assert [data for _, data in heard] == [b"%d" % i for i in range(50)]
        assert all(b"\r\nNats-Subject: s.00.s.r.in\r\n" in headers for headers, _ in heard)
        assert sub._id not in long_way
        assert long_way, "acknowledgements come the long way"
        await connection.unsubscribe(sub)
        await connection.publish("s.00.s.r.in", b"more")
        await connection.flush()
        assert len(heard) == 50
