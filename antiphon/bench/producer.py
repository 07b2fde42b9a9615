"""Writes tokens to a peer at a given rate, from a process of its own (`main`): what `source` is for Antiphon's log.

One connection, nothing is waited for, and nothing of what the peer answers is read but to be thrown away.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass

import orjson

from antiphon.bench.harness import cpu_of_this_process, token
from antiphon.bench.peers import Feed
from antiphon.bench.sockets import masked
from antiphon.bench.source import paced
from antiphon.processes import run

_READ = 1 << 16
_GREETING_BYTES = 1 << 16
_UNSENT_BYTES = 1 << 14
"""What may wait to be sent: a peer that takes no more shows at once, and gets less."""


@dataclass(frozen=True, slots=True)
class Load:
    """What to write: `per_second` tokens in all, by turns to so many channels."""

    feed: Feed
    channels: int
    per_second: float
    seconds: float


async def _produce(load: Load) -> None:
    feed = load.feed
    reader, writer = await asyncio.open_connection(feed.host, feed.port)
    writer.transport.set_write_buffer_limits(high=_UNSENT_BYTES)
    if feed.request:
        await _greet(reader, writer, feed)
    print("begun", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    before = cpu_of_this_process()

    async def write(number: int) -> None:
        text = feed.write.replace("{g}", str(number % load.channels)).replace("{token}", token())
        writer.write(masked(text.encode()) if feed.request else text.encode())
        await writer.drain()

    async with asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(_throw_away(reader))
        written, took_s = await paced(write, load.per_second, load.seconds)
        answer = {"written": written, "took_s": took_s, "cpu_s": cpu_of_this_process() - before}
        print(orjson.dumps(answer).decode(), flush=True)
        # The connection stays until all has been read at the other end.
        await asyncio.to_thread(sys.stdin.readline)
        reading.cancel()
    writer.transport.abort()


async def _greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, feed: Feed) -> None:
    writer.write(feed.request.encode())
    seen = await reader.readuntil(b"\r\n\r\n")
    if b" 101 " not in seen:
        sys.exit(f"refused: {seen.decode(errors='replace')}")
    if feed.greet:
        writer.write(masked(feed.greet.encode()))
    seen = b""
    while feed.ready.encode() not in seen:
        more = await reader.read(_READ)
        if not more or len(seen) > _GREETING_BYTES:
            sys.exit(f"the peer did not become ready: {seen[-500:]!r}")
        seen += more


async def _throw_away(reader: asyncio.StreamReader) -> None:
    while await reader.read(_READ):
        pass


def main() -> None:
    """What the process does: its argument is the load, as JSON."""
    told = orjson.loads(sys.argv[1])
    run(lambda: _produce(Load(Feed(**told.pop("feed")), **told)))
