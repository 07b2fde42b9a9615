"""The streams and consumers: made, compared, mended."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from broker.config import LogSettings, NatsSettings
from broker.errors import TopologyError, Unavailable
from broker.jetstream.connection import Connection
from broker.jetstream.log import JetStreamLog
from broker.jetstream.topology import ALARM_CONSUMER, Topology, stored_partitions, wanted_consumers, wanted_streams
from tests.support.dev import run
from tests.support.nats import NatsCluster, NatsNode

SETTINGS = LogSettings(partitions=3, pools="default,other", lease_s=4.0, delta_ttl_s=600)


@contextlib.asynccontextmanager
async def connected(url: str) -> AsyncIterator[Connection]:
    async with Connection(NatsSettings(nats_url=url), name="test") as connection:
        yield connection


async def test_apply_makes_everything_and_then_nothing(nats_server: NatsNode) -> None:
    async with connected(nats_server.url) as connection:
        topology = Topology(connection, SETTINGS)
        made = await topology.apply()
        wanted = {f"stream {name}" for name in wanted_streams(SETTINGS)}
        wanted |= {f"consumer {name}" for name in (*wanted_consumers(SETTINGS), ALARM_CONSUMER)}
        assert {drift.where for drift in made} == wanted
        assert all(str(drift).endswith("is missing") for drift in made)
        assert await topology.apply() == []
        assert await topology.check() == []
        assert await topology.check_shape() == []
        assert await stored_partitions(connection) == 3


async def test_an_empty_server_lacks_everything(nats_server: NatsNode) -> None:
    async with connected(nats_server.url) as connection:
        topology = Topology(connection, SETTINGS)
        missing = await topology.check()
        assert len(missing) == len(wanted_streams(SETTINGS)) + len(wanted_consumers(SETTINGS)) + 1
        assert all(drift.have is None for drift in missing)
        assert [str(drift) for drift in await topology.check_shape()] == ["the topology is missing"]
        assert await stored_partitions(connection) is None
        async with JetStreamLog(connection, SETTINGS) as log:
            with pytest.raises(TopologyError, match="topology apply"):
                await log.prepare()
            with pytest.raises(Unavailable):
                log.subjects("s")
            await topology.apply()
            await log.prepare()
            assert log.subjects("s").partition < 3


async def test_drift_is_reported_and_mended_without_loss(nats_server: NatsNode) -> None:
    async with connected(nats_server.url) as connection:
        topology = Topology(connection, SETTINGS)
        await topology.apply()
        await connection.publish("s.01.demo.r.in", b"{}")
        await _change_stream(connection, "S01", {"max_age": 5 * 10**9, "duplicate_window": 10**9})
        await connection.api(
            "CONSUMER.DURABLE.CREATE.WORK.pool-other",
            {
                "stream_name": "WORK",
                "config": wanted_consumers(SETTINGS)["pool-other"] | {"ack_wait": 9 * 10**9},
            },
        )
        found = await topology.check()
        assert {(drift.where, drift.field) for drift in found} == {
            ("stream S01", "max_age"),
            ("stream S01", "duplicate_window"),
            ("consumer pool-other", "ack_wait"),
        }
        assert "stream S01: max_age is 5000000000, must be 0" in map(str, found)
        shape = {(drift.where, drift.field) for drift in await topology.check_shape()}
        assert shape == {("stream S01", "max_age")}, "a running process does not depend on the others"
        assert await topology.apply() == found
        assert await topology.check() == []
        assert (await connection.api("STREAM.INFO.S01"))["state"]["messages"] == 1


async def test_what_a_process_depends_on_is_in_its_check(nats_server: NatsNode) -> None:
    async with connected(nats_server.url) as connection:
        topology = Topology(connection, SETTINGS)
        await topology.apply()
        await connection.api("CONSUMER.DELETE.WORK.pool-default")
        config = (await connection.api("STREAM.INFO.S02"))["config"]
        del config["republish"]
        await connection.api("STREAM.UPDATE.S02", config)
        assert {(d.where, d.field) for d in await topology.check_shape()} == {
            ("stream S02", "republish"),
            ("consumer pool-default", ""),
        }
        await topology.apply()
        assert await topology.check_shape() == []


async def test_another_number_of_partitions_is_refused_and_nothing_changed(nats_server: NatsNode) -> None:
    async with connected(nats_server.url) as connection:
        await Topology(connection, SETTINGS).apply()
        with pytest.raises(TopologyError, match=r"3 partitions.*ANTIPHON_PARTITIONS=3"):
            await Topology(connection, replace(SETTINGS, partitions=4, delta_ttl_s=60)).apply()
        assert await Topology(connection, SETTINGS).check() == []
        assert await Topology(connection, replace(SETTINGS, partitions=16)).check_shape() == [], "the log's own counts"


async def test_settings_may_change_later(nats_server: NatsNode) -> None:
    """The lease, the life of deltas and the pools are not fixed."""
    async with connected(nats_server.url) as connection:
        await Topology(connection, SETTINGS).apply()
        other = replace(SETTINGS, lease_s=9.0, delta_ttl_s=60.0, pools="default,other,third")
        changed = await Topology(connection, other).apply()
        assert {drift.where for drift in changed} >= {"stream S00", "consumer pool-default", "consumer pool-third"}
        assert await Topology(connection, other).check() == []


async def test_what_nats_refuses_is_said_in_one_line(nats_server: NatsNode) -> None:
    async with connected(nats_server.url) as connection:
        with pytest.raises(TopologyError, match="NATS refused") as caught:
            await Topology(connection, replace(SETTINGS, replicas=3)).apply()
        assert "\n" not in str(caught.value)


@pytest.mark.cluster
async def test_a_cluster_keeps_three_copies(nats_cluster: NatsCluster) -> None:
    settings = replace(SETTINGS, replicas=3)
    async with connected(",".join(nats_cluster.urls)) as connection:
        topology = Topology(connection, settings)
        await topology.apply()
        assert await topology.check() == []
        assert await topology.apply() == []
        for name in wanted_streams(settings):
            assert (await connection.api(f"STREAM.INFO.{name}"))["config"]["num_replicas"] == 3


async def test_nats_away_is_unavailable(nats_server: NatsNode) -> None:
    async with connected(nats_server.url) as connection:
        await nats_server.kill()
        with pytest.raises(Unavailable):
            await Topology(connection, SETTINGS).apply()
        with pytest.raises(Unavailable):
            await Topology(connection, SETTINGS).check()


async def test_apply_waits_for_nats_if_it_is_told_to(nats_server: NatsNode) -> None:
    await nats_server.kill()
    apply = ("topology", "apply", "--nats-url", nats_server.url)
    assert "NATS is away" in (await run(*apply, connect_timeout_s="0.2")).complaint
    tried = asyncio.Event()

    async def refuse(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tried.set()
        writer.transport.abort()

    async with asyncio.TaskGroup() as tasks:
        async with await asyncio.start_server(refuse, nats_server.options.host, nats_server.options.port):
            waiting = tasks.create_task(run(*apply, "--wait-s", "15", connect_timeout_s="0.2"))
            await tried.wait()
        await nats_server.start()
    assert waiting.result().code == 0, waiting.result()


async def _change_stream(connection: Connection, name: str, changes: dict[str, object]) -> None:
    config = (await connection.api(f"STREAM.INFO.{name}"))["config"]
    await connection.api(f"STREAM.UPDATE.{name}", config | changes)
