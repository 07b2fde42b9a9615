"""Makes the figures of `docs/BENCHMARKS.md` and its pictures: `make bench-report`, or `python -m tests.bench.report`.

All benchmarks run (`--bench NAME`: these alone), those that a peer has too with all peers by turns. What they said is kept in
`docs/benchmarks.json`, after each of them, and page and pictures are made of that (`--from-file`: only that). What stands
between the page's marks is replaced, the prose around them is not.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from antiphon.bench import bench_names, measure, scale
from antiphon.bench.rows import OURS
from antiphon.processes import run
from broker.errors import ConfigError
from broker.telemetry import configure
from tests.bench.peers import PEERS
from tests.bench.svg import Bar, bars, shown

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE, DATA, IMAGES = DOCS / "BENCHMARKS.md", DOCS / "benchmarks.json", DOCS / "images"

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Target:
    """What a figure is to reach: at least, or at most."""

    bench: str
    figure: str
    least: float | None = None
    most: float | None = None

    def text(self) -> str:
        return f"≥ {self.least:,.9g}" if self.least is not None else f"≤ {self.most:,.9g}"

    def met(self, value: float) -> bool:
        return value >= self.least if self.least is not None else value <= (self.most or 0.0)


TARGETS = (
    Target("fanout", "events_per_second_per_core", least=1_000_000),
    Target("fanout", "sparse_events_per_second_per_core", least=130_000),
    Target("one-to-one", "events_per_second_per_core", least=40_000),
    Target("latency", "p50_ms", most=2),
    Target("latency", "p99_ms", most=10),
    Target("publish", "tokens_per_second", least=20_000),
    Target("idle", "bytes_per_connection", most=16_384),
    Target("storm", "resumes_per_second_per_core", least=1_500),
    Target("open", "cold_ms", most=300),
    Target("open", "bytes_per_character", most=1.1),
    Target("slow", "p99_ratio", most=1.5),
)


@dataclass(frozen=True, slots=True)
class Picture:
    """A figure of all servers."""

    file: str
    bench: str
    figure: str
    title: str
    note: str


PICTURES = (
    Picture(
        "bench-fanout-joined.svg",
        "fanout",
        "events_per_second_per_core",
        "Fan-out, 4,000 tokens a second to 500 readers",
        "events delivered in a second of the server's CPU time; more is better",
    ),
    Picture(
        "bench-fanout-apart.svg",
        "fanout",
        "sparse_events_per_second_per_core",
        "Fan-out, 150 tokens a second to 500 readers",
        "events delivered in a second of the server's CPU time; more is better",
    ),
    Picture(
        "bench-one-to-one.svg",
        "one-to-one",
        "events_per_second_per_core",
        "500 sessions with one reader each, 20,000 tokens a second",
        "events delivered in a second of the server's CPU time; more is better",
    ),
    Picture(
        "bench-latency.svg",
        "latency",
        "p99_ms",
        "Latency at 500 tokens a second, p99",
        "milliseconds from who says a token to who reads it; less is better. Only Antiphon stores it first",
    ),
    Picture(
        "bench-idle.svg",
        "idle",
        "bytes_per_connection",
        "Memory of a connection that waits",
        "bytes of the server (PSS) for each of 10,000; less is better",
    ),
)
TIMES = "\N{MULTIPLICATION SIGN}"
COMPARED: Mapping[str, Sequence[str]] = {
    "fanout": (
        *("events_per_second_per_core", "cpu_us_per_event", "events_per_second", "delivered_share"),
        *("sparse_events_per_second_per_core", "sparse_cpu_us_per_event", "sparse_p50_ms", "sparse_p99_ms"),
        "sparse_delivered_share",
    ),
    "one-to-one": ("events_per_second_per_core", "cpu_us_per_event", "p50_ms", "p99_ms", "delivered_share"),
    "latency": ("p50_ms", "p99_ms", "max_ms"),
    "idle": ("bytes_per_connection", "cpu_share"),
}
"""The figures that are set beside those of peers."""


def page_of(page: str, report: Mapping[str, Any]) -> str:
    """The page with its generated parts made anew. Raises KeyError for a mark that nothing stands for."""
    makers: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
        "machine": _machine,
        "targets": _targets,
        "peers": _peers,
        "figures": _figures,
        "scale": _scale,
    }

    def made(found: re.Match[str]) -> str:
        return f"{found[1]}\n\n{makers[found[2]](report)}\n\n{found[3]}"

    return re.sub(r"(<!-- made: (\w+) -->).*?(<!-- end -->)", made, page, flags=re.DOTALL)


def pictures_of(report: Mapping[str, Any]) -> Mapping[str, str]:
    """The pictures by their files' names."""
    drawn = {}
    for picture in PICTURES:
        rows = [row for row in report["rows"] if row["name"] == picture.bench]
        found = [target for target in TARGETS if (target.bench, target.figure) == (picture.bench, picture.figure)]
        target = next(((t.least if t.least is not None else t.most) for t in found), None)
        columns = [_bar(row, picture.figure) for row in rows]
        drawn[picture.file] = bars(picture.title, picture.note, columns, target=target)
    return drawn


def _bar(row: Row, figure: str) -> Bar:
    if "missing" in row:
        return Bar(row["peer"], None)
    if not row[figure]:
        return Bar(row["peer"], None, missing="nothing was delivered")
    low, high = row["spread"][figure]
    return Bar(row["peer"], row[figure], low, high, own=row["peer"] == OURS)


def _machine(report: Mapping[str, Any]) -> str:
    own = [row for row in report["rows"] if row["peer"] == OURS]
    peers = {row["peer"]: row["versions"] for row in report["rows"] if row["peer"] != OURS and "missing" not in row}
    machine = own[0]["machine"]
    busy = [row["name"] for row in own if report["when"][row["name"]]["load"] > machine["cores"]]
    lines = [
        *([_BUSY.format(", ".join(busy)), ""] if busy else []),
        f"Machine: {machine['cores']} cores of {machine['cpu']}, {machine['system']}.",
        "",
        f"- antiphon: {_versions(own[0]['versions'])}",
        *(f"- {peer}: {_versions(versions)}" for peer, versions in peers.items()),
        "",
        "| benchmark | runs | date | load average before | seconds |",
        "|---|---|---|---|---|",
    ]
    for row in own:
        when = report["when"][row["name"]]
        lines.append(f"| {row['name']} | {row['runs']} | {when['date']} | {when['load']} | {when['took_s']} |")
    return "\n".join(lines)


_BUSY = (
    "**The machine was busy with other programs before {}** (see the load averages): such figures show that all is "
    "measured, and less of how fast it is."
)


def _versions(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _targets(report: Mapping[str, Any]) -> str:
    lines = ["| benchmark | figure | target | median | least to greatest | met |", "|---|---|---|---|---|---|"]
    for target in TARGETS:
        found = [row for row in report["rows"] if (row["name"], row["peer"]) == (target.bench, OURS)]
        if not found:
            lines.append(f"| {target.bench} | `{target.figure}` | {target.text()} | not measured yet | | |")
            continue
        row = found[0]
        met = "yes" if target.met(row[target.figure]) else "**no**"
        cells = (target.bench, f"`{target.figure}`", target.text(), *_measured(row, target.figure), met)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _peers(report: Mapping[str, Any]) -> str:
    parts = []
    for bench, figures in COMPARED.items():
        rows = [row for row in report["rows"] if row["name"] == bench]
        pictures = [f"![{p.title}](images/{p.file})" for p in PICTURES if p.bench == bench]
        table = [
            f"| {bench} | keeps events | {' | '.join(f'`{figure}`' for figure in figures)} |",
            f"|---|---|{'---|' * len(figures)}",
            *(_peer_line(row, figures) for row in rows),
        ]
        parts += [f"### {bench}", "\n\n".join(pictures), "\n".join(table)]
    return "\n\n".join(parts)


def _peer_line(row: Row, figures: Sequence[str]) -> str:
    if "missing" in row:
        return f"| {row['peer']} | | {' | '.join(['missing'] * len(figures))} |"
    cells = [_cell(row, figure) for figure in figures]
    keeps = "all, on disk, before delivery" if row["peer"] == OURS else row["keeps"]
    return f"| {row['peer']} | {keeps} | {' | '.join(cells)} |"


def _cell(row: Row, figure: str) -> str:
    """`1,234 (1,200 to 1,300)`, and how many times that Antiphon's is."""
    if figure not in row:
        return ""
    median, spread = _measured(row, figure)
    ratio = row.get("antiphon_ratio", {}).get(figure)
    return f"{median} ({spread})" + (f" {TIMES}{shown(ratio)}" if ratio is not None else "")


def _figures(report: Mapping[str, Any]) -> str:
    aims = {(target.bench, target.figure): target.text() for target in TARGETS}
    lines = ["| benchmark | figure | target | median | least to greatest |", "|---|---|---|---|---|"]
    for row in report["rows"]:
        if row["peer"] == OURS:
            lines += [
                f"| {row['name']} | `{figure}` | {aims.get((row['name'], figure), '')} | {' | '.join(_measured(row, figure))} |"
                for figure in row["spread"]
            ]
    return "\n".join(lines)


def _scale(report: Mapping[str, Any]) -> str:
    try:
        costs, usage, assumed = scale.costs_of(report["rows"]), scale.Usage(), scale.Assumed()
    except ConfigError as error:
        return f"Not reckoned yet: {error}."
    plans = [scale.plan_cells(scale.plan(size, costs, usage, assumed)) for size in scale.SIZES]
    lines = [f"| {' | '.join(line)} |" for line in (scale.PLAN_HEAD, *plans)]
    lines.insert(1, f"|{'---|' * len(scale.PLAN_HEAD)}")
    assumptions = [f"- {text}" for text in scale.assumptions(costs, usage, assumed)]
    checks = [
        f"| {check.what} | {shown(check.predicted)} | {shown(check.measured)} | {shown(check.ratio)} |"
        for check in scale.checked(report["rows"], costs)
    ]
    head = ["| what `mix` has measured | predicted | measured | quotient |", "|---|---|---|---|"]
    return "\n".join([*lines, "", "Assumed and measured:", "", *assumptions, "", *head, *checks])


def _measured(row: Row, figure: str) -> tuple[str, str]:
    low, high = row["spread"][figure]
    return shown(row[figure]), f"{shown(low)} to {shown(high)}"


async def _measure(names: Sequence[str], runs: int) -> None:
    """Replaces what the file has of these benchmarks, after each of them."""
    for name in names:
        begun, load = time.monotonic(), round(os.getloadavg()[0], 1)
        print(f"{name}: {runs} runs, load average {load}", file=sys.stderr, flush=True)
        measured = await measure(name, runs, PEERS)
        report = orjson.loads(DATA.read_bytes()) if DATA.exists() else {"when": {}, "rows": []}
        rows = [*(row for row in report["rows"] if row["name"] != name), *measured]
        took_s = round(time.monotonic() - begun)
        report["rows"] = sorted(rows, key=lambda row: bench_names().index(row["name"]))
        report["when"][name] = {"date": time.strftime("%Y-%m-%d"), "load": load, "took_s": took_s}
        DATA.write_bytes(orjson.dumps(report, option=orjson.OPT_INDENT_2) + b"\n")


def write(report: Mapping[str, Any]) -> None:
    """Page and pictures, from what was measured."""
    PAGE.write_text(page_of(PAGE.read_text(encoding="utf-8"), report), encoding="utf-8")
    for file, picture in pictures_of(report).items():
        (IMAGES / file).write_text(picture, encoding="utf-8")


async def _main(names: Sequence[str], runs: int, *, from_file: bool) -> int:
    configure(level="warning")
    if not from_file:
        await _measure(names or bench_names(), runs)
    write(orjson.loads(DATA.read_bytes()))
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description="Makes the figures of docs/BENCHMARKS.md and its pictures.")
    parser.add_argument("--runs", type=int, default=5, metavar="N", help="runs of each (default 5)")
    parser.add_argument(
        "--bench", action="append", default=[], choices=bench_names(), metavar="NAME", help="only this one"
    )
    parser.add_argument("--from-file", action="store_true", help="measure nothing: from docs/benchmarks.json")
    args = parser.parse_args()
    return run(lambda: _main(args.bench, args.runs, from_file=args.from_file))


if __name__ == "__main__":
    sys.exit(main())
