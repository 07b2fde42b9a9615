"""Who writes in a lane, and what becomes of runs, calls, approvals and hand-overs."""

from __future__ import annotations

from dataclasses import dataclass

from antiphon_client._json import JsonObject

from .base import Event


@dataclass(frozen=True, slots=True)
class SessionOwner(Event):
    """Who writes in the lane from here on. `job` is the place in the workers' queue of the job that it has come by."""

    TYPE = "session.owner"
    lane: str
    kind: str
    id: str | None = None
    can: tuple[str, ...] = ()
    job: int | None = None


@dataclass(frozen=True, slots=True)
class InputApplied(Event):
    """The input entered the transcript, as this message."""

    TYPE = "input.applied"
    input_id: str
    run_id: str
    message_id: str


@dataclass(frozen=True, slots=True)
class InputUnscheduled(Event):
    """The agent takes back what was to be sent later."""

    TYPE = "input.unscheduled"
    input_id: str


@dataclass(frozen=True, slots=True)
class InputFailed(Event):
    """The owner could not apply the input."""

    TYPE = "input.failed"
    input_id: str
    code: str


@dataclass(frozen=True, slots=True)
class RunStarted(Event):
    """A run has begun."""

    TYPE = "RUN_STARTED"
    run_id: str
    thread_id: str | None = None


@dataclass(frozen=True, slots=True)
class RunFinished(Event):
    """A run has ended: `outcome` has a `type`, `success` or `cancelled`, and then a `reason`."""

    TYPE = "RUN_FINISHED"
    run_id: str
    thread_id: str | None = None
    outcome: JsonObject | None = None


@dataclass(frozen=True, slots=True)
class RunError(Event):
    """A run has failed."""

    TYPE = "RUN_ERROR"
    message: str
    code: str | None = None


@dataclass(frozen=True, slots=True)
class RunTakenOver(Event):
    """A new worker goes on with the run."""

    TYPE = "run.taken_over"
    run_id: str
    attempt: int
    policy: str | None = None


@dataclass(frozen=True, slots=True)
class RunCacheable(Event):
    """What the run answers may be given again, for so many seconds after its end."""

    TYPE = "run.cacheable"
    run_id: str
    max_age_s: int


@dataclass(frozen=True, slots=True)
class RunRequested(Event):
    """The run asks another agent."""

    TYPE = "run.requested"
    input_id: str
    parent_run_id: str
    child_lane: str
    agent: str
    content: str
    pool: str | None = None
    detached: bool = False


@dataclass(frozen=True, slots=True)
class RunDropped(Event):
    """The run waits no longer for one that it asked for."""

    TYPE = "run.dropped"
    input_id: str


@dataclass(frozen=True, slots=True)
class SessionState(Event):
    """The lane's run is held (`paused`), or goes on (`running`)."""

    TYPE = "session.state"
    state: str
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class StepStarted(Event):
    """A step begins."""

    TYPE = "STEP_STARTED"
    step_name: str


@dataclass(frozen=True, slots=True)
class StepFinished(Event):
    """A step ends."""

    TYPE = "STEP_FINISHED"
    step_name: str


@dataclass(frozen=True, slots=True)
class StepRecorded(Event):
    """A step that the run will not do again, should its worker die. What it came to is not told; `error` is how it failed."""

    TYPE = "step.recorded"
    step_id: str
    name: str
    error: str | None = None
    asked: str | None = None
    """Stands for the arguments that it was done with."""


@dataclass(frozen=True, slots=True)
class ToolRequested(Event):
    """The run waits for a tool."""

    TYPE = "tool.requested"
    tool_call_id: str
    name: str
    executor: str
    args: object = None
    idempotent: bool = False
    participant: str | None = None
    device: str | None = None
    any_after: int | None = None
    deadline: int | None = None
    result_schema: object = None


@dataclass(frozen=True, slots=True)
class ToolFailed(Event):
    """A call ends without a result."""

    TYPE = "tool.failed"
    tool_call_id: str
    code: str


@dataclass(frozen=True, slots=True)
class ToolLapsed(Event):
    """A claim has run out; the call is offered again."""

    TYPE = "tool.lapsed"
    tool_call_id: str
    claim_id: str


@dataclass(frozen=True, slots=True)
class ApprovalRequested(Event):
    """The run waits for a decision, or an answer."""

    TYPE = "approval.requested"
    approval_id: str
    kind: str
    message: str
    options: tuple[str, ...] = ()
    default: str | None = None
    expires_at: int | None = None
    tool_call_id: str | None = None
    key: str | None = None
    roles: tuple[str, ...] = ()
    quorum: int | None = None
    response_schema: object = None
    details: object = None


@dataclass(frozen=True, slots=True)
class ApprovalResolved(Event):
    """Nobody decided: `expired`, or `cancelled`."""

    TYPE = "approval.resolved"
    approval_id: str
    status: str


@dataclass(frozen=True, slots=True)
class HandoffRequested(Event):
    """The agent wants a human to take the lane."""

    TYPE = "handoff.requested"
    handoff_id: str
    to: str
    reason: str | None = None
    summary: str | None = None
    expires_at: int | None = None


@dataclass(frozen=True, slots=True)
class HandoffExpired(Event):
    """Nobody did; the agent goes on."""

    TYPE = "handoff.expired"
    handoff_id: str
