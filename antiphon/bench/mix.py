"""Mix: what a gateway does in earnest, at two sizes: many sessions, few of which stream. The scale model is held to it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from antiphon.bench.measuring import stage, stream
from antiphon.bench.source import Wish

_SETTLE_S = 3.0


@dataclass(frozen=True, slots=True)
class Mix:
    """A load: of the sessions, `streaming` get `per_second` tokens each."""

    sessions: int
    readers_of_each: int
    streaming: int
    per_second: float
    seconds: float = 4.0

    @property
    def connections(self) -> int:
        return self.sessions * self.readers_of_each


MIXES: Mapping[str, Mix] = {"small": Mix(1000, 1, 100, 30.0), "large": Mix(1500, 4, 150, 30.0)}


async def measure_mix() -> Mapping[str, float]:
    """Each at a gateway of its own."""
    figures: dict[str, float] = {}
    for name, mix in MIXES.items():
        figures |= {f"{name}_{figure}": value for figure, value in (await _measure(mix)).items()}
    return figures


async def _measure(mix: Mix) -> Mapping[str, float]:
    async with stage() as on:
        await on.crowd.open(on.reached("warm"), 1)
        before = on.gateway.memory_bytes()
        await on.crowd.open(on.reached("mix-{g}", group=mix.readers_of_each), mix.connections)
        await asyncio.sleep(_SETTLE_S)
        after = on.gateway.memory_bytes()
        rate = mix.streaming * mix.per_second
        wish = Wish(on.setup.broker.nats.nats_url, "mix-", mix.streaming, rate, mix.seconds)
        streamed = await stream(on, wish, readers_of_each=mix.readers_of_each)
    return {
        "connections": float(mix.connections),
        "tokens_per_second": streamed.written / streamed.offered_s,
        "gateway_us_per_token": streamed.gateway_s / streamed.written * 1e6,
        "nats_us_per_token": streamed.nats_s / streamed.written * 1e6,
        "bytes": float(after - before),
        **streamed.latency(),
    }
