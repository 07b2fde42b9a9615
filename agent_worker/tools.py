"""Tools: those that clients execute for the agent, and the agent's own. Both leave the same trace in the log."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from agent_worker.errors import ArgumentsInvalid, ToolFailed, TooManyCalls
from agent_worker.scope import LATE_MS, LaneScope
from agent_worker.sizes import check_size
from broker.clock import in_ms, now_ms
from broker.endings import call_failure, call_result, error_content, read_resolved, result_content
from broker.errors import ToolErrorCode
from broker.events import (
    ToolCallResult,
    ToolCallStart,
    ToolLapsed,
    ToolRequested,
)
from broker.events import ToolFailed as ToolFailedEvent
from broker.schema import Schema, SchemaInvalid
from broker.state import Call, SessionState
from broker.tools import ToolDeclaration


@dataclass(frozen=True, slots=True)
class Target:
    """Who may execute a call: a user, one device of a user, or (with neither) every client that has the tool.

    After `grace_s` seconds every client with the tool may; None: never anybody else.
    """

    user: str | None = None
    device: str | None = None
    grace_s: float | None = 10.0


@dataclass(frozen=True, slots=True)
class Invocation:
    """What a tool of the agent's own is given. `idempotency_key` is the same when the call is made again after a crash."""

    name: str
    args: Mapping[str, Any]
    tool_call_id: str
    idempotency_key: str


ToolFunction = Callable[[Invocation], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class ClientCall:
    """What to ask of a client: see `SessionContext.client_tool`."""

    id: str
    name: str
    args: Mapping[str, Any]
    target: Target
    deadline_s: float
    idempotent: bool


def check_arguments(name: str, args: Mapping[str, Any], declared: Sequence[ToolDeclaration]) -> None:
    """Raises ArgumentsInvalid if the arguments are not as one of the clients' declarations says."""
    for declaration in declared:
        if declaration.parameters is None:
            continue
        try:
            problem = Schema(declaration.parameters).problem(args)
        except SchemaInvalid as error:
            raise ArgumentsInvalid(name, "", str(error)) from None
        if problem is not None:
            raise ArgumentsInvalid(name, problem.path, problem.message)


async def request(scope: LaneScope, call: ClientCall, declared: Sequence[ToolDeclaration]) -> None:
    """Writes the call. Raises TooManyCalls, ContentTooLarge, LogError."""
    targeted = call.target.user is not None or call.target.device is not None
    grace_s = call.target.grace_s
    await _announce(
        scope,
        ToolRequested(
            call.id,
            call.name,
            call.args,
            "client",
            idempotent=call.idempotent,
            participant=call.target.user,
            device=call.target.device,
            any_after=in_ms(grace_s) if targeted and grace_s is not None else None,
            deadline=in_ms(call.deadline_s),
            result_schema=next((d.result for d in declared if d.result is not None), None),
        ),
    )


async def _announce(scope: LaneScope, event: ToolRequested) -> Call:
    check_size(event)
    text = orjson.dumps(event.args).decode()
    scope.writer.open(ToolCallStart(event.tool_call_id, event.name), event.tool_call_id, "tool_call")
    await scope.writer.text(event.tool_call_id, text)
    scope.writer.close(event.tool_call_id)
    scope.writer.record(event)
    await scope.stored()
    call = scope.state.calls.get(event.tool_call_id)
    if call is None:
        # The fold took no notice of it: it must not be waited for, nor be left without a result.
        scope.writer.record(call_result(event.tool_call_id, error_content(ToolErrorCode.NOT_RUN.value)))
        raise TooManyCalls(f"{event.name}: the session has as many tool calls as it may have")
    return call


async def outcome(scope: LaneScope, call_id: str, name: str) -> Any:
    """Waits for a client's result, and sees to claims that run out and to the deadline. Raises ToolFailed, LogError."""
    while True:
        call = scope.state.calls[call_id]
        if call.status != "open":
            return await _settled(scope, call, name)
        changed = await scope.until(lambda state, call=call: _changed(state, call), _next_time(call))  # type: ignore[misc]
        if changed is None:
            await _time_is_up(scope, call)


def _next_time(call: Call) -> int | None:
    times = [call.deadline] if call.deadline is not None else []
    if call.claim is not None:
        times.append(call.claim.expires_at)
    return min(times) + LATE_MS if times else None


def _changed(state: SessionState, call: Call) -> Call | None:
    """The call as it is now. One that is gone has ended with its run, and whoever waits for it is about to be stopped."""
    now = state.calls.get(call.id)
    return None if now is call else now


async def _time_is_up(scope: LaneScope, call: Call) -> None:
    """A claim has run out, or the whole call has. A result that came a moment before is first in the log, and counts."""
    if call.deadline is not None and now_ms() > call.deadline:
        code = ToolErrorCode.DEADLINE if call.claims else ToolErrorCode.NO_EXECUTOR
        scope.writer.record(ToolFailedEvent(call.id, code.value))
    elif call.claim is not None and call.idempotent:
        scope.writer.record(ToolLapsed(call.id, call.claim.claim_id))
    else:
        scope.writer.record(ToolFailedEvent(call.id, ToolErrorCode.OUTCOME_UNKNOWN.value))
    await scope.stored()


async def _settled(scope: LaneScope, call: Call, name: str) -> Any:
    """The result of a call that is settled, also put into the transcript."""
    code = call.code or ToolErrorCode.ERROR.value
    if call.status == "failed":
        _answer_once(scope, call, error_content(code))
        raise ToolFailed(name, code)
    resolved = await read_resolved(scope.services.log, scope.subjects, call)
    _answer_once(scope, call, result_content(resolved))
    if resolved is None:
        raise ToolFailed(name, ToolErrorCode.OUTCOME_UNKNOWN.value)
    if resolved.error is not None:
        raise ToolFailed(name, ToolErrorCode.ERROR.value, resolved.error)
    return resolved.result


def _answer_once(scope: LaneScope, call: Call, content: str) -> None:
    if not call.answered:
        scope.writer.record(call_result(call.id, content))


async def _fail(scope: LaneScope, call_id: str, code: ToolErrorCode, message: str | None = None) -> None:
    """Ends a call that no client executes."""
    scope.writer.record(*call_failure(call_id, code, message))
    await scope.stored()


def _own_answer(call_id: str, result: Any) -> ToolCallResult:
    """Text as it is; anything else as JSON, marked so that it is read back as what it was."""
    if isinstance(result, str):
        return call_result(call_id, result)
    return replace(call_result(call_id, orjson.dumps(result).decode()), extra={"json": True})


async def reject(scope: LaneScope, call_id: str, name: str, args: Mapping[str, Any]) -> None:
    """A call that was not allowed is in the log all the same, and its result says so. Raises ToolFailed."""
    if call_id not in scope.state.calls:
        await _announce(scope, ToolRequested(call_id, name, args, "agent"))
        await _fail(scope, call_id, ToolErrorCode.REJECTED)
    raise ToolFailed(name, ToolErrorCode.REJECTED.value)


async def run_own(
    scope: LaneScope, call_id: str, name: str, args: Mapping[str, Any], function: ToolFunction, *, idempotent: bool
) -> Any:
    """Runs a tool of the agent's own, or gives the result that an earlier attempt of the run has had.

    A call that was begun and has no result is made again only if it is idempotent. Raises ToolFailed, LogError.
    """
    call = scope.state.calls.get(call_id)
    if call is None:
        call = await _announce(scope, ToolRequested(call_id, name, args, "agent", idempotent=idempotent))
    elif call.status != "open":
        return await _own_result(scope, call, name)
    elif not idempotent:
        await _fail(scope, call_id, ToolErrorCode.OUTCOME_UNKNOWN)
        raise ToolFailed(name, ToolErrorCode.OUTCOME_UNKNOWN.value)
    # Made of the run's id and of what is asked, it outlives a takeover, and a move to another log.
    key = f"{scope.subjects.key}/{call.id}"
    try:
        result = await function(Invocation(name, args, call_id, key))
        answer = _own_answer(call_id, result)
        check_size(answer)
    except Exception as error:
        # What the tool raised, or gave back, cannot be its result: the call ends with the kind of error.
        await _fail(scope, call_id, ToolErrorCode.ERROR, type(error).__name__)
        raise
    scope.writer.record(answer)
    await scope.stored()
    return result


async def _own_result(scope: LaneScope, call: Call, name: str) -> Any:
    if call.status == "failed":
        raise ToolFailed(name, call.code or ToolErrorCode.ERROR.value)
    entry = await scope.entry(call.settled_seq)
    found = next((e for e in entry.events if isinstance(e, ToolCallResult) and e.tool_call_id == call.id), None)
    if found is None:
        raise ToolFailed(name, ToolErrorCode.OUTCOME_UNKNOWN.value)
    return orjson.loads(found.content) if found.extra.get("json") else found.content
