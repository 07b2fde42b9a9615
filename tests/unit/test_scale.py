"""The scale model: what it multiplies, that more is never less, and that it says what is missing."""

from __future__ import annotations

from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

import orjson
import pytest

from antiphon.bench import bench, read_rows
from antiphon.bench.scale import SIZES, Assumed, Costs, Usage, assumptions, checked, costs_of, plan, token_us
from broker.errors import ConfigError

COSTS = Costs(
    entry_us=20.0,
    write_us=5.0,
    join_us=600.0,
    connection_bytes=16_000.0,
    session_bytes=8_000.0,
    event_bytes=250.0,
    worker_us=300.0,
    nats_us=40.0,
)
ROWS = [
    {"name": "fanout", "peer": "antiphon", "sparse_cpu_us_per_event": 5.0},
    {"name": "fanout", "peer": "aiohttp", "sparse_cpu_us_per_event": 99.0},
    {
        "name": "one-to-one",
        "peer": "antiphon",
        "cpu_us_per_event": 25.0,
        "bytes_per_event": 250.0,
        "cpu_us_per_write_nats": 40.0,
    },
    {"name": "storm", "peer": "antiphon", "cpu_us_per_resume": 600.0},
    {
        "name": "idle",
        "peer": "antiphon",
        # A connection with a tenth of a session, and with a whole one.
        "bytes_per_connection": 16_800.0,
        "bytes_per_connection_with_own_session": 24_000.0,
    },
    {"name": "latency", "peer": "antiphon", "cpu_us_per_event_worker": 300.0},
]
MIX = {
    "name": "mix",
    "peer": "antiphon",
    "small_gateway_us_per_token": 50.0,
    "small_nats_us_per_token": 40.0,
    "small_bytes": 24e6,
    "large_gateway_us_per_token": 40.0,
    "large_nats_us_per_token": 20.0,
    "large_bytes": 216e6,
}


def test_costs_are_taken_out_of_what_was_measured() -> None:
    assert asdict(costs_of(ROWS)) == pytest.approx(asdict(COSTS))


def test_a_benchmark_that_was_not_run_is_named() -> None:
    with pytest.raises(ConfigError, match="`cpu_us_per_resume` of the benchmark `storm`"):
        costs_of([row for row in ROWS if row["name"] != "storm"])


def test_a_plan_by_hand() -> None:
    usage = Usage(readers=2.0, streaming=0.1, tokens_per_second=20.0, joins_per_hour=36.0)
    assumed = Assumed(busy=0.5, replicas=3, partition_per_second=5000.0, server_cores=16)
    planned = plan(1_000_000, COSTS, usage, assumed)
    assert (planned.sessions, planned.lanes, planned.tokens_per_second) == (500_000, 50_000, 1_000_000)
    # Each of two readers costs an entry and a write at its own gateway, 25 µs: 50 cores; 10,000 joins a second: 6 cores.
    assert planned.gateways == 112
    assert planned.gateway_bytes == 1_000_000 * 24_000
    assert planned.workers == 600
    # 40 µs at each of three replicas, and once more for the second gateway: 160 cores, half busy.
    assert planned.nats_cores == pytest.approx(320)
    assert planned.cells == 7
    # 142,857 entries a second in a cell, 2,500 for a partition: 58, in powers of two.
    assert planned.partitions == 64
    assert planned.bits_per_second == 1_000_000 * 2 * 250 * 8


def test_gateways_are_as_many_as_their_connections_want_even_when_idle() -> None:
    assert plan(100_000, COSTS, Usage(streaming=0.0, joins_per_hour=0.0), Assumed()).gateways == 5


def test_more_connections_need_no_less_of_anything() -> None:
    plans = [plan(size, COSTS, Usage(), Assumed()) for size in SIZES]
    for smaller, larger in pairwise(plans):
        assert smaller.gateways <= larger.gateways
        assert smaller.workers <= larger.workers
        assert smaller.nats_cores < larger.nats_cores
        assert smaller.cells <= larger.cells


def test_it_is_compared_with_what_mix_has_measured() -> None:
    assert checked(ROWS, COSTS) == []
    checks = checked([*ROWS, MIX], COSTS)
    assert len(checks) == 6
    assert [check.ratio for check in checks] == pytest.approx([0.5, 1.0, 1.0, 1.0, 2.0, 0.5])
    assert checks[3].predicted == token_us(COSTS, 4) == 40.0


def test_every_assumption_is_said() -> None:
    text = " ".join(assumptions(COSTS, Usage(), Assumed()))
    for number in ("1.5 connections", "5%", "30 tokens", "12 times", "3 replicas", "50% busy", "5,000 entries"):
        assert number in text


async def test_the_command_prints_plans_and_how_far_they_are_right(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "costs.json"
    file.write_bytes(orjson.dumps({"rows": [*ROWS, MIX]}))
    assert await bench(["scale"], runs=1, costs=str(file), as_json=False) == 0
    said = capsys.readouterr().out
    assert said.splitlines()[0].split()[:3] == ["connections", "sessions", "lanes"]
    assert [line.split()[0] for line in said.splitlines()[1:5]] == ["10,000", "100,000", "1,000,000", "10,000,000"]
    assert "1,000 connections, 1,000 sessions: CPU of the gateway, µs a token: 25.0, 50.0 (0.50)" in said


def test_what_bench_prints_with_json_can_be_read_as_costs(tmp_path: Path) -> None:
    file = tmp_path / "costs.json"
    file.write_bytes(orjson.dumps(ROWS))
    assert read_rows(str(file)) == ROWS


@pytest.mark.parametrize("text", ["", "{}", "7", '["row"]'])
async def test_a_file_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "costs.json"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"costs\.json does not hold what benchmarks print"):
        await bench(["scale"], runs=1, costs=str(file), as_json=False)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*none\.json: No such file"):
        read_rows(str(tmp_path / "none.json"))


async def test_a_model_is_not_measured_with_others() -> None:
    with pytest.raises(ConfigError, match="give it alone"):
        await bench(["fanout", "scale"], runs=1, as_json=False)
