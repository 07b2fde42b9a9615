"""The event model: what an entry of a session's log says.

The agent plane is AG-UI 1.0 (`ag-ui-protocol` 1.0.0), types and fields unchanged; the session plane has dotted
names. Every event type that some part of Antiphon acts on is a frozen dataclass here; every other one, of AG-UI
or of a newer version, is an `OtherEvent` that survives a round trip as itself.

Field names are snake_case here and camelCase on the wire; `broker.codec` owns the mapping.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

AGUI_PROTOCOL_VERSION = "1.0"

EndReason = Literal["complete", "cancelled", "worker_lost", "error"]
Extra = Mapping[str, Any]


def _extra() -> Extra:
    return {}


@dataclass(frozen=True, slots=True)
class Participant:
    """Who wrote an entry: a user, an agent, or the system itself."""

    kind: str
    id: str
    name: str | None = None


# --- what participants send ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class InputSent:
    """A participant's message, for the agent; `input_id` is the client's and counts once in the session's life."""

    TYPE: ClassVar[str] = "input.sent"
    input_id: str
    content: str
    mode: str | None = None
    extra: Extra = field(default_factory=_extra)


@dataclass(frozen=True, slots=True)
class InputCancelRequested:
    """A queued input is taken back by its sender or an admin."""

    TYPE: ClassVar[str] = "input.cancel.requested"
    input_id: str
    extra: Extra = field(default_factory=_extra)


@dataclass(frozen=True, slots=True)
class RunCancelRequested:
    """Somebody stops the run, which may not have started yet."""

    TYPE: ClassVar[str] = "run.cancel.requested"
    run_id: str
    mode: str = "immediate"
    extra: Extra = field(default_factory=_extra)


# --- ownership -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SessionOwner:
    """Who writes in the lane from this entry on; its sequence is the fence. `kind` is "none" for a release."""

    TYPE: ClassVar[str] = "session.owner"
    lane: str
    kind: str
    id: str = ""
    extra: Extra = field(default_factory=_extra)


# --- what a lane's owner writes --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class InputApplied:
    """The input entered the transcript as user message `message_id`, in the run."""

    TYPE: ClassVar[str] = "input.applied"
    input_id: str
    run_id: str
    message_id: str
    extra: Extra = field(default_factory=_extra)


@dataclass(frozen=True, slots=True)
class InputFailed:
    """The owner could not apply the input."""

    TYPE: ClassVar[str] = "input.failed"
    input_id: str
    code: str
    extra: Extra = field(default_factory=_extra)


@dataclass(frozen=True, slots=True)
class RunStarted:
    TYPE: ClassVar[str] = "RUN_STARTED"
    thread_id: str
    run_id: str
    protocol_version: str | None = None
    extra: Extra = field(default_factory=_extra)


@dataclass(frozen=True, slots=True)
class RunTakenOver:
    """A new worker goes on with the run; `attempt` counts from 1."""

    TYPE: ClassVar[str] = "run.taken_over"
    run_id: str
    attempt: int
    policy: str
    extra: Extra = field(default_factory=_extra)


@dataclass(frozen=True, slots=True)
class RunFinished:
    """The run ended without failing. `outcome["type"]` is "success" (also when absent) or "cancelled"."""

    TYPE: ClassVar[str] = "RUN_FINISHED"
    thread_id: str
    run_id: str
    outcome: Mapping[str, Any] | None = None
    usage: Any = None
    extra: Extra = field(default_factory=_extra)


@dataclass(frozen=True, slots=True)
class RunError:
    """The lane's run failed. AG-UI gives this event no run id: it ends the run of the entry's lane."""

    TYPE: ClassVar[str] = "RUN_ERROR"
    message: str
    code: str | None = None
    extra: Extra = field(default_factory=_extra)


@dataclass(frozen=True, slots=True)
class StepStarted:
    TYPE: ClassVar[str] = "STEP_STARTED"
    step_name: str
    extra: Extra = field(default_factory=_extra)


@dataclass(frozen=True, slots=True)
class StepFinished:
    TYPE: ClassVar[str] = "STEP_FINISHED"
    step_name: str
    extra: Extra = field(default_factory=_extra)


@dataclass(frozen=True, slots=True)
class TextMessageStart:
    TYPE: ClassVar[str] = "TEXT_MESSAGE_START"
    message_id: str
    role: str = "assistant"
    extra: Extra = field(default_factory=_extra)


@dataclass(frozen=True, slots=True)
class TextMessageContent:
    TYPE: ClassVar[str] = "TEXT_MESSAGE_CONTENT"
    message_id: str
    delta: str
    extra: Extra = field(default_factory=_extra)


@dataclass(frozen=True, slots=True)
class TextMessageEnd:
    TYPE: ClassVar[str] = "TEXT_MESSAGE_END"
    message_id: str
    extra: Extra = field(default_factory=_extra)


@dataclass(frozen=True, slots=True)
class ReasoningMessageStart:
    TYPE: ClassVar[str] = "REASONING_MESSAGE_START"
    message_id: str
    role: str = "reasoning"
    extra: Extra = field(default_factory=_extra)


@dataclass(frozen=True, slots=True)
class ReasoningMessageContent:
    TYPE: ClassVar[str] = "REASONING_MESSAGE_CONTENT"
    message_id: str
    delta: str
    extra: Extra = field(default_factory=_extra)


@dataclass(frozen=True, slots=True)
class ReasoningMessageEnd:
    TYPE: ClassVar[str] = "REASONING_MESSAGE_END"
    message_id: str
    extra: Extra = field(default_factory=_extra)


@dataclass(frozen=True, slots=True)
class ToolCallStart:
    TYPE: ClassVar[str] = "TOOL_CALL_START"
    tool_call_id: str
    tool_call_name: str
    parent_message_id: str | None = None
    extra: Extra = field(default_factory=_extra)


@dataclass(frozen=True, slots=True)
class ToolCallArgs:
    TYPE: ClassVar[str] = "TOOL_CALL_ARGS"
    tool_call_id: str
    delta: str
    extra: Extra = field(default_factory=_extra)


@dataclass(frozen=True, slots=True)
class ToolCallEnd:
    TYPE: ClassVar[str] = "TOOL_CALL_END"
    tool_call_id: str
    extra: Extra = field(default_factory=_extra)


@dataclass(frozen=True, slots=True)
class ToolCallResult:
    TYPE: ClassVar[str] = "TOOL_CALL_RESULT"
    message_id: str
    tool_call_id: str
    content: Any
    role: str | None = None
    extra: Extra = field(default_factory=_extra)


@dataclass(frozen=True, slots=True)
class MessageSegment:
    """A durable piece of a streamed text: code points `[offset, offset + length)` of message `message_id`.

    For a tool call's arguments `message_id` is the tool call's id. `text` is absent for readers that have had
    the deltas. `reason` (with `final`) says how the text ended.
    """

    TYPE: ClassVar[str] = "message.segment"
    message_id: str
    offset: int
    length: int
    text: str | None = None
    final: bool = False
    reason: str | None = None
    extra: Extra = field(default_factory=_extra)


@dataclass(frozen=True, slots=True)
class OtherEvent:
    """An event that nothing here acts on. `body` is the whole event as it came, `type` included."""

    type: str
    body: Mapping[str, Any]


Event = (
    InputSent
    | InputCancelRequested
    | RunCancelRequested
    | SessionOwner
    | InputApplied
    | InputFailed
    | RunStarted
    | RunTakenOver
    | RunFinished
    | RunError
    | StepStarted
    | StepFinished
    | TextMessageStart
    | TextMessageContent
    | TextMessageEnd
    | ReasoningMessageStart
    | ReasoningMessageContent
    | ReasoningMessageEnd
    | ToolCallStart
    | ToolCallArgs
    | ToolCallEnd
    | ToolCallResult
    | MessageSegment
    | OtherEvent
)

Delta = TextMessageContent | ReasoningMessageContent | ToolCallArgs


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a session's log, as its writer made it; the log adds its sequence.

    `id` names the write: ``<fence>-<n>`` in a lane, the command's id for a participant's. `ts` is the writer's
    clock in ms since 1970. `off` is set in deltas alone: the offset of the text in its message, in code points.
    """

    id: str
    ts: int
    events: tuple[Event, ...]
    lane: str | None = None
    run: str | None = None
    by: Participant | None = None
    off: int | None = None


def stream_id(event: Delta) -> str:
    """The id of the text that a delta adds to: of a message, or of a tool call's arguments."""
    return event.tool_call_id if isinstance(event, ToolCallArgs) else event.message_id
