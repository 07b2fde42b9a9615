"""What the processes take, looked at again and again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import aiohttp
import psutil

from tests.soak.books import Due, Samples, parsed
from tests.soak.trend import Series
from tests.support.memory import own_memory

MB = 1_000_000


@dataclass(frozen=True, slots=True)
class Watched:
    """A process, and where its metrics are; empty: nowhere."""

    name: str
    pid: int
    metrics: str = ""


@dataclass(slots=True)
class Watch:
    """Looks at processes. `series` has what was seen, by process and thing."""

    processes: list[Watched]
    monitoring: str
    """Where nats-server tells of itself."""
    series: dict[tuple[str, str], tuple[list[float], list[float]]] = field(default_factory=dict)
    unfound: list[str] = field(default_factory=list)
    """Looks at which what was due could not be found again."""
    looks: int = 0
    cpu_s: float = 0.0
    """CPU time of all processes, at the last look."""

    async def look(self, http: aiohttp.ClientSession) -> Mapping[str, Samples]:
        """Looks once; gives the metrics of those that have any."""
        now, found = time.monotonic(), {}
        for process in self.processes:
            of = psutil.Process(process.pid)
            self._put(process.name, "memory", now, await asyncio.to_thread(own_memory, process.pid))
            self._put(process.name, "files", now, of.num_fds())
            self._put(process.name, "threads", now, of.num_threads())
            if process.metrics:
                async with http.get(f"{process.metrics}/metrics") as answer:
                    samples = found[process.name] = parsed(await answer.text())
                self._put(process.name, "tasks", now, samples["antiphon_tasks"])
                self._compare(process.name, samples)
        await self._look_at_nats(http, now)
        self.looks += 1
        self.cpu_s = sum(sum(psutil.Process(p.pid).cpu_times()[:2]) for p in self.processes)
        return found

    def all(self) -> list[Series]:
        return [Series(" ".join(key), *pair) for key, pair in self.series.items()]

    def last(self, process: str, thing: str) -> float:
        return self.series[process, thing][1][-1]

    def _compare(self, name: str, samples: Samples) -> None:
        if "antiphon_gateway_entries_due_total" in samples:
            due = Due.of(samples)
            if due.missing:
                self.unfound.append(f"{name}, look {self.looks}: {due}")
            for gauge in ("connections", "subscriptions", "sessions", "participants"):
                self._put(name, gauge, time.monotonic(), samples[f"antiphon_gateway_{gauge}"])

    async def _look_at_nats(self, http: aiohttp.ClientSession, now: float) -> None:
        async with http.get(f"{self.monitoring}/varz") as answer:
            told = await answer.json()
        self._put("nats", "subscriptions", now, told["subscriptions"])
        self._put("nats", "connections", now, told["connections"])

    def _put(self, process: str, thing: str, at: float, value: float) -> None:
        seconds, values = self.series.setdefault((process, thing), ([], []))
        seconds.append(at)
        values.append(value)
