"""Tool calls: asked for by a run, claimed by one client, settled once. Who comes too late changes nothing."""

from __future__ import annotations

from dataclasses import replace

from broker.events import (
    Entry,
    Participant,
    ToolCallResult,
    ToolClaimed,
    ToolFailed,
    ToolLapsed,
    ToolReleased,
    ToolRequested,
    ToolResolved,
)
from broker.fold.change import remember_ended
from broker.state import MAX_CALLS, MAX_OPEN_CALLS, Call, Ended, SessionState, ToolClaim


def requested(state: SessionState, seq: int, entry: Entry, lane: str, event: ToolRequested) -> SessionState:
    run = state.lane(lane).run
    still_open = sum(call.status == "open" for call in state.calls.values())
    if run is None or event.tool_call_id in state.calls:
        return state
    if len(state.calls) >= MAX_CALLS or still_open >= MAX_OPEN_CALLS:
        return state
    return _with(
        state,
        Call(
            event.tool_call_id,
            lane,
            run,
            event.name,
            event.executor,
            seq,
            entry.id,
            args=event.args,
            idempotent=event.idempotent,
            participant=event.participant,
            device=event.device,
            any_after=event.any_after,
            deadline=event.deadline,
            result_schema=event.result_schema,
        ),
    )


def claim_problem(call: Call, ts: int, by: Participant | None, event: ToolClaimed) -> str | None:
    """Why a claim at time `ts` does not count: a code of the `error` frame, or None if it counts."""
    if by is None or call.executor != "client":
        return "not_targeted"
    if call.status != "open":
        return "already_resolved"
    if call.deadline is not None and ts > call.deadline:
        return "deadline_passed"
    claim = call.claim
    if claim is not None and claim.claim_id == event.claim_id and claim.by.id == by.id:
        return None
    if not _is_target(call, ts, by, event.device):
        return "not_targeted"
    if claim is not None and (ts <= claim.expires_at or not call.idempotent):
        return "already_claimed"
    return None


def _is_target(call: Call, ts: int, by: Participant, device: str | None) -> bool:
    if call.any_after is not None and ts >= call.any_after:
        return True
    if call.participant is None and call.device is None:
        return True
    return call.participant in (None, by.id) and call.device in (None, device)


def claimed(state: SessionState, entry: Entry, event: ToolClaimed) -> SessionState:
    call = state.calls.get(event.tool_call_id)
    if call is None or entry.by is None or claim_problem(call, entry.ts, entry.by, event) is not None:
        return state
    known = call.claim is not None and call.claim.claim_id == event.claim_id
    claim = ToolClaim(event.claim_id, entry.by, event.expires_at, event.device)
    return _with(state, replace(call, claim=claim, claims=call.claims + (not known)))


def result_problem(call: Call, ts: int, by: Participant | None, claim_id: str) -> str | None:
    """Why a result (or a release) at time `ts` does not count: a code of the `error` frame, or None if it counts."""
    if call.status != "open":
        return "already_resolved"
    if by is None or call.claim is None or (call.claim.claim_id, call.claim.by.id) != (claim_id, by.id):
        return "not_claimed"
    if call.deadline is not None and ts > call.deadline:
        return "deadline_passed"
    return None


def resolved(state: SessionState, seq: int, entry: Entry, event: ToolResolved) -> SessionState:
    call = state.calls.get(event.tool_call_id)
    if call is None or result_problem(call, entry.ts, entry.by, event.claim_id) is not None:
        return state
    return _settle(state, call, seq, "resolved")


def released(state: SessionState, entry: Entry, event: ToolReleased) -> SessionState:
    call = state.calls.get(event.tool_call_id)
    if call is None or result_problem(call, entry.ts, entry.by, event.claim_id) is not None:
        return state
    return _with(state, replace(call, claim=None))


def lapsed(state: SessionState, entry: Entry, event: ToolLapsed) -> SessionState:
    """A claim that was renewed a moment before goes on."""
    call = state.calls.get(event.tool_call_id)
    if call is None or call.status != "open" or call.claim is None or call.claim.claim_id != event.claim_id:
        return state
    if not call.idempotent or entry.ts <= call.claim.expires_at:
        return state
    return _with(state, replace(call, claim=None))


def failed(state: SessionState, seq: int, lane: str, event: ToolFailed) -> SessionState:
    call = state.calls.get(event.tool_call_id)
    if call is None or call.status != "open" or call.lane != lane:
        return state
    return _settle(state, call, seq, "failed", event.code)


def answered(state: SessionState, seq: int, lane: str, event: ToolCallResult) -> SessionState:
    """The result is in the transcript; of a tool of the agent's own, that settles the call."""
    state = replace(state, messages=state.messages + 1)
    call = state.calls.get(event.tool_call_id)
    if call is None or call.lane != lane or call.answered:
        return state
    if call.status == "open":
        call = replace(call, status="resolved", settled_seq=seq, args=None, result_schema=None)
    return _with(state, replace(call, answered=True))


def _settle(state: SessionState, call: Call, seq: int, status: str, code: str | None = None) -> SessionState:
    settled = replace(call, status=status, code=code, settled_seq=seq, args=None, result_schema=None)
    return _with(state, settled)


def forget_run(state: SessionState, run_id: str) -> SessionState:
    """The run is over: its calls are; one that was open has come to nothing."""
    gone = [call for call in state.calls.values() if call.run == run_id]
    if not gone:
        return state
    ends = [Ended(c.id, "failed", "run_ended") if c.status == "open" else Ended(c.id, c.status, c.code) for c in gone]
    calls = {id_: call for id_, call in state.calls.items() if call.run != run_id}
    return remember_ended(replace(state, calls=calls), *ends)


def _with(state: SessionState, call: Call) -> SessionState:
    return replace(state, calls={**state.calls, call.id: call})
