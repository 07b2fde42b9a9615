"""`antiphon bench`: measurements of a real server, gateway and worker on this machine, and of its peers. Never a test."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

import orjson

from antiphon.bench import scale
from antiphon.bench.against import PEER_BENCHES, measure_peer
from antiphon.bench.fanout import measure_fanout
from antiphon.bench.flood import measure_flood
from antiphon.bench.idle import measure_idle
from antiphon.bench.latency import measure_latency
from antiphon.bench.mix import measure_mix
from antiphon.bench.one_to_one import measure_one_to_one
from antiphon.bench.opening import measure_open
from antiphon.bench.peers import Peer, find_peers
from antiphon.bench.publish import measure_publish
from antiphon.bench.rows import OURS, Figures, Row, missing_row, row
from antiphon.bench.slow import measure_slow
from antiphon.bench.storm import measure_storm
from broker.errors import ConfigError

_BENCHES: dict[str, Callable[[], Awaitable[Figures]]] = {
    "fanout": measure_fanout,
    "flood": measure_flood,
    "idle": measure_idle,
    "latency": measure_latency,
    "mix": measure_mix,
    "one-to-one": measure_one_to_one,
    "open": measure_open,
    "publish": measure_publish,
    "slow": measure_slow,
    "storm": measure_storm,
}


def bench_names() -> list[str]:
    return list(_BENCHES)


async def bench(names: Sequence[str], *, runs: int, against: Sequence[str] = (), costs: str = "", as_json: bool) -> int:
    """Runs benchmarks and prints, for each figure, the median of the runs and their spread. Raises ConfigError.

    `costs` is the file that the scale model reads.
    """
    if "scale" in names:
        if len(names) > 1:
            raise ConfigError("`scale` measures nothing: give it alone, after the others have run")
        print_scale(read_rows(costs))
        return 0
    peers = find_peers(against)
    rows = [row for name in names for row in await measure(name, runs, peers)]
    if as_json:
        print(orjson.dumps(rows, option=orjson.OPT_INDENT_2).decode())
    else:
        for row in rows:
            _print(row)
    return 0


async def measure(name: str, runs: int, peers: Sequence[Peer] = ()) -> list[Row]:
    """A row for Antiphon, then one for each peer that has such a benchmark, from runs by turns.

    So what else the machine does in that time meets all of them alike.
    """
    comparable = peers if name in PEER_BENCHES else ()
    absent = {peer.name: missing for peer in comparable if (missing := peer.missing())}
    present = [peer for peer in comparable if peer.name not in absent]
    ours: list[Figures] = []
    theirs: dict[str, list[Figures]] = {peer.name: [] for peer in present}
    for _ in range(runs):
        ours.append(await _BENCHES[name]())
        for peer in present:
            theirs[peer.name].append(await measure_peer(peer, name))
    return [
        row(name, OURS, ours),
        *(row(name, peer.name, theirs[peer.name], ours=ours, extra=_of(peer)) for peer in present),
        *(
            missing_row(name, peer.name, f"{absent[peer.name]}: {peer.install}")
            for peer in comparable
            if peer.name in absent
        ),
    ]


def _of(peer: Peer) -> Mapping[str, object]:
    return {"keeps": peer.keeps, "versions": dict(peer.versions())}


def _print(row: Row) -> None:
    if "missing" in row:
        print(f"{row['name']}, {row['peer']}: not measured, {row['missing']}")
        return
    spread, ratio = row["spread"], row.get("antiphon_ratio", {})
    assert isinstance(spread, dict)
    assert isinstance(ratio, dict)
    print(f"{row['name']}, {row['peer']}: median of {row['runs']} runs (least to greatest)")
    for key, (low, high) in spread.items():
        beside = f"   Antiphon's is {ratio[key]:,} times that" if key in ratio else ""
        print(f"  {key:38} {row[key]:>14,} ({low:,} to {high:,}){beside}")


def read_rows(path: str) -> Sequence[Row]:
    """The rows in a file: what `--json` has printed, or `docs/benchmarks.json`. Raises ConfigError."""
    try:
        wire = orjson.loads(Path(path).read_bytes())
        rows = wire["rows"] if isinstance(wire, dict) else wire
        return [{"peer": OURS, **row} for row in rows]
    except OSError as error:
        raise ConfigError(f"--costs: cannot read {path}: {error.strerror}; name a file that --json has made") from None
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"--costs: {path} does not hold what benchmarks print with --json ({error})") from None


def print_scale(rows: Sequence[Row]) -> None:
    """What large installations need, by the model, and how far it is right."""
    costs, usage, assumed = scale.costs_of(rows), scale.Usage(), scale.Assumed()
    table = [scale.PLAN_HEAD, *(scale.plan_cells(scale.plan(size, costs, usage, assumed)) for size in scale.SIZES)]
    widths = [max(len(line[i]) for line in table) for i in range(len(scale.PLAN_HEAD))]
    for line in table:
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))
    print("\nAssumed:")
    for text in scale.assumptions(costs, usage, assumed):
        print(f"- {text}")
    checks = scale.checked(rows, costs)
    print("\nPredicted, and measured by the benchmark `mix`:" if checks else "\nNot checked: `mix` has not been run.")
    for check in checks:
        print(f"- {check.what}: {check.predicted:.1f}, {check.measured:.1f} ({check.ratio:.2f})")
