"""Inputs that are to be sent later: scheduled, taken back, due.

The fold has no clock. That an input is due is said by an entry, `input.sent` with the time that it was scheduled for, and
from there on it is as any other input (ADR 41).
"""

from __future__ import annotations

from dataclasses import replace

from broker.events import Entry, InputScheduled, Participant
from broker.fold.change import remember_fate
from broker.state import MAX_INPUTS, MAX_SCHEDULED, MAX_SCHEDULED_BYTES, InputFate, ScheduledInput, SessionState

WAITS_FOR = ("session_closed", "queue_full")
"""Refusals of an input that is due which say nothing against it: it stays scheduled, and is tried again."""


def scheduled(state: SessionState, seq: int, entry: Entry, event: InputScheduled) -> SessionState:
    """An input for later: it is kept, or refused."""
    if event.input_id in state.seen:
        return state
    state = replace(state, seen=state.seen.add(event.input_id))
    attachments = tuple(event.attachments or ())
    planned = ScheduledInput(event.input_id, seq, entry.ts, entry.by, event.content, event.at, event.mode, attachments)
    code = _refusal(state, planned)
    if code is not None:
        return remember_fate(state, InputFate(event.input_id, seq, "refused", code))
    return replace(state, scheduled=tuple(sorted((*state.scheduled, planned), key=lambda i: (i.at, i.seq))))


def _refusal(state: SessionState, planned: ScheduledInput) -> str | None:
    """Why an input is not scheduled, None if it is."""
    if len(state.seen) > MAX_INPUTS:
        return "session_full"
    if state.closed:
        return "session_closed"
    size = sum(len(i.content.encode(errors="replace")) for i in (*state.scheduled, planned))
    full = len(state.scheduled) >= MAX_SCHEDULED or size > MAX_SCHEDULED_BYTES
    return "schedule_full" if full else None


def without(state: SessionState, planned: ScheduledInput) -> SessionState:
    """It is not scheduled any more."""
    return replace(state, scheduled=tuple(i for i in state.scheduled if i is not planned))


def taken_back(state: SessionState, input_id: str, by: Participant | None) -> SessionState:
    """The input will not be sent; nothing if it is not scheduled (any more)."""
    planned = state.planned(input_id)
    if planned is None:
        return state
    return remember_fate(without(state, planned), InputFate(input_id, planned.seq, "cancelled", by=by))
