"""A LangGraph graph as an agent of a session. Needs the extra `langgraph`.

::

    agent = langgraph.agent(graph)  # a compiled graph whose state has `messages`
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from agent_worker.adapters import conversation
from agent_worker.adapters.capabilities import Capabilities
from agent_worker.adapters.conversation import DEFAULT_LIMITS, AssistantTurn, Limits, ToolTurn, ToolUse, Turn, UserTurn
from agent_worker.adapters.declaring import Offered, as_tools
from agent_worker.adapters.http import failing_as_models_do
from agent_worker.adapters.toolbox import Toolbox, content_of, current, running, together
from agent_worker.context import Agent, SessionContext
from agent_worker.errors import NoAnswer, TooManyRounds
from agent_worker.using_models import Usage

CAPABILITIES = Capabilities(steering="enqueue", on_hold="waits", on_loss="asks_again", tool_errors="end_the_run")

__all__ = ["CAPABILITIES", "agent", "answer", "session", "tools"]

OnInterrupt = Callable[[SessionContext, Any], Coroutine[Any, Any, Any]]


def session() -> SessionContext:
    """The session that the graph runs in: for nodes and tools. Raises LookupError outside of a run."""
    return current().ctx


def agent(
    graph: Any,
    *,
    name: str = "assistant",
    tools: Sequence[Any] = (),
    on_interrupt: OnInterrupt | None = None,
    limits: Limits = DEFAULT_LIMITS,
    resumes: int = 32,
) -> Agent:
    """An agent that runs a compiled graph whose state has `messages`.

    Without a checkpointer of its own the graph is given the conversation from the session's log, and checkpoints that live
    as long as the run. With one it is given what is new alone, in the thread of the session's name, and a run whose worker
    died goes on from its last checkpoint. `tools` are those that `tools()` has made: they are in the log already. What a
    node asks with `interrupt()` is answered by people, or by `on_interrupt`; `resumes` bounds how often in a run.
    """
    names = frozenset(tool.name for tool in tools)
    return Agent(name, _Manner(graph, names, on_interrupt or answer, limits, resumes).run)


def tools(*offered: Offered) -> list[Any]:
    """Tools for LangChain's models and `ToolNode` that go through the log: async functions, `Tool`, `ClientTool`."""
    from langchain_core.tools import StructuredTool

    own, sources = as_tools(offered)
    if sources:
        raise TypeError("tools of an MCP server are connected for each run; give them to a graph by its own means")

    def made(tool: Any) -> Any:
        async def call(**args: Any) -> str:
            return await current().having(tool).result(ToolUse("", tool.name, args))

        schema = dict(tool.parameters)
        schema.setdefault("properties", {})
        described = tool.description or tool.name
        return StructuredTool(name=tool.name, description=described, args_schema=schema, coroutine=call, func=None)

    return [made(tool) for tool in own]


async def answer(ctx: SessionContext, interrupt: Any) -> Any:
    """What people answer to an interrupt.

    - With a `response_schema` it is a question, and the answer is as the schema says (None if nobody answers).
    - Requests of LangChain's HumanInTheLoopMiddleware (`action_requests`) are approvals, one for each action.
    - Anything else is an approval: the graph goes on with True, with the edited payload, or with False. Of a dict,
      `message` is what people are asked, and the rest is shown beside it.
    """
    value = interrupt.value
    if isinstance(value, Mapping) and "action_requests" in value:
        decisions = await together([_decide(ctx, action) for action in value["action_requests"]])
        return {"decisions": decisions}
    details = dict(value) if isinstance(value, Mapping) else {}
    message = str(details.pop("message", None) or details.pop("question", None) or ("Go on?" if details else value))
    schema = _schema_of(getattr(interrupt, "response_schema", None))
    if schema is not None:
        try:
            return await ctx.ask_user(message, schema)
        except NoAnswer:
            return None
    decision = await ctx.approve(message, details=details or None, response_schema={})
    return (True if decision.payload is None else decision.payload) if decision.allowed else False


async def _decide(ctx: SessionContext, action: Mapping[str, Any]) -> dict[str, Any]:
    name, args = str(action["name"]), dict(action.get("args") or {})
    decision = await ctx.approve(
        str(action.get("description") or f"Run {name}?"),
        details={"name": name, "args": args},
        key=f"tool:{name}",
        response_schema={"type": "object"},
    )
    if not decision.allowed:
        return {"type": "reject", "message": "A person has rejected this call."}
    if decision.payload is None:
        return {"type": "approve"}
    return {"type": "edit", "edited_action": {"name": name, "args": dict(decision.payload)}}


def _schema_of(told: Any) -> Mapping[str, Any] | None:
    if told is None or isinstance(told, Mapping):
        return told
    made: Any = told.model_json_schema()
    return dict(made)


@dataclass(frozen=True, slots=True)
class _Manner:
    graph: Any
    in_log: frozenset[str]
    on_interrupt: OnInterrupt
    limits: Limits
    resumes: int

    async def run(self, ctx: SessionContext) -> None:
        with failing_as_models_do(), running(Toolbox(ctx, ())):
            await _Running(self, ctx).run()


@dataclass(slots=True)
class _Running:
    """One attempt of a run."""

    manner: _Manner
    ctx: SessionContext
    shown: dict[str, str] = field(default_factory=dict)
    """Calls that are in the log: the graph's id to the log's."""

    async def run(self) -> None:
        from langgraph.types import Command

        graph, config = self._with_checkpoints()
        given: Any = await self._input(graph, config)
        async with _Watch(self.ctx) as watch:
            config["callbacks"] = [watch.handler()]
            for _ in range(self.manner.resumes):
                interrupts = await self._stream(graph, given, config)
                if not interrupts:
                    return
                answers = await together([self.manner.on_interrupt(self.ctx, each) for each in interrupts])
                given = Command(resume={each.id: said for each, said in zip(interrupts, answers, strict=True)})
        raise TooManyRounds(f"the graph was resumed {self.manner.resumes} times in this run")

    def _with_checkpoints(self) -> tuple[Any, dict[str, Any]]:
        from langgraph.checkpoint.memory import InMemorySaver

        ctx, graph = self.ctx, self.manner.graph
        if graph.checkpointer:
            return graph, {"configurable": {"thread_id": f"{ctx.tenant}/{ctx.session}/{ctx.lane}"}}
        return graph.copy(update={"checkpointer": InMemorySaver()}), {"configurable": {"thread_id": ctx.run_id}}

    async def _input(self, graph: Any, config: Any) -> Any:
        """The conversation, or what is new of it; None for a run that goes on from a checkpoint."""
        if not self.manner.graph.checkpointer:
            # What an earlier attempt had said is left out: the graph begins anew.
            past = await conversation.read(self.ctx, self.manner.limits, own=False)
            return {"messages": [message for turn in past.turns for message in _messages(turn)]}
        if self.ctx.attempt > 1 and (await graph.aget_state(config)).next:
            return None
        turns = await conversation.steered(self.ctx, self.ctx.inputs, self.manner.limits)
        return {"messages": [message for turn in turns for message in _messages(turn)]}

    async def _stream(self, graph: Any, given: Any, config: Any) -> list[Any]:
        """Runs the graph until it ends or is interrupted; returns its interrupts."""
        interrupts: list[Any] = []
        async for mode, told in graph.astream(given, config, stream_mode=["messages", "updates", "custom"]):
            match mode:
                case "messages":
                    await self._say(told[0])
                case "updates":
                    interrupts += told.get("__interrupt__") or ()
                    for update in told.values():
                        await self._update(update)
                case "custom":
                    await self.ctx.custom("langgraph", told)
        self.ctx.end_message()
        return interrupts

    async def _say(self, message: Any) -> None:
        if message.type not in ("ai", "AIMessageChunk"):
            return
        await self.ctx.reasoning(message.additional_kwargs.get("reasoning_content") or "")
        blocks = [message.content] if isinstance(message.content, str) else message.content
        for block in blocks:
            match block:
                case str():
                    await self.ctx.text(block)
                case {"type": "text", "text": str(text)}:
                    await self.ctx.text(text)
                case {"type": "reasoning" | "thinking"}:
                    await self.ctx.reasoning(str(block.get("reasoning") or block.get("thinking") or ""))

    async def _update(self, update: Any) -> None:
        """Shows the calls of tools that a node has told of, and their results."""
        told = update.get("messages") if isinstance(update, Mapping) else None
        for message in told if isinstance(told, list) else [told] if told is not None else []:
            for call in getattr(message, "tool_calls", None) or ():
                if call["name"] not in self.manner.in_log and call["id"] not in self.shown:
                    self.shown[call["id"]] = await self.ctx.tool_call(call["name"], call["args"])
            answered = getattr(message, "tool_call_id", None)
            if answered in self.shown:
                await self.ctx.tool_result(self.shown.pop(answered), content_of(message.content))


@dataclass(slots=True)
class _Watch:
    """Counts what the graph's models cost, and holds them while the run is held. `async with` ends what was left."""

    ctx: SessionContext
    calls: dict[Any, tuple[AsyncExitStack, Any]] = field(default_factory=dict)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        for stack, _ in self.calls.values():
            await stack.__aexit__(exc_type, exc, tb)

    async def begun(self, run_id: Any, metadata: Mapping[str, Any]) -> None:
        provider, model = str(metadata.get("ls_provider") or "langchain"), str(metadata.get("ls_model_name") or "")
        stack = AsyncExitStack()
        self.calls[run_id] = stack, await stack.enter_async_context(self.ctx.model_call(provider, model))

    async def ended(self, run_id: Any, response: Any, error: BaseException | None) -> None:
        stack, call = self.calls.pop(run_id, (None, None))
        if stack is None or call is None:
            return
        message = getattr(response.generations[0][0], "message", None) if response and response.generations else None
        used = getattr(message, "usage_metadata", None)
        if used:
            cached = (used.get("input_token_details") or {}).get("cache_read") or 0
            reasoning = (used.get("output_token_details") or {}).get("reasoning") or 0
            call.usage = Usage(used["input_tokens"], used["output_tokens"], cached, reasoning)
        await stack.__aexit__(None if error is None else type(error), error, None)

    def handler(self) -> Any:
        from langchain_core.callbacks import AsyncCallbackHandler

        watch = self

        class Handler(AsyncCallbackHandler):  # type: ignore[misc]
            async def on_chat_model_start(self, *_: Any, run_id: Any, metadata: Any = None, **__: Any) -> None:
                await watch.begun(run_id, metadata or {})

            async def on_llm_new_token(self, *_: Any, **__: Any) -> None:
                # Awaited by the model's own loop: while the run is held, nothing is taken from the model.
                await watch.ctx.released()

            async def on_llm_end(self, response: Any, *, run_id: Any, **_: Any) -> None:
                await watch.ended(run_id, response, None)

            async def on_llm_error(self, error: BaseException, *, run_id: Any, **_: Any) -> None:
                await watch.ended(run_id, None, error)

        return Handler()


def _messages(turn: Turn) -> Iterable[Any]:
    from langchain_core import messages

    match turn:
        case UserTurn(images=()):
            return [messages.HumanMessage(turn.text)]
        case UserTurn():
            shown = [
                {"type": "image_url", "image_url": {"url": f"data:{i.media_type};base64,{i.data}"}} for i in turn.images
            ]
            return [messages.HumanMessage([{"type": "text", "text": turn.text}, *shown])]
        case AssistantTurn():
            calls = [{"id": use.id, "name": use.name, "args": dict(use.args)} for use in turn.calls]
            return [messages.AIMessage(turn.text, tool_calls=calls)]
        case ToolTurn():
            results = turn.results.items()
            return [messages.ToolMessage(text, tool_call_id=id_, name=name) for id_, (name, text) in results]
