"""The fold: what a session's log says its state is. One pure function, the same in gateways and workers.

PROTOCOL, section 6, is the specification, and clients implement it on their own; the conformance cases in
`tests/conformance/cases` hold all implementations to it. The fold reads records alone: token deltas do not change
the state. It never raises on what a log may hold: an entry that has no right to count changes nothing.
"""

from __future__ import annotations

from dataclasses import replace

from broker.events import (
    ApprovalRequested,
    ApprovalResolved,
    ApprovalResponded,
    ApprovalRevoked,
    Entry,
    Event,
    HandoffExpired,
    HandoffRequested,
    HandoffReturned,
    InputApplied,
    InputCancelRequested,
    InputFailed,
    InputScheduled,
    InputSent,
    InputUnscheduled,
    MessageSegment,
    MessagesImported,
    ReasoningMessageEnd,
    ReasoningMessageStart,
    RunCancelRequested,
    RunDropped,
    RunError,
    RunFinished,
    RunRequested,
    RunStarted,
    RunTakenOver,
    SessionClosed,
    SessionCreated,
    SessionDeleted,
    SessionOwner,
    SessionReopened,
    SessionStateChanged,
    SessionUpdated,
    StepRecorded,
    TextMessageEnd,
    TextMessageStart,
    ToolCallEnd,
    ToolCallResult,
    ToolCallStart,
    ToolClaimed,
    ToolFailed,
    ToolLapsed,
    ToolReleased,
    ToolRequested,
    ToolResolved,
)
from broker.fold import approvals, handoffs, inputs, lanes, runs, schedule, tools
from broker.fold.change import with_lane
from broker.lease import parse_write_id
from broker.session_config import merged
from broker.state import SessionState


def counts(state: SessionState, entry: Entry) -> bool:
    """Whether a lane's entry was written under the lane's current fence. Other entries always count."""
    if entry.lane is None or _is_claim(entry):
        return True
    write, lane = parse_write_id(entry.id), state.lanes.get(entry.lane)
    return write is not None and lane is not None and write.fence == lane.fence


def _is_claim(entry: Entry) -> bool:
    return len(entry.events) == 1 and isinstance(entry.events[0], SessionOwner)


def fold(state: SessionState, seq: int, entry: Entry) -> SessionState:
    """The state after a record. `seq` is its place in the log; entries must come in order, deltas may be left out."""
    if seq <= state.as_of or entry.off is not None:
        return state
    state = replace(state, as_of=seq)
    if not counts(state, entry):
        return state
    if entry.lane is not None and not _is_claim(entry):
        advanced = _advance(state, entry)
        if advanced is None:
            return state
        state = advanced
    for event in entry.events:
        if entry.lane is None:
            state = _apply_participant(state, seq, entry, event)
        elif isinstance(event, SessionOwner):
            state = lanes.claimed(state, seq, event, entry.by)
        else:
            state = _apply_lane(state, seq, entry, entry.lane, event)
    return state


def _advance(state: SessionState, entry: Entry) -> SessionState | None:
    """Notes the write's number; None if it was there before (a write repeated after an unknown outcome)."""
    assert entry.lane is not None
    write = parse_write_id(entry.id)
    lane = state.lane(entry.lane)
    if write is None or write.n <= lane.last_n:
        return None
    return with_lane(state, entry.lane, replace(lane, last_n=write.n))


def _apply_participant(state: SessionState, seq: int, entry: Entry, event: Event) -> SessionState:
    """What participants do: tools, approvals and hand-overs apart from the rest."""
    match event:
        case InputSent():
            return inputs.sent(state, seq, entry, event)
        case InputScheduled():
            return schedule.scheduled(state, seq, entry, event)
        case InputCancelRequested():
            return inputs.taken_back(state, event.input_id, entry.by)
        case RunCancelRequested():
            return runs.cancel_requested(state, event, entry.by)
        case ToolClaimed():
            return tools.claimed(state, entry, event)
        case ToolReleased():
            return tools.released(state, entry, event)
        case ToolResolved():
            return tools.resolved(state, seq, entry, event)
        case ApprovalResponded():
            return approvals.responded(state, seq, entry, event)
        case ApprovalRevoked():
            return approvals.revoked(state, event)
        case HandoffReturned():
            if not handoffs.may_return(state, event.lane, entry.by):
                return state
            return inputs.returned(handoffs.returned(state, entry, event), seq, entry, event)
        case SessionCreated() | SessionUpdated() | SessionClosed() | SessionReopened():
            return _apply_session(state, seq, entry, event)
        case SessionDeleted():
            return SessionState(as_of=seq, deleted_seq=seq)
        case MessagesImported():
            begun = sum(message.get("continued") is not True for message in event.messages)
            return replace(state, messages=state.messages + begun) if state.untouched else state
        case _:
            return state


def _apply_session(
    state: SessionState,
    seq: int,
    entry: Entry,
    event: SessionCreated | SessionUpdated | SessionClosed | SessionReopened,
) -> SessionState:
    match event:
        case SessionClosed() | SessionReopened():
            return replace(state, closed=isinstance(event, SessionClosed))
        case SessionCreated():
            if state.created_seq:
                return state
            state = replace(state, created_seq=seq, created_by=entry.by)
        case SessionUpdated():
            pass
    if event.title is not None:
        state = replace(state, title=event.title)
    if event.metadata is not None:
        state = replace(state, metadata=event.metadata)
    return state if event.config is None else replace(state, config=merged(state.config, event.config))


def _apply_lane(state: SessionState, seq: int, entry: Entry, lane: str, event: Event) -> SessionState:
    """What a lane's owner writes: of runs here, of texts and of what runs wait for below."""
    match event:
        case RunStarted():
            return runs.started(state, seq, entry, lane, event)
        case InputApplied():
            return inputs.applied(state, event)
        case InputFailed():
            return inputs.failed(state, event)
        case InputScheduled():
            return schedule.scheduled(state, seq, entry, event)
        case InputUnscheduled():
            return schedule.taken_back(state, event.input_id, entry.by)
        case RunRequested():
            return inputs.requested(state, seq, entry, event)
        case RunDropped():
            return runs.dropped(state, lane, event)
        case RunTakenOver():
            return runs.taken_over(state, entry, lane, event)
        case RunFinished():
            outcome = (event.outcome or {}).get("type", "success")
            return runs.ended(state, lane, "cancelled" if outcome == "cancelled" else "success", event.run_id)
        case RunError():
            return runs.ended(state, lane, "error")
        case SessionStateChanged():
            return runs.state_changed(state, lane, event)
        case StepRecorded():
            return runs.step_recorded(state, seq, lane, event)
        case _:
            return _apply_wait(_apply_text(state, seq, lane, event), seq, entry, lane, event)


def _apply_text(state: SessionState, seq: int, lane: str, event: Event) -> SessionState:
    match event:
        case TextMessageStart():
            return lanes.stream_opened(state, seq, lane, event.message_id, "text")
        case ReasoningMessageStart():
            return lanes.stream_opened(state, seq, lane, event.message_id, "reasoning")
        case ToolCallStart():
            return lanes.stream_opened(state, seq, lane, event.tool_call_id, "tool_call")
        case MessageSegment():
            return lanes.stream_settled(state, seq, lane, event)
        case TextMessageEnd() | ReasoningMessageEnd():
            return lanes.stream_closed(state, lane, event.message_id)
        case ToolCallEnd():
            return lanes.stream_closed(state, lane, event.tool_call_id)
        case _:
            return state


def _apply_wait(state: SessionState, seq: int, entry: Entry, lane: str, event: Event) -> SessionState:
    match event:
        case ToolRequested():
            return tools.requested(state, seq, entry, lane, event)
        case ToolFailed():
            return tools.failed(state, seq, lane, event)
        case ToolLapsed():
            return tools.lapsed(state, entry, event)
        case ToolCallResult():
            return tools.answered(state, seq, lane, event)
        case ApprovalRequested():
            return approvals.requested(state, seq, lane, event)
        case ApprovalResolved():
            return approvals.resolved(state, seq, lane, event)
        case HandoffRequested():
            return handoffs.requested(state, seq, lane, event)
        case HandoffExpired():
            return handoffs.expired(state, lane, event)
        case _:
            return state
