"""Closing what an agent left open in a lane that a human has taken.

Whoever claims a lane for a human does this next. A gateway may die in between, so every gateway that sees such a lane
does it too after a while: all of them write the same, and the fold takes each write once.
"""

from __future__ import annotations

from broker.clock import now_ms
from broker.endings import closing_events, in_records, run_cancelled
from broker.errors import WrongSequence
from broker.events import Entry, Participant
from broker.interfaces import SessionLog
from broker.lease import WriteId
from broker.state import SessionState
from broker.subjects import SessionSubjects

_CLOSER = Participant("system", "antiphon")


def left_open(state: SessionState) -> list[str]:
    """The lanes that a human has, and in which the agent's run has not been ended."""
    return [name for name, lane in state.lanes.items() if lane.human is not None and lane.run is not None]


async def close_left_open(log: SessionLog, subjects: SessionSubjects, state: SessionState, lane: str) -> int:
    """Ends the agent's texts, calls and run in a lane that a human has; returns the sequence of the last write.

    `state` must have the human's claim. Does nothing if there is nothing left open, or the lane has been given on
    meanwhile: then 0. Raises Unavailable.
    """
    held = state.lane(lane)
    if held.human is None or held.run is None:
        return 0
    events = await closing_events(log, subjects, state, lane, held.fence, "handed_over")
    ending = run_cancelled(subjects.session, held.run, "handed_over")
    last = 0
    for n, record in enumerate(in_records([*events, ending]), held.last_n + 1):
        entry = Entry(
            id=str(WriteId(held.fence, n)),
            ts=now_ms(),
            events=record,
            lane=lane,
            run=held.run,
            by=_CLOSER,
            trace=state.trace_of(held.run),
        )
        try:
            last = await log.append(subjects, lane, held.fence, entry)
        except WrongSequence:
            return 0
    return last
