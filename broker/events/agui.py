"""The agent plane: events of AG-UI 1.0 (`ag-ui-protocol` 1.0.0), types and fields unchanged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from broker.events.extra import Extra, no_extra

AGUI_PROTOCOL_VERSION = "1.0"


@dataclass(frozen=True, slots=True)
class RunStarted:
    TYPE: ClassVar[str] = "RUN_STARTED"
    thread_id: str
    run_id: str
    protocol_version: str | None = None
    extra: Extra = field(default_factory=no_extra)


@dataclass(frozen=True, slots=True)
class RunFinished:
    """The run ended without failing. `outcome["type"]` is "success" (also when absent) or "cancelled"."""

    TYPE: ClassVar[str] = "RUN_FINISHED"
    thread_id: str
    run_id: str
    outcome: Mapping[str, Any] | None = None
    usage: Any = None
    extra: Extra = field(default_factory=no_extra)


@dataclass(frozen=True, slots=True)
class RunError:
    """The lane's run failed. AG-UI gives this event no run id: it ends the run of the entry's lane."""

    TYPE: ClassVar[str] = "RUN_ERROR"
    message: str
    code: str | None = None
    extra: Extra = field(default_factory=no_extra)


@dataclass(frozen=True, slots=True)
class StepStarted:
    TYPE: ClassVar[str] = "STEP_STARTED"
    step_name: str
    extra: Extra = field(default_factory=no_extra)


@dataclass(frozen=True, slots=True)
class StepFinished:
    TYPE: ClassVar[str] = "STEP_FINISHED"
    step_name: str
    extra: Extra = field(default_factory=no_extra)


@dataclass(frozen=True, slots=True)
class TextMessageStart:
    TYPE: ClassVar[str] = "TEXT_MESSAGE_START"
    message_id: str
    role: str = "assistant"
    extra: Extra = field(default_factory=no_extra)


@dataclass(frozen=True, slots=True)
class TextMessageContent:
    TYPE: ClassVar[str] = "TEXT_MESSAGE_CONTENT"
    message_id: str
    delta: str
    extra: Extra = field(default_factory=no_extra)


@dataclass(frozen=True, slots=True)
class TextMessageEnd:
    TYPE: ClassVar[str] = "TEXT_MESSAGE_END"
    message_id: str
    extra: Extra = field(default_factory=no_extra)


@dataclass(frozen=True, slots=True)
class ReasoningMessageStart:
    TYPE: ClassVar[str] = "REASONING_MESSAGE_START"
    message_id: str
    role: str = "reasoning"
    extra: Extra = field(default_factory=no_extra)


@dataclass(frozen=True, slots=True)
class ReasoningMessageContent:
    TYPE: ClassVar[str] = "REASONING_MESSAGE_CONTENT"
    message_id: str
    delta: str
    extra: Extra = field(default_factory=no_extra)


@dataclass(frozen=True, slots=True)
class ReasoningMessageEnd:
    TYPE: ClassVar[str] = "REASONING_MESSAGE_END"
    message_id: str
    extra: Extra = field(default_factory=no_extra)


@dataclass(frozen=True, slots=True)
class ToolCallStart:
    TYPE: ClassVar[str] = "TOOL_CALL_START"
    tool_call_id: str
    tool_call_name: str
    parent_message_id: str | None = None
    extra: Extra = field(default_factory=no_extra)


@dataclass(frozen=True, slots=True)
class ToolCallArgs:
    TYPE: ClassVar[str] = "TOOL_CALL_ARGS"
    tool_call_id: str
    delta: str
    extra: Extra = field(default_factory=no_extra)


@dataclass(frozen=True, slots=True)
class ToolCallEnd:
    TYPE: ClassVar[str] = "TOOL_CALL_END"
    tool_call_id: str
    extra: Extra = field(default_factory=no_extra)


@dataclass(frozen=True, slots=True)
class ToolCallResult:
    TYPE: ClassVar[str] = "TOOL_CALL_RESULT"
    message_id: str
    tool_call_id: str
    content: Any
    role: str | None = None
    extra: Extra = field(default_factory=no_extra)
