"""Storm: all clients of a gateway are cut off, and come back at once, with their cursors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import aiohttp

from antiphon.bench.crowd import quantile
from antiphon.bench.measuring import Stage, source, stage
from antiphon.bench.source import Wish
from broker.jetstream.connection import Connection
from broker.jetstream.log import JetStreamLog

CLIENTS = 10_000
SESSIONS = 100
PER_SECOND = 2000
SECONDS = 1.0


async def measure_storm() -> Mapping[str, float]:
    """10,000 clients of 100 sessions, each of which has missed 20 tokens."""
    each = CLIENTS // SESSIONS
    async with stage() as on:
        wish = Wish(on.setup.broker.nats.nats_url, "storm-", SESSIONS, PER_SECOND, SECONDS)
        async with source(wish) as written_by:
            cursors = await _cursors(on)
            await on.crowd.open(on.reached("storm-{g}", group=each), CLIENTS)
            await on.crowd.close()
            await written_by()
        before, cpu = await _from_rings(on), on.gateway.cpu_s()
        opened = await on.crowd.open(on.reached("storm-{g}", cursors, group=each), CLIENTS)
        cpu_s = on.gateway.cpu_s() - cpu
        from_rings = await _from_rings(on) - before
    return {
        "clients": float(CLIENTS),
        "resumes_per_second_per_core": CLIENTS / cpu_s,
        "resumes_per_second": CLIENTS / opened.took_s,
        "cpu_us_per_resume": cpu_s / CLIENTS * 1e6,
        "p50_ms": quantile(opened.took_ms, 0.5),
        "p99_ms": quantile(opened.took_ms, 0.99),
        "from_rings_share": from_rings / CLIENTS,
    }


async def _cursors(on: Stage) -> Sequence[str]:
    """Of each session, the cursor of who has had all there is."""
    async with (
        Connection(on.setup.broker.nats, name="bench") as connection,
        JetStreamLog(connection, on.setup.broker.log) as log,
    ):
        await log.prepare()
        cursors = []
        for i in range(SESSIONS):
            subjects = log.subjects(f"storm-{i}")
            head = await log.head(subjects)
            assert head is not None
            cursors.append(f"{await log.epoch(subjects)}:{head.seq}")
        return cursors


async def _from_rings(on: Stage) -> float:
    """Joins that the gateway has served from memory so far, by its metrics."""
    async with aiohttp.ClientSession() as http, http.get(f"{on.gateway.address}/metrics") as answer:
        for line in (await answer.text()).splitlines():
            if line.startswith("antiphon_gateway_joins_total") and 'kind="ring"' in line:
                return float(line.rpartition(" ")[2])
    return 0.0
