"""One to one: many sessions, each read by one socket, as most sessions are."""

from __future__ import annotations

from collections.abc import Mapping

from antiphon.bench.measuring import Streamed, stage, stream
from antiphon.bench.source import Wish

SESSIONS = 500
PER_SECOND = 20_000
SECONDS = 2.0


async def measure_one_to_one() -> Mapping[str, float]:
    """500 sessions of 40 tokens a second, each with one viewer."""
    async with stage() as on:
        await on.crowd.open(on.reached("one-{i}"), SESSIONS)
        wish = Wish(on.setup.broker.nats.nats_url, "one-", SESSIONS, PER_SECOND, SECONDS)
        return figures(await stream(on, wish, readers_of_each=1))


def figures(streamed: Streamed) -> Mapping[str, float]:
    """What it came to, of a gateway or of a peer."""
    return {
        "events_per_second_per_core": streamed.per_core,
        "events_per_second": streamed.got.marks / streamed.took_s,
        **streamed.costs(),
        **streamed.latency(),
        "offered_per_second": streamed.written / streamed.offered_s,
        "delivered_share": streamed.delivered_share,
    }
