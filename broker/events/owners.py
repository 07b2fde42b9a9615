"""The session plane of a lane's owner: ownership, runs, and what runs wait for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from broker.events.extra import Extra, no_extra

EndReason = Literal["complete", "cancelled", "worker_lost", "error", "handed_over"]
"""How a text ended."""


@dataclass(frozen=True, slots=True)
class SessionOwner:
    """Who writes in the lane from this entry on; its sequence is the fence.

    `kind` is "agent", "user" (a human has taken the lane) or "none" (a release). `can` says what the agent takes:
    "inject" for inputs in the middle of a run. `job` is the place in the queue of the job by which a worker claims: of
    several jobs for one lane it is the one that counts.
    """

    TYPE: ClassVar[str] = "session.owner"
    lane: str
    kind: str
    id: str = ""
    can: Sequence[str] | None = None
    job: int | None = None
    extra: Extra = field(default_factory=no_extra)


@dataclass(frozen=True, slots=True)
class InputApplied:
    """The input entered the transcript as user message `message_id`, in the run."""

    TYPE: ClassVar[str] = "input.applied"
    input_id: str
    run_id: str
    message_id: str
    extra: Extra = field(default_factory=no_extra)


@dataclass(frozen=True, slots=True)
class InputFailed:
    """The owner could not apply the input."""

    TYPE: ClassVar[str] = "input.failed"
    input_id: str
    code: str
    extra: Extra = field(default_factory=no_extra)


@dataclass(frozen=True, slots=True)
class InputUnscheduled:
    """The lane's agent takes back an input that is scheduled, its own or somebody's."""

    TYPE: ClassVar[str] = "input.unscheduled"
    input_id: str
    extra: Extra = field(default_factory=no_extra)


@dataclass(frozen=True, slots=True)
class MessageAttached:
    """A message of the lane has these attachments, beside those that it has (references, as in `input.sent`)."""

    TYPE: ClassVar[str] = "message.attached"
    message_id: str
    attachments: Sequence[Mapping[str, Any]]
    extra: Extra = field(default_factory=no_extra)


@dataclass(frozen=True, slots=True)
class RunCacheable:
    """What the run answers may be given again, to whoever may read it, for `max_age_s` seconds after the run's end."""

    TYPE: ClassVar[str] = "run.cacheable"
    run_id: str
    max_age_s: int
    extra: Extra = field(default_factory=no_extra)


@dataclass(frozen=True, slots=True)
class RunTakenOver:
    """A new worker goes on with the run; `attempt` counts from 1."""

    TYPE: ClassVar[str] = "run.taken_over"
    run_id: str
    attempt: int
    policy: str
    extra: Extra = field(default_factory=no_extra)


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
    extra: Extra = field(default_factory=no_extra)


@dataclass(frozen=True, slots=True)
class RunDropped:
    """The lane's run no longer waits for the run that it asked for with `input_id`: that is cancelled."""

    TYPE: ClassVar[str] = "run.dropped"
    input_id: str
    extra: Extra = field(default_factory=no_extra)


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
    extra: Extra = field(default_factory=no_extra)


@dataclass(frozen=True, slots=True)
class ToolFailed:
    """The call ends without a result (`broker.errors.ToolErrorCode`)."""

    TYPE: ClassVar[str] = "tool.failed"
    tool_call_id: str
    code: str
    extra: Extra = field(default_factory=no_extra)


@dataclass(frozen=True, slots=True)
class ToolLapsed:
    """A claim has run out, of a call that may be executed again: it is offered once more."""

    TYPE: ClassVar[str] = "tool.lapsed"
    tool_call_id: str
    claim_id: str
    extra: Extra = field(default_factory=no_extra)


@dataclass(frozen=True, slots=True)
class StepRecorded:
    """A step of the lane's run has come to its end, and a new attempt of the run need not do it again.

    `result` is any JSON; clients are given the event without it. `error` is the type of what the step raised, if it did.
    `asked` is a digest of what it was called with.
    """

    TYPE: ClassVar[str] = "step.recorded"
    step_id: str
    name: str
    result: Any = None
    error: str | None = None
    asked: str | None = None
    extra: Extra = field(default_factory=no_extra)


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
    extra: Extra = field(default_factory=no_extra)


@dataclass(frozen=True, slots=True)
class ApprovalResolved:
    """The lane's owner ends an approval that nobody decided: `status` is "expired" or "cancelled"."""

    TYPE: ClassVar[str] = "approval.resolved"
    approval_id: str
    status: str
    extra: Extra = field(default_factory=no_extra)


@dataclass(frozen=True, slots=True)
class HandoffRequested:
    """The agent wants somebody with role `to` to take the lane, until `expires_at` (ms since 1970)."""

    TYPE: ClassVar[str] = "handoff.requested"
    handoff_id: str
    to: str
    reason: str
    summary: str = ""
    expires_at: int | None = None
    extra: Extra = field(default_factory=no_extra)


@dataclass(frozen=True, slots=True)
class HandoffExpired:
    """Nobody took the lane in time; the agent goes on."""

    TYPE: ClassVar[str] = "handoff.expired"
    handoff_id: str
    extra: Extra = field(default_factory=no_extra)


@dataclass(frozen=True, slots=True)
class SessionStateChanged:
    """The lane's run is held ("paused") or goes on ("running"); `reason` says why."""

    TYPE: ClassVar[str] = "session.state"
    state: str
    reason: str | None = None
    extra: Extra = field(default_factory=no_extra)


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
    extra: Extra = field(default_factory=no_extra)
