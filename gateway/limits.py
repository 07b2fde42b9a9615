"""What callers of a gateway may do how often, and how much of it they may have at once. Pure: the clock is an argument.

Rates are token buckets, numbers are places. Whatever is refused here says which limit it met (`exceeded`, by the name that
the limit has in `welcome`) and, where waiting helps, how long (`retry_after_ms`).
"""

from __future__ import annotations

from collections import OrderedDict
from enum import StrEnum

from broker.errors import ErrorCode, Refused

BUCKETS_KEPT = 50_000
"""Callers that are told apart; the one that was away longest is forgotten first."""
_FORGOTTEN_AT_ONCE = 16
"""Callers that are forgotten when one takes a token, whose own buckets are full: more than come, and soon done."""


class Limit(StrEnum):
    """What may be exceeded: the settings' names, and those in `welcome` and of the metric `limited`."""

    CONNECTIONS = "connections"
    GREETING = "greeting_connections"
    USER = "user_connections"
    ADDRESS = "address_connections"
    COMMANDS = "commands_per_second"
    QUEUE = "command_queue"
    BYTES = "bytes_per_second"
    INPUTS = "inputs_per_second"
    JOINS = "joins_per_second"
    REQUESTS = "requests_per_second"
    CATCH_UP = "catchup_queue"
    SUBSCRIPTIONS = "subscriptions"
    TENANT_SESSIONS = "tenant_sessions"
    TENANT_BYTES = "tenant_bytes"


_TOO_MUCH = {
    Limit.COMMANDS: "too many commands",
    Limit.QUEUE: "too many commands wait",
    Limit.BYTES: "too many bytes",
    Limit.INPUTS: "too many inputs of this user",
    Limit.JOINS: "too many joins of this user",
    Limit.REQUESTS: "too many requests",
    Limit.CATCH_UP: "too many readers wait for the log at this gateway",
}


def rate_limited(wait_s: float, exceeded: Limit) -> Refused:
    """Too much has come too fast."""
    wait_ms = max(1, int(wait_s * 1000))
    text = f"{_TOO_MUCH[exceeded]}; wait {wait_ms} ms"
    return Refused(ErrorCode.RATE_LIMITED, text, retry_after_ms=wait_ms, exceeded=exceeded.value)


class TokenBucket:
    """Allows `rate` events a second on average, and `burst` at once. Times are monotonic seconds."""

    __slots__ = ("_at", "_burst", "_rate", "_tokens")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = float(burst)
        self._tokens = float(burst)
        self._at = now

    def is_full(self, now: float) -> bool:
        """It allows as much as a new one."""
        return self._tokens + (now - self._at) * self._rate >= self._burst

    def take(self, now: float, cost: float = 1.0) -> float:
        """Takes `cost` tokens; returns 0, or the seconds until there are so many (and takes none).

        What costs more than the burst needs a full bucket, and leaves it in debt.
        """
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        needed = min(cost, self._burst)
        if self._tokens >= needed:
            self._tokens -= cost
            return 0.0
        return (needed - self._tokens) / self._rate


class CallerLimits:
    """A token bucket for each caller, until it is full again: a caller without one may do as much."""

    def __init__(self, limit: Limit, rate: float, burst: int, kept: int = BUCKETS_KEPT) -> None:
        self._limit = limit
        self._rate = rate
        self._burst = burst
        self._kept = kept
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()
        """Of who came last, last."""

    def __len__(self) -> int:
        """Of how many there is anything to remember."""
        return len(self._buckets)

    def take(self, caller: str, now: float) -> float:
        """Takes one of the caller's tokens; returns 0, or the seconds until there is one (and takes nothing)."""
        self._forget(now)
        bucket = self._buckets.get(caller)
        if bucket is None:
            bucket = self._buckets[caller] = TokenBucket(self._rate, self._burst, now)
            if len(self._buckets) > self._kept:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(caller)
        return bucket.take(now)

    def require(self, caller: str, now: float) -> None:
        """Takes one of the caller's tokens. Raises Refused (rate_limited)."""
        wait_s = self.take(caller, now)
        if wait_s:
            raise rate_limited(wait_s, self._limit)

    def _forget(self, now: float) -> None:
        """Drops full buckets, those of who was away longest first."""
        for _ in range(_FORGOTTEN_AT_ONCE):
            caller = next(iter(self._buckets), None)
            if caller is None or not self._buckets[caller].is_full(now):
                return
            del self._buckets[caller]


class Place:
    """One of somebody's places, until it is left. It may be left again."""

    __slots__ = ("_places", "_who")

    def __init__(self, places: Places, who: str) -> None:
        self._places: Places | None = places
        self._who = who

    def leave(self) -> None:
        if self._places is not None:
            self._places.left(self._who)
            self._places = None


class Places:
    """Counts what each has open, up to `most`; 0: as many as they like."""

    def __init__(self, limit: Limit, most: int) -> None:
        self.limit = limit
        self.most = most
        self._taken: dict[str, int] = {}

    def __len__(self) -> int:
        """Of how many anything is open."""
        return len(self._taken)

    def take(self, who: str) -> Place | None:
        """A place, or None if as many are taken as may be."""
        taken = self._taken.get(who, 0)
        if self.most and taken >= self.most:
            return None
        self._taken[who] = taken + 1
        return Place(self, who)

    def left(self, who: str) -> None:
        left = self._taken[who] - 1
        if left:
            self._taken[who] = left
        else:
            del self._taken[who]
