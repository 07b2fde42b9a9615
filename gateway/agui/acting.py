"""What a client's request does to the session: results of tools, decisions, inputs; each by the command that it is."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from broker.errors import ErrorCode, Refused
from broker.state import Approval, SessionState
from broker.state import Call as ToolCall
from broker.subjects import MAIN_LANE, run_id_of
from gateway.agui.content import Json, parts_of, text_of
from gateway.agui.endings import Ending
from gateway.agui.interrupts import Waiting, decision
from gateway.agui.projection import Projection
from gateway.agui.request import Asked, result_of
from gateway.http.carrying import carry_out, within
from gateway.http.requests import Call
from gateway.plane import LEASE_MS_MAX
from gateway.services import Services

_NOT_OURS = (
    ErrorCode.ALREADY_CLAIMED,
    ErrorCode.ALREADY_RESOLVED,
    ErrorCode.ARGUMENTS_INVALID,
    ErrorCode.CALL_NOT_FOUND,
    ErrorCode.DEADLINE_PASSED,
    ErrorCode.NOT_CLAIMED,
    ErrorCode.NOT_TARGETED,
)
"""Refusals that say that a call went another way: the log tells which."""
_DECIDED = (ErrorCode.ALREADY_RESOLVED, ErrorCode.ALREADY_VOTED, ErrorCode.DEADLINE_PASSED)
"""Refusals of a decision that has been made meanwhile, or was made by this very request before."""
_TRACE = ("traceparent", "tracestate")


class Acting:
    """The commands of one request, on behalf of who sent it."""

    def __init__(self, services: Services, call: Call, request: Asked) -> None:
        self._services = services
        self._who = call.who
        self._request = request
        self._trace = {name: call.fields[name] for name in _TRACE if name in call.fields}
        self._left: set[str] = set()
        """Calls that are for somebody else, as far as the gateway says."""

    async def act(self, projection: Projection, fresh: Sequence[Json]) -> list[Json]:
        """Does what the request says, and aims the stream at the run that it is about. Raises Refused."""
        state, about = projection.state, None
        for call_id, message in self._request.results.items():
            tool_call = state.calls.get(call_id)
            if tool_call is not None and tool_call.status == "open" and tool_call.executor == "client":
                await self._answer(tool_call, result_of(message))
                about = tool_call.run
        for answer in self._request.resume:
            approval = self._approval(state, str(answer["interruptId"]))
            if approval is not None:
                await self._decide(approval, answer)
                about = approval.run
        for message in fresh[:-1]:
            await self._send(message)
        if fresh:
            receipt = await self._send(fresh[-1])
            return (
                projection.succeed()
                if receipt["runId"] is None
                else projection.aim(receipt["runId"], receipt["seq"] or 0)
            )
        return await self._join(projection, state, about)

    async def _join(self, projection: Projection, state: SessionState, about: str | None) -> list[Json]:
        """Nothing new is said: the stream is that of what the request is about, of what runs now, or of what was last."""
        if about is not None:
            return projection.aim(_asking(state, about))
        busy = state.lane(MAIN_LANE).run is not None or state.queue(MAIN_LANE)
        last = self._request.last_input
        return projection.aim(None, ending=None if busy or last is None else await self._ending(state, last))

    async def _ending(self, state: SessionState, input_id: str) -> Ending | None:
        """How the run that an input went into ended; None: well, or nobody knows any more."""
        fate = state.fate(input_id)
        run_id = run_id_of(input_id) if fate is None or fate.run is None else fate.run
        try:
            async with within(self._services, "answer"):
                answer = await self._services.commands.answer(self._request.session, run_id, self._who)
        except Refused as refusal:
            if refusal.code is not ErrorCode.RUN_NOT_FOUND:
                raise
            return None
        return _ended(answer.wire)

    async def _send(self, message: Json) -> dict[str, Any]:
        attachments = [{"id": attachment_id} for _, attachment_id in parts_of(message, self._request.session)]
        fields = {"inputId": message["id"], "content": text_of(message)}
        return await self._command("input.send", fields | ({"attachments": attachments} if attachments else {}))

    # --- tools -------------------------------------------------------------------------------------------------------

    def still(self, waiting: Waiting) -> Waiting:
        """Without the calls that turned out to be for somebody else."""
        return Waiting(waiting.approvals, tuple(c for c in waiting.calls if c.id not in self._left), waiting.next_at)

    async def claim(self, call: ToolCall) -> bool:
        """Claims a call for the page that is about to be told of it; False: it is somebody else's."""
        return await self._claim(call) is not None

    async def _claim(self, call: ToolCall) -> str | None:
        claim_id = f"agui-{secrets.token_hex(12)}"
        declared = next((tool for tool in self._request.tools if tool["name"] == call.name), {})
        tool = {"parameters": declared["parameters"]} if "parameters" in declared else {}
        fields = {"toolCallId": call.id, "claimId": claim_id, "leaseMs": LEASE_MS_MAX, "tool": tool}
        try:
            await self._command("tool.claim", fields)
        except Refused as refusal:
            if refusal.code not in _NOT_OURS:
                raise
            self._left.add(call.id)
            return None
        return claim_id

    async def _answer(self, call: ToolCall, result: Json) -> None:
        """The page has executed a call. A result that is refused is told to the agent as an error."""
        claim_id = await self._claim(call) if call.claim is None else call.claim.claim_id
        if claim_id is None or (call.claim is not None and call.claim.by.id != self._who.id):
            return
        fields = {"toolCallId": call.id, "claimId": claim_id}
        try:
            await self._command("tool.result", fields | result)
        except Refused as refusal:
            if refusal.code is ErrorCode.RESULT_INVALID:
                text = f"the tool's result was refused: {refusal.message}"
                await self._answer(call, {"error": text})
            elif refusal.code not in _NOT_OURS:
                raise

    # --- decisions -----------------------------------------------------------------------------------------------------

    def _approval(self, state: SessionState, approval_id: str) -> Approval | None:
        """The approval, if it can still be decided. Raises Refused (approval_not_found)."""
        approval = state.approvals.get(approval_id)
        if approval is None and state.end_of(approval_id) is None:
            raise Refused(ErrorCode.APPROVAL_NOT_FOUND, "no run that is going on has such an interrupt")
        return approval

    async def _decide(self, approval: Approval, answer: Mapping[str, Any]) -> None:
        if approval.status != "pending" or any(vote.by.id == self._who.id for vote in approval.votes):
            return
        decided = decision(approval, answer)
        if decided is None:
            text = "the `payload` of an approval says `approved`, or an `option` of its interrupt"
            raise Refused(ErrorCode.PAYLOAD_INVALID, text, path="")
        option, payload = decided
        fields = {"approvalId": approval.id, "option": option, **({} if payload is None else {"payload": payload})}
        try:
            await self._command("approval.respond", fields)
        except Refused as refusal:
            if refusal.code not in _DECIDED:
                raise

    async def _command(self, op: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        return await carry_out(
            self._services, op, {"session": self._request.session, **self._trace, **fields}, self._who
        )


def _asking(state: SessionState, run_id: str) -> str:
    """The run of the main lane that a run was asked for by."""
    run = state.runs.get(run_id)
    while run is not None and run.parent is not None and run.parent in state.runs:
        run = state.runs[run.parent]
    return run_id if run is None else run.run_id


def _ended(wire: Mapping[str, Any]) -> Ending | None:
    """The ending that a run's answer tells of (`gateway.commands.answers`)."""
    reason, error = wire["reason"], wire["error"] or {}
    match wire["status"]:
        case "cancelled":
            return Ending("cancelled", reason or "requested")
        case "error":
            return Ending("error", code=error.get("code"), message=error.get("message") or "the run failed")
        case "failed":
            return Ending("error", code=reason, message=f"the input failed: {reason}")
        case _:
            return None
