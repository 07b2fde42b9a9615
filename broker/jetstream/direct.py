"""Reading many messages of a stream with one request (direct get in batches), from any of its replicas."""

from __future__ import annotations

import asyncio

from broker.errors import NotPermitted, Unavailable
from broker.jetstream.connection import Connection
from broker.tail import StoredEntry


class TooManySubjects(Exception):
    """The last messages of so many subjects are not given at once: the servers' limit is 1,024."""


async def read_batch(connection: Connection, stream: str, query: bytes) -> tuple[list[StoredEntry], bool]:
    """What a batched direct get answers, and whether that was all. Raises Unavailable, NotPermitted, TooManySubjects."""
    entries: list[StoredEntry] = []
    subject = f"$JS.API.DIRECT.GET.{stream}"
    with connection.inbox() as (reply, answers), connection.refusals.of(subject, answers.put_nowait):
        await connection.send(subject, query, reply=reply)
        try:
            async with asyncio.timeout(connection.ack_timeout_s):
                while True:
                    msg = await answers.get()
                    if isinstance(msg, NotPermitted):
                        raise msg
                    headers = msg.headers or {}
                    match headers.get("Status"):
                        case None:
                            seq = int(headers["Nats-Sequence"])
                            stored = headers.get("Nats-Time-Stamp", "")
                            entries.append(StoredEntry(seq, headers["Nats-Subject"], msg.data, stored))
                        case "204":
                            return entries, headers.get("Nats-Num-Pending", "0") == "0"
                        case "404":
                            return entries, True
                        case "413":
                            raise TooManySubjects
                        case status:
                            raise Unavailable(f"the log cannot be read: {headers.get('Description') or status}")
        except TimeoutError:
            raise Unavailable("the log did not answer a read in time") from None
