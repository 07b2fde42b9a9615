"""Which sessions are somebody's, newest activity first: an index beside the logs (`broker.interfaces.Directory`).

Each note is the last message on a subject of its own, so the stream's order is the order of activity, and a new note takes
the old one's place at the end.
"""

from __future__ import annotations

import hashlib

import orjson

from broker.errors import Unavailable
from broker.interfaces import Noted
from broker.jetstream.answers import ServerRefused
from broker.jetstream.connection import Connection
from broker.jetstream.direct import read_batch
from broker.jetstream.topology import INDEX_STREAM
from broker.subjects import session_key, split_key

NOTES_MAX = 10_000
"""Sessions of one user (or role) that a listing looks at; beyond that, the oldest are left out."""
_BATCH = 1024


class JetStreamDirectory:
    """The index, over a connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def note(self, kind: str, whose: str, session: str, ts: int) -> None:
        """Raises Unavailable."""
        try:
            await self._connection.publish(_subject(kind, whose, session), str(ts).encode())
        except ServerRefused as error:
            raise Unavailable(f"NATS refused the write: {error.description}") from error

    async def forget(self, kind: str, whose: str, session: str, noted: Noted | None = None) -> None:
        """See `broker.interfaces.Directory`. Raises Unavailable."""
        before = None if noted is None else noted.seq + 1
        await self._connection.purge(INDEX_STREAM, _subject(kind, whose, session), before)

    async def latest(self, kind: str, limit: int) -> list[str]:
        """The sessions of all with notes of this kind, newest activity first; bounded like `noted`. Raises Unavailable."""
        state = (await self._connection.api(f"STREAM.INFO.{INDEX_STREAM}"))["state"]
        # A note takes its older one's place, so a range of sequences holds at most so many notes.
        position = max(state["first_seq"] - 1, state["last_seq"] - NOTES_MAX)
        found: dict[str, int] = {}
        end = False
        while not end:
            body = {"seq": position + 1, "next_by_subj": f"idx.{kind}.>", "batch": _BATCH}
            page, end = await read_batch(self._connection, INDEX_STREAM, orjson.dumps(body))
            for stored in page:
                position = stored.seq
                found[stored.subject.rsplit(".", 1)[1]] = position
        return sorted(found, key=lambda session: found[session], reverse=True)[:limit]

    async def noted(self, kind: str, whose: str, before: int | None, limit: int, tenant: str = "") -> list[Noted]:
        """The newest notes before note `before`, newest first. Raises Unavailable."""
        found: list[Noted] = []
        position = 0
        while True:
            body = {
                "seq": position + 1,
                "next_by_subj": _subject(kind, whose, session_key(tenant, "*")),
                "batch": _BATCH,
            }
            page, end = await read_batch(self._connection, INDEX_STREAM, orjson.dumps(body))
            for stored in page:
                position = stored.seq
                if before is None or position < before:
                    ts = int(stored.body) if stored.body.isdigit() else 0
                    found.append(Noted(stored.subject.rsplit(".", 1)[1], position, ts))
            found = found[-NOTES_MAX:]
            if end or (before is not None and position >= before):
                return found[::-1][:limit]


def _subject(kind: str, whose: str, key: str) -> str:
    # Ids of users and roles are any text: a subject holds a hash of them. They hold no NUL, and are each tenant's own.
    tenant, _ = split_key(key)
    named = f"{tenant}\0{whose}" if tenant else whose
    session = "*" if key.endswith("*") else key
    return f"idx.{kind}.{hashlib.blake2b(named.encode(), digest_size=12).hexdigest()}.{session}"
