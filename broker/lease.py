"""Who may write in a lane, and what a worker does with a job: the rules, without a clock or a network.

A job stands for "this lane has work" and there is at most one for a lane in a queue (ADR 3, ADR 42). NATS leases it: its
receiver renews it by heartbeats, and it comes again, to anyone, when the lease runs out. So holding the job is the right
to claim the lane, from whoever held it. A lane is owned by whoever wrote its last ownership record; the sequence of that record is
the **fence** under which the owner writes. Claiming is a compare-and-set, so of two claimants one wins, and the
writes of the loser and of the former owner are refused by the log itself.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from broker.subjects import MAIN_LANE

if TYPE_CHECKING:
    from broker.state import SessionState

_WRITE_ID = re.compile(r"([0-9]{1,18})-([0-9]{1,18})")


@dataclass(frozen=True, slots=True)
class WriteId:
    """Names a lane's write: the n-th (from 1) under a fence."""

    fence: int
    n: int

    def __str__(self) -> str:
        return f"{self.fence}-{self.n}"


def parse_write_id(value: str) -> WriteId | None:
    """None for anything that is not ``<fence>-<n>``."""
    found = _WRITE_ID.fullmatch(value)
    return None if found is None else WriteId(int(found[1]), int(found[2]))


def fence_in(value: str) -> str | None:
    """The fence of a write id as it is spelt there, None for anything that is no such id. For each delta of a replay."""
    found = _WRITE_ID.fullmatch(value)
    return None if found is None else found[1]


@dataclass(frozen=True, slots=True)
class Claim:
    """Claim the lane: its ownership record must still be at `expected` (0: there is none)."""

    expected: int


@dataclass(frozen=True, slots=True)
class Settled:
    """The log says that nothing runs and nothing waits in the lane: acknowledge the job."""


def judge_job(state: SessionState, lane: str) -> Claim | Settled:
    """What the receiver of a lane's job should do, by the log alone."""
    if has_work(state, lane):
        return Claim(state.lane(lane).fence)
    return Settled()


def has_work(state: SessionState, lane: str) -> bool:
    """Whether a run of the lane has not ended, or an input waits for it, and no human has the lane."""
    held = state.lane(lane)
    return held.human is None and (held.run is not None or any(i.lane == lane for i in state.inputs))


def lanes_with_work(state: SessionState) -> list[str]:
    """The lanes that a worker should be at."""
    names = {MAIN_LANE: None} | dict.fromkeys(state.lanes) | dict.fromkeys(i.lane for i in state.inputs)
    return [name for name in names if has_work(state, name)]


def queue_of(state: SessionState, lane: str) -> tuple[str | None, str]:
    """The pool and the priority of a lane's job, as `JobQueue.offer` takes them."""
    return pool_of(state, lane), state.config.priority


def pool_of(state: SessionState, lane: str) -> str | None:
    """The pool whose workers serve a lane; None: the default one."""
    if lane == MAIN_LANE:
        return state.config.pool
    run = state.lane_run(lane)
    return run.pool if run is not None else next((i.pool for i in state.inputs if i.lane == lane), None)
