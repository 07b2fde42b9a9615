"""Slow: readers that have stopped reading, among others that go on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import orjson

from antiphon.bench.crowd import Crowd, crowd
from antiphon.bench.harness import pin
from antiphon.bench.measuring import OTHER_CORE, Stage, Streamed, most_memory, stage, stream
from antiphon.bench.source import Wish

STALLED = 1000
READERS = 100
PER_SECOND = 200
SECONDS = 5.0
_RECEIVE_BUFFER = 4096
"""What the kernel keeps for a reader that has stopped is not the gateway's: as little as it can."""
_FILL_PER_SECOND, _FILL_S = 1000, 3.0
_PATIENCE = ("--slow-reader-s", "600")
"""Stalled readers are there for as long as it takes to measure them."""
_PAGE = 4096
MB = 1_000_000


async def measure_slow() -> Mapping[str, float]:
    """100 readers of a session alone; then with 1,000 others that are held back for good; then 1,000 more that have
    stopped in the middle of joining, each of which has been given frames of its own.
    """
    async with stage(*_PATIENCE) as on, crowd() as stalled, crowd() as joining:
        for each in (stalled, joining):
            pin(each.pid, OTHER_CORE)
        await on.crowd.open(on.reached("alone-0"), READERS)
        alone = await _stream(on, "alone-")
        await on.crowd.close()
        await stalled.open(on.reached("among-0"), STALLED, receive_buffer=_RECEIVE_BUFFER)
        await stalled.stall(STALLED)
        await on.crowd.open(on.reached("among-0"), READERS)
        before, kernel = on.gateway.memory_bytes(), _kernel_bytes()
        async with most_memory(on) as most:
            await _stream(on, "among-", _FILL_PER_SECOND, _FILL_S)
            among = await _stream(on, "among-")
            after, kernel_after = on.gateway.memory_bytes(), _kernel_bytes()
            own = await _stalled_in_joining(on, joining)
        await stalled.close()
        await joining.close()
        left = await _stream(on, "among-", seconds=1.0), on.gateway.memory_bytes()
    p99 = alone.latency()["p99_ms"]
    return {
        "stalled": float(STALLED),
        "mb_before": before / MB,
        "mb_peak": most[0] / MB,
        "mb_after_they_left": left[1] / MB,
        "bytes_per_stalled": (after - before) / STALLED,
        "bytes_per_stalled_in_joining": own,
        "kernel_bytes_per_stalled": (kernel_after - kernel) / STALLED,
        "p50_ms_alone": alone.latency()["p50_ms"],
        "p99_ms_alone": p99,
        **among.latency(),
        "p99_ratio": among.latency()["p99_ms"] / p99 if p99 else 0.0,
        "cpu_us_per_event_alone": alone.costs()["cpu_us_per_event"],
        **among.costs(),
    }


async def _stalled_in_joining(on: Stage, joining: Crowd) -> float:
    """Bytes of memory for each of those that ask for everything, and take next to nothing of it."""
    before = on.gateway.memory_bytes()
    reached = on.reached("among-0")
    hello, subscribe = reached.frames
    every = orjson.dumps(orjson.loads(subscribe) | {"replay": "every"}).decode()
    at_the_reply = replace(reached, frames=[hello, every], ready='"op":"ok"')
    await joining.open(at_the_reply, STALLED, receive_buffer=_RECEIVE_BUFFER)
    await joining.stall(STALLED)
    async with most_memory(on) as most:
        await _stream(on, "among-")
    return (most[0] - before) / STALLED


def _kernel_bytes() -> int:
    """What the kernel keeps for TCP sockets, of this whole network namespace."""
    for line in Path("/proc/net/sockstat").read_text(encoding="utf-8").splitlines():
        if line.startswith("TCP:"):
            words = line.split()
            return int(words[words.index("mem") + 1]) * _PAGE
    return 0


async def _stream(on: Stage, prefix: str, per_second: float = PER_SECOND, seconds: float = SECONDS) -> Streamed:
    wish = Wish(on.setup.broker.nats.nats_url, prefix, 1, per_second, seconds)
    return await stream(on, wish, readers_of_each=READERS)
