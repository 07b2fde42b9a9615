"""Open: who comes late to a run of 200,000 tokens, at a gateway that has never seen the session."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

import aiohttp
import orjson

from antiphon.bench.harness import Bench, Measured, bench
from antiphon.bench.measuring import MEASURED_CORE, OTHER_CORE

TOKENS = 200_000
SESSION = "open-0"


@dataclass(frozen=True, slots=True)
class _Read:
    """What a reader got until it had caught up."""

    took_s: float
    bytes: int
    frames: int


async def measure_open() -> Mapping[str, float]:
    """The run is over: its text is in records. The same at a gateway that has the session open, too."""
    async with bench() as setup:
        setup.nats.pin(OTHER_CORE)
        chars = await _write(setup)
        async with setup.process(*setup.gateway_args()) as gateway:
            gateway.pin(MEASURED_CORE)
            # Another session first: what a gateway loads once, it has loaded.
            await _read(setup, gateway, "warm")
            before = gateway.cpu_s()
            cold = await _read(setup, gateway, SESSION)
            cpu_s = gateway.cpu_s() - before
            warm = await _read(setup, gateway, SESSION)
    return {
        "tokens": float(TOKENS),
        "characters": float(chars),
        "cold_ms": cold.took_s * 1000,
        "warm_ms": warm.took_s * 1000,
        "bytes": float(cold.bytes),
        "bytes_per_character": cold.bytes / chars,
        "frames": float(cold.frames),
        "cpu_ms_cold_gateway": cpu_s * 1000,
    }


async def _write(setup: Bench) -> int:
    """Has the run written by a worker; how many characters it came to."""
    async with (
        setup.process(*setup.gateway_args()) as gateway,
        setup.process("worker", "echo"),
        aiohttp.ClientSession() as http,
        _connected(setup, gateway, http) as ws,
    ):
        await ws.send_json({"op": "hello", "id": 0})
        await ws.send_json({"op": "subscribe", "id": 1, "session": SESSION})
        command = {"op": "input.send", "id": 2, "session": SESSION, "inputId": "go"}
        await ws.send_json(command | {"content": f"stream {TOKENS} tokens"})
        chars = 0
        async with asyncio.timeout(120):
            async for msg in ws:
                for event in orjson.loads(msg.data).get("events", ()):
                    if event["type"] == "TEXT_MESSAGE_CONTENT":
                        chars += len(event["delta"])
                    elif event["type"] == "RUN_FINISHED":
                        return chars
    raise ConnectionError("the run did not end")


def _connected(
    setup: Bench, gateway: Measured, http: aiohttp.ClientSession
) -> AbstractAsyncContextManager[aiohttp.ClientWebSocketResponse]:
    headers = {"Authorization": f"Bearer {setup.token}"}
    return http.ws_connect(f"{gateway.address}/v1/connect", protocols=["antiphon.v1"], max_msg_size=0, headers=headers)


async def _read(setup: Bench, gateway: Measured, session: str) -> _Read:
    async with aiohttp.ClientSession() as http, _connected(setup, gateway, http) as ws:
        await ws.send_json({"op": "hello", "id": 0})
        await ws.receive()
        begun, count, frames = time.monotonic(), 0, 0
        await ws.send_json({"op": "subscribe", "id": 1, "session": session})
        async with asyncio.timeout(60):
            async for msg in ws:
                count += len(msg.data)
                frames += 1
                if '"op":"session.caught_up"' in msg.data[:64]:
                    return _Read(time.monotonic() - begun, count, frames)
    raise ConnectionError("the gateway closed the connection")
