"""The body of a request to an endpoint."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

import orjson

from broker.presence import Present
from webhooks.due import Due, away

TEST = "webhook.test"
"""The type of what `antiphon webhooks test` sends: nothing happened."""


def body_of(due: Due, present: Iterable[Present]) -> bytes:
    """The request's body: `{type, timestamp, data}` of Standard Webhooks, with who is meant and who watches."""
    present = tuple(present)
    watching = sorted(user.id for user in present if user.watching)
    meant = {"users": due.users, "roles": due.roles}
    data = {**due.data, "for": meant, "watching": watching, "away": away(due, present)}
    return orjson.dumps({"type": due.type, "timestamp": _rfc3339(due.ts), "data": data})


def _rfc3339(ts: int) -> str:
    return datetime.fromtimestamp(ts / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
