"""Lists of JetStream's that come in pages."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

from broker.jetstream.connection import Connection


async def all_pages(connection: Connection, operation: str, field: str) -> tuple[list[dict[str, Any]], set[str]]:
    """All pages of a list of JetStream's, and the names of what did not answer. Raises Unavailable, ServerRefused."""
    found: list[dict[str, Any]] = []
    missing: set[str] = set()
    while True:
        page = await connection.api(operation, {"offset": len(found)})
        missing.update(page.get("missing") or ())
        items = page.get(field) or []
        found += items
        if not items or len(found) >= page["total"]:
            return found, missing


async def subject_pages(connection: Connection, stream: str, pattern: str) -> AsyncIterator[Mapping[str, int]]:
    """The subjects of a stream that match, and how many messages each has: a page of the server's at a time, of which one
    has 100,000 at most. Raises Unavailable, ServerRefused, TopologyError.
    """
    offset = 0
    while True:
        answer = await connection.api(f"STREAM.INFO.{stream}", {"subjects_filter": pattern, "offset": offset})
        page: Mapping[str, int] = answer["state"].get("subjects") or {}
        yield page
        offset += len(page)
        if not page or offset >= int(answer.get("total", 0)):
            return
