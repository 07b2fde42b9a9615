"""Holds the hot paths to `budget.json`: `python -m tests.bench.budget`, and `make budget`.

What is counted is CPU time, not time, and not as such: a fixed piece of Python (`calibrate`) is measured in between, and a
path's cost is scaled by how fast this machine has done that. So a slow or a busy machine is no regression. Each part is
measured many times, of which the least counts; a path of real processes once, and again if it is over its budget. A path
fails that costs more than its margin allows: a cost that has doubled is seen, noise is not (ADR 36).

`--write` measures anew and writes the file: for a change that is meant to cost more, or that has made something cheaper.
`--plant NAME` does the work of a part twice, to show that this is seen. `--parts` leaves the real processes out.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from antiphon.bench.rows import machine
from antiphon.processes import run
from broker.telemetry import configure
from tests.bench.budget_parts import Part, parts
from tests.bench.budget_processes import PROCESSES

FILE = Path(__file__).with_name("budget.json")
ROUNDS = 15
ROUND_S = 0.015
"""CPU seconds of one part in one round."""
AGAIN = 2
"""More looks at a path of real processes that seems to cost too much."""
MARGINS = {"parts": 1.5, "processes": 1.75}
"""So many times its budget a path may cost. Below 2, so that a cost that has doubled is seen."""


@dataclass(frozen=True, slots=True)
class Budget:
    """What paths cost, in µs of CPU time on a machine that needs `calibration_ms` for `calibrate`."""

    calibration_ms: float
    costs: Mapping[str, Mapping[str, float]]
    """By `parts` and `processes`, then by path."""

    def scaled(self, cost_us: float, calibration_ms: float) -> float:
        """What a cost that was measured here would be there."""
        return cost_us * self.calibration_ms / calibration_ms


def over(kind: str, costs: Mapping[str, float], budget: Budget) -> list[str]:
    """The paths of a kind that cost more than they may, or that the budget and the code do not both have."""
    allowed = budget.costs[kind]
    bad = [f"{path}: there is no budget for it; --write makes one" for path in costs.keys() - allowed.keys()]
    bad += [f"{path}: it has a budget, and is not there any more" for path in allowed.keys() - costs.keys()]
    return sorted(bad) + [
        f"{path}: {cost:.3g} µs, {cost / allowed[path]:.2f} times its budget of {allowed[path]:.3g} (at most {MARGINS[kind]})"
        for path, cost in costs.items()
        if path in allowed and cost > allowed[path] * MARGINS[kind]
    ]


def calibrate() -> float:
    """CPU milliseconds of work of the kind that the paths do, none of it our own code."""
    begun = time.thread_time()
    for i in range(300):
        wire = {"id": f"{i}-1", "ts": i, "events": [{"type": "T", "delta": "word " * 4, "n": j} for j in range(8)]}
        text = json.dumps(wire)
        read = json.loads(text)
        joined = "".join(event["delta"] for event in read["events"])
        assert joined.startswith("word")
        assert sorted(read) == ["events", "id", "ts"]
    return (time.thread_time() - begun) * 1000


def measure_parts(all_parts: Mapping[str, Part], rounds: int = ROUNDS) -> tuple[Mapping[str, float], float]:
    """CPU µs of each part, and CPU ms of `calibrate`: of each the least of many rounds, in which they take turns."""
    times = {name: _calls_in(part, ROUND_S) for name, part in all_parts.items()}
    best = dict.fromkeys(all_parts, float("inf"))
    calibration_ms = float("inf")
    for _ in range(rounds):
        calibration_ms = min(calibration_ms, calibrate())
        for name, part in all_parts.items():
            begun = time.thread_time()
            for _ in range(times[name]):
                part.act()
            best[name] = min(best[name], (time.thread_time() - begun) / times[name] / part.times * 1e6)
    return best, calibration_ms


def _calls_in(part: Part, seconds: float) -> int:
    """How often it can be called in that time; it has been called before."""
    part.act()
    begun, calls = time.thread_time(), 0
    while time.thread_time() - begun < seconds:
        part.act()
        calls += 1
    return calls


def doubled(part: Part) -> Part:
    """The same, at twice its cost."""

    def twice() -> None:
        part.act()
        part.act()

    return Part(twice, part.times)


async def measure_process(measure: Callable[[], Awaitable[float]]) -> tuple[float, float]:
    """CPU µs of a path, and CPU ms of `calibrate` before and after it, in the mean."""
    before = min(calibrate() for _ in range(3))
    cost = await measure()
    return cost, (before + min(calibrate() for _ in range(3))) / 2


async def process_costs(budget: Budget) -> Mapping[str, float]:
    """Scaled costs; those over their budget are looked at again, and the least counts."""
    costs: dict[str, float] = {}
    for name, measure in PROCESSES.items():
        for _ in range(1 + AGAIN):
            scaled = budget.scaled(*await measure_process(measure))
            costs[name] = min(scaled, costs.get(name, scaled))
            allowed = budget.costs["processes"].get(name)
            if allowed is None or costs[name] <= allowed * MARGINS["processes"]:
                break
    return costs


def read_budget(path: Path = FILE) -> Budget:
    wire = json.loads(path.read_text(encoding="utf-8"))
    return Budget(wire["calibration_ms"], {kind: wire[kind] for kind in MARGINS})


async def _write() -> int:
    found, calibration_ms = measure_parts(parts())
    bare = Budget(calibration_ms, {kind: {} for kind in MARGINS})
    runs = [await process_costs(bare) for _ in range(3)]
    middle = {name: sorted(run[name] for run in runs)[1] for name in PROCESSES}
    told: dict[str, Any] = {
        "unit": "µs of CPU time for one event, on a machine that needs calibration_ms for tests.bench.budget.calibrate",
        "measured_on": {**machine(), "python": platform.python_version()},
        "calibration_ms": round(calibration_ms, 3),
        "parts": {name: round(cost, 3) for name, cost in found.items()},
        "processes": {name: round(cost, 2) for name, cost in middle.items()},
    }
    FILE.write_text(json.dumps(told, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"written: {FILE.name}")
    return 0


async def _check(plant: str, *, only_parts: bool) -> int:
    budget, all_parts = read_budget(), dict(parts())
    if plant:
        all_parts[plant] = doubled(all_parts[plant])
    found, calibration_ms = measure_parts(all_parts)
    costs = {"parts": {name: budget.scaled(cost, calibration_ms) for name, cost in found.items()}}
    if not only_parts:
        costs["processes"] = dict(await process_costs(budget))
    bad = []
    for kind, of_kind in costs.items():
        for name, cost in of_kind.items():
            allowed = budget.costs[kind].get(name, 0.0)
            print(f"{name:12} {cost:10.3f} µs, budget {allowed:10.3f}, {cost / allowed if allowed else 0:5.2f}")
        bad += over(kind, of_kind, budget)
    print(
        f"this machine needs {calibration_ms:.1f} ms for what took {budget.calibration_ms:.1f} where the budget is from"
    )
    for line in bad:
        print(f"over its budget: {line}", file=sys.stderr)
    return 1 if bad else 0


def main() -> int:
    """The exit code is 1 if something costs too much."""
    parser = argparse.ArgumentParser(description="Holds the hot paths to their budget of CPU time.")
    parser.add_argument("--write", action="store_true", help="measure anew, and write the budget")
    parser.add_argument("--parts", action="store_true", help="without the paths of real processes")
    parser.add_argument("--plant", default="", choices=[*parts()], metavar="NAME", help="do this part's work twice")
    args = parser.parse_args()
    configure(level="warning")
    return run(_write) if args.write else run(lambda: _check(args.plant, only_parts=args.parts))


if __name__ == "__main__":
    sys.exit(main())
