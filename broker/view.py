"""The state as clients see it (PROTOCOL, section 6)."""

from __future__ import annotations

from typing import Any

from broker.codec import by_to_wire
from broker.session_config import config_to_wire
from broker.state import Approval, Call, Cancel, Handoff, Lane, QueuedInput, Run, ScheduledInput, SessionState


def public_view(state: SessionState) -> dict[str, Any]:
    """What runs and waits, and what the session is told about itself."""
    return {
        "status": state.status,
        "title": state.title,
        "metadata": dict(state.metadata),
        "config": config_to_wire(state.config),
        "lanes": {name: _lane(lane) for name, lane in state.lanes.items()},
        "runs": [_run(run) for run in state.runs.values()],
        "inputs": [_input(queued) for queued in state.inputs],
        "scheduled": [_scheduled(planned) for planned in state.scheduled],
        "calls": [_call(call) for call in state.calls.values() if call.status == "open"],
        "approvals": [_approval(a) for a in state.approvals.values() if a.status == "pending"],
        "handoffs": [handoff_view(h) for h in state.handoffs.values() if h.status == "waiting"],
        "remembered": {key: {"option": r.option, "by": by_to_wire(r.by)} for key, r in state.remembered.items()},
    }


def _lane(lane: Lane) -> dict[str, Any]:
    owner = None if lane.owner is None else {"kind": lane.owner.kind, "id": lane.owner.id}
    return {"owner": owner, "fence": lane.fence, "run": lane.run, "can": list(lane.can), "paused": lane.paused}


def _run(run: Run) -> dict[str, Any]:
    return {
        "runId": run.run_id,
        "lane": run.lane,
        "inputId": run.input_id,
        "attempt": run.attempt,
        "cancel": None if run.cancel is None else _cancel(run.cancel),
        "parent": run.parent,
        "agent": run.agent,
    }


def _cancel(cancel: Cancel) -> dict[str, Any]:
    return {"mode": cancel.mode, "by": by_to_wire(cancel.by), "reason": cancel.reason}


def _input(queued: QueuedInput) -> dict[str, Any]:
    attachments = [dict(reference) for reference in queued.attachments]
    return {
        "inputId": queued.input_id,
        "seq": queued.seq,
        "ts": queued.ts,
        "by": by_to_wire(queued.by),
        "content": queued.content,
        "mode": queued.mode,
        "lane": queued.lane,
        "parent": queued.parent,
        **({"attachments": attachments} if attachments else {}),
    }


def _scheduled(planned: ScheduledInput) -> dict[str, Any]:
    attachments = [dict(reference) for reference in planned.attachments]
    return {
        "inputId": planned.input_id,
        "seq": planned.seq,
        "ts": planned.ts,
        "by": by_to_wire(planned.by),
        "content": planned.content,
        "at": planned.at,
        "mode": planned.mode,
        **({"attachments": attachments} if attachments else {}),
    }


def _call(call: Call) -> dict[str, Any]:
    claim = call.claim
    return {
        "toolCallId": call.id,
        "lane": call.lane,
        "runId": call.run,
        "name": call.name,
        "args": None if call.args is None else dict(call.args),
        "executor": call.executor,
        "idempotent": call.idempotent,
        "participant": call.participant,
        "device": call.device,
        "anyAfter": call.any_after,
        "deadline": call.deadline,
        "claim": None
        if claim is None
        else {
            "claimId": claim.claim_id,
            "by": by_to_wire(claim.by),
            "device": claim.device,
            "expiresAt": claim.expires_at,
        },
    }


def _approval(approval: Approval) -> dict[str, Any]:
    return {
        "approvalId": approval.id,
        "kind": approval.kind,
        "lane": approval.lane,
        "runId": approval.run,
        "message": approval.message,
        "options": list(approval.options),
        "default": approval.default,
        "expiresAt": approval.expires_at,
        "toolCallId": approval.tool_call_id,
        "key": approval.key,
        "roles": list(approval.roles),
        "quorum": approval.quorum,
        "responseSchema": None if approval.response_schema is None else dict(approval.response_schema),
        "details": None if approval.details is None else dict(approval.details),
        "votes": [{"by": by_to_wire(vote.by), "option": vote.option} for vote in approval.votes],
    }


def handoff_view(handoff: Handoff) -> dict[str, Any]:
    """A hand-over that waits, as clients see it."""
    return {
        "handoffId": handoff.id,
        "lane": handoff.lane,
        "runId": handoff.run,
        "to": handoff.to,
        "reason": handoff.reason,
        "summary": handoff.summary,
        "expiresAt": handoff.expires_at,
    }
