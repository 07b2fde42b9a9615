"""The wall clock, as entries have it."""

from __future__ import annotations

import time
from datetime import datetime


def now_ms() -> int:
    """Milliseconds since 1970."""
    return int(time.time() * 1000)


def utc_text(ms: int) -> str:
    """A time in ms since 1970 as people and programs read it: RFC 3339, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(ms / 1000))


def age_s(stored: str, now_s: float) -> float | None:
    """Seconds from a time in RFC 3339 to `now_s` (since 1970); 0 if it is later, for clocks differ; None if it is no time."""
    try:
        return max(0.0, now_s - datetime.fromisoformat(stored).timestamp())
    except ValueError:
        return None


def in_ms(seconds: float) -> int:
    """The time that many seconds from now, in milliseconds since 1970."""
    return now_ms() + int(seconds * 1000)
