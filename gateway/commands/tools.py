"""`tool.claim`, `tool.progress`, `tool.result`, `tool.release`: what clients do with the calls they execute."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any

from broker.clock import now_ms
from broker.codec import participant_to_wire
from broker.errors import ErrorCode, Refused
from broker.events import Event, OtherEvent, ToolClaimed, ToolReleased, ToolResolved
from broker.fold.tools import claim_problem, result_problem
from broker.state import Call, SessionState
from broker.tools import ToolDeclaration
from gateway.auth import Identity, Right
from gateway.commands.context import CommandContext, Folded, already_resolved
from gateway.feed import Feed
from gateway.plane import ToolClaim, ToolProgress, ToolRelease, ToolResult

_MESSAGES = {
    ErrorCode.ALREADY_CLAIMED: "somebody else executes the call",
    ErrorCode.NOT_TARGETED: "the call is for somebody else",
    ErrorCode.NOT_CLAIMED: "your claim is not the one that counts",
    ErrorCode.DEADLINE_PASSED: "the call's deadline has passed",
    ErrorCode.ALREADY_RESOLVED: "the call has ended already",
}


@dataclass(frozen=True, slots=True)
class Executor:
    """A connection as an executor of tools: its device, and what it has declared in the session."""

    device: str | None
    tools: tuple[ToolDeclaration, ...] = ()

    def tool(self, name: str) -> ToolDeclaration | None:
        return next((tool for tool in self.tools if tool.name == name), None)


async def claim(ctx: CommandContext, command: ToolClaim, who: Identity, executor: Executor) -> dict[str, Any]:
    """Raises Refused, Unavailable."""
    who.require(Right.TOOLS, command.session)
    async with ctx.session(command.session) as feed:
        call = _call(feed.state, command.tool_call_id)
        if call.status != "open":
            raise _refusal(ErrorCode.ALREADY_RESOLVED, call)
        tool = executor.tool(call.name)
        if tool is None:
            raise Refused(ErrorCode.NOT_DECLARED, f"you have not declared the tool {call.name!r} in this session")
        now = now_ms()
        event = ToolClaimed(call.id, command.claim_id, now + command.lease_ms, executor.device)
        _refuse(claim_problem(call, now, who.participant(), event), call)
        ctx.check_schema(tool.parameters, dict(call.args or {}), ErrorCode.ARGUMENTS_INVALID)
        # A renewal is another entry than the claim it renews: its end makes the difference.
        message_id = f"claim:{call.id}:{command.claim_id}:{event.expires_at}"
        entry = ctx.entry(event, who, message_id, feed.state.trace_of(call.run))
        folded = await ctx.append(feed, entry)
        return _claimed(folded, event, who)


def _claimed(folded: Folded, event: ToolClaimed, who: Identity) -> dict[str, Any]:
    call = _call(folded.state, event.tool_call_id)
    if not _holds(call, event.claim_id, who) or call.claim is None or call.status != "open":
        problem = claim_problem(call, folded.ts, who.participant(), event)
        raise _refusal(ErrorCode(problem or ErrorCode.ALREADY_CLAIMED), call)
    return {"toolCallId": call.id, "claimId": event.claim_id, "expiresAt": call.claim.expires_at}


async def progress(ctx: CommandContext, command: ToolProgress, who: Identity) -> dict[str, Any]:
    """Raises Refused, Unavailable."""
    who.require(Right.TOOLS, command.session)
    ctx.check_size("value", command.value)
    async with ctx.session(command.session) as feed:
        call = _call(feed.state, command.tool_call_id)
        _refuse(result_problem(call, now_ms(), who.participant(), command.claim_id), call)
        body = {"type": "tool.progress", "toolCallId": call.id, "claimId": command.claim_id, "value": command.value}
        message_id = f"progress:{call.id}:{secrets.token_hex(6)}"
        entry = ctx.entry(OtherEvent("tool.progress", body), who, message_id, feed.state.trace_of(call.run))
        await ctx.append(feed, entry)
        return {}


async def result(ctx: CommandContext, command: ToolResult, who: Identity, executor: Executor) -> dict[str, Any]:
    """Raises Refused, Unavailable."""
    who.require(Right.TOOLS, command.session)
    ctx.check_size("result" if command.error is None else "error", command.error or command.result)
    async with ctx.session(command.session) as feed:
        call = _call(feed.state, command.tool_call_id)
        reply = {"toolCallId": call.id, "status": "resolved"}
        if call.status == "resolved" and _holds(call, command.claim_id, who):
            return reply
        _refuse(result_problem(call, now_ms(), who.participant(), command.claim_id), call)
        if command.error is None:
            tool = executor.tool(call.name)
            schema = call.result_schema or (None if tool is None else tool.result)
            ctx.check_schema(schema, command.result, ErrorCode.RESULT_INVALID)
        event = ToolResolved(call.id, command.claim_id, command.result, command.error)
        folded = await _append(ctx, feed, "result", call, event, who, command.claim_id)
        call = _call(folded.state, call.id)
        if call.status != "resolved" or not _holds(call, command.claim_id, who):
            problem = result_problem(call, folded.ts, who.participant(), command.claim_id)
            raise _refusal(ErrorCode(problem or ErrorCode.NOT_CLAIMED), call)
        return reply


async def release(ctx: CommandContext, command: ToolRelease, who: Identity) -> dict[str, Any]:
    """Raises Refused, Unavailable."""
    who.require(Right.TOOLS, command.session)
    async with ctx.session(command.session) as feed:
        call = _call(feed.state, command.tool_call_id)
        _refuse(result_problem(call, now_ms(), who.participant(), command.claim_id), call)
        event = ToolReleased(call.id, command.claim_id)
        folded = await _append(ctx, feed, "release", call, event, who, command.claim_id)
        call = _call(folded.state, call.id)
        if _holds(call, command.claim_id, who):
            problem = result_problem(call, folded.ts, who.participant(), command.claim_id)
            raise _refusal(ErrorCode(problem or ErrorCode.NOT_CLAIMED), call)
        return {"toolCallId": call.id}


async def _append(
    ctx: CommandContext, feed: Feed, word: str, call: Call, event: Event, who: Identity, claim_id: str
) -> Folded:
    # Somebody may claim a call twice with the same id, with a lapse between: what was said before it is another thing.
    message_id = f"{word}:{call.id}:{claim_id}:{call.claims}"
    return await ctx.append(feed, ctx.entry(event, who, message_id, feed.state.trace_of(call.run)))


def _call(state: SessionState, tool_call_id: str) -> Call:
    """Raises Refused (call_not_found, already_resolved)."""
    call = state.calls.get(tool_call_id)
    if call is not None:
        return call
    ended = state.end_of(tool_call_id)
    if ended is not None:
        raise already_resolved(ended, reason=ended.code)
    raise Refused(ErrorCode.CALL_NOT_FOUND, "no run that is going on has such a call")


def _holds(call: Call, claim_id: str, who: Identity) -> bool:
    return call.claim is not None and (call.claim.claim_id, call.claim.by.id) == (claim_id, who.id)


def _refuse(problem: str | None, call: Call) -> None:
    if problem is not None:
        raise _refusal(ErrorCode(problem), call)


def _refusal(code: ErrorCode, call: Call) -> Refused:
    data: dict[str, Any] = {}
    if code is ErrorCode.ALREADY_RESOLVED:
        data = {"status": call.status, "reason": call.code}
    elif code is ErrorCode.ALREADY_CLAIMED and call.claim is not None:
        data = {"by": participant_to_wire(call.claim.by)}
    return Refused(code, _MESSAGES.get(code, "the call is not yours"), **data)
