"""`approval.respond` and `approval.revoke`."""

from __future__ import annotations

from typing import Any

from broker.clock import now_ms
from broker.codec import by_to_wire, participant_to_wire
from broker.errors import ErrorCode, Refused
from broker.events import ApprovalResponded, ApprovalRevoked
from broker.fold.approvals import response_problem
from broker.state import Approval, SessionState, Vote
from gateway.auth import Identity, Right
from gateway.commands.context import CommandContext, already_resolved, short_id
from gateway.plane import ApprovalRespond, ApprovalRevoke

_MESSAGES = {
    ErrorCode.ALREADY_RESOLVED: "it has been decided already",
    ErrorCode.DEADLINE_PASSED: "its time has passed",
    ErrorCode.ROLE_REQUIRED: "you have none of the roles that may decide this",
    ErrorCode.BAD_OPTION: "it does not have this option",
    ErrorCode.ALREADY_VOTED: "you have chosen already",
}


async def respond(ctx: CommandContext, command: ApprovalRespond, who: Identity) -> dict[str, Any]:
    """Raises Refused, Unavailable."""
    who.require(Right.APPROVE, command.session)
    ctx.check_size("payload", command.payload)
    async with ctx.session(command.session) as feed:
        approval = _approval(feed.state, command.approval_id)
        vote = _vote_of(approval, who)
        if vote is not None and vote.option == command.option:
            return _reply(approval)
        _refuse(response_problem(approval, now_ms(), who.participant(), command.option), approval)
        if command.payload is not None or command.option == "answer":
            ctx.check_schema(approval.response_schema, command.payload, ErrorCode.PAYLOAD_INVALID)
        event = ApprovalResponded(approval.id, command.option, command.payload)
        message_id = f"respond:{approval.id}:{command.option}:{short_id(who.id)}"
        entry = ctx.entry(event, who, message_id, feed.state.trace_of(approval.run))
        folded = await ctx.append(feed, entry)
        approval = _approval(folded.state, approval.id)
        vote = _vote_of(approval, who)
        if vote is None or vote.option != command.option:
            problem = response_problem(approval, folded.ts, who.participant(), command.option)
            raise _refusal(ErrorCode(problem or ErrorCode.ALREADY_VOTED), approval)
        return _reply(approval)


async def revoke(ctx: CommandContext, command: ApprovalRevoke, who: Identity) -> dict[str, Any]:
    """Raises Refused, Unavailable."""
    who.require(Right.APPROVE, command.session)
    async with ctx.session(command.session) as feed:
        remembered = feed.state.remembered.get(command.key)
        if remembered is None:
            raise Refused(ErrorCode.KEY_NOT_FOUND, "nothing is remembered under this key")
        # The decision is named, so that one that is made later can be revoked soon after.
        await ctx.append(feed, ctx.entry(ApprovalRevoked(command.key), who, f"revoke:{remembered.seq}"))
        return {"key": command.key}


def _approval(state: SessionState, approval_id: str) -> Approval:
    """Raises Refused (approval_not_found, already_resolved)."""
    approval = state.approvals.get(approval_id)
    if approval is not None:
        return approval
    ended = state.end_of(approval_id)
    if ended is not None:
        # Who decided is in the log alone by now.
        raise already_resolved(ended, decision=ended.code, by=None)
    raise Refused(ErrorCode.APPROVAL_NOT_FOUND, "no run that is going on has such an approval")


def _vote_of(approval: Approval, who: Identity) -> Vote | None:
    return next((vote for vote in approval.votes if vote.by.id == who.id), None)


def _reply(approval: Approval) -> dict[str, Any]:
    return {
        "approvalId": approval.id,
        "status": approval.status,
        "decision": approval.decision,
        "votes": [{"by": participant_to_wire(vote.by), "option": vote.option} for vote in approval.votes],
    }


def _refuse(problem: str | None, approval: Approval) -> None:
    if problem is not None:
        raise _refusal(ErrorCode(problem), approval)


def _refusal(code: ErrorCode, approval: Approval) -> Refused:
    data: dict[str, Any] = {}
    if code is ErrorCode.ALREADY_RESOLVED:
        by = approval.votes[-1].by if approval.votes and approval.status == "resolved" else None
        data = {"status": approval.status, "decision": approval.decision}
        data["by"] = by_to_wire(by)
    elif code is ErrorCode.ROLE_REQUIRED:
        data = {"roles": list(approval.roles)}
    elif code is ErrorCode.BAD_OPTION:
        data = {"options": list(approval.options)}
    return Refused(code, _MESSAGES.get(code, "it cannot be decided"), **data)
