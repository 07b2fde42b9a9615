"""Inputs that were given up: their run has cost as many workers as it may, or its agent does not go on with lost runs. Pure.

They are where all else is, in the session's log: the run's `RUN_ERROR` with the code `worker_lost`. To try one again is to
send the same input again, under an id that is made of the first one's, so that it counts once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from broker.errors import RunErrorCode
from broker.events import Entry, InputApplied, RunError, RunStarted
from broker.session import fold
from broker.state import QueuedInput, Run, SessionState
from broker.subjects import MAIN_LANE


@dataclass(frozen=True, slots=True)
class Dead:
    """A run that was given up, and the inputs that it began with; the first names it.

    `ts` is when (ms since 1970), `lost` how many workers it has cost, `retried` whether it has been sent again.
    """

    run_id: str
    inputs: tuple[QueuedInput, ...]
    ts: int
    lost: int
    reason: str
    retried: bool = False

    @property
    def input_id(self) -> str:
        return self.inputs[0].input_id


def retry_id(input_id: str) -> str:
    """The id under which an input is sent again."""
    return f"retry_{hashlib.blake2b(input_id.encode(), digest_size=16).hexdigest()}"


def dead_of(entries: Iterable[tuple[int, Entry]]) -> list[Dead]:
    """Those of a whole log, oldest first. Runs that agents asked for are left out: who asked was told."""
    state, begun, found = SessionState(), dict[str, list[QueuedInput]](), list[Dead]()
    for seq, entry in entries:
        before, state = state, fold(state, seq, entry)
        if entry.lane != MAIN_LANE:
            continue
        starts = any(isinstance(event, RunStarted) for event in entry.events)
        for event in entry.events:
            match event:
                case InputApplied() if starts and (queued := before.queued(event.input_id)) is not None:
                    begun.setdefault(event.run_id, []).append(queued)
                case RunError(code=RunErrorCode.WORKER_LOST.value):
                    run = before.lane_run(MAIN_LANE)
                    # Under an old fence it counts for nothing.
                    if run is not None and run.run_id not in state.runs and run.run_id in begun:
                        found.append(_dead(run, begun[run.run_id], entry, event))
                case _:
                    pass
    return [Dead(d.run_id, d.inputs, d.ts, d.lost, d.reason, retried=retry_id(d.input_id) in state.seen) for d in found]


def _dead(run: Run, inputs: list[QueuedInput], entry: Entry, event: RunError) -> Dead:
    return Dead(run.run_id, tuple(inputs), entry.ts, run.lost, event.message)
