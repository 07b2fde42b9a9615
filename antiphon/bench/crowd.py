"""The other end of `antiphon.bench.sockets`: a crowd of readers in a process of its own."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import orjson

_LINE_BYTES = 64 << 20
"""An answer holds all latencies that were sampled."""


@dataclass(frozen=True, slots=True)
class Reached:
    """How readers reach a server: `{i}` in `request` and `frames` stands for a reader's number, `{g}` for its group's."""

    host: str
    port: int
    request: str
    frames: Sequence[str]
    ready: str
    """What a reader has been sent when it is ready to be measured."""
    group: int = 1
    """So many readers in a row are a group."""
    after: Sequence[str] = ()
    """The cursor of each group, which stands for `{after}`."""


@dataclass(frozen=True, slots=True)
class Counted:
    """What all readers of a crowd have got since `forget`."""

    marks: int
    bytes: int
    closed: int
    open: int
    latencies_ms: Sequence[float]
    cpu_s: float
    """CPU time of the readers' process, since its start."""

    def quantile_ms(self, share: float) -> float:
        """A quantile of the sampled latencies; 0 without any."""
        return quantile(self.latencies_ms, share)


@dataclass(frozen=True, slots=True)
class Opened:
    """How long it took until all were ready, and each of them."""

    took_s: float
    took_ms: Sequence[float]


class Crowd:
    """Made by `crowd`. Its methods are called one after another."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    async def open(self, reached: Reached, count: int, *, first: int = 0, receive_buffer: int = 0) -> Opened:
        """Opens `count` readers, as fast as it goes, and returns when all are ready.

        `receive_buffer` is what the kernel may keep for each that has not been read, in bytes; 0: as it likes.
        """
        wish = {"first": first, "count": count, "receive_buffer": receive_buffer}
        answer = await self._ask(
            "open",
            host=reached.host,
            port=reached.port,
            request=reached.request,
            frames=list(reached.frames),
            ready=reached.ready,
            group=reached.group,
            after=list(reached.after),
            **wish,
        )
        return Opened(answer["took_s"], answer["took_ms"])

    async def count(self) -> Counted:
        return Counted(**await self._ask("count"))

    async def forget(self, sample_every: int = 0) -> None:
        """Counts from nothing again; one chunk of so many gives a latency from now on (0: as it was)."""
        await self._ask("forget", sample_every=sample_every)

    async def stall(self, count: int) -> None:
        """The first `count` readers read nothing more."""
        await self._ask("stall", count=count)

    async def close(self) -> None:
        """Closes all sockets at once, without a word."""
        await self._ask("close")

    async def until(self, marks: int, within_s: float) -> Counted:
        """Returns when so many events have come in all. Raises TimeoutError."""
        async with asyncio.timeout(within_s):
            while (counted := await self.count()).marks < marks:  # noqa: ASYNC110 (to be told costs more than to ask)
                await asyncio.sleep(0.05)
        return counted

    async def _ask(self, do: str, **wish: Any) -> Mapping[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(orjson.dumps({"do": do, **wish}) + b"\n")
        line = await self._process.stdout.readline()
        if not line:
            raise ConnectionError("the readers' process has ended; what it said is above")
        answer = orjson.loads(line)
        assert isinstance(answer, dict)
        return answer


@asynccontextmanager
async def crowd() -> AsyncIterator[Crowd]:
    """A process of readers, until the context ends."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", "from antiphon.bench.sockets import main; main()"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=_LINE_BYTES,
    )
    try:
        yield Crowd(process)
    finally:
        if process.stdin is not None:
            process.stdin.close()
        await process.wait()


def quantile(values: Sequence[float], share: float) -> float:
    """Of sorted values; 0 without any."""
    return values[min(len(values) - 1, int(len(values) * share))] if values else 0.0
