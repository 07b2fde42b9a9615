"""How fast a gateway that leaves lets its clients go: steadily, in time, and no faster than it must."""

from __future__ import annotations

import math

TICK_S = 0.05
"""Seconds between two looks: what a tick lets go leaves at once."""
RETRY_AFTER_MAX_MS = 500
"""Each client is told to come back after a random time up to this, so that those of one tick do not come together."""
GOODBYE_S = 3.0
"""How long the last ones have to say goodbye."""


def due(left: int, left_s: float, per_second: float) -> int:
    """How many of `left` connections to close in the tick that begins now, `left_s` before all must be closed.

    As many as `per_second` says, or more where the time would not do. What a late tick has missed is spread over the
    ticks that are left, so nobody's being late makes a burst; only when no time is left all go at once.
    """
    ticks = left_s / TICK_S
    if ticks < 1:
        return left
    return min(left, math.ceil(max(left / ticks, per_second * TICK_S)))
