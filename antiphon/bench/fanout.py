"""Fan-out: one session, read by 500 sockets of one gateway."""

from __future__ import annotations

from collections.abc import Mapping

from antiphon.bench.measuring import Stage, Streamed, stage, stream
from antiphon.bench.source import Wish

READERS = 500
SECONDS = 2.0
SPARSE_PER_SECOND = 150
"""So few that each event is a write of its own: what a token costs that nothing can be joined with."""
DENSE_PER_SECOND = 4000
"""So many that several are there each time the gateway writes."""


async def measure_fanout() -> Mapping[str, float]:
    """The same session at a low rate, then at a high one."""
    async with stage() as on:
        sparse = await _at(on, "sparse-", SPARSE_PER_SECOND)
        return figures(sparse, await _at(on, "dense-", DENSE_PER_SECOND))


def figures(sparse: Streamed, dense: Streamed) -> Mapping[str, float]:
    """What the two rates came to, of a gateway or of a peer."""
    return {
        "events_per_second_per_core": dense.per_core,
        "events_per_second": dense.got.marks / dense.took_s,
        **dense.costs(),
        **dense.latency(),
        "offered_per_second": dense.written / dense.offered_s,
        "delivered_share": dense.delivered_share,
        "sparse_events_per_second_per_core": sparse.per_core,
        "sparse_events_per_second": sparse.got.marks / sparse.took_s,
        **{f"sparse_{name}": value for name, value in {**sparse.costs(), **sparse.latency()}.items()},
        "sparse_delivered_share": sparse.delivered_share,
    }


async def _at(on: Stage, prefix: str, per_second: float) -> Streamed:
    await on.crowd.close()
    await on.crowd.open(on.reached(f"{prefix}0"), READERS)
    wish = Wish(on.setup.broker.nats.nats_url, prefix, 1, per_second, SECONDS)
    return await stream(on, wish, readers_of_each=READERS)
