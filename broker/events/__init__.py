"""The event model: what an entry of a session's log says.

The agent plane is AG-UI 1.0 (`ag-ui-protocol` 1.0.0), types and fields unchanged; the session plane has dotted
names. Every event type that some part of Antiphon acts on is a frozen dataclass here; every other one, of AG-UI
or of a newer version, is an `OtherEvent` that survives a round trip as itself.

Field names are snake_case here and camelCase on the wire; `broker.codec` owns the mapping.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from broker.events.agui import (
    AGUI_PROTOCOL_VERSION,
    ReasoningMessageContent,
    ReasoningMessageEnd,
    ReasoningMessageStart,
    RunError,
    RunFinished,
    RunStarted,
    StepFinished,
    StepStarted,
    TextMessageContent,
    TextMessageEnd,
    TextMessageStart,
    ToolCallArgs,
    ToolCallEnd,
    ToolCallResult,
    ToolCallStart,
)
from broker.events.extra import Extra
from broker.events.owners import (
    ApprovalRequested,
    ApprovalResolved,
    EndReason,
    HandoffExpired,
    HandoffRequested,
    InputApplied,
    InputFailed,
    InputUnscheduled,
    MessageAttached,
    MessageSegment,
    RunCacheable,
    RunDropped,
    RunRequested,
    RunTakenOver,
    SessionOwner,
    SessionStateChanged,
    StepRecorded,
    ToolFailed,
    ToolLapsed,
    ToolRequested,
)
from broker.events.people import (
    ApprovalResponded,
    ApprovalRevoked,
    HandoffReturned,
    InputCancelRequested,
    InputScheduled,
    InputSent,
    MessagesImported,
    RunCancelRequested,
    SessionClosed,
    SessionCreated,
    SessionDeleted,
    SessionReopened,
    SessionUpdated,
    ToolClaimed,
    ToolReleased,
    ToolResolved,
)
from broker.tracing import TraceContext

__all__ = [
    "AGUI_PROTOCOL_VERSION",
    "ApprovalRequested",
    "ApprovalResolved",
    "ApprovalResponded",
    "ApprovalRevoked",
    "Delta",
    "EndReason",
    "Entry",
    "Event",
    "Extra",
    "HandoffExpired",
    "HandoffRequested",
    "HandoffReturned",
    "InputApplied",
    "InputCancelRequested",
    "InputFailed",
    "InputScheduled",
    "InputSent",
    "InputUnscheduled",
    "MessageAttached",
    "MessageSegment",
    "MessagesImported",
    "OtherEvent",
    "Participant",
    "ReasoningMessageContent",
    "ReasoningMessageEnd",
    "ReasoningMessageStart",
    "RunCacheable",
    "RunCancelRequested",
    "RunDropped",
    "RunError",
    "RunFinished",
    "RunRequested",
    "RunStarted",
    "RunTakenOver",
    "SessionClosed",
    "SessionCreated",
    "SessionDeleted",
    "SessionOwner",
    "SessionReopened",
    "SessionStateChanged",
    "SessionUpdated",
    "StepFinished",
    "StepRecorded",
    "StepStarted",
    "TextMessageContent",
    "TextMessageEnd",
    "TextMessageStart",
    "ToolCallArgs",
    "ToolCallEnd",
    "ToolCallResult",
    "ToolCallStart",
    "ToolClaimed",
    "ToolFailed",
    "ToolLapsed",
    "ToolReleased",
    "ToolRequested",
    "ToolResolved",
    "stream_end",
    "stream_id",
]


@dataclass(frozen=True, slots=True)
class Participant:
    """Who wrote an entry: a user, an agent, or the system itself. `roles` are those of a user's token; `version` is that of
    the agent, if its worker names one.
    """

    kind: str
    id: str
    name: str | None = None
    roles: tuple[str, ...] = ()
    version: str | None = None


@dataclass(frozen=True, slots=True)
class OtherEvent:
    """An event that nothing here acts on. `body` is the whole event as it came, `type` included."""

    type: str
    body: Mapping[str, Any]


Event = (
    InputSent
    | InputScheduled
    | InputCancelRequested
    | RunCancelRequested
    | ToolClaimed
    | ToolReleased
    | ToolResolved
    | ApprovalResponded
    | ApprovalRevoked
    | HandoffReturned
    | SessionCreated
    | SessionUpdated
    | SessionClosed
    | SessionReopened
    | SessionDeleted
    | MessagesImported
    | SessionOwner
    | InputApplied
    | InputFailed
    | InputUnscheduled
    | RunStarted
    | RunTakenOver
    | RunCacheable
    | RunFinished
    | RunError
    | RunRequested
    | RunDropped
    | ToolRequested
    | ToolFailed
    | ToolLapsed
    | ApprovalRequested
    | ApprovalResolved
    | HandoffRequested
    | HandoffExpired
    | SessionStateChanged
    | StepStarted
    | StepFinished
    | StepRecorded
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
    | MessageAttached
    | OtherEvent
)

Delta = TextMessageContent | ReasoningMessageContent | ToolCallArgs


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a session's log, as its writer made it; the log adds its sequence.

    `id` names the write: ``<fence>-<n>`` in a lane, the command's id for a participant's. `ts` is the writer's
    clock in ms since 1970. `off` is set in deltas alone: the offset of the text in its message, in code points.
    `trace`, of records, is the span in which it was written; `via` is the gateway that stored a participant's entry.
    """

    id: str
    ts: int
    events: tuple[Event, ...]
    lane: str | None = None
    run: str | None = None
    by: Participant | None = None
    off: int | None = None
    trace: TraceContext | None = None
    via: str | None = None


def stream_end(kind: str, id_: str) -> Event:
    """The event that ends a text of a kind: reasoning, tool_call (its arguments) or text."""
    match kind:
        case "reasoning":
            return ReasoningMessageEnd(id_)
        case "tool_call":
            return ToolCallEnd(id_)
        case _:
            return TextMessageEnd(id_)


def stream_id(event: Delta) -> str:
    """The id of the text that a delta adds to: of a message, or of a tool call's arguments."""
    return event.tool_call_id if isinstance(event, ToolCallArgs) else event.message_id
