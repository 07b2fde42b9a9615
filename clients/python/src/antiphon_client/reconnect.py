"""When and where to come back (PROTOCOL, section 8), and how fast to send. Pure.

Random numbers and times are arguments, so every decision can be replayed in a test.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from ._json import as_str, parse_object, retry_after_s

BACKOFF_BASE_S: Final = 0.25
BACKOFF_CAP_S: Final = 30.0


def full_jitter_s(attempt: int, rand: float, base_s: float = BACKOFF_BASE_S, cap_s: float = BACKOFF_CAP_S) -> float:
    """Seconds to wait before try number `attempt` (from 0): random(0, min(cap, base * 2^n)).

    `rand` is a number in [0, 1). Full jitter spreads clients best; see "Exponential Backoff And
    Jitter" of the AWS Architecture Blog.
    """
    doublings = min(max(attempt, 0), 64)  # beyond, the cap has long been reached
    return float(rand * min(cap_s, base_s * 2.0**doublings))


@dataclass(slots=True)
class Backoff:
    """Counts tries in a row that came to nothing."""

    base_s: float = BACKOFF_BASE_S
    cap_s: float = BACKOFF_CAP_S
    attempts: int = 0

    def next_s(self, rand: float) -> float:
        """The pause before the next try, in seconds; counts the try."""
        pause = full_jitter_s(self.attempts, rand, self.base_s, self.cap_s)
        self.attempts += 1
        return pause

    def reset(self) -> None:
        """Something worked: begin again at the shortest pause."""
        self.attempts = 0


class Action(Enum):
    """What a close code tells a client to do."""

    RECONNECT = "reconnect"
    ELSEWHERE = "elsewhere"
    NEW_TOKEN = "new_token"  # noqa: S105 - the name of an action, not a secret
    NEVER = "never"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class CloseAdvice:
    """A close frame, understood. `retry_after_s` is None where the gateway gave no time."""

    action: Action
    close_code: int | None
    code: str
    retry_after_s: float | None = None


_CLASSES: Final[Mapping[int, Action]] = {
    41: Action.RECONNECT,
    42: Action.ELSEWHERE,
    43: Action.NEW_TOKEN,
    44: Action.NEVER,
}


def classify_close(close_code: int | None, reason: str = "") -> CloseAdvice:
    """What to do after a connection ended with this code and reason (None: it just ended)."""
    body = parse_object(reason) or {}
    action = Action.RECONNECT
    if close_code in (1000, 1001):
        action = Action.DONE
    elif close_code == 1009:
        action = Action.NEVER  # a frame of ours was too large: it would be again
    elif close_code is not None:
        action = _CLASSES.get(close_code // 100, Action.RECONNECT)
    pause = retry_after_s(body)
    return CloseAdvice(action, close_code, as_str(body.get("code")) or "closed", pause)


class Pacer:
    """Spaces commands out so that a gateway's limit is never met (a flood is cut off for good).

    The generic cell rate algorithm (ITU-T I.371): a burst at once, then an even rate. Both are
    taken a tenth below what the gateway states, because the way there may bunch frames.
    """

    __slots__ = ("_burst_s", "_gap_s", "_next")

    def __init__(self, per_second: int, burst: int) -> None:
        self._gap_s = 1 / (0.9 * max(per_second, 1))
        self._burst_s = self._gap_s * max(int(0.9 * burst) - 1, 0)
        self._next = 0.0

    def reserve_s(self, now: float) -> float:
        """Take the next place; returns the seconds to wait until it. `now` is monotonic."""
        due = max(self._next, now)
        self._next = due + self._gap_s
        return max(0.0, due - self._burst_s - now)
