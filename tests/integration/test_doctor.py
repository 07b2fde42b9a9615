"""`antiphon doctor` against servers and clusters: what is well, what is not, and how to mend it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from platform import python_version
from typing import Any

import orjson
import pytest

from antiphon import doctor_cluster, findings
from broker.permissions import Role
from broker.versions import VERSION
from tests.support.nats import NatsCluster, NatsNode, cluster, single_server
from tests.support.rawclient import Wire, http_get
from tests.support.roles import settings_of
from tests.support.stack import Stack, open_log

pytestmark = [pytest.mark.timeout(120), pytest.mark.nats_roles]


@pytest.fixture
async def stack(tmp_path: Path, nats_server: NatsNode) -> AsyncIterator[Stack]:
    async with Stack(tmp_path / "stack", nats_server.url, partitions=2) as running:
        yield running


async def look(stack: Stack, *flags: str, **env: str) -> tuple[int, dict[str, dict[str, str]]]:
    """The exit code, and the findings by what was looked at (the words before the first number, colon or comma)."""
    code, output = await stack.run("doctor", "--json", *flags, **env)
    said = orjson.loads(output[output.index("{") :])
    assert said["ok"] == (code == 0)
    return code, {re.split(r"[:,]", each["what"])[0]: each for each in said["findings"]}


# --- a whole set-up ------------------------------------------------------------------------------------------------------


@pytest.mark.cluster
async def test_a_cluster_that_is_well_and_one_that_has_lost_a_server(tmp_path: Path) -> None:
    async with (
        cluster(tmp_path / "nats", sync_always=True, roles=True) as nats,
        Stack(tmp_path / "stack", ",".join(nats.urls), replicas=3, partitions=2) as stack,
    ):
        await stack.start(2)
        monitoring = ",".join(f"http://127.0.0.1:{node.options.http_port}" for node in nats.nodes)
        await _current(stack, nats)
        code, found = await look(stack, "--monitoring", monitoring)
        assert code == 0, found
        assert {each["status"] for each in found.values()} == {"ok"}, found
        assert found["stream S00"]["what"].startswith("stream S00: 0 messages, 0.00 GiB, 3 copies, led by n")
        assert found["gateways"]["what"] == f"gateways: 2, of version {VERSION}"
        assert found["pool default"]["what"].startswith("pool default: 0 jobs wait, 0 leased, 1 requests")
        assert found["copies of streams"]["what"] == "copies of streams: 3"
        assert found["clocks"]["what"].startswith("clocks: at most 0.0 s apart")
        assert all("synced always" in found[f"server n{i}"]["what"] for i in range(3))

        leader = await nats.stream_leader("S00")
        lost = next(i for i in range(3) if i != leader)
        await nats.kill(lost)
        async with asyncio.timeout(60):
            while True:  # until the others have noticed
                code, found = await look(stack, "--monitoring", monitoring)
                if all(found.get(f"stream {name}", {}).get("status") == "fail" for name in ("S00", "WORK")):
                    break
        assert code == 1
        assert (
            found["stream S00"]["mend"] == f"its copy on n{lost} is away: start that server, or mend the network to it"
        )
        assert found["monitoring port http"]["mend"].startswith("it does not answer")


async def test_pools_and_their_jobs(stack: Stack) -> None:
    code, found = await look(stack)
    assert code == 1
    assert found["pool default"]["mend"].startswith("no worker asks for its jobs: start one")
    (gateway,) = await stack.start(1, workers=0)
    async with await Wire.open(gateway.url, stack.token()) as wire:
        await wire.command("session.create", session="other", config={"pool": "nobody"})
        await wire.input("other", "i0", "hello")
        await wire.input("mine", "i0", "hello")
    code, found = await look(stack)
    assert code == 1
    assert found["pool default"]["what"].startswith("pool default: 1 jobs wait")
    assert found["pool nobody"]["mend"].startswith("nobody has made it")
    await stack.worker()
    code, found = await look(stack)
    assert found["pool default"]["status"] == "ok", found
    assert (code, found["pool nobody"]["status"]) == (1, "fail")


async def test_what_is_missing_and_what_is_full(stack: Stack) -> None:
    await stack.start(1)
    async with open_log(stack.nats_url) as (connection, _):
        config = (await connection.api("STREAM.INFO.S01"))["config"]
        await connection.api("STREAM.UPDATE.S01", config | {"max_bytes": 1_000})
        await connection.publish("s.01.full.r.in", b"x" * 900)
        await connection.api("STREAM.DELETE.INDEX")
    code, found = await look(stack)
    assert code == 1
    assert "stream INDEX is missing" in found["streams and consumers"]["mend"]
    assert found["stream INDEX"]["status"] == "fail"
    assert "raise its max_bytes" in found["stream S01"]["mend"]
    assert found["stream S00"]["status"] == "ok"


async def test_a_user_that_lacks_something_is_told_what(stack: Stack) -> None:
    """The observer's own, and a gateway's, whose user somebody has confused with a worker's."""
    code, found = await look(stack)
    assert found["user of NATS"]["what"] == "user of NATS: observer, as observer"
    assert found["user of NATS"]["status"] == "ok"
    code, found = await look(stack, "--role", "gateway", **settings_of(stack.nats_url, Role.GATEWAY))
    assert (code, [*found]) == (0, [f"Python {python_version()}", "NATS at nats", *_server(found), "user of NATS"])
    code, found = await look(stack, "--role", "gateway", **settings_of(stack.nats_url, Role.WORKER))
    assert (code, found["user of NATS"]["status"]) == (1, "fail")
    mend = found["user of NATS"]["mend"]
    assert mend.startswith(
        "NATS does not let this user publish s.*.*.r.in, publish idx.user.*.*, publish pres.*.*.here"
    )
    assert "subscribe _INBOX_worker.>" not in mend
    code, found = await look(stack, "--role", "gateway", **settings_of(stack.nats_url, Role.PROVISIONER))
    assert code == 1
    assert found["user of NATS"]["mend"].endswith("(docs/SECURITY-NATS.md; `antiphon doctor --role` compares)")


def _server(found: dict[str, dict[str, str]]) -> list[str]:
    return [what for what in found if what.startswith("server antiphon")]


async def test_a_nats_without_users_is_noted(tmp_path: Path) -> None:
    async with single_server(tmp_path / "nats", roles=False) as node, Stack(tmp_path / "stack", node.url) as stack:
        await stack.start(1)
        code, found = await look(stack)
        assert (code, found["user of NATS"]["status"]) == (0, "note")
        assert "it may publish live.>" in found["user of NATS"]["mend"]


async def test_a_gateway_whose_user_lacks_something_is_not_ready(stack: Stack) -> None:
    """So that no client is sent to it, and an upgrade that needs a new permission stops there."""
    gateway = await stack.gateway(**settings_of(stack.nats_url, Role.OBSERVER))
    status, body = await http_get(f"{gateway.url}/readyz")
    assert status == 503
    assert "NATS does not let this user publish s.*.*.r.in" in body


async def test_a_worker_whose_user_lacks_something_says_so(stack: Stack) -> None:
    """At its start all that is missing, then what is refused; it goes on, for permissions may be mended."""
    worker = await stack.worker(**settings_of(stack.nats_url, Role.OBSERVER), worker_port="0")
    async with asyncio.timeout(30):
        while not any("no jobs can be taken" in line["event"] for line in worker.logged()):
            await asyncio.sleep(0.05)
    said = {line["event"]: line for line in worker.logged()}
    assert said["not all will work"]["mend"].startswith("NATS does not let this user publish s.*.*.r.ev.*")
    assert said["NATS refused"]["subject"].startswith("$JS.API.CONSUMER.MSG.NEXT.WORK.pool-default")
    assert "CONSUMER.MSG.NEXT.WORK.pool-default" in said["no jobs can be taken"]["reason"]
    assert worker.running


async def test_nobody_there(stack: Stack) -> None:
    code, found = await look(stack, nats_url="nats://127.0.0.1:1", connect_timeout_s="0.3")
    assert code == 1
    assert found["NATS at nats"]["status"] == "fail"


# --- judgements that take a cluster in a state which cannot be made here ---------------------------------------------------


def test_servers() -> None:
    well = {"server_name": "n0", "version": "2.15.1", "jetstream": True, "max_payload": 1 << 20}
    assert findings.server(well).status == "ok"
    for change, status, said in (
        ({"version": "2.10.22"}, "fail", "2.11 or newer"),
        ({"version": "2.12.0-RC.1"}, "note", "tested with nats-server 2.15"),
        ({"jetstream": False}, "fail", "turn JetStream on"),
        ({"max_payload": 65_536}, "fail", "max_payload"),
    ):
        finding = findings.server({**well, **change})
        assert (finding.status, said in finding.mend) == (status, True), finding


def test_streams() -> None:
    replica = {"name": "n1", "current": True, "active": 1}
    well: dict[str, Any] = {
        "config": {"name": "S00", "num_replicas": 3, "max_bytes": -1},
        "state": {"messages": 5, "bytes": 1 << 20},
        "cluster": {"name": "c", "leader": "n0", "replicas": [replica]},
    }
    assert findings.stream(well).status == "ok"
    behind = {**well, "cluster": {**well["cluster"], "replicas": [{**replica, "current": False, "lag": 5_000}]}}
    assert findings.stream(behind).status == "note"
    assert "5000 writes behind" in findings.stream(behind).mend
    away = {**well, "cluster": {**well["cluster"], "replicas": [{**replica, "active": 6_000_000_000}]}}
    assert findings.stream(away).status == "fail"
    headless = {**well, "cluster": {"name": "c", "replicas": [replica]}}
    assert "no leader" in findings.stream(headless).mend
    assert findings.copies([well, {"config": {"num_replicas": 1}}], clustered=True).status == "fail"
    assert findings.copies([{"config": {"num_replicas": 1}}], clustered=True).status == "note"
    assert findings.copies([{"config": {"num_replicas": 1}}], clustered=False).status == "ok"


def test_storage_and_clocks() -> None:
    for used, status in ((100, "ok"), (850, "note"), (960, "fail")):
        assert findings.account({"storage": used, "limits": {"max_storage": 1_000}}).status == status
        stats = {"storage": used, "reserved_storage": 0}
        varz = {
            "server_name": "n0",
            "jetstream": {"config": {"max_storage": 1_000, "sync_always": True}, "stats": stats},
        }
        assert findings.monitored(varz, 3).status == status
    slow = {"jetstream": {"config": {"sync_interval": 120_000_000_000}}, "slow_consumers": 2}
    assert "sync_interval is 120 s" in findings.monitored(slow, 3).mend
    assert "sync_interval" not in findings.monitored(slow, 1).mend
    for skew, status in ((0.2, "ok"), (-1.5, "note"), (7.0, "fail")):
        assert findings.clocks({"n0": 0.0, "n1": skew}).status == status


def test_the_clock_of_a_server_is_judged_by_no_more_than_the_answer_took() -> None:
    noon = 1_700_000_000.0
    said = {"ts": "2023-11-14T22:13:20.500000001Z"}
    assert doctor_cluster._skew_s(said, noon, noon + 1) == 0, "it answered in between"
    ahead = doctor_cluster._skew_s(said, noon - 2, noon - 1.5)
    assert ahead == pytest.approx(2.0)
    behind = doctor_cluster._skew_s(said, noon + 3, noon + 4)
    assert behind == pytest.approx(-2.5)
    assert doctor_cluster._skew_s({}, noon, noon) is None


def test_versions_of_gateways() -> None:
    assert findings.gateways({}, 3).status == "note"
    assert findings.gateways({"gw-1": "0.1.0", "gw-2": "0.1.0"}, 3).status == "ok"
    assert "an upgrade is going on" in findings.gateways({"gw-1": "0.1.0", "gw-2": "unknown"}, 3).mend


async def _current(stack: Stack, nats: NatsCluster) -> None:
    """Returns when every copy has what its leader has."""
    async with open_log(stack.nats_url) as (connection, _), asyncio.timeout(30):
        for name in ("ANTIPHON_META", "INDEX", "HOOKS", "WORK", "ATTACHMENTS", "S00", "S01"):
            while not all(
                each["current"] for each in (await connection.api(f"STREAM.INFO.{name}"))["cluster"]["replicas"]
            ):
                await asyncio.sleep(0.05)
