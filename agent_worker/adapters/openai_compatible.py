"""Any endpoint that speaks OpenAI's API: Chat Completions (most servers do) or Responses. Needs no package.

::

    agent = openai_compatible.agent("gpt-5-mini", system="You are brief.", tools=[weather])
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson

from agent_worker.adapters.capabilities import Capabilities
from agent_worker.adapters.conversation import (
    DEFAULT_LIMITS,
    AssistantTurn,
    Limits,
    ToolTurn,
    ToolUse,
    Turn,
    UserTurn,
    tool_use,
)
from agent_worker.adapters.declaring import AnyTool, Offered, as_tools
from agent_worker.adapters.http import DEFAULT_RETRIES, DEFAULT_TIMEOUTS, Broken, HttpRequest, Retries, Timeouts
from agent_worker.adapters.loop import Answer, ModelLoop, Question, Said, System, parsed
from agent_worker.adapters.sse import ServerEvent
from agent_worker.context import Agent
from agent_worker.errors import ModelFailed
from agent_worker.using_models import Usage
from broker.errors import RunErrorCode

CAPABILITIES = Capabilities(steering="inject", on_hold="ended", on_loss="goes_on")

DEFAULT_URL = "https://api.openai.com/v1"


def agent(
    model: str,
    *,
    base_url: str | None = None,
    api_key: str | None = None,
    api: Literal["chat", "responses"] = "chat",
    system: System = "",
    tools: Iterable[Offered] = (),
    name: str = "assistant",
    options: Mapping[str, Any] | None = None,
    limits: Limits = DEFAULT_LIMITS,
    retries: Retries = DEFAULT_RETRIES,
    timeouts: Timeouts = DEFAULT_TIMEOUTS,
    steps: int = 32,
    prefill: bool = False,
) -> Agent:
    """An agent that is a model with tools.

    `base_url` and `api_key` are by default `OPENAI_BASE_URL` and `OPENAI_API_KEY`; without a key none is sent. `options`
    go into each request as they are (`temperature`, `reasoning`, …). `steps` is how often the model may be asked in a run.
    `prefill`: the endpoint goes on with an assistant's message that stands last (llama.cpp does); OpenAI's does not.
    """
    own, sources = as_tools(tools)
    key = os.environ.get("OPENAI_API_KEY") if api_key is None else api_key
    url = (base_url or os.environ.get("OPENAI_BASE_URL") or DEFAULT_URL).rstrip("/")
    kind = ChatCompletions if api == "chat" else Responses
    provider = kind(model, url, key, dict(options or {}))
    loop = ModelLoop(provider, system, own, sources, limits, retries, timeouts, steps, prefill)
    return Agent(name, loop.run, accepts_steering=True)


@dataclass(frozen=True, slots=True)
class _Endpoint:
    model: str
    url: str
    key: str | None
    options: Mapping[str, Any]
    name: str = "openai"

    def _post(self, path: str, body: Mapping[str, Any]) -> HttpRequest:
        headers = {"Content-Type": "application/json", "Accept": "text/event-stream"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        return HttpRequest(f"{self.url}/{path}", headers, {**self.options, **body, "model": self.model, "stream": True})


# --- Chat Completions ----------------------------------------------------------------------------------------------------


class ChatCompletions(_Endpoint):
    """`POST /chat/completions`."""

    __slots__ = ()

    def request(self, question: Question) -> HttpRequest:
        messages = [{"role": "system", "content": question.system}] if question.system else []
        for turn in question.turns:
            messages += _chat_messages(turn)
        body: dict[str, Any] = {"messages": messages, "stream_options": {"include_usage": True}}
        if question.tools:
            body["tools"] = [{"type": "function", "function": _function(tool)} for tool in question.tools]
        return self._post("chat/completions", body)

    def answer(self) -> Answer:
        return ChatAnswer()


def _function(tool: AnyTool) -> dict[str, Any]:
    return {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}


def _chat_messages(turn: Turn) -> list[dict[str, Any]]:
    match turn:
        case UserTurn(images=()):
            return [{"role": "user", "content": turn.text}]
        case UserTurn():
            shown = [
                {"type": "image_url", "image_url": {"url": f"data:{i.media_type};base64,{i.data}"}} for i in turn.images
            ]
            return [{"role": "user", "content": [{"type": "text", "text": turn.text}, *shown]}]
        case AssistantTurn():
            message: dict[str, Any] = {"role": "assistant", "content": turn.text or None}
            if turn.calls:
                message["tool_calls"] = [
                    {"id": use.id, "type": "function", "function": {"name": use.name, "arguments": _arguments(use)}}
                    for use in turn.calls
                ]
            return [message]
        case ToolTurn():
            return [{"role": "tool", "tool_call_id": id_, "content": text} for id_, (_, text) in turn.results.items()]


def _arguments(use: ToolUse) -> str:
    return orjson.dumps(use.args).decode()


@dataclass(slots=True)
class _CallParts:
    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)


@dataclass(slots=True)
class ChatAnswer:
    """An answer in chunks, the last of which is `[DONE]`."""

    usage: Usage | None = None
    finish_reason: str | None = None
    over: bool = False
    _calls: dict[int, _CallParts] = field(default_factory=dict)

    @property
    def whole(self) -> bool:
        return self.over or self.finish_reason is not None

    def take(self, event: ServerEvent) -> Iterator[Said]:
        if event.data.strip() == "[DONE]":
            self.over = True
            return
        chunk = parsed(event)
        if chunk.get("error"):
            raise failure(chunk["error"])
        if isinstance(chunk.get("usage"), dict):
            self.usage = _usage(chunk["usage"], "prompt_tokens", "completion_tokens")
        for choice in chunk.get("choices") or ():
            delta = choice.get("delta") or {}
            thought = delta.get("reasoning_content") or delta.get("reasoning")
            if isinstance(thought, str):
                yield Said(thought, reasoning=True)
            text = delta.get("content") or delta.get("refusal")
            if isinstance(text, str):
                yield Said(text)
            for part in delta.get("tool_calls") or ():
                self._call(part)
            self.finish_reason = choice.get("finish_reason") or self.finish_reason
        if self.finish_reason == "content_filter":
            raise withheld()

    def _call(self, part: Mapping[str, Any]) -> None:
        parts = self._calls.setdefault(part.get("index") or 0, _CallParts())
        function = part.get("function") or {}
        parts.id = part.get("id") or parts.id
        parts.name = function.get("name") or parts.name
        parts.arguments.append(function.get("arguments") or "")

    def turn(self, text: str) -> AssistantTurn:
        calls = [
            tool_use(c.id or f"call_{index}", c.name, "".join(c.arguments)) for index, c in sorted(self._calls.items())
        ]
        return AssistantTurn(text, tuple(calls))


# --- Responses -----------------------------------------------------------------------------------------------------------


class Responses(_Endpoint):
    """`POST /responses`. Nothing is stored there: the conversation is in the session's log."""

    __slots__ = ()

    def request(self, question: Question) -> HttpRequest:
        items: list[Any] = []
        for turn in question.turns:
            items += input_items(turn)
        body: dict[str, Any] = {"input": items, "store": False}
        if question.system:
            body["instructions"] = question.system
        if question.tools:
            body["tools"] = [{"type": "function", "strict": False, **_function(tool)} for tool in question.tools]
        return self._post("responses", body)

    def answer(self) -> Answer:
        return ResponsesAnswer()


def input_items(turn: Turn) -> Sequence[Any]:
    """A turn as the Responses API takes it."""
    match turn:
        case UserTurn():
            shown = [{"type": "input_image", "image_url": f"data:{i.media_type};base64,{i.data}"} for i in turn.images]
            return [{"role": "user", "content": [{"type": "input_text", "text": turn.text}, *shown]}]
        case AssistantTurn(native=None):
            message = [{"role": "assistant", "content": turn.text}] if turn.text else []
            return [*message, *(_call_item(use) for use in turn.calls)]
        case AssistantTurn():
            return list(turn.native)
        case ToolTurn():
            results = turn.results.items()
            return [{"type": "function_call_output", "call_id": id_, "output": text} for id_, (_, text) in results]


def _call_item(use: ToolUse) -> dict[str, Any]:
    return {"type": "function_call", "call_id": use.id, "name": use.name, "arguments": _arguments(use)}


@dataclass(slots=True)
class ResponsesAnswer:
    """An answer in typed events, the last of which holds all of it."""

    usage: Usage | None = None
    finish_reason: str | None = None
    over: bool = False
    _output: list[Any] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        return self.over

    def take(self, event: ServerEvent) -> Iterator[Said]:
        if event.data.strip() == "[DONE]":
            return
        told = parsed(event)
        match told.get("type"):
            case "response.output_text.delta" | "response.refusal.delta":
                yield Said(str(told.get("delta") or ""))
            case "response.reasoning_summary_text.delta" | "response.reasoning_text.delta":
                yield Said(str(told.get("delta") or ""), reasoning=True)
            case "response.output_item.done":
                self._output.append(told.get("item") or {})
            case "response.completed" | "response.incomplete":
                self._end(told.get("response") or {})
            case "response.failed":
                raise failure((told.get("response") or {}).get("error") or {})
            case "error":
                raise failure(told.get("error") or told)

    def _end(self, response: Mapping[str, Any]) -> None:
        self.over = True
        if isinstance(response.get("usage"), dict):
            self.usage = _usage(response["usage"], "input_tokens", "output_tokens")
        reason = (response.get("incomplete_details") or {}).get("reason")
        self.finish_reason = reason or ("tool_calls" if self._calls() else "stop")
        if reason == "content_filter":
            raise withheld()

    def _calls(self) -> list[ToolUse]:
        calls = (item for item in self._output if item.get("type") == "function_call")
        return [tool_use(item["call_id"], item.get("name") or "", item.get("arguments") or "") for item in calls]

    def turn(self, text: str) -> AssistantTurn:
        # Reasoning that is not stored is understood again only in its encrypted form.
        kept = [i for i in self._output if i.get("type") != "reasoning" or i.get("encrypted_content")]
        return AssistantTurn(text, tuple(self._calls()), native=tuple(kept))


# --- both ----------------------------------------------------------------------------------------------------------------


def _usage(told: Mapping[str, Any], into: str, out: str) -> Usage:
    in_details, out_details = told.get(f"{into}_details") or {}, told.get(f"{out}_details") or {}
    return Usage(
        int(told.get(into) or 0),
        int(told.get(out) or 0),
        int(in_details.get("cached_tokens") or 0),
        int(out_details.get("reasoning_tokens") or 0),
    )


def failure(error: Any) -> Exception:
    """An error in the middle of an answer: worth asking again, if it is none of the request's."""
    told = error if isinstance(error, dict) else {}
    kinds = [kind for kind in (told.get("code"), told.get("type")) if isinstance(kind, str)]
    limited = "rate_limit_exceeded" in kinds
    code = RunErrorCode.MODEL_RATE_LIMITED if limited else RunErrorCode.MODEL_UNAVAILABLE
    failed = ModelFailed(code, "the model's service reported an error in its answer")
    if "invalid_request_error" in kinds or "invalid_prompt" in kinds:
        return ModelFailed(RunErrorCode.MODEL_REFUSED, "the model's service does not take the request")
    return Broken(failed)


def withheld() -> ModelFailed:
    """The provider does not give the answer out."""
    return ModelFailed(RunErrorCode.MODEL_REFUSED, "the model's service withholds the answer")
