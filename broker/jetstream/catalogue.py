"""Which sessions a log holds: asked of its streams, for operators. Nothing that serves clients needs it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from fnmatch import fnmatchcase

from broker.jetstream.connection import Connection
from broker.subjects import session_inputs, stream_name


async def sessions_of(connection: Connection, partition: int, pattern: str = "*") -> AsyncIterator[str]:
    """The names of a partition's sessions that match, in order; `*` in a pattern stands for any run of characters.

    Holds the names of one answer of the server, which are 100,000 at most. Every session has an entry of a participant:
    the one that began it, or the one that deleted it. Raises Unavailable, TopologyError.
    """
    offset = 0
    while True:
        body = {"subjects_filter": session_inputs(partition), "offset": offset}
        answer = await connection.api(f"STREAM.INFO.{stream_name(partition)}", body)
        names = sorted(subject.split(".")[2] for subject in answer["state"].get("subjects") or ())
        for name in names:
            # Names hold no character that `fnmatch` gives a meaning to but the pattern's `*`.
            if fnmatchcase(name, pattern):
                yield name
        offset += len(names)
        if not names or offset >= int(answer.get("total", 0)):
            return


def check_pattern(pattern: str) -> str:
    """Returns `pattern`, or raises ValueError for characters that no session's name has."""
    if not pattern or any(not (c.isascii() and (c.isalnum() or c in "_-*")) for c in pattern):
        raise ValueError(pattern)
    return pattern
