"""Idle: what connections cost that are joined and have nothing to read."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from antiphon.bench.measuring import stage

CONNECTIONS = 10_000
IN_A_SESSION = 10
SECONDS = 2.0
SETTLE_S = 3.0
"""Joining leaves rubbish, and looks once more at the log 2 s later."""


async def measure_idle() -> Mapping[str, float]:
    """10,000 connections in 1,000 sessions; then as many again, each in a session of its own, at another gateway."""
    shared = await _measure(CONNECTIONS // IN_A_SESSION)
    own = await _measure(CONNECTIONS)
    return {
        **shared,
        "bytes_per_connection_with_own_session": own["bytes_per_connection"],
        "cpu_share_with_own_session": own["cpu_share"],
    }


async def _measure(sessions: int) -> Mapping[str, float]:
    async with stage() as on:
        # The first connection loads what a gateway loads once.
        await on.crowd.open(on.reached("warm"), 1)
        await asyncio.sleep(SETTLE_S)
        before = on.gateway.memory_bytes()
        await on.crowd.open(on.reached("idle-{g}", group=CONNECTIONS // sessions), CONNECTIONS, first=1)
        await asyncio.sleep(SETTLE_S)
        after = on.gateway.memory_bytes()
        cpu = on.gateway.cpu_s()
        await asyncio.sleep(SECONDS)
        return {
            "connections": float(CONNECTIONS),
            "bytes_per_connection": (after - before) / CONNECTIONS,
            "cpu_share": (on.gateway.cpu_s() - cpu) / SECONDS,
        }
