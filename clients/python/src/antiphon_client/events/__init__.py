"""The events of an entry as typed values (PROTOCOL, section 5): `Entry.typed`. Pure.

::

    match event:
        case events.TextDelta(delta=delta):
            print(delta, end="")
        case events.RunFinished(run_id=run_id):
            ...

Fields are those of the protocol, in Python's spelling. An event of a type that is not known here, or
that lacks a field it must have, is an `Unknown`, with all that came.
"""

from .base import Event, Unknown
from .owners import (
    ApprovalRequested,
    ApprovalResolved,
    HandoffExpired,
    HandoffRequested,
    InputApplied,
    InputFailed,
    InputUnscheduled,
    RunCacheable,
    RunDropped,
    RunError,
    RunFinished,
    RunRequested,
    RunStarted,
    RunTakenOver,
    SessionOwner,
    SessionState,
    StepFinished,
    StepRecorded,
    StepStarted,
    ToolFailed,
    ToolLapsed,
    ToolRequested,
)
from .participants import (
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
    ToolProgress,
    ToolReleased,
    ToolResolved,
)
from .reading import read
from .texts import (
    MessageSegment,
    ReasoningDelta,
    ReasoningEnd,
    ReasoningStart,
    TextDelta,
    TextEnd,
    TextStart,
    ToolCallArgs,
    ToolCallEnd,
    ToolCallResult,
    ToolCallStart,
)

__all__ = [
    "ApprovalRequested",
    "ApprovalResolved",
    "ApprovalResponded",
    "ApprovalRevoked",
    "Event",
    "HandoffExpired",
    "HandoffRequested",
    "HandoffReturned",
    "InputApplied",
    "InputCancelRequested",
    "InputFailed",
    "InputScheduled",
    "InputSent",
    "InputUnscheduled",
    "MessageSegment",
    "MessagesImported",
    "ReasoningDelta",
    "ReasoningEnd",
    "ReasoningStart",
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
    "SessionState",
    "SessionUpdated",
    "StepFinished",
    "StepRecorded",
    "StepStarted",
    "TextDelta",
    "TextEnd",
    "TextStart",
    "ToolCallArgs",
    "ToolCallEnd",
    "ToolCallResult",
    "ToolCallStart",
    "ToolClaimed",
    "ToolFailed",
    "ToolLapsed",
    "ToolProgress",
    "ToolReleased",
    "ToolRequested",
    "ToolResolved",
    "Unknown",
    "read",
]
