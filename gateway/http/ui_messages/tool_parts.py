"""Calls of tools as an answer shows them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

Chunk = dict[str, Any]


@dataclass(slots=True)
class _Call:
    """A call without its output. `text`: the arguments so far."""

    name: str
    text: str = ""
    streaming: bool = False
    requested: bool = False
    waiting: bool = False
    """The viewer is the one to execute it, and has not yet."""
    client: bool = False
    said: str | None = None
    """A result of a client that is a text."""
    code: str | None = None


class ToolParts:
    """The calls of one answer, for a viewer who executes those that are for them."""

    def __init__(self, viewer: str) -> None:
        self._viewer = viewer
        self._calls: dict[str, _Call] = {}

    @property
    def open(self) -> tuple[str, ...]:
        """Calls that have no output yet."""
        return tuple(self._calls)

    @property
    def waiting(self) -> tuple[str, ...]:
        """Those that wait for the viewer."""
        return tuple(id_ for id_, call in self._calls.items() if call.waiting)

    @property
    def streaming(self) -> bool:
        """The arguments of a call are still coming."""
        return any(call.streaming for call in self._calls.values())

    def knows(self, id_: str) -> bool:
        return id_ in self._calls

    def begin(self, id_: str, name: str) -> list[Chunk]:
        self._calls[id_] = _Call(name, streaming=True)
        return [{"type": "tool-input-start", "toolCallId": id_, "toolName": name}]

    def add_input(self, id_: str, delta: str) -> list[Chunk]:
        call = self._calls.get(id_)
        if call is None or not call.streaming:
            return []
        call.text += delta
        return [{"type": "tool-input-delta", "toolCallId": id_, "inputTextDelta": delta}]

    def end_input(self, id_: str) -> list[Chunk]:
        call = self._calls.get(id_)
        if call is not None:
            call.streaming = False
        return []

    def request(self, event: Mapping[str, Any]) -> list[Chunk]:
        call = self._calls.setdefault(event["toolCallId"], _Call(event["name"]))
        call.client = event["executor"] == "client"
        call.waiting = call.client and event.get("participant") in (None, self._viewer)
        return self._available(event["toolCallId"], call, event.get("args") or {})

    def _available(self, id_: str, call: _Call, args: Any) -> list[Chunk]:
        call.requested, call.streaming = True, False
        # The SDK neither executes nor waits for what somebody else executes.
        elsewhere = {} if call.waiting else {"providerExecuted": True}
        about = {"toolCallId": id_, "toolName": call.name, "input": args}
        return [{"type": "tool-input-available", **about, **elsewhere}]

    def resolve(self, event: Mapping[str, Any]) -> None:
        """A client has sent what came of it."""
        call = self._calls.get(event["toolCallId"])
        if call is None:
            return
        call.waiting = False
        result, error = event.get("result"), event.get("error")
        call.said = result if isinstance(result, str) else call.said
        call.code = "error" if error is not None else call.code

    def fail(self, id_: str, code: str) -> None:
        if id_ in self._calls:
            self._calls[id_].waiting = False
            self._calls[id_].code = code

    def output(self, event: Mapping[str, Any]) -> list[Chunk]:
        """Of a TOOL_CALL_RESULT; nothing if the answer does not show the call."""
        id_, content = event["toolCallId"], event.get("content")
        call = self._calls.get(id_)
        if call is None:
            return []
        before = [] if call.requested else self._available(id_, call, parsed(call.text) if call.text else {})
        if call.code is not None:
            error = {"type": "tool-output-error", "toolCallId": id_, "errorText": _error_text(content, call.code)}
            return [*before, error]
        is_json = event.get("json") is True or (call.client and content != call.said)
        output = parsed(content) if is_json and isinstance(content, str) else content
        return [*before, {"type": "tool-output-available", "toolCallId": id_, "output": output}]

    def forget(self, id_: str) -> None:
        self._calls.pop(id_, None)


def _error_text(content: Any, code: str) -> str:
    told = parsed(content) if isinstance(content, str) else content
    message = told.get("message") if isinstance(told, dict) else None
    return message if isinstance(message, str) else code


def parsed(text: str) -> Any:
    """JSON as what it is, any other text as text."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
