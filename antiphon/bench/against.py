"""The benchmarks of a peer: the same readers, tokens and rates as Antiphon's own of that name.

A peer gets as much time as Antiphon's source has to write, and a little more; what it has not delivered by then is not
waited for (`delivered_share`). Some would need a minute for what others do in five seconds.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from antiphon.bench import fanout, idle, latency, one_to_one
from antiphon.bench.crowd import Counted, Crowd, Reached, crowd
from antiphon.bench.harness import pin
from antiphon.bench.measuring import MEASURED_CORE, OTHER_CORE, SETTLE_S, Streamed, source_process
from antiphon.bench.peers import Peer, Served
from antiphon.bench.producer import Load

GRACE_S = 1.0
_LOOK_S = 0.05
_SETTLE_S = 1.0
"""A connection leaves rubbish when it has come."""


@dataclass(frozen=True, slots=True)
class PeerStage:
    """A peer whose server has a core to itself, and readers; all else is on the other core."""

    served: Served
    crowd: Crowd

    def server_s(self) -> float:
        return sum(process.cpu_s() for process in self.served.server)

    def server_bytes(self) -> int:
        return sum(process.memory_bytes() for process in self.served.server)

    def beside_s(self) -> float:
        return sum(process.cpu_s() for process in self.served.beside)

    def reached(self, channel: str, *, group: int = 1) -> Reached:
        """How readers subscribe to `channel`, in which `{g}` stands for their group's number."""
        reached = self.served.reached(channel)
        return Reached(reached.host, reached.port, reached.request, reached.frames, reached.ready, group)


@asynccontextmanager
async def peer_stage(peer: Peer) -> AsyncIterator[PeerStage]:
    """A peer that has just started."""
    with tempfile.TemporaryDirectory(prefix="antiphon-bench-") as directory:
        async with peer.serving(Path(directory)) as served, crowd() as readers:
            for process in served.server:
                process.pin(MEASURED_CORE)
            for process in served.beside:
                process.pin(OTHER_CORE)
            pin(readers.pid, OTHER_CORE)
            yield PeerStage(served, readers)


async def stream_to(
    on: PeerStage,
    prefix: str,
    channels: int,
    rate: tuple[float, float],
    *,
    readers_of_each: int,
    sample_every: int = 0,
    grace_s: float = GRACE_S,
) -> Streamed:
    """Writes tokens at a rate (a second, seconds) to channels, each with as many readers, and counts what they get until
    `grace_s` after the last was written.
    """
    per_second, seconds = rate
    load = Load(on.served.feed(prefix), channels, per_second, seconds)
    async with source_process("antiphon.bench.producer", asdict(load)) as written_by:
        await asyncio.sleep(SETTLE_S)
        await on.crowd.forget(sample_every)
        before = (await on.crowd.count()).cpu_s, on.server_s(), on.beside_s()
        loop = asyncio.get_running_loop()
        begun = loop.time()
        written, offered_s, source_s = await written_by()
        got = await _most(on.crowd, written * readers_of_each, grace_s)
    return Streamed(
        written=written,
        offered_s=offered_s,
        took_s=loop.time() - begun,
        got=got,
        gateway_s=on.server_s() - before[1],
        nats_s=on.beside_s() - before[2],
        source_s=source_s,
        readers_s=got.cpu_s - before[0],
        wanted=written * readers_of_each,
        beside="beside",
    )


async def _most(readers: Crowd, marks: int, grace_s: float) -> Counted:
    """All events, or those that have come by the end of the time of grace."""
    loop = asyncio.get_running_loop()
    end = loop.time() + grace_s
    while (counted := await readers.count()).marks < marks and loop.time() < end:  # noqa: ASYNC110 (to be told costs more than to ask)
        await asyncio.sleep(_LOOK_S)
    return counted


async def _fanout(on: PeerStage) -> Mapping[str, float]:
    async def at(prefix: str, per_second: float) -> Streamed:
        await on.crowd.close()
        await on.served.prepare(prefix, 1)
        await on.crowd.open(on.reached(f"{prefix}0"), fanout.READERS)
        rate = per_second, fanout.SECONDS
        return await stream_to(on, prefix, 1, rate, readers_of_each=fanout.READERS)

    sparse = await at("sparse-", fanout.SPARSE_PER_SECOND)
    return fanout.figures(sparse, await at("dense-", fanout.DENSE_PER_SECOND))


async def _one_to_one(on: PeerStage) -> Mapping[str, float]:
    await on.served.prepare("one-", one_to_one.SESSIONS)
    await on.crowd.open(on.reached("one-{g}"), one_to_one.SESSIONS)
    rate = one_to_one.PER_SECOND, one_to_one.SECONDS
    return one_to_one.figures(await stream_to(on, "one-", one_to_one.SESSIONS, rate, readers_of_each=1))


async def _latency(on: PeerStage) -> Mapping[str, float]:
    """From the producer to the bytes at the reader: less far than Antiphon's own way, from `ctx.text()` to a parsed frame."""
    await on.served.prepare("lat-", latency.SESSIONS)
    await on.crowd.open(on.reached("lat-{g}"), latency.SESSIONS)
    rate = latency.SESSIONS * latency.TOKENS_PER_SECOND, latency.TOKENS / latency.TOKENS_PER_SECOND
    streamed = await stream_to(on, "lat-", latency.SESSIONS, rate, readers_of_each=1, sample_every=1)
    values = streamed.got.latencies_ms
    return {
        "tokens": float(streamed.got.marks),
        "tokens_per_second": streamed.got.marks / streamed.took_s,
        **streamed.latency(),
        "max_ms": values[-1] if values else 0.0,
        "cpu_us_per_event_gateway": streamed.costs()["cpu_us_per_event"],
        "delivered_share": streamed.delivered_share,
    }


async def _idle(on: PeerStage) -> Mapping[str, float]:
    channels = idle.CONNECTIONS // idle.IN_A_SESSION
    await on.served.prepare("idle-", channels + 1)
    await on.served.prepare("warm", 1)
    await on.crowd.open(on.reached("warm0"), 1)
    await asyncio.sleep(_SETTLE_S)
    before = on.server_bytes()
    await on.crowd.open(on.reached("idle-{g}", group=idle.IN_A_SESSION), idle.CONNECTIONS, first=1)
    await asyncio.sleep(_SETTLE_S)
    after, cpu = on.server_bytes(), on.server_s()
    await asyncio.sleep(idle.SECONDS)
    return {
        "connections": float(idle.CONNECTIONS),
        "bytes_per_connection": (after - before) / idle.CONNECTIONS,
        "cpu_share": (on.server_s() - cpu) / idle.SECONDS,
    }


PEER_BENCHES: Mapping[str, Callable[[PeerStage], Awaitable[Mapping[str, float]]]] = {
    "fanout": _fanout,
    "idle": _idle,
    "latency": _latency,
    "one-to-one": _one_to_one,
}
"""The others need what these peers do not have: a log to come back to, records, fences."""


async def measure_peer(peer: Peer, name: str) -> Mapping[str, float]:
    """One run of a benchmark of a peer that is installed."""
    async with peer_stage(peer) as on:
        return await PEER_BENCHES[name](on)
