#!/usr/bin/env python3
"""Draws docs/images/dashboard.png: the panels of deploy/grafana/dashboard.json, with what a real Prometheus answers.

Starts NATS, gateways, workers and a Prometheus, has clients talk for some minutes (a worker is killed, a gateway leaves
meanwhile), and draws the panels with matplotlib. Needs what `uv sync --group picture` installs, and `tools/prometheus`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import matplotlib as mpl  # noqa: E402 (the path first)
from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

from antiphon_client import AntiphonError, Client  # noqa: E402
from antiphon_client.buffer import EventStream  # noqa: E402
from tests.support.nats import free_ports, single_server  # noqa: E402
from tests.support.prometheus import Prometheus, prometheus  # noqa: E402
from tests.support.stack import Process, Stack  # noqa: E402

DASHBOARD = ROOT / "deploy/grafana/dashboard.json"
PICTURE = ROOT / "docs/images/dashboard.png"
MINUTES = float(sys.argv[1]) if len(sys.argv) > 1 else 5.0
STEP_S = 3
RATE = "15s"
TALKERS, READERS, ASKERS, LEAVERS = 10, 12, 4, 3
PEOPLE = "tests.support.agents_people:approving"

WIDTH_PX, UNIT_PX, DPI = 1560, 27, 100
BACK, PANEL, GRID, INK, FAINT = "#111217", "#181b1f", "#2c2f36", "#d5d7db", "#8b8f98"
COLORS = ("#73bf69", "#f2cc0c", "#5794f2", "#ff9830", "#f2495c", "#b877d9", "#8ab8ff", "#ffee52", "#96d98d", "#ff7383")

Series = list[tuple[str, list[float], list[float]]]
"""Legend, times and values."""


# --- something to look at ------------------------------------------------------------------------------------------------


@dataclass
class Crowd:
    """Clients of some gateways. What they do has no end; cancel it."""

    stack: Stack
    urls: list[str]

    def client(self, token: str | None = None) -> Client:
        urls = random.sample(self.urls, k=len(self.urls))
        return Client(urls, token or self.stack.token(f"user-{random.randrange(20)}"))

    async def talk(self, number: int) -> None:
        """Sends messages into one session and reads all of it."""
        async with self.client() as client, asyncio.TaskGroup() as tasks:
            session = client.session(f"talk-{number}")
            tasks.create_task(_read(session.events()))
            while True:
                rate = random.choice((20, 30, 40))
                receipt = await session.send(f"stream {random.randrange(80, 400)} tokens at {rate}/s")
                await receipt.finished()
                await asyncio.sleep(random.uniform(0, 3))

    async def watch(self, number: int) -> None:
        """Looks at a session, goes away, and comes back with its cursor."""
        cursor: str | None = None
        while True:
            async with self.client() as client:
                session = client.session(f"talk-{number % TALKERS}", cursor)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(random.uniform(4, 25)):
                        await _read(session.events())
                cursor = None if random.random() < 0.4 else session.cursor
            await asyncio.sleep(random.uniform(0.2, 4))

    async def ask(self, number: int) -> None:
        """Has an agent ask for approval, and answers after a while."""
        async with self.client(self.stack.token("user-1")) as client:
            session = client.session(f"ask-{number}")
            await session.create(config={"pool": "people"})
            while True:
                receipt = await session.send("{}")
                async for _ in session.events():
                    if session.state.approvals:
                        break
                await asyncio.sleep(random.uniform(2, 25))
                option = random.choice(("allow_once", "reject_once"))
                await session.respond(session.state.approvals[0].approval_id, option)
                await receipt.finished()

    async def leave(self, number: int) -> None:
        """Leaves in the middle of an answer, which is paused until somebody looks again."""
        while True:
            name, token = f"left-{number}", self.stack.token("user-1")
            async with self.client(token) as client:
                session = client.session(name)
                await session.create(config={"whenUnwatched": "pause", "unwatchedGraceMs": 1000})
                await session.send("stream 1200 tokens at 40/s")
                await asyncio.sleep(random.uniform(2, 5))
            await asyncio.sleep(random.uniform(15, 25))
            async with self.client(token) as client, asyncio.TaskGroup() as tasks:
                session = client.session(name)
                reading = tasks.create_task(_read(session.events()))
                await asyncio.sleep(random.uniform(8, 15))
                reading.cancel()

    async def fail(self) -> None:
        """Comes with a bad token, and asks for what is not there."""
        while True:
            with contextlib.suppress(AntiphonError):
                async with self.client("no token"):
                    pass
            with contextlib.suppress(AntiphonError):
                async with self.client() as client:
                    await client.session("talk-0").cancel_input(f"none-{random.randrange(1000)}")
            await asyncio.sleep(random.uniform(0.5, 4))


async def _read(events: EventStream) -> None:
    async for _ in events:
        pass


async def run_for_a_while(directory: Path) -> dict[str, Series]:
    """What Prometheus answers to each expression of the dashboard, after some minutes of traffic."""
    ports = free_ports(5)
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(single_server(directory / "nats"))
        env = {"POOLS": "default,people", "LEASE_S": "8", "DRAIN_S": "12", "ACK_SAMPLE_S": "1"}
        place = await stack.enter_async_context(Stack(directory / "stack", server.url, env=env))
        gateways = [await place.gateway(str(port)) for port in ports[:2]]
        workers = [await place.worker(worker_port=str(port), concurrency="8") for port in ports[2:4]]
        await place.worker(PEOPLE, worker_port=str(ports[4]), pool="people")
        addresses = [f"127.0.0.1:{port}" for port in ports]
        targets = {"gateway": addresses[:2], "worker": addresses[2:]}
        scraping = await stack.enter_async_context(prometheus(directory / "prometheus", targets))
        begun = time.time()
        crowd = Crowd(place, [f"http://{address}" for address in addresses[:2]])
        async with asyncio.TaskGroup() as tasks:
            doings = [
                *(crowd.talk(number) for number in range(TALKERS)),
                *(crowd.watch(number) for number in range(READERS)),
                *(crowd.ask(number) for number in range(ASKERS)),
                *(crowd.leave(number) for number in range(LEAVERS)),
                crowd.fail(),
            ]
            going = [tasks.create_task(doing) for doing in doings]
            await _trouble(place, gateways, workers, ports)
            answers = await _answers(scraping, begun)
            for task in going:
                task.cancel()
        return answers


async def _trouble(place: Stack, gateways: list[Process], workers: list[Process], ports: list[int]) -> None:
    """A third of the time nothing; then a worker is killed and comes back, then a gateway leaves and comes back."""
    third_s = MINUTES * 20
    await asyncio.sleep(third_s)
    await workers[0].kill()
    await asyncio.sleep(12)
    await place.worker(worker_port=str(ports[2]), concurrency="8")
    await asyncio.sleep(third_s - 12)
    await gateways[0].terminate()
    await place.gateway(str(ports[0]))
    await asyncio.sleep(third_s - 10)


async def _answers(scraping: Prometheus, begun: float) -> dict[str, Series]:
    found: dict[str, Series] = {}
    for panel in panels():
        for target in panel["targets"]:
            expr = target["expr"]
            for variable, value in (
                ("$__rate_interval", RATE),
                ("$gateway|$worker", ".*"),
                ("$gateway", ".*"),
                ("$worker", ".*"),
            ):
                expr = expr.replace(variable, value)
            span = {"start": str(begun + 15), "end": str(time.time()), "step": str(STEP_S)}
            answer = await scraping.get("query_range", query=expr, **span)
            found[key(target)] = [
                (legend(target["legendFormat"], row["metric"]), *_columns(row["values"])) for row in answer["result"]
            ]
    return found


def _columns(values: list[tuple[float, str]]) -> tuple[list[float], list[float]]:
    return [float(at) for at, _ in values], [float(value) for _, value in values]


def key(target: dict[str, Any]) -> str:
    """The same question may be asked with another legend."""
    return f"{target['expr']} {target['legendFormat']}"


def legend(form: str, labels: dict[str, str]) -> str:
    if form == "__auto":
        return ", ".join(f"{name}={value}" for name, value in labels.items())
    for name, value in labels.items():
        form = form.replace("{{" + name + "}}", value)
    return form


def panels() -> Iterator[dict[str, Any]]:
    for panel in json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]:
        if panel["type"] != "row":
            yield panel


# --- drawing -------------------------------------------------------------------------------------------------------------


def unit_of(name: str) -> Callable[[float], str]:
    match name:
        case "s":
            return seconds
        case "percentunit":
            return lambda v: f"{v * 100:.3g} %"
        case "bytes":
            return lambda v: scaled(v, 1024, ("B", "KiB", "MiB", "GiB"))
        case "cps":
            return lambda v: scaled(v, 1000, ("/s", "k/s", "M/s"))
        case _:
            return lambda v: scaled(v, 1000, ("", "k", "M"))


def seconds(value: float) -> str:
    for limit, factor, unit in ((1e-3, 1e6, "µs"), (1, 1e3, "ms"), (90, 1, "s"), (5400, 1 / 60, "min")):
        if abs(value) < limit:
            return f"{value * factor:.3g} {unit}"
    return f"{value / 3600:.3g} h"


def scaled(value: float, base: int, units: tuple[str, ...]) -> str:
    for unit in units[:-1]:
        if abs(value) < base:
            return f"{value:.3g} {unit}".strip()
        value /= base
    return f"{value:.3g} {units[-1]}"


def draw(answers: dict[str, Series]) -> None:
    mpl.rcParams.update({"font.family": "DejaVu Sans", "font.size": 7.5, "text.color": INK, "axes.edgecolor": GRID})
    everything = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in everything) + 2
    figure = plt.figure(figsize=(WIDTH_PX / DPI, height * UNIT_PX / DPI), dpi=DPI, facecolor=BACK)
    figure.text(0.008, 1 - 1.2 / height, "Antiphon", fontsize=13, weight="bold", va="center")
    for panel in everything:
        at = panel["gridPos"]
        top = 1 - (at["y"] + 2) / height
        if panel["type"] == "row":
            figure.text(0.008, top - 0.55 / height, f"▾ {panel['title']}", fontsize=9.5, weight="bold", va="center")
            continue
        box = (at["x"] / 24 + 0.003, top - (at["h"] - 0.2) / height, at["w"] / 24 - 0.006, (at["h"] - 0.35) / height)
        draw_panel(figure, panel, box, answers)
    figure.savefig(PICTURE, facecolor=BACK)
    plt.close(figure)


def draw_panel(
    figure: Figure, panel: dict[str, Any], box: tuple[float, float, float, float], answers: dict[str, Series]
) -> None:
    frame = figure.add_axes(box, facecolor=PANEL)
    frame.set_xticks([])
    frame.set_yticks([])
    for side in frame.spines.values():
        side.set_color("#24272d")
    series = [one for target in panel["targets"] for one in answers[key(target)]]
    unit_px = 1 / (box[3] * figure.get_size_inches()[1] * DPI)
    frame.text(0.012, 1 - 11 * unit_px, panel["title"], transform=frame.transAxes, weight="bold", va="center")
    match panel["type"]:
        case "stat":
            _stat(figure, frame, panel, box, series)
        case "table":
            for n, (name, _, values) in enumerate(series):
                frame.text(0.02, 0.8 - 0.1 * n, f"{name}:  {values[-1]:g}", transform=frame.transAxes, color=INK)
        case _:
            _lines(figure, panel, box, series)


def _stat(
    figure: Figure, frame: Axes, panel: dict[str, Any], box: tuple[float, float, float, float], series: Series
) -> None:
    known = [(at, v) for _, times, values in series for at, v in zip(times, values, strict=True) if not math.isnan(v)]
    steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
    shown, color = "?", FAINT
    if known:
        last = known[-1][1]
        shown = unit_of(panel["fieldConfig"]["defaults"]["unit"])(last)
        name = [step["color"] for step in steps if step["value"] is None or last >= step["value"]][-1]
        color = {"green": COLORS[0], "red": COLORS[4]}[name]
        spark = figure.add_axes((box[0], box[1], box[2], box[3] * 0.32))
        spark.axis("off")
        spark.fill_between(*zip(*known, strict=True), color=color, alpha=0.18, lw=0)
        spark.plot(*zip(*known, strict=True), color=color, lw=0.8)
        spark.margins(0)
        spark.set_ylim(bottom=0)
    frame.text(0.5, 0.5, shown, transform=frame.transAxes, fontsize=17, color=color, ha="center", va="center")


def _lines(figure: Figure, panel: dict[str, Any], box: tuple[float, float, float, float], series: Series) -> None:
    left, bottom, width, height = box
    rows = min(3, math.ceil(len(series) / 4)) if series else 1
    low = (0.16 + 0.075 * rows) * height
    axes = figure.add_axes((left + 0.034, bottom + low, width - 0.042, height * 0.87 - low), facecolor=PANEL)
    axes.grid(color=GRID, lw=0.5)
    axes.tick_params(colors=FAINT, labelsize=6.5, length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    unit = unit_of(panel["fieldConfig"]["defaults"]["unit"])
    axes.yaxis.set_major_formatter(lambda value, _: unit(value))
    axes.yaxis.set_major_locator(mpl.ticker.MaxNLocator(4))
    axes.xaxis.set_major_formatter(lambda at, _: time.strftime("%H:%M", time.gmtime(at)))
    axes.xaxis.set_major_locator(mpl.ticker.MultipleLocator(60))
    if panel["fieldConfig"]["defaults"]["custom"]["stacking"]["mode"] == "normal":
        _stacked(axes, series)
    else:
        for n, (name, times, values) in enumerate(series):
            color = COLORS[n % len(COLORS)]
            axes.plot(times, values, color=color, lw=1, label=name)
            axes.fill_between(times, values, color=color, alpha=0.06, lw=0)
    axes.set_ylim(bottom=0)
    if not any(value > 0 for _, _, values in series for value in values):
        axes.set_ylim(0, 1)
    axes.margins(x=0)
    if series:
        axes.legend(
            loc="upper left", bbox_to_anchor=(-0.028 / (width - 0.042), -0.13), ncols=4, frameon=False, fontsize=6.3, labelcolor=FAINT,
            handlelength=1.1, columnspacing=1.0, handletextpad=0.4, labelspacing=0.25, borderaxespad=0,
        )  # fmt: skip
    else:
        axes.text(0.5, 0.5, "nothing happened", transform=axes.transAxes, color=FAINT, ha="center")


def _stacked(axes: Axes, series: Series) -> None:
    times = sorted({at for _, own, _ in series for at in own})
    rows = [dict(zip(own, values, strict=True)) for _, own, values in series]
    base = [0.0] * len(times)
    for n, (row, (name, _, _)) in enumerate(zip(rows, series, strict=True)):
        color = COLORS[n % len(COLORS)]
        upper = [
            b + (0.0 if math.isnan(row.get(at, 0.0)) else row.get(at, 0.0)) for at, b in zip(times, base, strict=True)
        ]
        axes.fill_between(times, base, upper, color=color, alpha=0.35, lw=0)
        axes.plot(times, upper, color=color, lw=0.9, label=name)
        base = upper


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="antiphon-picture-") as name:
        draw(asyncio.run(run_for_a_while(Path(name))))


if __name__ == "__main__":
    main()
