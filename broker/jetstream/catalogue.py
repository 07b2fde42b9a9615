"""Which sessions a log holds: asked of its streams, for operators. Nothing that serves clients needs it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Any, Final

import orjson

from broker.jetstream.connection import Connection
from broker.jetstream.direct import read_batch
from broker.jetstream.pages import subject_pages
from broker.jetstream.topology import (
    ALARM_STREAM,
    ATTACHMENT_STREAM,
    HOOKS_STREAM,
    INDEX_STREAM,
    USAGE_STREAM,
    WORK_STREAM,
)
from broker.subjects import session_events, session_inputs, stream_name
from broker.tail import StoredEntry

_KEY: Final = "<key>"
_BATCH, _BATCH_BYTES = 1024, 1 << 20
"""Records that are read at once."""


@dataclass(frozen=True, slots=True)
class Holding:
    """Where a stream holds what is a session's: its subjects, with `<key>` for the session's key."""

    stream: str
    subjects: str

    def of(self, key: str) -> str:
        """All that there is of one session."""
        return self.subjects.replace(_KEY, key)

    def key_of(self, subject: str) -> str:
        return subject.split(".")[self.subjects.split(".").index(_KEY)]


def holdings(partitions: int) -> list[Holding]:
    """All places that hold something by session. What is not here names no session: heartbeats, revocations, the audit log."""
    places = [
        (stream_name(n), subjects) for n in range(partitions) for subjects in (f"s.{n:02d}.<key>.>", f"c.{n:02d}.<key>")
    ]
    places += [(ATTACHMENT_STREAM, "att.<key>.>"), (INDEX_STREAM, "idx.*.*.<key>"), (WORK_STREAM, "work.*.*.<key>.*")]
    places += [(USAGE_STREAM, "use.<key>"), (ALARM_STREAM, "alarm.*.<key>.>")]
    places += [(HOOKS_STREAM, f"hooks.{kind}.*.<key>.*") for kind in ("due", "dead")]
    return [Holding(stream, subjects) for stream, subjects in places]


async def messages_by_key(connection: Connection, holding: Holding, pattern: str = "*") -> dict[str, int]:
    """How many messages a place holds of each session that matches. Raises Unavailable, TopologyError."""
    found: dict[str, int] = {}
    async for page in subject_pages(connection, holding.stream, holding.of("*")):
        for subject, count in page.items():
            key = holding.key_of(subject)
            if fnmatchcase(key, pattern):
                found[key] = found.get(key, 0) + int(count)
    return found


async def sessions_of(connection: Connection, partition: int, pattern: str = "*") -> AsyncIterator[str]:
    """The keys of a partition's sessions that match, in order; `*` in a pattern stands for any run of characters.

    Holds the names of one answer of the server, which are 100,000 at most. Every session has an entry of a participant:
    the one that began it, or the one that deleted it. Raises Unavailable, TopologyError.
    """
    async for page in subject_pages(connection, stream_name(partition), session_inputs(partition)):
        for name in sorted(subject.split(".")[2] for subject in page):
            # Names hold no character that `fnmatch` gives a meaning to but the pattern's `*`.
            if fnmatchcase(name, pattern):
                yield name


async def events_since(connection: Connection, partition: int, since_ms: int) -> AsyncIterator[StoredEntry]:
    """What owners of lanes have said in all sessions of a partition, tokens excepted, stored since then (ms since 1970).

    Raises Unavailable.
    """
    since = datetime.fromtimestamp(since_ms / 1000, UTC).isoformat().replace("+00:00", "Z")
    place: dict[str, Any] = {"start_time": since}
    end = False
    while not end:
        query = {**place, "next_by_subj": session_events(partition), "batch": _BATCH, "max_bytes": _BATCH_BYTES}
        page, end = await read_batch(connection, stream_name(partition), orjson.dumps(query))
        for stored in page:
            yield stored
        if page:
            place = {"seq": page[-1].seq + 1}


def check_pattern(pattern: str) -> str:
    """Returns `pattern`, or raises ValueError for characters that no session's key has."""
    if not pattern or any(not (c.isascii() and (c.isalnum() or c in "_-*~")) for c in pattern):
        raise ValueError(pattern)
    return pattern
