"""What the owner of a lane should do next, by the folded log alone. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import takewhile

from broker.state import QueuedInput, Run, SessionState
from broker.subjects import MAIN_LANE


@dataclass(frozen=True, slots=True)
class Start:
    """Start a run with these inputs; the first names it."""

    inputs: tuple[QueuedInput, ...]


@dataclass(frozen=True, slots=True)
class TakeOver:
    """Go on with a run that another worker began, as attempt `attempt`."""

    run: Run
    attempt: int


@dataclass(frozen=True, slots=True)
class GiveUp:
    """End a run that has had as many workers as it may."""

    run: Run


@dataclass(frozen=True, slots=True)
class EndCancelled:
    """End a run that was cancelled while nobody was at work on it."""

    run: Run


@dataclass(frozen=True, slots=True)
class Release:
    """Nothing is left to do."""


Action = Start | TakeOver | GiveUp | EndCancelled | Release


def next_action(state: SessionState, lane: str, max_attempts: int) -> Action:
    """For an owner that is running nothing of its own."""
    run = state.lane_run(lane)
    if run is not None:
        if run.cancel is not None:
            return EndCancelled(run)
        if run.lost >= max_attempts:
            return GiveUp(run)
        return TakeOver(run, run.attempt + 1)
    waiting = state.queue(lane)
    return Start(_together(state, lane, waiting)) if waiting else Release()


def _together(state: SessionState, lane: str, waiting: tuple[QueuedInput, ...]) -> tuple[QueuedInput, ...]:
    """The inputs that become one run: the first, and with coalesce "merge" those that were queued right behind it."""
    first, *rest = waiting
    if lane != MAIN_LANE or state.config.coalesce != "merge" or first.mode != "enqueue":
        return (first,)
    return (first, *takewhile(lambda i: i.mode == "enqueue", rest))
