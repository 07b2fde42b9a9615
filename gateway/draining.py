"""How fast a gateway that leaves lets its clients go: steadily, in time, and no faster than it must."""

from __future__ import annotations

import math

TICK_S = 0.05
"""Seconds between two looks, at least: what a look lets go leaves at once."""
RETRY_AFTER_MAX_MS = 500
"""Each client is told to come back after a random time up to this, so that those of one look do not come together."""
GOODBYE_S = 3.0
"""How long the last ones have to say goodbye."""


def due(left: int, left_s: float, per_second: float) -> tuple[int, float]:
    """How many of `left` connections to close now, `left_s` before all must be closed; and seconds to the next look.

    As many as `per_second` says, or more where the time would not do. What a late look has missed is spread over those
    that are left, so nobody's being late makes a burst; only when no time is left all go at once.
    """
    if left_s < TICK_S:
        return left, 0.0
    pace = max(left / left_s, per_second)
    wait_s = max(TICK_S, 1 / pace)
    # Rounded first: a thousandth of a connection is no connection.
    return min(left, math.ceil(round(pace * wait_s, 3))), wait_s
