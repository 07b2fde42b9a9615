"""What participants do: entries without a lane."""

from __future__ import annotations

from dataclasses import dataclass

from antiphon_client._json import JsonObject

from .base import Event


@dataclass(frozen=True, slots=True)
class InputSent(Event):
    """A message for the agent."""

    TYPE = "input.sent"
    input_id: str
    content: str
    mode: str | None = None
    attachments: tuple[JsonObject, ...] = ()
    at: int | None = None
    """The time for which it had been scheduled, if it had."""


@dataclass(frozen=True, slots=True)
class InputScheduled(Event):
    """A message for the agent that is sent later. An agent may schedule one, too."""

    TYPE = "input.scheduled"
    input_id: str
    content: str
    at: int
    mode: str | None = None
    attachments: tuple[JsonObject, ...] = ()


@dataclass(frozen=True, slots=True)
class InputCancelRequested(Event):
    """Its sender, or an admin, takes an input back."""

    TYPE = "input.cancel.requested"
    input_id: str


@dataclass(frozen=True, slots=True)
class RunCancelRequested(Event):
    """Somebody stops the run."""

    TYPE = "run.cancel.requested"
    run_id: str
    mode: str | None = None


@dataclass(frozen=True, slots=True)
class ToolClaimed(Event):
    """A client is about to execute the call, or needs longer."""

    TYPE = "tool.claimed"
    tool_call_id: str
    claim_id: str
    expires_at: int
    device: str | None = None


@dataclass(frozen=True, slots=True)
class ToolProgress(Event):
    """What there is to show of a call."""

    TYPE = "tool.progress"
    tool_call_id: str
    claim_id: str
    value: object = None


@dataclass(frozen=True, slots=True)
class ToolReleased(Event):
    """The claimant has not executed the call and will not."""

    TYPE = "tool.released"
    tool_call_id: str
    claim_id: str


@dataclass(frozen=True, slots=True)
class ToolResolved(Event):
    """What came of a call: a result, or an error."""

    TYPE = "tool.resolved"
    tool_call_id: str
    claim_id: str
    result: object = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class ApprovalResponded(Event):
    """Somebody decides, or answers."""

    TYPE = "approval.responded"
    approval_id: str
    option: str
    payload: object = None


@dataclass(frozen=True, slots=True)
class ApprovalRevoked(Event):
    """What was decided for always is asked again."""

    TYPE = "approval.revoked"
    key: str


@dataclass(frozen=True, slots=True)
class HandoffReturned(Event):
    """The human who has the lane gives it back."""

    TYPE = "handoff.returned"
    lane: str
    input_id: str | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class SessionCreated(Event):
    """The session is told what it is."""

    TYPE = "session.created"
    title: str | None = None
    metadata: JsonObject | None = None
    config: JsonObject | None = None


@dataclass(frozen=True, slots=True)
class SessionUpdated(Event):
    """The session is told what has changed about it."""

    TYPE = "session.updated"
    title: str | None = None
    metadata: JsonObject | None = None
    config: JsonObject | None = None


@dataclass(frozen=True, slots=True)
class SessionClosed(Event):
    """Inputs are refused from here on."""

    TYPE = "session.closed"


@dataclass(frozen=True, slots=True)
class SessionReopened(Event):
    """Inputs are taken again."""

    TYPE = "session.reopened"


@dataclass(frozen=True, slots=True)
class SessionDeleted(Event):
    """All that was before is gone."""

    TYPE = "session.deleted"


@dataclass(frozen=True, slots=True)
class MessagesImported(Event):
    """The session begins with messages of another."""

    TYPE = "messages.imported"
    messages: tuple[JsonObject, ...] = ()
    source: object = None
