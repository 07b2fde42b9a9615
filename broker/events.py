"""The event model: what an entry of a session's log says.

The agent plane is AG-UI 1.0 (`ag-ui-protocol` 1.0.0), types and fields unchanged; the session plane has dotted
names. Every event type that some part of Antiphon acts on is a frozen dataclass here; every other one, of AG-UI
or of a newer version, is an `OtherEvent` that survives a round trip as itself.

Field names are snake_case here and camelCase on the wire; `broker.codec` owns the mapping.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

AGUI_PROTOCOL_VERSION = "1.0"

EndReason = Literal["complete", "cancelled", "worker_lost", "error", "handed_over"]
Extra = Mapping[str, Any]


def _extra() -> Extra:
    return {}


@dataclass(frozen=True, slots=True)
class Participant:
    """Who wrote an entry: a user, an agent, or the system itself. `roles` are those of a user's token."""

    kind: str
    id: str
    name: str | None = None
    roles: tuple[str, ...] = ()


# --- what participants send ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class InputSent:
    """A participant's message, for the agent; `input_id` is the client's and counts once in the session's life.

    `mode` says what becomes of it while a run is active (`broker.state.OnBusy`); None: what the session says.
    """

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
    """Somebody stops the run, which may not have started yet. `mode` is "immediate" or "after_step"."""

    TYPE: ClassVar[str] = "run.cancel.requested"
    run_id: str
    mode: str = "immediate"
    extra: Extra = field(default_factory=_extra)


@dataclass(frozen=True, slots=True)
class ToolClaimed:
    """A client wants to execute the call, until `expires_at` (ms since 1970). Again with the same id: for longer."""

    TYPE: ClassVar[str] = "tool.claimed"
    tool_call_id: str
    claim_id: str
    expires_at: int
    device: str | None = None
    extra: Extra = field(default_factory=_extra)


@dataclass(frozen=True, slots=True)
class ToolReleased:
    """The claimant has not executed the call and will not; somebody else may."""

    TYPE: ClassVar[str] = "tool.released"
    tool_call_id: str
    claim_id: str
    extra: Extra = field(default_factory=_extra)


@dataclass(frozen=True, slots=True)
class ToolResolved:
    """What came of the call, from its claimant: `result`, or `error` if the tool failed."""

    TYPE: ClassVar[str] = "tool.resolved"
    tool_call_id: str
    claim_id: str
    result: Any = None
    error: str | None = None
    extra: Extra = field(default_factory=_extra)


@dataclass(frozen=True, slots=True)
class ApprovalResponded:
    """Somebody decides: `option` is one of the request's; `payload` are edited arguments, or a question's answer."""

    TYPE: ClassVar[str] = "approval.responded"
    approval_id: str
    option: str
    payload: Any = None
    extra: Extra = field(default_factory=_extra)


@dataclass(frozen=True, slots=True)
class ApprovalRevoked:
    """What was allowed or rejected for always under `key` is asked again from here on."""

    TYPE: ClassVar[str] = "approval.revoked"
    key: str
    extra: Extra = field(default_factory=_extra)


@dataclass(frozen=True, slots=True)
class HandoffReturned:
    """The human who owns the lane gives it back. With a `note`, the agent goes on with it as input `input_id`."""

    TYPE: ClassVar[str] = "handoff.returned"
    lane: str
    input_id: str
    note: str = ""
    extra: Extra = field(default_factory=_extra)


@dataclass(frozen=True, slots=True)
class SessionCreated:
    """The session's title, metadata and config, as its creator wants them. The first one in a session counts."""

    TYPE: ClassVar[str] = "session.created"
    title: str | None = None
    metadata: Mapping[str, Any] | None = None
    config: Mapping[str, Any] | None = None
    extra: Extra = field(default_factory=_extra)


@dataclass(frozen=True, slots=True)
class SessionUpdated:
    """A new title, metadata (replaced whole) or config (merged field by field); what is absent stays."""

    TYPE: ClassVar[str] = "session.updated"
    title: str | None = None
    metadata: Mapping[str, Any] | None = None
    config: Mapping[str, Any] | None = None
    extra: Extra = field(default_factory=_extra)


@dataclass(frozen=True, slots=True)
class SessionClosed:
    """No input is taken any more, until the session is opened again."""

    TYPE: ClassVar[str] = "session.closed"
    extra: Extra = field(default_factory=_extra)


@dataclass(frozen=True, slots=True)
class SessionReopened:
    """Inputs are taken again."""

    TYPE: ClassVar[str] = "session.reopened"
    extra: Extra = field(default_factory=_extra)


@dataclass(frozen=True, slots=True)
class SessionDeleted:
    """All that was before this entry is gone; the session begins anew."""

    TYPE: ClassVar[str] = "session.deleted"
    extra: Extra = field(default_factory=_extra)


@dataclass(frozen=True, slots=True)
class MessagesImported:
    """A session that begins with the messages of another: `messages` as in the replies to `history`, `source` is where.

    One that is `continued` adds its text to the message with its id. Counts only in a session where nobody has sent or claimed anything yet.
    """

    TYPE: ClassVar[str] = "messages.imported"
    messages: Sequence[Mapping[str, Any]]
    source: str | None = None
    extra: Extra = field(default_factory=_extra)


# --- ownership -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SessionOwner:
    """Who writes in the lane from this entry on; its sequence is the fence.

    `kind` is "agent", "user" (a human has taken the lane) or "none" (a release). `can` says what the agent takes:
    "inject" for inputs in the middle of a run.
    """

    TYPE: ClassVar[str] = "session.owner"
    lane: str
    kind: str
    id: str = ""
    can: Sequence[str] | None = None
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
class RunRequested:
    """The lane's run asks another agent: `content` is queued as input `input_id` of `child_lane`.

    Its run is a child of `parent_run_id` and is cancelled with it, unless it is `detached`. `pool` is whose workers
    take it, `agent` who is asked.
    """

    TYPE: ClassVar[str] = "run.requested"
    input_id: str
    parent_run_id: str
    child_lane: str
    agent: str
    pool: str
    content: str
    detached: bool = False
    extra: Extra = field(default_factory=_extra)


@dataclass(frozen=True, slots=True)
class RunDropped:
    """The lane's run no longer waits for the run that it asked for with `input_id`: that is cancelled."""

    TYPE: ClassVar[str] = "run.dropped"
    input_id: str
    extra: Extra = field(default_factory=_extra)


@dataclass(frozen=True, slots=True)
class ToolRequested:
    """The run waits for a tool. Times are ms since 1970.

    `executor` is "client" or "agent" (a tool of the agent's own). Of clients, `participant` (and `device`) may claim the
    call, and after `any_after` everybody who has the tool; with neither of them, everybody at once. A call that is not
    `idempotent` is offered once. `result_schema` is what the result is checked against.
    """

    TYPE: ClassVar[str] = "tool.requested"
    tool_call_id: str
    name: str
    args: Mapping[str, Any]
    executor: str
    idempotent: bool = False
    participant: str | None = None
    device: str | None = None
    any_after: int | None = None
    deadline: int | None = None
    result_schema: Mapping[str, Any] | None = None
    extra: Extra = field(default_factory=_extra)


@dataclass(frozen=True, slots=True)
class ToolFailed:
    """The call ends without a result (`broker.errors.ToolErrorCode`)."""

    TYPE: ClassVar[str] = "tool.failed"
    tool_call_id: str
    code: str
    extra: Extra = field(default_factory=_extra)


@dataclass(frozen=True, slots=True)
class ToolLapsed:
    """A claim has run out, of a call that may be executed again: it is offered once more."""

    TYPE: ClassVar[str] = "tool.lapsed"
    tool_call_id: str
    claim_id: str
    extra: Extra = field(default_factory=_extra)


@dataclass(frozen=True, slots=True)
class ApprovalRequested:
    """The run waits for a decision (`kind` "approval") or an answer ("question"), until `expires_at` (ms since 1970).

    `options` are those that may be chosen, `default` the one that counts at expiry. With `roles`, only who has one of
    them may decide; `quorum` of them must allow, and one suffices to reject. `key` names what "always" options are
    remembered for. `response_schema` is what the payload is checked against.
    """

    TYPE: ClassVar[str] = "approval.requested"
    approval_id: str
    kind: str
    message: str
    options: Sequence[str]
    default: str
    expires_at: int | None = None
    tool_call_id: str | None = None
    key: str | None = None
    roles: Sequence[str] | None = None
    quorum: int = 1
    response_schema: Mapping[str, Any] | None = None
    details: Mapping[str, Any] | None = None
    extra: Extra = field(default_factory=_extra)


@dataclass(frozen=True, slots=True)
class ApprovalResolved:
    """The lane's owner ends an approval that nobody decided: `status` is "expired" or "cancelled"."""

    TYPE: ClassVar[str] = "approval.resolved"
    approval_id: str
    status: str
    extra: Extra = field(default_factory=_extra)


@dataclass(frozen=True, slots=True)
class HandoffRequested:
    """The agent wants somebody with role `to` to take the lane, until `expires_at` (ms since 1970)."""

    TYPE: ClassVar[str] = "handoff.requested"
    handoff_id: str
    to: str
    reason: str
    summary: str = ""
    expires_at: int | None = None
    extra: Extra = field(default_factory=_extra)


@dataclass(frozen=True, slots=True)
class HandoffExpired:
    """Nobody took the lane in time; the agent goes on."""

    TYPE: ClassVar[str] = "handoff.expired"
    handoff_id: str
    extra: Extra = field(default_factory=_extra)


@dataclass(frozen=True, slots=True)
class SessionStateChanged:
    """The lane's run is held ("paused") or goes on ("running"); `reason` says why."""

    TYPE: ClassVar[str] = "session.state"
    state: str
    reason: str | None = None
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
    | RunStarted
    | RunTakenOver
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
