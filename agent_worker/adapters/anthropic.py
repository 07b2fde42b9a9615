"""Anthropic's Messages API. Needs no package.

::

    agent = anthropic.agent("claude-…", system="You are brief.", tools=[weather])
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from agent_worker.adapters.capabilities import Capabilities
from agent_worker.adapters.conversation import DEFAULT_LIMITS, AssistantTurn, Limits, ToolTurn, Turn, UserTurn, tool_use
from agent_worker.adapters.declaring import Offered, as_tools
from agent_worker.adapters.http import DEFAULT_RETRIES, DEFAULT_TIMEOUTS, Broken, HttpRequest, Retries, Timeouts
from agent_worker.adapters.loop import Answer, ModelLoop, Question, Said, System, parsed
from agent_worker.adapters.sse import ServerEvent
from agent_worker.context import Agent
from agent_worker.errors import ModelFailed
from agent_worker.using_models import Usage
from broker.errors import RunErrorCode

CAPABILITIES = Capabilities(steering="inject", on_hold="ended", on_loss="goes_on")

DEFAULT_URL = "https://api.anthropic.com"
VERSION = "2023-06-01"


def agent(
    model: str,
    *,
    max_tokens: int = 8192,
    base_url: str | None = None,
    api_key: str | None = None,
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

    `base_url` and `api_key` are by default `ANTHROPIC_BASE_URL` and `ANTHROPIC_API_KEY`. `max_tokens` is what one answer
    may have, thinking included. `options` go into each request as they are (`thinking`, `temperature`, …). `steps` is how
    often the model may be asked in a run. `prefill`: the model goes on with an assistant's message that stands last.
    """
    own, sources = as_tools(tools)
    key = os.environ.get("ANTHROPIC_API_KEY") if api_key is None else api_key
    url = (base_url or os.environ.get("ANTHROPIC_BASE_URL") or DEFAULT_URL).rstrip("/")
    provider = Messages(model, url, key, max_tokens, dict(options or {}))
    loop = ModelLoop(provider, system, own, sources, limits, retries, timeouts, steps, prefill)
    return Agent(name, loop.run, accepts_steering=True)


@dataclass(frozen=True, slots=True)
class Messages:
    """`POST /v1/messages`."""

    model: str
    url: str
    key: str | None
    max_tokens: int
    options: Mapping[str, Any]
    name: str = "anthropic"

    def request(self, question: Question) -> HttpRequest:
        headers = {"Content-Type": "application/json", "Accept": "text/event-stream", "anthropic-version": VERSION}
        if self.key:
            headers["x-api-key"] = self.key
        body: dict[str, Any] = {"max_tokens": self.max_tokens, **self.options, "model": self.model, "stream": True}
        if not _may_think(question.turns):
            body.pop("thinking", None)
        body["messages"] = [_message(turn) for turn in question.turns]
        if question.system:
            body["system"] = question.system
        if question.tools:
            body["tools"] = [
                {"name": tool.name, "description": tool.description, "input_schema": dict(tool.parameters)}
                for tool in question.tools
            ]
        return HttpRequest(f"{self.url}/v1/messages", headers, body)

    def answer(self) -> Answer:
        return MessagesAnswer()


def _may_think(turns: Iterable[Turn]) -> bool:
    """In mid-turn a model that thinks must be given its own thoughts, which only this attempt has: a new one goes on
    without them, until the next word of a user.
    """
    may = True
    for turn in turns:
        match turn:
            case UserTurn():
                may = True
            case AssistantTurn(native=None, calls=calls) if calls:
                may = False
    return may


def _message(turn: Turn) -> dict[str, Any]:
    match turn:
        case UserTurn():
            shown: list[dict[str, Any]] = [
                {"type": "image", "source": {"type": "base64", "media_type": i.media_type, "data": i.data}}
                for i in turn.images
            ]
            return {"role": "user", "content": [*shown, {"type": "text", "text": turn.text or "(no text)"}]}
        case AssistantTurn(native=None):
            # A text that ends in white space is refused where it stands last.
            text = turn.text.rstrip() if turn.partial else turn.text
            said: list[dict[str, Any]] = [{"type": "text", "text": text}] if text else []
            calls = [
                {"type": "tool_use", "id": use.id, "name": use.name, "input": dict(use.args)} for use in turn.calls
            ]
            return {"role": "assistant", "content": [*said, *calls]}
        case AssistantTurn():
            return {"role": "assistant", "content": list(turn.native)}
        case ToolTurn():
            results = turn.results.items()
            return {
                "role": "user",
                "content": [{"type": "tool_result", "tool_use_id": id_, "content": text} for id_, (_, text) in results],
            }


@dataclass(slots=True)
class MessagesAnswer:
    """An answer in blocks, each of which is begun, added to and ended."""

    usage: Usage | None = None
    finish_reason: str | None = None
    over: bool = False
    _blocks: dict[int, dict[str, Any]] = field(default_factory=dict)
    _json: dict[int, list[str]] = field(default_factory=dict)
    _input: tuple[int, int] = (0, 0)

    @property
    def whole(self) -> bool:
        return self.over

    def take(self, event: ServerEvent) -> Iterator[Said]:
        told = parsed(event)
        match told.get("type"):
            case "message_start":
                self._begun((told.get("message") or {}).get("usage") or {})
            case "content_block_start":
                self._blocks[told["index"]] = dict(told.get("content_block") or {})
            case "content_block_delta":
                yield from self._more(told["index"], told.get("delta") or {})
            case "message_delta":
                self.finish_reason = (told.get("delta") or {}).get("stop_reason") or self.finish_reason
                self._counted(told.get("usage") or {})
                if self.finish_reason == "refusal":
                    raise ModelFailed(RunErrorCode.MODEL_REFUSED, "the model's service withholds the answer")
            case "message_stop":
                self.over = True
            case "error":
                raise _failure(told.get("error") or {})

    def _begun(self, usage: Mapping[str, Any]) -> None:
        cached = int(usage.get("cache_read_input_tokens") or 0)
        written = int(usage.get("cache_creation_input_tokens") or 0)
        self._input = (int(usage.get("input_tokens") or 0) + cached + written, cached)
        self._counted(usage)

    def _counted(self, usage: Mapping[str, Any]) -> None:
        self.usage = Usage(self._input[0], int(usage.get("output_tokens") or 0), self._input[1])

    def _more(self, index: int, delta: Mapping[str, Any]) -> Iterator[Said]:
        block = self._blocks[index]
        match delta.get("type"):
            case "text_delta":
                block["text"] = block.get("text", "") + delta["text"]
                yield Said(delta["text"])
            case "thinking_delta":
                block["thinking"] = block.get("thinking", "") + delta["thinking"]
                yield Said(delta["thinking"], reasoning=True)
            case "signature_delta":
                block["signature"] = block.get("signature", "") + delta["signature"]
            case "input_json_delta":
                self._json.setdefault(index, []).append(delta["partial_json"])

    def turn(self, text: str) -> AssistantTurn:
        calls = []
        native = []
        for index, block in sorted(self._blocks.items()):
            if block.get("type") == "tool_use":
                use = tool_use(block["id"], block["name"], "".join(self._json.get(index, [])))
                block["input"] = dict(use.args)
                calls.append(use)
            if block.get("type") != "text" or block.get("text"):
                native.append(block)
        return AssistantTurn(text, tuple(calls), native=tuple(native) or None)


def _failure(error: Mapping[str, Any]) -> Exception:
    """An error in the middle of an answer."""
    kind = error.get("type")
    if kind in ("invalid_request_error", "authentication_error", "permission_error", "not_found_error"):
        return ModelFailed(RunErrorCode.MODEL_REFUSED, "the model's service does not take the request")
    code = RunErrorCode.MODEL_RATE_LIMITED if kind == "rate_limit_error" else RunErrorCode.MODEL_UNAVAILABLE
    return Broken(ModelFailed(code, "the model's service reported an error in its answer"))
