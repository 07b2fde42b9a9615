"""Latency: from `ctx.text()` in a worker, through the log, to a client's socket."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import aiohttp
import orjson

from antiphon.bench.crowd import quantile
from antiphon.bench.harness import Bench, Measured, bench

SESSIONS = 20
TOKENS_PER_SECOND = 25
"""Of one session: what a fast hosted model gives."""
TOKENS = 75


@dataclass(slots=True)
class _Samples:
    """Latencies in ms, and how many sessions have ended."""

    values: list[float] = field(default_factory=list)
    ended: int = 0


async def measure_latency() -> Mapping[str, float]:
    """20 sessions at 25 tokens a second, all read by one client connection."""
    async with (
        bench() as setup,
        setup.process(*setup.gateway_args()) as gateway,
        setup.process("worker", "antiphon.bench.agent:agent", "--concurrency", str(SESSIONS)) as worker,
    ):
        return await _measure(setup, gateway, worker)


async def _measure(setup: Bench, gateway: Measured, worker: Measured) -> Mapping[str, float]:
    samples = _Samples()
    async with (
        aiohttp.ClientSession() as http,
        http.ws_connect(f"{gateway.address}/v1/connect", protocols=["antiphon.v1"], max_msg_size=0) as ws,
    ):
        await ws.send_json({"op": "hello", "id": 0, "token": setup.token})
        for i in range(SESSIONS):
            await ws.send_json({"op": "subscribe", "id": 1 + i, "session": f"lat-{i}"})
        before = [p.cpu_s() for p in (gateway, worker, setup.nats)]
        begin = time.monotonic()
        for i in range(SESSIONS):
            command = {"op": "input.send", "id": 1000 + i, "session": f"lat-{i}", "inputId": "go"}
            await ws.send_json(command | {"content": f"{TOKENS} {TOKENS_PER_SECOND}"})
        async with asyncio.timeout(120):
            async for msg in ws:
                _take(orjson.loads(msg.data), samples)
                if samples.ended == SESSIONS:
                    break
        took_s = time.monotonic() - begin
        cpu = [p.cpu_s() - b for p, b in zip((gateway, worker, setup.nats), before, strict=True)]
    return _figures(samples.values, took_s, cpu)


def _take(frame: dict[str, object], samples: _Samples) -> None:
    events = frame.get("events")
    if not isinstance(events, list):
        return
    for event in events:
        if event["type"] == "TEXT_MESSAGE_CONTENT":
            now = time.monotonic_ns()
            samples.values += [(now - int(said)) / 1e6 for said in event["delta"].split()]
        elif event["type"] == "RUN_FINISHED":
            samples.ended += 1


def _figures(values: list[float], took_s: float, cpu: list[float]) -> Mapping[str, float]:
    values.sort()
    count = len(values)
    return {
        "tokens": float(count),
        "tokens_per_second": count / took_s,
        "p50_ms": quantile(values, 0.5),
        "p99_ms": quantile(values, 0.99),
        "max_ms": values[-1],
        "cpu_share": sum(cpu) / took_s,
        "cpu_us_per_event_gateway": cpu[0] / count * 1e6,
        "cpu_us_per_event_worker": cpu[1] / count * 1e6,
        "cpu_us_per_event_nats": cpu[2] / count * 1e6,
    }
