"""What the benchmarks of the readers' side share: a gateway on a core of its own, a source, a crowd, and their costs."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import asdict, dataclass
from urllib.parse import urlsplit

import orjson

from antiphon.bench.crowd import Counted, Crowd, Reached, crowd
from antiphon.bench.harness import Bench, Measured, bench, pin
from antiphon.bench.sockets import upgrade
from antiphon.bench.source import Wish

MEASURED_CORE, OTHER_CORE = 0, 1
SETTLE_S = 0.5
_ALL_WITHIN_S = 180.0
"""On a quiet machine it takes no longer than the writing."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A NATS server, a gateway that has a core to itself, and readers; all else is on the other core."""

    setup: Bench
    gateway: Measured
    crowd: Crowd

    def reached(self, session: str, after: Sequence[str] = (), *, group: int = 1) -> Reached:
        """How readers subscribe to `session`, in which `{i}` stands for a reader's number, `{g}` for its group's.

        `after` has a cursor for each group.
        """
        return reached(self.gateway.address, self.setup.token, session, after, group=group)


def reached(address: str, token: str, session: str, after: Sequence[str] = (), *, group: int = 1) -> Reached:
    """As `Stage.reached`, at any gateway."""
    at = urlsplit(address)
    assert at.hostname is not None
    assert at.port is not None
    subscribe = {"op": "subscribe", "id": 1, "session": session} | ({"after": "{after}"} if after else {})
    hello = {"op": "hello", "id": 0, "token": token}
    return Reached(
        host=at.hostname,
        port=at.port,
        request=upgrade("/v1/connect", at.hostname, at.port, "antiphon.v1"),
        frames=[orjson.dumps(frame).decode() for frame in (hello, subscribe)],
        ready='"op":"session.caught_up"',
        group=group,
        after=after,
    )


@asynccontextmanager
async def stage(*gateway: str) -> AsyncIterator[Stage]:
    """A stage whose gateway has these further settings."""
    async with (
        bench() as setup,
        setup.process(*setup.gateway_args(), *gateway) as measured,
        crowd() as readers,
    ):
        measured.pin(MEASURED_CORE)
        setup.nats.pin(OTHER_CORE)
        pin(readers.pid, OTHER_CORE)
        yield Stage(setup, measured, readers)


@dataclass(frozen=True, slots=True)
class Streamed:
    """What a stream came to: what was written, what the readers got, and what it cost in CPU seconds."""

    written: int
    offered_s: float
    took_s: float
    got: Counted
    gateway_s: float
    nats_s: float
    source_s: float
    readers_s: float
    wanted: int
    """Events, if each reader gets each token."""
    beside: str = "nats"
    """What `nats_s` is of, in the names of figures."""

    @property
    def per_core(self) -> float:
        """Events delivered in a second of the gateway's CPU time."""
        return self.got.marks / self.gateway_s if self.gateway_s else 0.0

    @property
    def delivered_share(self) -> float:
        return self.got.marks / self.wanted if self.wanted else 0.0

    def costs(self) -> Mapping[str, float]:
        """CPU time of each process for one delivered event, and its bytes; of the source and NATS, for one written."""
        marks, written = max(1, self.got.marks), max(1, self.written)
        return {
            "cpu_us_per_event": self.gateway_s / marks * 1e6,
            "cpu_us_per_event_readers": self.readers_s / marks * 1e6,
            "bytes_per_event": self.got.bytes / marks,
            f"cpu_us_per_write_{self.beside}": self.nats_s / written * 1e6,
            "cpu_us_per_write_source": self.source_s / written * 1e6,
        }

    def latency(self) -> Mapping[str, float]:
        return {"p50_ms": self.got.quantile_ms(0.5), "p99_ms": self.got.quantile_ms(0.99)}


async def stream(on: Stage, wish: Wish, *, readers_of_each: float) -> Streamed:
    """Writes what is wished, and returns when the readers have had all of it. Raises TimeoutError."""
    async with source(wish) as written_by:
        await asyncio.sleep(SETTLE_S)
        await on.crowd.forget()
        before = (await on.crowd.count()).cpu_s, on.gateway.cpu_s(), on.setup.nats.cpu_s()
        loop = asyncio.get_running_loop()
        begun = loop.time()
        written, offered_s, source_s = await written_by()
        got = await on.crowd.until(round(written * readers_of_each), _ALL_WITHIN_S)
    return Streamed(
        written=written,
        offered_s=offered_s,
        took_s=loop.time() - begun,
        got=got,
        gateway_s=on.gateway.cpu_s() - before[1],
        nats_s=on.setup.nats.cpu_s() - before[2],
        source_s=source_s,
        readers_s=got.cpu_s - before[0],
        wanted=round(written * readers_of_each),
    )


@asynccontextmanager
async def most_memory(on: Stage) -> AsyncIterator[list[int]]:
    """The most that the gateway had while the context was open."""
    most = [on.gateway.memory_bytes()]

    async def look() -> None:
        while True:
            most[0] = max(most[0], on.gateway.memory_bytes())
            await asyncio.sleep(0.1)

    async with asyncio.TaskGroup() as tasks:
        looking = tasks.create_task(look())
        try:
            yield most
        finally:
            looking.cancel()


def source(wish: Wish) -> AbstractAsyncContextManager[Source]:
    """A source that has begun its texts; calling it streams them."""
    return source_process("antiphon.bench.source", asdict(wish))


@asynccontextmanager
async def source_process(module: str, told: Mapping[str, object]) -> AsyncIterator[Source]:
    """A process that runs the module's `main`, with what it is told; ready to write."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", f"from {module} import main; main()", orjson.dumps(told).decode()),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        pin(process.pid, OTHER_CORE)
        assert process.stdout is not None
        if await process.stdout.readline() != b"begun\n":
            raise ConnectionError("the source has ended; what it said is above")
        yield Source(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


class Source:
    """Made by `source_process`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def __call__(self) -> tuple[int, float, float]:
        """Tokens written, the seconds that took, and the CPU seconds."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(b"go\n")
        answer = orjson.loads(await self._process.stdout.readline())
        return answer["written"], answer["took_s"], answer["cpu_s"]
