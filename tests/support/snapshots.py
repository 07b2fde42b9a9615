"""Snapshots of streams, as `nats stream backup` and `nats stream restore` take and give them: NATS's own backup."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import nats
import orjson
from nats.aio.msg import Msg

WAIT_S = 20.0
_CHUNK_BYTES = 131_072


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A stream, as its leader has packed it."""

    config: dict[str, Any]
    state: dict[str, Any]
    chunks: tuple[bytes, ...]


async def taken(url: str, stream: str) -> Snapshot:
    """A snapshot of a stream that is in use."""
    connection = await nats.connect(url)
    try:
        inbox, chunks, done = connection.new_inbox(), list[bytes](), asyncio.Event()

        async def on_chunk(msg: Msg) -> None:
            if not msg.data:
                done.set()
                return
            chunks.append(msg.data)
            if msg.reply:
                await connection.publish(msg.reply, b"")

        await connection.subscribe(inbox, cb=on_chunk)
        wanted = orjson.dumps({"deliver_subject": inbox, "chunk_size": _CHUNK_BYTES})
        answer = orjson.loads(
            (await connection.request(f"$JS.API.STREAM.SNAPSHOT.{stream}", wanted, timeout=WAIT_S)).data
        )
        assert "error" not in answer, answer
        async with asyncio.timeout(WAIT_S):
            await done.wait()
        return Snapshot(answer["config"], answer["state"], tuple(chunks))
    finally:
        await connection.close()


async def given(url: str, snapshot: Snapshot) -> None:
    """Makes a stream that is not there of a snapshot."""
    connection = await nats.connect(url)
    try:
        wanted = orjson.dumps({"config": snapshot.config, "state": snapshot.state})
        subject = f"$JS.API.STREAM.RESTORE.{snapshot.config['name']}"
        answer = orjson.loads((await connection.request(subject, wanted, timeout=WAIT_S)).data)
        assert "error" not in answer, answer
        for chunk in snapshot.chunks:
            await connection.request(answer["deliver_subject"], chunk, timeout=WAIT_S)
        ended = orjson.loads((await connection.request(answer["deliver_subject"], b"", timeout=WAIT_S)).data)
        assert "error" not in ended, ended
    finally:
        await connection.close()
