"""The wall clock, as entries have it."""

from __future__ import annotations

import time


def now_ms() -> int:
    """Milliseconds since 1970."""
    return int(time.time() * 1000)


def in_ms(seconds: float) -> int:
    """The time that many seconds from now, in milliseconds since 1970."""
    return now_ms() + int(seconds * 1000)
