"""Hand-overs: an agent asks for a human, a human takes the lane, and gives it back."""

from __future__ import annotations

from dataclasses import replace

from broker.events import Entry, HandoffExpired, HandoffRequested, HandoffReturned, Participant
from broker.fold.change import remember_ended, with_lane
from broker.state import Ended, Handoff, SessionState


def requested(state: SessionState, seq: int, lane: str, event: HandoffRequested) -> SessionState:
    run = state.lane(lane).run
    waiting = any(h.lane == lane and h.status == "waiting" for h in state.handoffs.values())
    if run is None or waiting or event.handoff_id in state.handoffs:
        return state
    handoff = Handoff(
        event.handoff_id, lane, run, event.to, event.reason, event.summary, seq, expires_at=event.expires_at
    )
    return _with(state, handoff)


def expired(state: SessionState, lane: str, event: HandoffExpired) -> SessionState:
    handoff = state.handoffs.get(event.handoff_id)
    if handoff is None or handoff.status != "waiting" or handoff.lane != lane:
        return state
    return _with(state, replace(handoff, status="expired"))


def accepted(state: SessionState, lane: str, by: Participant) -> SessionState:
    """A human has taken the lane: that answers what waited there."""
    for handoff in tuple(state.handoffs.values()):
        if handoff.lane == lane and handoff.status == "waiting":
            state = _with(state, replace(handoff, status="accepted", by=by))
    return state


def may_return(state: SessionState, lane: str, by: Participant | None) -> bool:
    """Whether a human has the lane, and is the one who gives it back."""
    human = state.lane(lane).human
    return human is not None and by is not None and human.id == by.id


def returned(state: SessionState, entry: Entry, event: HandoffReturned) -> SessionState:
    """The lane is nobody's. The fence stays: the next owner claims after it."""
    if not may_return(state, event.lane, entry.by):
        return state
    return with_lane(state, event.lane, replace(state.lane(event.lane), owner=None))


def forget_run(state: SessionState, run_id: str) -> SessionState:
    """The run is over: nobody need come any more."""
    gone = [handoff for handoff in state.handoffs.values() if handoff.run == run_id]
    if not gone:
        return state
    ends = [Ended(h.id, "cancelled" if h.status == "waiting" else h.status) for h in gone]
    handoffs = {id_: handoff for id_, handoff in state.handoffs.items() if handoff.run != run_id}
    return remember_ended(replace(state, handoffs=handoffs), *ends)


def _with(state: SessionState, handoff: Handoff) -> SessionState:
    return replace(state, handoffs={**state.handoffs, handoff.id: handoff})
