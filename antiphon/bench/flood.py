"""Flood: clients that send as fast as they are let, or hold on to sockets, among others who read."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from urllib.parse import urlsplit

import orjson

from antiphon.bench.harness import pin
from antiphon.bench.hostile import Attack
from antiphon.bench.measuring import OTHER_CORE, Stage, Streamed, most_memory, stage, stream
from antiphon.bench.sockets import masked, upgrade
from antiphon.bench.source import Wish
from gateway.config import GatewaySettings

SOCKETS = 100
READERS = 100
PER_SECOND = 200
SECONDS = 5.0
_NICE = 10
"""Hostile clients have machines of their own: here they get what the readers and NATS leave of their core."""
_USUAL = (
    *("commands_per_second", "commands_burst", "bytes_per_second", "bytes_burst", "user_frames_per_second"),
    *("address_frames_per_second", "sockets_per_second"),
)
"""Limits of a gateway that is not a benchmark's."""
_TIMES = ("--slow-reader-s", "5", "--http-head-s", "2")
"""So that what is cut is cut while it is measured."""


async def measure_flood() -> Mapping[str, float]:
    """100 readers of a session alone; then, for each kind of attack, with 100 sockets of it."""
    usual = asdict(GatewaySettings())
    limits = (word for name in _USUAL for word in (f"--{name.replace('_', '-')}", str(usual[name])))
    async with stage(*limits, *_TIMES) as on:
        figures: dict[str, float] = {"hostile_sockets": float(SOCKETS)}
        await on.crowd.open(on.reached("flood-0"), READERS)
        alone = await _stream(on)
        p99 = alone.latency()["p99_ms"]
        figures |= {"p99_ms_alone": p99, "cpu_us_per_event_alone": alone.costs()["cpu_us_per_event"]}
        figures["gateway_share_alone"] = alone.gateway_s / alone.took_s
        for name, asked in _attacks(on).items():
            before = on.gateway.memory_bytes()
            async with _attacked(asked) as told, most_memory(on) as most:
                among = await _stream(on)
            figures |= {
                f"{name}_p99_ratio": among.latency()["p99_ms"] / p99 if p99 else 0.0,
                f"{name}_gateway_share": among.gateway_s / among.took_s,
                f"{name}_hostile_cpu_s": told["cpu_s"],
                f"{name}_bytes_per_socket": max(0, most[0] - before) / SOCKETS,
                f"{name}_mb_sent": told["sent_bytes"] / 1e6,
                f"{name}_opened": told["opened"],
            }
    return figures


async def _stream(on: Stage) -> Streamed:
    wish = Wish(on.setup.broker.nats.nats_url, "flood-", 1, PER_SECOND, SECONDS)
    return await stream(on, wish, readers_of_each=READERS)


def _attacks(on: Stage) -> Mapping[str, Attack]:
    """The kinds, by name."""
    at = urlsplit(on.gateway.address)
    assert at.hostname is not None
    assert at.port is not None
    opening = upgrade("/v1/connect", at.hostname, at.port, "antiphon.v1")
    hello = orjson.dumps({"op": "hello", "id": 0, "token": on.setup.token})
    greeted = Attack(at.hostname, at.port, SOCKETS, opening, masked(hello).decode("latin-1"))
    bare = replace(greeted, upgraded="")
    large = masked(orjson.dumps({"op": "input.send", "id": 1, "session": "x", "content": "x" * 65_000}))
    post = (
        f"POST /v1/runs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {on.setup.token}\r\n"
        "Content-Type: application/json\r\nContent-Length: 100000\r\n\r\n{"
    )
    chunked = post.replace("Content-Length: 100000", "Transfer-Encoding: chunked").removesuffix("{") + "1\r\n{\r\n"
    return {
        "silence": replace(bare, beginning=""),
        "head": replace(bare, beginning="GET / HTTP/1.1\r\n", again="X-A: b\r\n", every_s=0.2),
        "hello": replace(bare, upgraded="\x81"),
        "commands": replace(greeted, again=masked(b'{"op":"ping","id":1}').decode("latin-1") * 200, reads=True),
        "unread": replace(greeted, again=masked(b'{"op":"ping","id":1}').decode("latin-1") * 200),
        "garbage": replace(greeted, again=masked(b"{").decode("latin-1") * 500),
        "large": replace(greeted, again=large.decode("latin-1")),
        "pings": replace(greeted, again=("\x89\xfd" + "\0" * 129) * 100),
        "fragments": replace(greeted, upgraded=greeted.upgraded + "\x01\x80\0\0\0\0", again="\x00\x81\0\0\0\0x" * 500),
        "body": replace(bare, beginning=post, again=" ", every_s=0.2),
        "chunks": replace(bare, beginning=chunked, again="1\r\n \r\n" * 500),
        "requests": replace(bare, beginning="", again="GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n", reads=True),
        "coming": replace(greeted, leaves=True),
        "answers": replace(bare, beginning="GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 20),
    }


@asynccontextmanager
async def _attacked(asked: Attack) -> AsyncIterator[dict[str, float]]:
    """While the context is open; afterwards it tells what came of it."""
    told: dict[str, float] = {}
    process = await asyncio.create_subprocess_exec(
        *(
            sys.executable,
            "-c",
            "from antiphon.bench.hostile import main; main()",
            orjson.dumps(asdict(asked)).decode(),
        ),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        pin(process.pid, OTHER_CORE)
        os.setpriority(os.PRIO_PROCESS, process.pid, _NICE)
        yield told
    finally:
        answer, _ = await process.communicate(b"")
        told |= orjson.loads(answer or b"{}")
