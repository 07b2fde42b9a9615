"""Token buckets. Pure: the clock is an argument."""

from __future__ import annotations

from collections import OrderedDict

BUCKETS_KEPT = 50_000
"""Callers that are told apart; the one that was away longest is forgotten first."""


class TokenBucket:
    """Allows `rate` events a second on average, and `burst` at once. Times are monotonic seconds."""

    __slots__ = ("_at", "_burst", "_rate", "_tokens")

    def __init__(self, rate: float, burst: int, now: float) -> None:
        self._rate = rate
        self._burst = float(burst)
        self._tokens = float(burst)
        self._at = now

    def take(self, now: float) -> float:
        """Takes a token; returns 0, or the seconds until there is one (and takes nothing)."""
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens >= 1.0:
            self._tokens -= 1.0
            return 0.0
        return (1.0 - self._tokens) / self._rate


class CallerLimits:
    """A token bucket for each caller."""

    def __init__(self, rate: float, burst: int, kept: int = BUCKETS_KEPT) -> None:
        self._rate = rate
        self._burst = burst
        self._kept = kept
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    def take(self, caller: str, now: float) -> float:
        """Takes one of the caller's tokens; returns 0, or the seconds until there is one (and takes nothing)."""
        bucket = self._buckets.get(caller)
        if bucket is None:
            bucket = self._buckets[caller] = TokenBucket(self._rate, self._burst, now)
            if len(self._buckets) > self._kept:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(caller)
        return bucket.take(now)
