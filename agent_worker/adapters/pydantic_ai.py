"""A pydantic-ai agent as an agent of a session. Needs the extra `pydantic-ai`.

::

    agent = pydantic_ai.agent(Agent("openai:gpt-5-mini", instructions="You are brief."))
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agent_worker.adapters import conversation
from agent_worker.adapters.capabilities import Capabilities
from agent_worker.adapters.conversation import DEFAULT_LIMITS, AssistantTurn, Limits, ToolTurn, Turn, UserTurn
from agent_worker.adapters.declaring import ClientTool
from agent_worker.adapters.http import failed_with
from agent_worker.adapters.loop import GO_ON
from agent_worker.adapters.toolbox import CallNumbers, error_text, id_of_number, key_of, together
from agent_worker.approvals import Permission
from agent_worker.context import Agent, SessionContext
from agent_worker.errors import ArgumentsInvalid, ModelFailed, ToolFailed
from agent_worker.tools import Invocation
from agent_worker.using_models import ModelCall, Usage
from broker.errors import RunErrorCode, ToolErrorCode

CAPABILITIES = Capabilities(steering="inject", on_hold="waits", on_loss="goes_on", tool_errors="end_the_run")

Deps = Callable[[SessionContext], Any]


def agent(
    made: Any,
    *,
    name: str | None = None,
    deps: Deps | None = None,
    client_tools: Iterable[ClientTool] = (),
    permissions: Mapping[str, Permission] | None = None,
    idempotent: Iterable[str] = (),
    limits: Limits = DEFAULT_LIMITS,
) -> Agent:
    """An agent that runs a `pydantic_ai.Agent`.

    Its tools go through the log; those with `requires_approval=True` ask the people of the session, as `permissions` says
    by their names. `client_tools` are executed by clients; so is whatever else it defers. Tools named in `idempotent` may
    be called again after a crash. `deps` makes the dependencies of a run; by default they are the SessionContext.
    """
    manner = _Manner(made, deps, tuple(client_tools), dict(permissions or {}), frozenset(idempotent), limits)
    return Agent(name or made.name or "assistant", manner.run, accepts_steering=True)


@dataclass(frozen=True, slots=True)
class _Manner:
    made: Any
    deps: Deps | None
    client_tools: Sequence[ClientTool]
    permissions: Mapping[str, Permission]
    idempotent: frozenset[str]
    limits: Limits

    async def run(self, ctx: SessionContext) -> None:
        from pydantic_ai import exceptions

        try:
            await _Running(self, ctx, CallNumbers(ctx)).run()
        except exceptions.ModelHTTPError as error:
            raise failed_with(error.status_code) from error
        except exceptions.ModelAPIError as error:
            text = "the model cannot be reached, or its answer broke off"
            raise ModelFailed(RunErrorCode.MODEL_UNAVAILABLE, text) from error


@dataclass(slots=True)
class _Running:
    """One attempt of a run."""

    manner: _Manner
    ctx: SessionContext
    numbers: CallNumbers
    _given: dict[str, int] = field(default_factory=dict)

    async def run(self) -> None:
        past = await conversation.read(self.ctx, self.manner.limits)
        turns = past.turns
        open_ = self.numbers.left_open(past.unfinished) if self.ctx.attempt > 1 else []
        if past.answered and not open_:
            return
        if open_:
            turns.append(AssistantTurn(calls=tuple(open_)))
        elif isinstance(turns[-1], AssistantTurn):
            turns.append(UserTurn(GO_ON))
        history = [message for turn in turns for message in _messages(turn)]
        deps = self.ctx if self.manner.deps is None else self.manner.deps(self.ctx)
        options = {"deps": deps, "toolsets": _toolsets(self.manner.client_tools), "capabilities": [_through(self)]}
        async with self.manner.made.iter(message_history=history, **options) as running:
            async for node in running:
                await self._node(running, node)
            result = running.result
        if result is not None and not isinstance(result.output, str):
            await self.ctx.text(_text_of(result.output))

    async def _node(self, running: Any, node: Any) -> None:
        made = self.manner.made
        if made.is_model_request_node(node):
            async with self.ctx.step("model"):
                await self._stream(running, node)
        elif made.is_call_tools_node(node):
            # What is enqueued now goes with the results of tools, or, after an answer, makes the agent answer again.
            self.ctx.end_message()
            for turn in await conversation.steered(self.ctx, await self.ctx.take_steering(), self.manner.limits):
                running.enqueue(*_content(turn))

    async def _stream(self, running: Any, node: Any) -> None:
        model = running.ctx.deps.model
        async with self.ctx.model_call(model.system, model.model_name) as call, node.stream(running.ctx) as stream:
            try:
                async for event in stream:
                    await self._say(event)
            finally:
                _count(call, stream)

    async def _say(self, event: Any) -> None:
        from pydantic_ai import messages

        match event:
            case messages.PartStartEvent(part=messages.TextPart(content=text)):
                await self.ctx.text(text)
            case messages.PartDeltaEvent(delta=messages.TextPartDelta(content_delta=text)):
                await self.ctx.text(text)
            case messages.PartStartEvent(part=messages.ThinkingPart(content=text)):
                await self.ctx.reasoning(text)
            case messages.PartDeltaEvent(delta=messages.ThinkingPartDelta(content_delta=text)):
                await self.ctx.reasoning(text or "")
            case _:
                pass

    # --- tools -----------------------------------------------------------------------------------------------------------

    async def own_tool(self, call: Any, args: Any, handler: Callable[[Any], Any]) -> Any:
        """A tool of the agent's, through the log."""
        from pydantic_core import to_jsonable_python

        known: list[Any] = []

        async def function(_: Invocation) -> Any:
            known.append(await handler(args))
            return to_jsonable_python(known[0], fallback=str)

        key = key_of(self.number_of(call.tool_call_id))
        idempotent = call.tool_name in self.manner.idempotent
        result = await self.ctx.tool(call.tool_name, call.args_as_dict(), function, idempotent=idempotent, key=key)
        return known[0] if known else result

    def number_of(self, call_id: str) -> int:
        """The number of a call of the model's: the same when permission is asked for and when it is made."""
        if call_id not in self._given:
            self._given[call_id] = self.numbers.next(call_id)
        return self._given[call_id]

    async def deferred(self, requests: Any) -> Any:
        """What people decide, and what clients give back."""
        permits = await together([self._permit(call) for call in requests.approvals])
        results = await together([self._client(call) for call in requests.calls])
        approvals = {call.tool_call_id: permit for call, permit in zip(requests.approvals, permits, strict=True)}
        calls = {call.tool_call_id: result for call, result in zip(requests.calls, results, strict=True)}
        return requests.build_results(approvals=approvals, calls=calls)

    async def _permit(self, call: Any) -> Any:
        from pydantic_ai import ToolApproved, ToolDenied

        name, args = call.tool_name, call.args_as_dict()
        id_ = id_of_number(self.ctx.run_id, self.number_of(call.tool_call_id))
        asked = self.manner.permissions.get(name, Permission())
        decision = await self.ctx.approve(**asked.question(name, args, id_))
        if decision.allowed:
            return ToolApproved(override_args=None if decision.payload is None else dict(decision.payload))
        await self.ctx.tool_result(
            await self.ctx.tool_call(name, args, tool_call_id=id_), error_text(ToolErrorCode.REJECTED)
        )
        return ToolDenied(error_text(ToolErrorCode.REJECTED))

    async def _client(self, call: Any) -> Any:
        from pydantic_ai import ToolFailed as Failed

        known = {tool.name: tool for tool in self.manner.client_tools}
        tool = known.get(call.tool_name, ClientTool(call.tool_name))
        key = key_of(self.number_of(call.tool_call_id))
        try:
            return await self.ctx.client_tool(
                tool.name,
                call.args_as_dict(),
                deadline_s=tool.deadline_s,
                idempotent=tool.idempotent,
                needs_permission=tool.needs_permission,
                key=key,
            )
        except ToolFailed as error:
            return Failed(error_text(error.code))
        except ArgumentsInvalid as error:
            return Failed(error_text("arguments_invalid", str(error)))


def _through(running: _Running) -> Any:
    """What sends an agent's tools through the log."""
    from pydantic_ai.capabilities import AbstractCapability

    class Through(AbstractCapability[Any]):  # type: ignore[misc]
        async def wrap_tool_execute(self, _ctx: Any, *, call: Any, args: Any, handler: Any, **_: Any) -> Any:
            return await running.own_tool(call, args, handler)

        async def handle_deferred_tool_calls(self, _ctx: Any, *, requests: Any) -> Any:
            return await running.deferred(requests)

    return Through()


def _toolsets(tools: Sequence[ClientTool]) -> list[Any]:
    from pydantic_ai import ExternalToolset
    from pydantic_ai.tools import ToolDefinition

    if not tools:
        return []
    definitions = [
        ToolDefinition(name=t.name, description=t.description, parameters_json_schema=dict(t.parameters)) for t in tools
    ]
    return [ExternalToolset(definitions)]


def _messages(turn: Turn) -> list[Any]:
    from pydantic_ai import messages

    match turn:
        case UserTurn():
            return [messages.ModelRequest(parts=[messages.UserPromptPart(_content(turn))])]
        case AssistantTurn():
            said = [messages.TextPart(turn.text)] if turn.text else []
            calls = [messages.ToolCallPart(use.name, dict(use.args), use.id) for use in turn.calls]
            return [messages.ModelResponse(parts=[*said, *calls])]
        case ToolTurn():
            results = [messages.ToolReturnPart(name, text, id_) for id_, (name, text) in turn.results.items()]
            return [messages.ModelRequest(parts=results)]


def _content(turn: UserTurn) -> list[Any]:
    from pydantic_ai import BinaryContent

    images = [BinaryContent(base64.b64decode(i.data), media_type=i.media_type) for i in turn.images]
    return [turn.text, *images]


def _count(call: ModelCall, stream: Any) -> None:
    used = stream.response.usage
    if used.input_tokens or used.output_tokens:
        reasoning = int((used.details or {}).get("reasoning_tokens", 0))
        call.usage = Usage(used.input_tokens, used.output_tokens, used.cache_read_tokens, reasoning)


def _text_of(output: Any) -> str:
    from pydantic_core import to_json

    return str(to_json(output, fallback=str).decode())
