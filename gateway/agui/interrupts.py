"""Approvals and questions as the interrupts of AG-UI, and a client's answers as decisions. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from broker.state import Approval, Call, SessionState
from gateway.agui.content import Json
from gateway.agui.messages import subagent_of


@dataclass(frozen=True, slots=True)
class Page:
    """Who a stream is for: a user, the roles of its token, whether it may decide, and the tools that its page executes."""

    user: str
    roles: tuple[str, ...] = ()
    approves: bool = True
    tools: frozenset[str] = frozenset()

    def decides(self, approval: Approval) -> bool:
        """Whether the user can answer it now. What somebody else must decide is waited for, and is no interrupt."""
        return (
            self.approves
            and approval.status == "pending"
            and (not approval.roles or not set(approval.roles).isdisjoint(self.roles))
            and all(vote.by.id != self.user for vote in approval.votes)
        )

    def executes(self, call: Call, now: int) -> bool:
        """Whether the page is one that may claim the call at `now` (ms since 1970)."""
        return (
            self.has_tool(call) and call.claim is None and (self._is_target(call) or (call.any_after or now + 1) <= now)
        )

    def has_tool(self, call: Call) -> bool:
        return call.status == "open" and call.executor == "client" and call.name in self.tools

    def _is_target(self, call: Call) -> bool:
        # A page that comes by HTTP has no device of its own.
        return call.device is None and call.participant in (None, self.user)


@dataclass(frozen=True, slots=True)
class Waiting:
    """What a run waits for that the page can give. `next_at`: when there may be more, without any entry (ms since 1970)."""

    approvals: tuple[Approval, ...] = ()
    calls: tuple[Call, ...] = ()
    next_at: int | None = None


def waiting_for(state: SessionState, page: Page, now: int) -> Waiting:
    open_calls = [call for call in state.calls.values() if page.has_tool(call) and call.claim is None]
    calls = tuple(call for call in open_calls if page.executes(call, now))
    later = [call.any_after for call in open_calls if call.any_after is not None and call.any_after > now]
    approvals = tuple(approval for approval in state.approvals.values() if page.decides(approval))
    return Waiting(approvals, calls, min(later, default=None))


def interrupt(approval: Approval) -> Json:
    """When it expires is told beside it: a client refuses to answer what has expired by its own clock, for ever."""
    tag = subagent_of(approval.lane, approval.run)
    told: Json = {"kind": approval.kind, "options": list(approval.options), "default": approval.default}
    for name, value in (("expiresAt", approval.expires_at), ("details", approval.details)):
        if value is not None:
            told[name] = value
    wire: Json = {"id": approval.id, "reason": _reason(approval), "message": approval.message}
    if approval.tool_call_id is not None:
        wire["toolCallId"] = approval.tool_call_id
    if tag is not None:
        wire["subagentRunId"] = tag
    return wire | {"responseSchema": _response_schema(approval), "metadata": {"antiphon": told}}


def _reason(approval: Approval) -> str:
    if approval.kind == "question":
        return "input_required"
    return "confirmation" if approval.tool_call_id is None else "tool_call"


def _response_schema(approval: Approval) -> Json:
    if approval.kind == "question":
        return dict(approval.response_schema or {})
    properties: Json = {
        "approved": {"type": "boolean"},
        "option": {"type": "string", "enum": list(approval.options)},
        "editedArgs": dict(approval.response_schema or {}),
    }
    return {
        "type": "object",
        "properties": properties,
        "anyOf": [{"required": ["approved"]}, {"required": ["option"]}],
    }


def decision(approval: Approval, answer: Mapping[str, Any]) -> tuple[str, Any] | None:
    """The option that a resume entry chooses, and its payload; None if it says neither."""
    resolved, payload = answer["status"] == "resolved", answer.get("payload")
    if approval.kind == "question":
        return ("answer", payload) if resolved else ("decline", None)
    if not resolved:
        return _first(approval.options, "reject"), None
    if isinstance(payload, bool):
        return _first(approval.options, "allow" if payload else "reject"), None
    if not isinstance(payload, dict):
        return None
    edited = payload.get("editedArgs")
    match payload:
        case {"option": str(option)}:
            return option, edited
        case {"approved": bool(approved)}:
            return _first(approval.options, "allow" if approved else "reject"), edited if approved else None
        case _:
            return None


def _first(options: Sequence[str], word: str) -> str:
    """The option for once, if there is one; what is not offered is refused by the command."""
    offered = [option for option in options if option.startswith(word)]
    once = f"{word}_once"
    return once if once in offered or not offered else offered[0]
