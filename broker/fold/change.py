"""Small changes of a state that all parts of the fold make."""

from __future__ import annotations

from dataclasses import replace

from broker.events import Participant
from broker.state import FATES_KEPT, Ended, InputFate, Lane, QueuedInput, Run, SessionState


def with_lane(state: SessionState, name: str, lane: Lane) -> SessionState:
    return replace(state, lanes={**state.lanes, name: lane})


def with_run(state: SessionState, run: Run) -> SessionState:
    return replace(state, runs={**state.runs, run.run_id: run})


def remember_fate(state: SessionState, fate: InputFate) -> SessionState:
    return replace(state, fates=(*state.fates, fate)[-FATES_KEPT:])


def remember_ended(state: SessionState, *ended: Ended) -> SessionState:
    return replace(state, ended=(*state.ended, *ended)[-FATES_KEPT:]) if ended else state


def end_input(
    state: SessionState,
    queued: QueuedInput,
    status: str,
    *,
    code: str | None = None,
    by: Participant | None = None,
    run: str | None = None,
) -> SessionState:
    """Takes an input off the queue and notes how it ended."""
    rest = tuple(i for i in state.inputs if i is not queued)
    return remember_fate(replace(state, inputs=rest), InputFate(queued.input_id, queued.seq, status, code, by, run))
