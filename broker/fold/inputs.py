"""Inputs: what becomes of a message at the moment it enters the log. Two that come at once get one agreed outcome."""

from __future__ import annotations

from dataclasses import replace

from broker.events import Entry, HandoffReturned, InputApplied, InputFailed, InputSent, Participant, RunRequested
from broker.fold import schedule
from broker.fold.approvals import cancel_pending
from broker.fold.change import end_input, remember_fate
from broker.fold.runs import cancel
from broker.session_config import ON_BUSY, SessionConfig
from broker.state import MAX_INPUTS, Cancel, InputFate, QueuedInput, SessionState
from broker.subjects import MAIN_LANE

OVERTAKING = ("interrupt", "rollback")
"""Modes of inputs that stop the run, and wait in front of the others."""


def sent(state: SessionState, seq: int, entry: Entry, event: InputSent) -> SessionState:
    """A participant's input: queued, applied at once (a human has the lane), or refused."""
    planned = state.planned(event.input_id)
    due = planned if planned is not None and planned.at == event.at else None
    if event.input_id in state.seen and due is None:
        return state
    state = replace(state, seen=state.seen.add(event.input_id)) if due is None else state
    mode = event.mode if event.mode in ON_BUSY else state.config.on_busy
    queued = as_sent(seq, entry, event)
    code = _refusal(state, queued, mode, is_new=due is None)
    if due is not None:
        if code in schedule.WAITS_FOR:
            return state
        state = schedule.without(state, due)
    if code is not None:
        return remember_fate(state, InputFate(event.input_id, seq, "refused", code))
    if state.config.approval_on_input == "cancel":
        state = cancel_pending(state, seq, MAIN_LANE)
    if state.lane(MAIN_LANE).human is not None:
        return spoken(state, queued)
    return _taken(state, queued, mode)


def as_sent(seq: int, entry: Entry, event: InputSent) -> QueuedInput:
    """The input as its sender wants it."""
    attachments = tuple(event.attachments or ())
    return QueuedInput(
        event.input_id, seq, entry.ts, entry.by, event.content, trace=entry.trace, attachments=attachments
    )


def _refusal(state: SessionState, queued: QueuedInput, mode: str, *, is_new: bool) -> str | None:
    """Why an input is not taken, None if it is. One that was scheduled is not new: its id has been seen."""
    config, roles = state.config, _roles(queued.by)
    if is_new and len(state.seen) > MAX_INPUTS:
        return "session_full"
    if state.closed:
        return "session_closed"
    lane = state.lane(MAIN_LANE)
    if lane.human is not None:
        return None
    if not config.allows_mode(roles, mode):
        return "mode_not_allowed"
    joins = mode not in OVERTAKING
    waiting = [i for i in state.queue(MAIN_LANE) if not (joins and _supersedes(config, queued, i))]
    own = sum(_same(i.by, queued.by) for i in waiting)
    if len(waiting) >= config.max_queue or own >= config.queue_of(roles):
        return "queue_full"
    if mode == "reject" and (lane.run is not None or waiting):
        return "busy"
    if mode == "inject" and lane.run is not None and "inject" not in lane.can:
        return "cannot_inject"
    return None


def _taken(state: SessionState, queued: QueuedInput, mode: str) -> SessionState:
    """Puts an input where its mode says, and cancels the run if the mode does."""
    lane = state.lane(MAIN_LANE)
    run = state.lane_run(MAIN_LANE)
    if run is None:
        mode = mode if mode in OVERTAKING else "enqueue"
    elif mode in ("auto", "inject"):
        mode = "inject" if "inject" in lane.can and run.cancel is None else "enqueue"
    elif mode == "reject":
        mode = "enqueue"
    queued = replace(queued, mode=mode)
    if mode in OVERTAKING:
        if run is not None:
            state = cancel(state, run, Cancel("immediate", queued.by, mode))
        return _ahead(state, queued)
    for old in state.queue(MAIN_LANE):
        if _supersedes(state.config, queued, old):
            state = end_input(state, old, "cancelled", code="superseded", by=queued.by)
    return replace(state, inputs=(*state.inputs, queued))


def _ahead(state: SessionState, queued: QueuedInput) -> SessionState:
    """In front of all that wait, behind those that were put there before."""
    ahead = tuple(i for i in state.inputs if i.mode in OVERTAKING)
    rest = tuple(i for i in state.inputs if i.mode not in OVERTAKING)
    return replace(state, inputs=(*ahead, queued, *rest))


def _supersedes(config: SessionConfig, new: QueuedInput, old: QueuedInput) -> bool:
    return config.coalesce == "latest" and old.mode == "enqueue" and _same(old.by, new.by)


def _same(one: Participant | None, other: Participant | None) -> bool:
    return one is not None and other is not None and (one.kind, one.id) == (other.kind, other.id)


def _roles(by: Participant | None) -> tuple[str, ...]:
    return () if by is None else by.roles


def spoken(state: SessionState, queued: QueuedInput) -> SessionState:
    """An input to a lane that a human has is a message at once."""
    fate = InputFate(queued.input_id, queued.seq, "applied")
    return remember_fate(replace(state, messages=state.messages + 1), fate)


def applied(state: SessionState, event: InputApplied) -> SessionState:
    queued = state.queued(event.input_id)
    if queued is None:
        return state
    state = end_input(state, queued, "applied", run=event.run_id)
    return replace(state, messages=state.messages + 1)


def failed(state: SessionState, event: InputFailed) -> SessionState:
    queued = state.queued(event.input_id)
    return state if queued is None else end_input(state, queued, "failed", code=event.code)


def taken_back(state: SessionState, input_id: str, by: Participant | None) -> SessionState:
    queued = state.queued(input_id)
    if queued is None:
        return schedule.taken_back(state, input_id, by)
    return end_input(state, queued, "cancelled", by=by)


def requested(state: SessionState, seq: int, entry: Entry, event: RunRequested) -> SessionState:
    """An agent asks another: the input waits in a lane of its own."""
    run = state.runs.get(event.parent_run_id)
    if event.input_id in state.seen or run is None or run.lane != entry.lane or event.child_lane == entry.lane:
        return state
    state = replace(state, seen=state.seen.add(event.input_id))
    code = "queue_full" if len(state.queue(event.child_lane)) >= state.config.max_queue else None
    if state.lane(event.child_lane).human is not None:
        code = "lane_taken"
    if run.cancel is not None and not event.detached:
        code = "parent_cancelled"
    if code is not None:
        return remember_fate(state, InputFate(event.input_id, seq, "refused", code))
    queued = QueuedInput(
        event.input_id,
        seq,
        entry.ts,
        entry.by,
        event.content,
        lane=event.child_lane,
        parent=run.run_id,
        pool=event.pool,
        agent=event.agent,
        detached=event.detached,
        trace=entry.trace,
    )
    return replace(state, inputs=(*state.inputs, queued))


def returned(state: SessionState, seq: int, entry: Entry, event: HandoffReturned) -> SessionState:
    """What the human says at the end goes on to the agent."""
    if not event.note or event.input_id in state.seen:
        return state
    state = replace(state, seen=state.seen.add(event.input_id))
    pool = state.lane(event.lane).pool
    queued = QueuedInput(
        event.input_id, seq, entry.ts, entry.by, event.note, lane=event.lane, pool=pool, trace=entry.trace
    )
    return replace(state, inputs=(*state.inputs, queued))
