"""`python -m tests.soak --minutes 60`: a NATS server, two gateways and two workers under a steady load, and a verdict.

People join, leave, stop reading, come back with cursors and are cut off; sessions are created, talked in and deleted. The
exit code is 0 if memory, open files, tasks and the rest are flat, nothing is left when everybody has left, and all sums
are right. Run beside other work it takes about a fifth of a core (`--rooms`).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import orjson

from broker.jetstream.connection import Connection
from tests.soak.books import Books, Counted, Samples
from tests.soak.rooms import Load
from tests.soak.sampling import Watch, Watched
from tests.soak.verdict import Verdict
from tests.support.nats import NatsNode, free_ports, single_server
from tests.support.stack import Stack, open_log

WARM_UP_S = 20.0
"""The same load before the baseline is taken: what is made once has been made then."""
QUIET_WAIT_S = 90.0
GATEWAYS = WORKERS = 2
KEPT_LITTLE = {
    # So that readers who stop for a moment are held back, which is a part of what is tried.
    "outbox_bytes": "4096",
    "kernel_unsent_bytes": "4096",
    "ring_entries": "64",
    "session_linger_s": "3",
    "leave_grace_s": "1",
}
_ZERO = ("connections", "subscriptions", "sessions", "participants", "readers_behind", "entries_in_flight")


@dataclass(slots=True)
class Soak:
    """What runs, and how it is looked at."""

    load: Load
    watch: Watch
    books: Books
    connection: Connection
    partitions: int

    async def run(self, seconds: float, rooms: int, every_s: float) -> Verdict:
        before = await self._warmed_up(rooms)
        self.watch.series.clear()
        begun, cpu_s = time.monotonic(), self.watch.cpu_s
        async with asyncio.TaskGroup() as tasks:
            living = tasks.create_task(self.load.keep_rooms(rooms))
            await self._look_on(seconds, every_s)
            during = self.watch.all()
            share = (self.watch.cpu_s - cpu_s) / (time.monotonic() - begun)
            self.load.stop.set()
            await living
        after = await self._quiet(before)
        self.books.stored = await self._stored()
        verdict = Verdict()
        verdict.lines.append(
            f"{seconds:.0f} s, {self.load.rooms} rooms, {self.load.runs} runs, {self.load.stays} stays, "
            f"{self.watch.looks} looks, {share:.2f} cores taken by what is watched"
        )
        verdict.flat(during)
        verdict.back(before, after)
        verdict.sums([*self.watch.unfound, *self.books.wrong()], self.books.lines())
        return verdict

    async def _warmed_up(self, rooms: int) -> Mapping[str, float]:
        async with asyncio.TaskGroup() as tasks:
            living = tasks.create_task(self.load.keep_rooms(rooms))
            await asyncio.sleep(WARM_UP_S)
            self.load.stop.set()
            await living
        before = await self._quiet({})
        self.load.stop = asyncio.Event()
        return before

    async def _look_on(self, seconds: float, every_s: float) -> None:
        end = time.monotonic() + seconds
        while (left_s := end - time.monotonic()) > 0:
            await asyncio.sleep(min(every_s, left_s))
            await self.watch.look(self.load.http)

    async def _quiet(self, before: Mapping[str, float]) -> Mapping[str, float]:
        """What there is when nobody is there any more; waits until that is no more than before."""
        until = time.monotonic() + QUIET_WAIT_S
        while True:
            seen = await self.watch.look(self.load.http)
            self.books.gateways = {name: s for name, s in seen.items() if name.startswith("gateway")}
            self.books.workers = {name: s for name, s in seen.items() if name.startswith("worker")}
            left = self._left()
            no_more = all(left[name] <= value for name, value in before.items())
            if (not self._busy(seen) and no_more) or time.monotonic() > until:
                return left
            await asyncio.sleep(0.5)

    def _left(self) -> dict[str, float]:
        things = [(p.name, thing) for p in self.watch.processes if p.metrics for thing in ("tasks", "files", "threads")]
        things += [("nats", "subscriptions"), ("nats", "connections")]
        return {f"{name} {thing}": self.watch.last(name, thing) for name, thing in things} | {
            f"{name} {gauge}": samples[f"antiphon_gateway_{gauge}"]
            for name, samples in self.books.gateways.items()
            for gauge in _ZERO
        }

    def _busy(self, seen: Mapping[str, Samples]) -> float:
        return sum(
            samples.get(name, 0.0)
            for samples in seen.values()
            for name in (*(f"antiphon_gateway_{gauge}" for gauge in _ZERO), "antiphon_worker_sessions")
        )

    async def _stored(self) -> int:
        """How many messages the streams of sessions have been given since they were made."""
        names = [f"S{number:02}" for number in range(self.partitions)]
        told = [await self.connection.api(f"STREAM.INFO.{name}") for name in names]
        return sum(stream["state"]["last_seq"] for stream in told)


@contextlib.asynccontextmanager
async def soaking(directory: Path, agent: str, seed: int) -> AsyncIterator[Soak]:
    """All of it, ready."""
    async with contextlib.AsyncExitStack() as stack:
        nats = await stack.enter_async_context(single_server(directory / "nats"))
        made = await stack.enter_async_context(Stack(directory / "stack", nats.url, lease_s=15.0))
        ports = free_ports(WORKERS)
        gateways = [await made.gateway(**KEPT_LITTLE) for _ in range(GATEWAYS)]
        workers = [await made.worker(agent, worker_port=str(port), concurrency="32") for port in ports]
        connection, log = await stack.enter_async_context(open_log(nats.url))
        # No connection outlives its request: what is open afterwards is left over.
        connector = aiohttp.TCPConnector(force_close=True)
        http = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
        watched = [Watched(f"gateway-{i}", each.pid, each.url) for i, each in enumerate(gateways)]
        watched += [
            Watched(f"worker-{i}", each.pid, f"http://127.0.0.1:{port}")
            for i, (each, port) in enumerate(zip(workers, ports, strict=True))
        ]
        watched.append(Watched("nats", nats.pid))
        books = Books(counted=Counted())
        load = Load(made, [each.url for each in gateways], log, http, random.Random(seed), books.counted)
        yield Soak(load, Watch(watched, _monitoring(nats)), books, connection, made.partitions)


def _monitoring(nats: NatsNode) -> str:
    return f"http://{nats.options.host}:{nats.options.http_port}"


async def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--rooms", type=int, default=5, help="sessions that are in use at once")
    parser.add_argument("--every-s", type=float, default=5.0, help="seconds between two looks")
    parser.add_argument("--agent", default="echo", help="whom the workers run")
    parser.add_argument("--seed", type=int, default=None, help="that of an earlier run, for the same dice")
    parser.add_argument("--series", type=Path, help="a file for all that was measured, as JSON")
    asked = parser.parse_args()
    seed = random.randrange(2**32) if asked.seed is None else asked.seed
    print(f"seed {seed}, {asked.minutes:g} minutes, {asked.rooms} rooms", flush=True)
    with tempfile.TemporaryDirectory(prefix="antiphon-soak-") as name:
        async with soaking(Path(name), asked.agent, seed) as soak:
            verdict = await soak.run(asked.minutes * 60, asked.rooms, asked.every_s)
            series = {one.name: [list(one.seconds), list(one.values)] for one in soak.watch.all()}
    if asked.series is not None:
        asked.series.write_bytes(orjson.dumps(series))
    wrong = [f"WRONG: {what}" for what in verdict.wrong] or ["all is flat, nothing is left, all adds up"]
    print("\n".join([*verdict.lines, *wrong]))
    return 0 if verdict.ok else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
