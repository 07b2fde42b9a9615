"""What agents say: texts, reasoning, and the calls of tools as their model makes them (AG-UI)."""

from __future__ import annotations

from dataclasses import dataclass

from antiphon_client._json import JsonObject

from .base import Event


@dataclass(frozen=True, slots=True)
class TextStart(Event):
    """A text begins."""

    TYPE = "TEXT_MESSAGE_START"
    message_id: str
    role: str | None = None


@dataclass(frozen=True, slots=True)
class TextDelta(Event):
    """A piece of a text; its place is the entry's `off`."""

    TYPE = "TEXT_MESSAGE_CONTENT"
    message_id: str
    delta: str


@dataclass(frozen=True, slots=True)
class TextEnd(Event):
    """A text ends."""

    TYPE = "TEXT_MESSAGE_END"
    message_id: str


@dataclass(frozen=True, slots=True)
class ReasoningStart(Event):
    """A text of reasoning begins."""

    TYPE = "REASONING_MESSAGE_START"
    message_id: str
    role: str | None = None


@dataclass(frozen=True, slots=True)
class ReasoningDelta(Event):
    """A piece of it; its place is the entry's `off`."""

    TYPE = "REASONING_MESSAGE_CONTENT"
    message_id: str
    delta: str


@dataclass(frozen=True, slots=True)
class ReasoningEnd(Event):
    """A text of reasoning ends."""

    TYPE = "REASONING_MESSAGE_END"
    message_id: str


@dataclass(frozen=True, slots=True)
class ToolCallStart(Event):
    """A call of a tool begins."""

    TYPE = "TOOL_CALL_START"
    tool_call_id: str
    tool_call_name: str
    parent_message_id: str | None = None


@dataclass(frozen=True, slots=True)
class ToolCallArgs(Event):
    """A piece of its arguments; its place is the entry's `off`."""

    TYPE = "TOOL_CALL_ARGS"
    tool_call_id: str
    delta: str


@dataclass(frozen=True, slots=True)
class ToolCallEnd(Event):
    """The arguments are whole."""

    TYPE = "TOOL_CALL_END"
    tool_call_id: str


@dataclass(frozen=True, slots=True)
class ToolCallResult(Event):
    """What the agent is told of the call."""

    TYPE = "TOOL_CALL_RESULT"
    message_id: str
    tool_call_id: str
    content: object = None


@dataclass(frozen=True, slots=True)
class MessageSegment(Event):
    """A durable piece of a text; without `text` for a reader who has had the deltas."""

    TYPE = "message.segment"
    message_id: str
    offset: int
    length: int | None = None
    text: str | None = None
    final: bool = False
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class MessageAttached(Event):
    """A message of the lane has these attachments, beside those that it has."""

    TYPE = "message.attached"
    message_id: str
    attachments: tuple[JsonObject, ...]
