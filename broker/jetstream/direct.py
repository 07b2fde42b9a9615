"""Reading many messages of a stream with one request (direct get in batches), from any of its replicas."""

from __future__ import annotations

import asyncio

from broker.errors import Unavailable
from broker.jetstream.connection import Connection
from broker.tail import StoredEntry


async def read_batch(connection: Connection, stream: str, query: bytes) -> tuple[list[StoredEntry], bool]:
    """What a batched direct get answers, and whether that was all. Raises Unavailable."""
    entries: list[StoredEntry] = []
    with connection.inbox() as (reply, answers):
        await connection.send(f"$JS.API.DIRECT.GET.{stream}", query, reply=reply)
        try:
            async with asyncio.timeout(connection.ack_timeout_s):
                while True:
                    headers = (msg := await answers.get()).headers or {}
                    match headers.get("Status"):
                        case None:
                            seq = int(headers["Nats-Sequence"])
                            stored = headers.get("Nats-Time-Stamp", "")
                            entries.append(StoredEntry(seq, headers["Nats-Subject"], msg.data, stored))
                        case "204":
                            return entries, headers.get("Nats-Num-Pending", "0") == "0"
                        case "404":
                            return entries, True
                        case status:
                            raise Unavailable(f"the log cannot be read: {headers.get('Description') or status}")
        except TimeoutError:
            raise Unavailable("the log did not answer a read in time") from None
