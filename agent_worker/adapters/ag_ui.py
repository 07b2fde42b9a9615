"""Any AG-UI server as an agent of a session: an agent service that is there already, unchanged. Needs no package.

::

    agent = ag_ui.agent("https://agents.example/support")
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field
from typing import Any

import orjson

from agent_worker.adapters.agui_messages import Json, asked, gave, history
from agent_worker.adapters.capabilities import Capabilities
from agent_worker.adapters.conversation import DEFAULT_LIMITS, Limits, tool_use
from agent_worker.adapters.declaring import AnyTool, ClientTool
from agent_worker.adapters.http import (
    DEFAULT_RETRIES,
    DEFAULT_TIMEOUTS,
    Broken,
    Caller,
    HttpRequest,
    Retries,
    Timeouts,
    calling,
)
from agent_worker.adapters.loop import parsed
from agent_worker.adapters.toolbox import Toolbox, together
from agent_worker.context import Agent, SessionContext
from agent_worker.errors import ModelFailed, NoAnswer, TooManyRounds
from agent_worker.speaking import PASSED_ON
from agent_worker.using_models import Usage
from broker.errors import RunErrorCode
from broker.events import AGUI_PROTOCOL_VERSION

CAPABILITIES = Capabilities(steering="enqueue", on_hold="waits", on_loss="asks_again")

_COUNTS = {
    "inputTokens": "input_tokens",
    "outputTokens": "output_tokens",
    "cachedInputTokens": "cached_input_tokens",
    "reasoningTokens": "reasoning_tokens",
}


def agent(
    url: str,
    *,
    name: str = "assistant",
    client_tools: Iterable[ClientTool] = (),
    headers: Mapping[str, str] | None = None,
    forwarded_props: Mapping[str, Any] | None = None,
    context: Sequence[Mapping[str, str]] = (),
    limits: Limits = DEFAULT_LIMITS,
    retries: Retries = DEFAULT_RETRIES,
    timeouts: Timeouts = DEFAULT_TIMEOUTS,
    rounds: int = 32,
) -> Agent:
    """An agent that an AG-UI server is.

    `client_tools` are offered to it as those of its frontend, and executed by clients of the session. `headers` go with
    each request (a key, say), `forwarded_props` and `context` into each `RunAgentInput`. `rounds` is how often it may be
    asked in a run: again after each interrupt and each call of a client's tool.
    """
    service = _Service(
        url,
        {"Content-Type": "application/json", "Accept": "text/event-stream", **(headers or {})},
        tuple(client_tools),
        dict(forwarded_props or {}),
        tuple(context),
        limits,
        retries,
        timeouts,
        rounds,
    )
    return Agent(name, service.run)


@dataclass(frozen=True, slots=True)
class _Service:
    url: str
    headers: Mapping[str, str]
    tools: Sequence[ClientTool]
    forwarded_props: Mapping[str, Any]
    context: Sequence[Mapping[str, str]]
    limits: Limits
    retries: Retries
    timeouts: Timeouts
    rounds: int

    async def run(self, ctx: SessionContext) -> None:
        """Raises ModelFailed, TooManyRounds, and what a SessionContext raises."""
        told = ctx.model_retried
        async with calling(self.retries, self.timeouts, told, trace=ctx.trace.headers) as caller:
            await _Exchange(self, ctx, caller).run()


@dataclass(slots=True)
class _Exchange:
    """One attempt of a run: as many runs of the server as it takes."""

    service: _Service
    ctx: SessionContext
    caller: Caller
    messages: list[Json] = field(default_factory=list)
    resume: list[Json] = field(default_factory=list)
    state: Any = None
    asked: int = 0
    known: dict[str, _Call] = field(default_factory=dict)

    async def run(self) -> None:
        self.messages = await history(self.ctx, self.service.limits)
        while self.asked < self.service.rounds:
            told = await self._ask()
            self.messages += told.messages()
            self.known |= told.calls
            self.resume = list(await together([self._answer(interrupt, told) for interrupt in told.interrupts]))
            calls = [call for call in told.calls.values() if call.result is None and call.name in told.offered]
            await together([self._execute(call) for call in calls])
            if not calls and not self.resume:
                return
        raise TooManyRounds(f"the service was asked {self.service.rounds} times in this run, and still wants something")

    async def _ask(self) -> _Told:
        """One run of the server. It is asked again only as long as it has said nothing."""
        self.asked += 1
        while True:
            told = _Told(self.ctx, frozenset(tool.name for tool in self.service.tools), self.state, self.known)
            try:
                await self._stream(told)
            except Broken as broken:
                if told.begun:
                    raise broken.failed from broken
                await self.caller.wait(broken)
                continue
            self.state = told.state
            return told

    async def _stream(self, told: _Told) -> None:
        async with self.ctx.model_call("ag-ui", "") as call, AsyncExitStack() as steps:
            try:
                async with aclosing(self.caller.events(self._request())) as events:
                    async for event in events:
                        await told.take(parsed(event), steps)
                        if told.over:
                            break
            finally:
                if told.usage:
                    call.usage = _usage(told.usage)
                    call.provider = str(told.usage[0].get("provider") or "ag-ui")
                    call.model = str(told.usage[0].get("model") or "")
        if not told.over:
            text = "the service's answer ended before its end"
            raise Broken(ModelFailed(RunErrorCode.MODEL_UNAVAILABLE, text))

    def _request(self) -> HttpRequest:
        ctx = self.ctx
        thread = ctx.session if not ctx.tenant else f"{ctx.tenant}/{ctx.session}"
        body: Json = {
            "threadId": thread if ctx.lane == "main" else f"{thread}/{ctx.lane}",
            "runId": f"{ctx.run_id}-{ctx.attempt}-{self.asked}",
            "protocolVersion": AGUI_PROTOCOL_VERSION,
            "state": {} if self.state is None else self.state,
            "messages": self.messages,
            "tools": [
                {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}
                for tool in self.service.tools
            ],
            "context": [dict(each) for each in self.service.context],
            "forwardedProps": dict(self.service.forwarded_props),
        }
        if self.resume:
            body["resume"] = self.resume
        return HttpRequest(self.service.url, self.service.headers, body)

    async def _execute(self, call: _Call) -> None:
        """A tool of the frontend's: a client of the session executes it."""
        tools: list[AnyTool] = [tool for tool in self.service.tools if tool.name == call.name]
        use = tool_use(call.id, call.name, call.arguments)
        text = await Toolbox(self.ctx, tools).result(use)
        self.messages.append(gave(call.id, text))

    async def _answer(self, interrupt: Json, told: _Told) -> Json:
        """What the people of the session answer to an interrupt."""
        schema = interrupt.get("responseSchema") or {}
        message = str(interrupt.get("message") or interrupt.get("reason") or "Go on?")
        resolved: Json = {"interruptId": interrupt["id"], "status": "resolved"}
        cancelled: Json = {"interruptId": interrupt["id"], "status": "cancelled"}
        if not _is_approval(interrupt, schema):
            try:
                return resolved | {"payload": await self.ctx.ask_user(message, schema)}
            except NoAnswer:
                return cancelled
        call = told.calls.get(str(interrupt.get("toolCallId")))
        properties = schema.get("properties") or {}
        decision = await self.ctx.approve(
            message,
            details=None if call is None else {"name": call.name, "args": call.args},
            key=None if call is None else f"tool:{call.name}",
            response_schema=properties.get("editedArgs"),
            tool_call_id=None if call is None else call.logged,
        )
        if schema.get("type") == "boolean":
            return resolved | {"payload": decision.allowed}
        if not decision.allowed:
            return resolved | {"payload": {"approved": False}} if "approved" in properties else cancelled
        edited = {} if decision.payload is None else {"editedArgs": decision.payload}
        return resolved | {"payload": {"approved": True, **edited}}


def _is_approval(interrupt: Json, schema: Json) -> bool:
    """Whether yes or no is asked for; anything else is a question."""
    properties = schema.get("properties") or {}
    return (
        not schema
        or schema.get("type") == "boolean"
        or "approved" in properties
        or interrupt.get("reason") == "tool_call"
    )


# --- what the server says ------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Call:
    """A call that the server tells of. `logged` is its id in the log, if the server executes it itself."""

    id: str
    name: str
    parts: list[str] = field(default_factory=list)
    logged: str | None = None
    result: str | None = None

    @property
    def arguments(self) -> str:
        return "".join(self.parts) or "{}"

    @property
    def args(self) -> Mapping[str, Any]:
        return tool_use(self.id, self.name, self.arguments).args


@dataclass(slots=True)
class _Told:
    """One run of the server, as it comes: shown in the session, and kept for the server's next run."""

    ctx: SessionContext
    offered: frozenset[str]
    state: Any
    known: Mapping[str, _Call]
    """Calls of the server's runs before this one."""
    begun: bool = False
    over: bool = False
    texts: dict[str, list[str]] = field(default_factory=dict)
    calls: dict[str, _Call] = field(default_factory=dict)
    interrupts: list[Json] = field(default_factory=list)
    usage: list[Json] = field(default_factory=list)
    late: list[_Call] = field(default_factory=list)
    """Calls of runs before this one that have got their result in this one."""
    _last: dict[str, str] = field(default_factory=dict)
    _steps: dict[str, AsyncExitStack] = field(default_factory=dict)

    async def take(self, event: Json, steps: AsyncExitStack) -> None:
        """Raises ModelFailed for the server's own error."""
        kind = event.get("type")
        self.begun = self.begun or kind != "RUN_STARTED"
        match kind:
            case "TEXT_MESSAGE_START":
                self.ctx.end_message()
            case "TEXT_MESSAGE_CONTENT" | "TEXT_MESSAGE_CHUNK":
                await self._text(event)
            case "REASONING_MESSAGE_CONTENT" | "REASONING_MESSAGE_CHUNK" | "THINKING_TEXT_MESSAGE_CONTENT":
                await self.ctx.reasoning(str(event.get("delta") or ""))
            case "TOOL_CALL_START" | "TOOL_CALL_ARGS" | "TOOL_CALL_CHUNK":
                await self._call(event)
            case "TOOL_CALL_END":
                await self._show(event["toolCallId"])
            case "TOOL_CALL_RESULT":
                await self._result(event)
            case "STEP_STARTED" | "STEP_FINISHED":
                await self._step(str(event.get("stepName")), steps, begins=kind == "STEP_STARTED")
            case "RUN_FINISHED":
                await self._finish(event)
            case "RUN_ERROR":
                self.usage = list(event.get("usage") or ())
                raise ModelFailed(RunErrorCode.MODEL_UNAVAILABLE, "the agent's service reported an error")
            case str() if kind in PASSED_ON:
                self.state = event.get("snapshot") if kind == "STATE_SNAPSHOT" else self.state
                await self.ctx.pass_on(event)
            case _:
                pass

    async def _text(self, event: Json) -> None:
        id_ = self._current("message", event.get("messageId"))
        delta = str(event.get("delta") or "")
        self.texts.setdefault(id_, []).append(delta)
        await self.ctx.text(delta)

    def _current(self, kind: str, id_: Any) -> str:
        """Chunks may leave their id out: then it is that of the one before."""
        if isinstance(id_, str):
            self._last[kind] = id_
        return self._last.get(kind, f"{kind}-0")

    async def _call(self, event: Json) -> None:
        id_ = self._current("call", event.get("toolCallId"))
        if id_ not in self.calls:
            await self._show_open()
            self.calls[id_] = _Call(id_, str(event.get("toolCallName") or ""))
        if event.get("type") != "TOOL_CALL_START":
            self.calls[id_].parts.append(str(event.get("delta") or ""))

    async def _show_open(self) -> None:
        """Calls that came in chunks have no end of their own."""
        for id_ in list(self.calls):
            await self._show(id_)

    async def _show(self, id_: str) -> None:
        call = self.calls[id_]
        if call.logged is None and call.name not in self.offered:
            call.logged = await self.ctx.tool_call(call.name, call.args)

    async def _result(self, event: Json) -> None:
        await self._show_open()
        id_ = str(event.get("toolCallId"))
        call = self.calls.get(id_) or self.known.get(id_)
        content = event.get("content")
        text = content if isinstance(content, str) else orjson.dumps(content).decode()
        if call is not None:
            call.result = text
            self.late += [call] if id_ in self.known else []
            if call.logged is not None:
                await self.ctx.tool_result(call.logged, text)

    async def _step(self, name: str, steps: AsyncExitStack, *, begins: bool) -> None:
        if begins and name not in self._steps:
            self._steps[name] = await steps.enter_async_context(AsyncExitStack())
            await self._steps[name].enter_async_context(self.ctx.step(name))
        elif not begins and name in self._steps:
            await self._steps.pop(name).aclose()

    async def _finish(self, event: Json) -> None:
        await self._show_open()
        self.ctx.end_message()
        self.over = True
        self.usage = list(event.get("usage") or ())
        outcome = event.get("outcome")
        if isinstance(outcome, dict) and outcome.get("type") == "interrupt":
            self.interrupts = list(outcome.get("interrupts") or ())

    def messages(self) -> list[Json]:
        """What the server said, as it wants to be told it in its next run."""
        said = [gave(call.id, call.result or "") for call in self.late]
        said += [{"id": id_, "role": "assistant", "content": "".join(parts)} for id_, parts in self.texts.items()]
        for call in self.calls.values():
            said.append(asked(call.id, call.name, call.arguments))
            if call.result is not None:
                said.append(gave(call.id, call.result))
        return said


def _usage(told: Sequence[Json]) -> Usage:
    total = Usage()
    for entry in told:
        total += Usage(**{ours: int(entry.get(theirs) or 0) for theirs, ours in _COUNTS.items()})
    return total
