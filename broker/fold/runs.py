"""Runs: how they begin, are taken over, stopped, and end, and what goes with them."""

from __future__ import annotations

from dataclasses import replace

from broker.events import (
    Entry,
    Participant,
    RunCancelRequested,
    RunDropped,
    RunStarted,
    RunTakenOver,
    SessionStateChanged,
    StepRecorded,
)
from broker.fold import schedule
from broker.fold.approvals import forget_run as forget_approvals
from broker.fold.change import end_input, remember_ended, with_lane, with_run
from broker.fold.handoffs import forget_run as forget_handoffs
from broker.fold.tools import forget_run as forget_calls
from broker.state import MAX_STEPS, Cancel, Ended, Run, SessionState, Step
from broker.subjects import input_id_of, run_id_of


def started(state: SessionState, seq: int, entry: Entry, lane_name: str, event: RunStarted) -> SessionState:
    lane = state.lane(lane_name)
    if lane.run is not None or event.run_id in state.runs:
        return state
    input_id = input_id_of(event.run_id)
    queued, fate = state.queued(input_id), state.fate(input_id)
    cancelled = Cancel("immediate", fate.by) if fate is not None and fate.status == "cancelled" else None
    run = Run(event.run_id, lane_name, input_id, seq, cancel=cancelled, trace=entry.trace, since=entry.ts)
    if queued is not None:
        run = replace(run, parent=queued.parent, agent=queued.agent, pool=queued.pool, detached=queued.detached)
        run = replace(run, cause=queued.trace)
    return with_lane(with_run(state, run), lane_name, replace(lane, run=event.run_id, paused=None, pool=run.pool))


def taken_over(state: SessionState, entry: Entry, lane_name: str, event: RunTakenOver) -> SessionState:
    run = state.runs.get(event.run_id)
    if run is None or run.lane != lane_name:
        return state
    return with_run(state, replace(run, attempt=event.attempt, trace=entry.trace, since=entry.ts))


def step_recorded(state: SessionState, seq: int, lane_name: str, event: StepRecorded) -> SessionState:
    run = state.lane_run(lane_name)
    if run is None or event.step_id in run.steps or len(run.steps) >= MAX_STEPS:
        return state
    step = Step(seq, event.name, event.error, event.asked)
    return with_run(state, replace(run, steps={**run.steps, event.step_id: step}))


def cancel_requested(state: SessionState, event: RunCancelRequested, by: Participant | None) -> SessionState:
    """Of a run that runs, or of one that waits in the queue: then it never starts."""
    if by is not None and not state.config.allows_cancel(by.roles):
        return state
    mode = "after_step" if event.mode == "after_step" else "immediate"
    run = state.runs.get(event.run_id)
    if run is not None:
        return cancel(state, run, Cancel(mode, by))
    waiting = next((i for i in state.inputs if run_id_of(i.input_id) == event.run_id), None)
    if waiting is None:
        return schedule.taken_back(state, input_id_of(event.run_id), by)
    return end_input(state, waiting, "cancelled", by=by)


def cancel(state: SessionState, run: Run, wish: Cancel) -> SessionState:
    """The first wish counts, but "immediate" outdoes "after_step". Runs that this one asked for are cancelled with it."""
    if run.cancel is not None and (run.cancel.mode == "immediate" or wish.mode == "after_step"):
        return state
    state = with_run(state, replace(run, cancel=wish))
    return _cancel_children(state, run.run_id, wish) if wish.mode == "immediate" else state


def _cancel_children(state: SessionState, run_id: str, wish: Cancel) -> SessionState:
    for queued in state.inputs:
        if queued.parent == run_id and not queued.detached:
            state = end_input(state, queued, "cancelled", code="parent_cancelled", by=wish.by)
    for child in tuple(state.runs.values()):
        if child.parent == run_id and not child.detached:
            state = cancel(state, child, Cancel("immediate", wish.by, "parent"))
    return state


def dropped(state: SessionState, lane_name: str, event: RunDropped) -> SessionState:
    """The run that asked does not wait any more: what it asked for is stopped, whether it has begun or not."""
    parent = state.lane(lane_name).run
    queued, child = state.queued(event.input_id), state.runs.get(run_id_of(event.input_id))
    if parent is None:
        return state
    if queued is not None and queued.parent == parent:
        return end_input(state, queued, "cancelled", code="parent_cancelled")
    if child is not None and child.parent == parent:
        return cancel(state, child, Cancel("immediate", None, "parent"))
    return state


def ended(state: SessionState, lane_name: str, status: str, run_id: str | None = None) -> SessionState:
    """The lane's run is over, with everything of it that is still open."""
    lane = state.lane(lane_name)
    if lane.run is None or run_id not in (None, lane.run):
        return state
    over = lane.run
    run = state.runs[over]
    state = replace(state, runs={id_: r for id_, r in state.runs.items() if id_ != over})
    state = remember_ended(state, Ended(over, status))
    state = forget_handoffs(forget_approvals(forget_calls(state, over), over), over)
    state = with_lane(state, lane_name, replace(lane, run=None, streams={}, paused=None))
    by = None if run.cancel is None else run.cancel.by
    return _cancel_children(state, over, Cancel("immediate", by, "parent"))


def state_changed(state: SessionState, lane_name: str, event: SessionStateChanged) -> SessionState:
    """The lane's run is held, or goes on."""
    lane = state.lane(lane_name)
    if lane.run is None or event.state not in ("paused", "running"):
        return state
    return with_lane(state, lane_name, replace(lane, paused=(event.reason or "") if event.state == "paused" else None))
