"""An agent of the OpenAI Agents SDK as an agent of a session. Needs the extra `openai-agents`.

::

    agent = openai_agents.agent(Agent(name="desk", instructions="You are brief."), tools=[weather])
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from agent_worker.adapters import conversation
from agent_worker.adapters.capabilities import Capabilities
from agent_worker.adapters.conversation import DEFAULT_LIMITS, AssistantTurn, Limits, ToolTurn, UserTurn, tool_use
from agent_worker.adapters.declaring import AnyTool, Offered, ToolSource, as_tools
from agent_worker.adapters.http import failing_as_models_do
from agent_worker.adapters.loop import GO_ON
from agent_worker.adapters.openai_compatible import input_items
from agent_worker.adapters.toolbox import Toolbox, content_of, current, opened, running
from agent_worker.context import Agent, SessionContext
from agent_worker.errors import TooManyRounds
from agent_worker.using_models import Usage

CAPABILITIES = Capabilities(steering="inject", on_hold="waits", on_loss="goes_on")

Context = Callable[[SessionContext], Any]


def agent(
    made: Any,
    *,
    name: str | None = None,
    tools: Iterable[Offered] = (),
    context: Context | None = None,
    run_config: Any = None,
    limits: Limits = DEFAULT_LIMITS,
    turns: int = 32,
    rounds: int = 32,
) -> Agent:
    """An agent that runs an `agents.Agent`.

    `tools` (async functions, `Tool`, `ClientTool`, MCP servers) are given to it beside its own, and go through the log. Its
    own tools are shown; those with `needs_approval` ask the people of the session. `context` makes the context of a run; by
    default it is the SessionContext. Without a `run_config` nothing is sent to OpenAI's tracing. `turns` bounds the turns
    of the SDK's runs, `rounds` how often one is begun in a run: after approvals, and after inputs that came in mid-run.
    """
    own, sources = as_tools(tools)
    manner = _Manner(made, own, sources, context, run_config, limits, turns, rounds)
    return Agent(name or made.name, manner.run, accepts_steering=True)


@dataclass(frozen=True, slots=True)
class _Manner:
    made: Any
    tools: Sequence[AnyTool]
    sources: Sequence[ToolSource]
    context: Context | None
    run_config: Any
    limits: Limits
    turns: int
    rounds: int

    async def run(self, ctx: SessionContext) -> None:
        with failing_as_models_do():
            async with opened(ctx, self.tools, self.sources) as toolbox:
                with running(toolbox):
                    await _Running(self, ctx, toolbox).run()


@dataclass(slots=True)
class _Running:
    """One attempt of a run."""

    manner: _Manner
    ctx: SessionContext
    toolbox: Toolbox
    shown: dict[str, str] = field(default_factory=dict)
    """Calls of the agent's own tools: the SDK's id to the log's."""

    async def run(self) -> None:
        given: Any = await self._input()
        if given is None:
            return
        for _ in range(self.manner.rounds):
            result = await self._round(given)
            if result.interruptions:
                given = await self._decided(result)
                continue
            inputs = await conversation.steered(self.ctx, await self.ctx.take_steering(), self.manner.limits)
            if not inputs:
                await self._output(result.final_output)
                return
            given = [*result.to_input_list(), *(item for turn in inputs for item in input_items(turn))]
        raise TooManyRounds(f"the agent was run {self.manner.rounds} times in this run")

    async def _input(self) -> list[Any] | None:
        """The conversation, with what an earlier attempt has begun brought to its end; None if nothing is left to do."""
        past = await conversation.read(self.ctx, self.manner.limits)
        turns = past.turns
        done = await self.toolbox.left_open(past.unfinished) if self.ctx.attempt > 1 else []
        if past.answered and not done:
            return None
        if done:
            chars = self.manner.limits.result_chars
            turns.append(AssistantTurn(calls=tuple(use for use, _ in done)))
            turns.append(ToolTurn({use.id: (use.name, conversation.clip(text, chars)) for use, text in done}))
        elif isinstance(turns[-1], AssistantTurn):
            turns.append(UserTurn(GO_ON))
        return [item for turn in turns for item in input_items(turn)]

    async def _round(self, given: Any) -> Any:
        """One run of the SDK's. It has a task of its own, which is ended with this one."""
        from agents import Runner

        context = self.ctx if self.manner.context is None else self.manner.context(self.ctx)
        more = {"context": context} if isinstance(given, list) else {}
        result = Runner.run_streamed(
            self._agent(), given, max_turns=self.manner.turns, run_config=self._config(), **more
        )
        try:
            async for event in result.stream_events():
                await self._take(event, result)
        finally:
            result.cancel()
            await _ended(result.run_loop_task)
        self.ctx.end_message()
        return result

    def _agent(self) -> Any:
        from agents import Model

        made = self.manner.made
        tools = [*made.tools, *map(_function_tool, self.toolbox.tools.values())]
        model = _watched(made.model, self.ctx) if isinstance(made.model, Model) else made.model
        return made.clone(tools=tools, model=model)

    def _config(self) -> Any:
        from agents import RunConfig

        config = self.manner.run_config or RunConfig(
            tracing_disabled=True, tool_not_found_behavior="return_error_to_model"
        )
        return _with_watched_models(config, self.ctx)

    async def _take(self, event: Any, result: Any) -> None:
        match event.type:
            case "raw_response_event":
                await self._say(event.data)
            case "run_item_stream_event" if event.name == "tool_called":
                await self._show(event.item.raw_item)
            case "run_item_stream_event" if event.name == "tool_output":
                await self._show_result(event.item)
                if any(queued.mode == "inject" for queued in self.ctx.state.queue(self.ctx.lane)):
                    # What has come is given to the model with the next turn.
                    result.cancel(mode="after_turn")

    async def _say(self, told: Any) -> None:
        match told.type:
            case "response.output_text.delta" | "response.refusal.delta":
                await self.ctx.text(told.delta)
            case "response.reasoning_summary_text.delta" | "response.reasoning_text.delta":
                await self.ctx.reasoning(told.delta)

    async def _show(self, item: Any) -> None:
        name, id_ = _of(item, "name"), _of(item, "call_id")
        if name is not None and id_ is not None and name not in self.toolbox.tools and id_ not in self.shown:
            args = tool_use(id_, name, _of(item, "arguments") or "").args
            self.shown[id_] = await self.ctx.tool_call(name, args)

    async def _show_result(self, item: Any) -> None:
        logged = self.shown.pop(_of(item.raw_item, "call_id") or "", None)
        if logged is not None:
            await self.ctx.tool_result(logged, content_of(item.output))

    async def _decided(self, result: Any) -> Any:
        """The SDK's run, with what people have decided about the calls that it waits for."""
        state = result.to_state()
        for item in result.interruptions:
            name = str(item.name)
            args = tool_use("", name, _of(item.raw_item, "arguments") or "").args
            logged = self.shown.get(_of(item.raw_item, "call_id") or "")
            decision = await self.ctx.approve(
                f"Run {name}?", details={"name": name, "args": args}, key=f"tool:{name}", tool_call_id=logged
            )
            if decision.allowed:
                state.approve(item)
            else:
                state.reject(item)
        return state

    async def _output(self, output: Any) -> None:
        """An output that is no text was said by nobody yet."""
        if output is not None and not isinstance(output, str):
            from pydantic_core import to_json

            await self.ctx.text(to_json(output, fallback=str).decode())


async def _ended(task: asyncio.Task[Any] | None) -> None:
    """Returns when the SDK's own task has ended; how it did was told by its events."""
    if task is None:
        return
    await asyncio.wait({task})
    if not task.cancelled():
        task.exception()


def _of(item: Any, name: str) -> str | None:
    found = item.get(name) if isinstance(item, dict) else getattr(item, name, None)
    return found if isinstance(found, str) else None


def _function_tool(tool: AnyTool) -> Any:
    from agents import FunctionTool

    async def call(_: Any, arguments: str) -> str:
        return await current().having(tool).next(tool_use("", tool.name, arguments))

    schema = dict(tool.parameters)
    schema.setdefault("properties", {})
    return FunctionTool(tool.name, tool.description, schema, call, strict_json_schema=False)


def _watched(model: Any, ctx: SessionContext) -> Any:
    """A model that is counted, and from which nothing is taken while the run is held."""
    from agents import Model

    class Watched(Model):  # type: ignore[misc]
        async def get_response(self, *args: Any, **options: Any) -> Any:
            await ctx.released()
            async with ctx.model_call("openai-agents", _name_of(model)) as call:
                response = await model.get_response(*args, **options)
                call.usage = _usage(response.usage)
            return response

        async def stream_response(self, *args: Any, **options: Any) -> AsyncIterator[Any]:
            async with ctx.model_call("openai-agents", _name_of(model)) as call:
                async for event in model.stream_response(*args, **options):
                    await ctx.released()
                    if event.type == "response.completed" and event.response.usage is not None:
                        call.usage = _usage(event.response.usage)
                    yield event

    return Watched()


def _with_watched_models(config: Any, ctx: SessionContext) -> Any:
    """The same configuration; models that it makes of names are watched, too."""
    from dataclasses import replace

    from agents import Model, ModelProvider

    provider = config.model_provider

    class Provider(ModelProvider):  # type: ignore[misc]
        def get_model(self, model_name: str | None) -> Any:
            return _watched(provider.get_model(model_name), ctx)

    model = _watched(config.model, ctx) if isinstance(config.model, Model) else config.model
    return replace(config, model_provider=Provider(), model=model)


def _name_of(model: Any) -> str:
    return str(getattr(model, "model", "") or "")


def _usage(told: Any) -> Usage:
    cached = getattr(told.input_tokens_details, "cached_tokens", 0) or 0
    reasoning = getattr(told.output_tokens_details, "reasoning_tokens", 0) or 0
    return Usage(told.input_tokens, told.output_tokens, cached, reasoning)
