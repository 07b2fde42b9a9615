"""Approvals and questions: the first authorised decision in the log wins, or the quorum."""

from __future__ import annotations

from dataclasses import replace

from broker.events import ApprovalRequested, ApprovalResolved, ApprovalResponded, ApprovalRevoked, Entry, Participant
from broker.fold.change import remember_ended
from broker.state import (
    MAX_APPROVALS,
    MAX_PENDING_APPROVALS,
    MAX_REMEMBERED,
    Approval,
    Ended,
    Remembered,
    SessionState,
    Vote,
)

REJECTING = ("reject_once", "reject_always", "decline")
"""Options of which one settles the approval."""
ALWAYS = ("allow_always", "reject_always")


def requested(state: SessionState, seq: int, lane: str, event: ApprovalRequested) -> SessionState:
    run = state.lane(lane).run
    pending = sum(a.status == "pending" for a in state.approvals.values())
    if run is None or event.approval_id in state.approvals:
        return state
    if len(state.approvals) >= MAX_APPROVALS or pending >= MAX_PENDING_APPROVALS:
        return state
    return _with(
        state,
        Approval(
            event.approval_id,
            lane,
            run,
            event.kind,
            seq,
            event.message,
            tuple(event.options),
            event.default,
            expires_at=event.expires_at,
            tool_call_id=event.tool_call_id,
            key=event.key,
            roles=tuple(event.roles or ()),
            quorum=max(1, event.quorum),
            response_schema=event.response_schema,
            details=event.details,
        ),
    )


def response_problem(approval: Approval, ts: int, by: Participant | None, option: str) -> str | None:
    """Why a response at time `ts` does not count: a code of the `error` frame, or None if it counts."""
    if approval.status != "pending":
        return "already_resolved"
    if approval.expires_at is not None and ts > approval.expires_at:
        return "deadline_passed"
    if by is None or (approval.roles and not set(approval.roles) & set(by.roles)):
        return "role_required"
    if option not in approval.options:
        return "bad_option"
    if any(vote.by.id == by.id for vote in approval.votes):
        return "already_voted"
    return None


def responded(state: SessionState, seq: int, entry: Entry, event: ApprovalResponded) -> SessionState:
    approval = state.approvals.get(event.approval_id)
    if approval is None or entry.by is None or response_problem(approval, entry.ts, entry.by, event.option) is not None:
        return state
    approval = replace(approval, votes=(*approval.votes, Vote(entry.by, event.option, seq)))
    if event.option in REJECTING:
        return _decide(state, approval, seq, event.option, entry.by)
    if len(approval.votes) >= approval.quorum:
        once = next((v.option for v in approval.votes if v.option not in ALWAYS), event.option)
        return _decide(state, approval, seq, once, entry.by)
    return _with(state, approval)


def _decide(state: SessionState, approval: Approval, seq: int, option: str, by: Participant) -> SessionState:
    state = _with(state, replace(approval, status="resolved", decision=option, decided_seq=seq))
    if option not in ALWAYS or approval.key is None:
        return state
    rest = {key: value for key, value in state.remembered.items() if key != approval.key}
    kept = dict(list(rest.items())[-(MAX_REMEMBERED - 1) :])
    return replace(state, remembered={**kept, approval.key: Remembered(option, by, seq)})


def resolved(state: SessionState, seq: int, lane: str, event: ApprovalResolved) -> SessionState:
    """Nobody decided: the default counts at expiry, nothing does when cancelled."""
    approval = state.approvals.get(event.approval_id)
    if approval is None or approval.status != "pending" or approval.lane != lane:
        return state
    if event.status == "expired":
        return _with(state, replace(approval, status="expired", decision=approval.default, decided_seq=seq))
    return _with(state, replace(approval, status="cancelled", decided_seq=seq))


def revoked(state: SessionState, event: ApprovalRevoked) -> SessionState:
    if event.key not in state.remembered:
        return state
    return replace(state, remembered={key: value for key, value in state.remembered.items() if key != event.key})


def cancel_pending(state: SessionState, seq: int, lane: str) -> SessionState:
    """An input came, and the session says that it settles what waits for approval."""
    for approval in tuple(state.approvals.values()):
        if approval.lane == lane and approval.status == "pending":
            state = _with(state, replace(approval, status="cancelled", decided_seq=seq))
    return state


def forget_run(state: SessionState, run_id: str) -> SessionState:
    """The run is over: what it waited for is cancelled."""
    gone = [approval for approval in state.approvals.values() if approval.run == run_id]
    if not gone:
        return state
    ends = [Ended(a.id, "cancelled" if a.status == "pending" else a.status, a.decision) for a in gone]
    approvals = {id_: approval for id_, approval in state.approvals.items() if approval.run != run_id}
    return remember_ended(replace(state, approvals=approvals), *ends)


def _with(state: SessionState, approval: Approval) -> SessionState:
    return replace(state, approvals={**state.approvals, approval.id: approval})
