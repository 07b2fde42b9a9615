"""What participants send. Each is stored as it was sent; whether it counts, the fold decides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from broker.events.extra import Extra, no_extra


@dataclass(frozen=True, slots=True)
class InputSent:
    """A participant's message, for the agent; `input_id` is the client's and counts once in the session's life.

    `mode` says what becomes of it while a run is active (`broker.session_config.ON_BUSY`); None: what the session says.
    `attachments` are references (`broker.attachments.Attachment.reference`). `at` is set where the input was scheduled
    before and is due now: the time that it was scheduled for.
    """

    TYPE: ClassVar[str] = "input.sent"
    input_id: str
    content: str
    mode: str | None = None
    attachments: Sequence[Mapping[str, Any]] | None = None
    at: int | None = None
    extra: Extra = field(default_factory=no_extra)


@dataclass(frozen=True, slots=True)
class InputScheduled:
    """An input that is to be sent at `at` (ms since 1970), by whoever wrote this: a participant, or a lane's owner.

    All else as in `InputSent`, which follows when it is due.
    """

    TYPE: ClassVar[str] = "input.scheduled"
    input_id: str
    content: str
    at: int
    mode: str | None = None
    attachments: Sequence[Mapping[str, Any]] | None = None
    extra: Extra = field(default_factory=no_extra)


@dataclass(frozen=True, slots=True)
class InputCancelRequested:
    """An input that waits, or is scheduled, is taken back by its sender or an admin."""

    TYPE: ClassVar[str] = "input.cancel.requested"
    input_id: str
    extra: Extra = field(default_factory=no_extra)


@dataclass(frozen=True, slots=True)
class RunCancelRequested:
    """Somebody stops the run, which may not have started yet. `mode` is "immediate" or "after_step"."""

    TYPE: ClassVar[str] = "run.cancel.requested"
    run_id: str
    mode: str = "immediate"
    extra: Extra = field(default_factory=no_extra)


@dataclass(frozen=True, slots=True)
class ToolClaimed:
    """A client wants to execute the call, until `expires_at` (ms since 1970). Again with the same id: for longer."""

    TYPE: ClassVar[str] = "tool.claimed"
    tool_call_id: str
    claim_id: str
    expires_at: int
    device: str | None = None
    extra: Extra = field(default_factory=no_extra)


@dataclass(frozen=True, slots=True)
class ToolReleased:
    """The claimant has not executed the call and will not; somebody else may."""

    TYPE: ClassVar[str] = "tool.released"
    tool_call_id: str
    claim_id: str
    extra: Extra = field(default_factory=no_extra)


@dataclass(frozen=True, slots=True)
class ToolResolved:
    """What came of the call, from its claimant: `result`, or `error` if the tool failed."""

    TYPE: ClassVar[str] = "tool.resolved"
    tool_call_id: str
    claim_id: str
    result: Any = None
    error: str | None = None
    extra: Extra = field(default_factory=no_extra)


@dataclass(frozen=True, slots=True)
class ApprovalResponded:
    """Somebody decides: `option` is one of the request's; `payload` are edited arguments, or a question's answer."""

    TYPE: ClassVar[str] = "approval.responded"
    approval_id: str
    option: str
    payload: Any = None
    extra: Extra = field(default_factory=no_extra)


@dataclass(frozen=True, slots=True)
class ApprovalRevoked:
    """What was allowed or rejected for always under `key` is asked again from here on."""

    TYPE: ClassVar[str] = "approval.revoked"
    key: str
    extra: Extra = field(default_factory=no_extra)


@dataclass(frozen=True, slots=True)
class HandoffReturned:
    """The human who owns the lane gives it back. With a `note`, the agent goes on with it as input `input_id`."""

    TYPE: ClassVar[str] = "handoff.returned"
    lane: str
    input_id: str
    note: str = ""
    extra: Extra = field(default_factory=no_extra)


@dataclass(frozen=True, slots=True)
class SessionCreated:
    """The session's title, metadata and config, as its creator wants them. The first one in a session counts."""

    TYPE: ClassVar[str] = "session.created"
    title: str | None = None
    metadata: Mapping[str, Any] | None = None
    config: Mapping[str, Any] | None = None
    extra: Extra = field(default_factory=no_extra)


@dataclass(frozen=True, slots=True)
class SessionUpdated:
    """A new title, metadata (replaced whole) or config (merged field by field); what is absent stays."""

    TYPE: ClassVar[str] = "session.updated"
    title: str | None = None
    metadata: Mapping[str, Any] | None = None
    config: Mapping[str, Any] | None = None
    extra: Extra = field(default_factory=no_extra)


@dataclass(frozen=True, slots=True)
class SessionClosed:
    """No input is taken any more, until the session is opened again."""

    TYPE: ClassVar[str] = "session.closed"
    extra: Extra = field(default_factory=no_extra)


@dataclass(frozen=True, slots=True)
class SessionReopened:
    """Inputs are taken again."""

    TYPE: ClassVar[str] = "session.reopened"
    extra: Extra = field(default_factory=no_extra)


@dataclass(frozen=True, slots=True)
class SessionDeleted:
    """All that was before this entry is gone; the session begins anew."""

    TYPE: ClassVar[str] = "session.deleted"
    extra: Extra = field(default_factory=no_extra)


@dataclass(frozen=True, slots=True)
class MessagesImported:
    """A session that begins with the messages of another: `messages` as in the replies to `history`, `source` is where.

    One that is `continued` adds its text to the message with its id. Counts only in a session where nobody has sent or claimed anything yet.
    """

    TYPE: ClassVar[str] = "messages.imported"
    messages: Sequence[Mapping[str, Any]]
    source: str | None = None
    extra: Extra = field(default_factory=no_extra)
