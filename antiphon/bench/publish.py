"""Publish: tokens that one worker process stores each second over many lanes, under their fences."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp
import orjson

from antiphon.bench.harness import Bench, Measured, bench
from broker.codec import decode
from broker.events import RunFinished, RunStarted
from broker.jetstream.connection import Connection
from broker.jetstream.log import JetStreamLog

LANES = 500
TOKENS = 400


@dataclass(frozen=True, slots=True)
class _Counted:
    """What is in a session's log: when its run began and ended (ms), and how many entries it has."""

    began: int
    ended: int
    entries: int


async def measure_publish() -> Mapping[str, float]:
    """500 runs of 400 tokens each, which wait in the queue until the worker starts."""
    async with bench() as setup:
        async with setup.process(*setup.gateway_args()) as gateway:
            await send_all(setup, gateway, LANES, TOKENS)
        nats_before = setup.nats.cpu_s()
        async with setup.process("worker", "echo", "--concurrency", str(LANES)) as worker:
            counted = await wait_all(setup, LANES)
            cpu = [worker.cpu_s(), setup.nats.cpu_s() - nats_before]
    return _figures(counted, cpu)


async def send_all(setup: Bench, gateway: Measured, lanes: int, tokens: int) -> None:
    """Has an input wait in each of so many sessions, for an answer of so many tokens."""
    async with (
        aiohttp.ClientSession() as http,
        http.ws_connect(f"{gateway.address}/v1/connect", protocols=["antiphon.v1"]) as ws,
    ):
        await ws.send_json({"op": "hello", "id": 0, "token": setup.token})
        await ws.receive()
        for i in range(lanes):
            command = {"op": "input.send", "id": i, "session": f"pub-{i}", "inputId": "go"}
            await ws.send_json(command | {"content": f"stream {tokens} tokens"})
            reply = orjson.loads((await ws.receive()).data)
            assert reply["op"] == "ok", reply


async def wait_all(setup: Bench, lanes: int) -> list[_Counted]:
    """Follows each session until its run has ended, one after another."""
    async with (
        Connection(setup.broker.nats, name="bench") as connection,
        JetStreamLog(connection, setup.broker.log) as log,
        asyncio.timeout(300),
    ):
        await log.prepare()
        return [await _wait(log, f"pub-{i}") for i in range(lanes)]


async def _wait(log: JetStreamLog, session: str) -> _Counted:
    began = entries = 0
    async with log.tail(log.subjects(session), 0) as tail:
        while True:
            for stored in await tail.next():
                entry = decode(stored.body)  # type: ignore[union-attr]
                entries += 1
                for event in entry.events:
                    if isinstance(event, RunStarted):
                        began = entry.ts
                    elif isinstance(event, RunFinished):
                        return _Counted(began, entry.ts, entries)


def _figures(counted: list[_Counted], cpu: list[float]) -> Mapping[str, float]:
    tokens = LANES * TOKENS
    took_s = (max(c.ended for c in counted) - min(c.began for c in counted)) / 1000
    entries = sum(c.entries for c in counted)
    return {
        "lanes": float(LANES),
        "tokens": float(tokens),
        "tokens_per_second": tokens / took_s,
        "appends_per_second": entries / took_s,
        "cpu_us_per_event_worker": cpu[0] / tokens * 1e6,
        "cpu_us_per_append_worker": cpu[0] / entries * 1e6,
        "cpu_us_per_append_nats": cpu[1] / entries * 1e6,
    }
