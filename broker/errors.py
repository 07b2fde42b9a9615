"""Errors of Antiphon, the codes that go over the wire, and the WebSocket close codes.

::

    AntiphonError
    ├── ConfigError            a setting is missing or wrong; the message says how to mend it
    ├── CodecError             bytes that are not an entry
    ├── InvalidName             a session, lane or id outside its form
    ├── Refused                a command is refused; carries an ErrorCode
    └── LogError               the log said no, or nothing
        ├── Unavailable        nothing is known to be stored; the same call may be made again
        │   ├── LogFull        the log's storage is full
        │   └── NotPermitted   NATS does not allow it to this process's user
        ├── WrongSequence      a compare-and-set lost (claiming), or the fence is stale (writing)
        ├── AttachmentGone     an attachment has been deleted while it was read or written
        ├── CursorError        a cursor that this log cannot serve
        └── TopologyError      streams are absent or not as they must be

Errors carry data in attributes; their text is one line and says what to do.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Any


class AntiphonError(Exception):
    """The root of every error that Antiphon raises on purpose."""


class ConfigError(AntiphonError):
    """A setting is missing or wrong. The message names it and the way out."""


class CodecError(AntiphonError):
    """Bytes that are not an entry of a session's log."""


class InvalidName(AntiphonError):
    """A session, lane or id outside its form. `kind` says which, `value` is what was given (shortened)."""

    def __init__(self, kind: str, value: str, form: str) -> None:
        self.kind = kind
        self.value = value[:40]
        super().__init__(f"{kind} must be {form}")


class ErrorCode(StrEnum):
    """Codes of the `error` frame (PROTOCOL, section 9)."""

    BAD_JSON = "bad_json"
    BAD_COMMAND = "bad_command"
    BAD_NAME = "bad_name"
    HELLO_REQUIRED = "hello_required"
    UNAUTHORIZED = "unauthorized"
    NOT_ALLOWED = "not_allowed"
    NOT_SUBSCRIBED = "not_subscribed"
    ALREADY_SUBSCRIBED = "already_subscribed"
    TOO_MANY_SUBSCRIPTIONS = "too_many_subscriptions"
    CURSOR_BAD = "cursor_bad"
    CURSOR_EPOCH = "cursor_epoch"
    CURSOR_FUTURE = "cursor_future"
    CONTENT_TOO_LARGE = "content_too_large"
    QUEUE_FULL = "queue_full"
    BUSY = "busy"
    CANNOT_INJECT = "cannot_inject"
    MODE_NOT_ALLOWED = "mode_not_allowed"
    SESSION_CLOSED = "session_closed"
    SESSION_FULL = "session_full"
    SCHEDULE_FULL = "schedule_full"
    TOO_FAR_AHEAD = "too_far_ahead"
    INPUT_NOT_FOUND = "input_not_found"
    INPUT_ALREADY_APPLIED = "input_already_applied"
    RUN_NOT_FOUND = "run_not_found"
    RUN_ENDED = "run_ended"
    CALL_NOT_FOUND = "call_not_found"
    APPROVAL_NOT_FOUND = "approval_not_found"
    HANDOFF_NOT_FOUND = "handoff_not_found"
    KEY_NOT_FOUND = "key_not_found"
    ATTACHMENT_NOT_FOUND = "attachment_not_found"
    ATTACHMENT_EXISTS = "attachment_exists"
    ATTACHMENT_IN_USE = "attachment_in_use"
    ATTACHMENTS_FULL = "attachments_full"
    MEDIA_TYPE_REFUSED = "media_type_refused"
    NOT_DECLARED = "not_declared"
    NOT_TARGETED = "not_targeted"
    NOT_CLAIMED = "not_claimed"
    ALREADY_CLAIMED = "already_claimed"
    ALREADY_RESOLVED = "already_resolved"
    ALREADY_VOTED = "already_voted"
    DEADLINE_PASSED = "deadline_passed"
    ROLE_REQUIRED = "role_required"
    BAD_OPTION = "bad_option"
    NOT_OWNER = "not_owner"
    ARGUMENTS_INVALID = "arguments_invalid"
    RESULT_INVALID = "result_invalid"
    PAYLOAD_INVALID = "payload_invalid"
    SCHEMA_INVALID = "schema_invalid"
    CONFIG_INVALID = "config_invalid"
    SESSION_EXISTS = "session_exists"
    RATE_LIMITED = "rate_limited"
    TOO_MANY_CONNECTIONS = "too_many_connections"
    TOO_MANY_SESSIONS = "too_many_sessions"
    STORAGE_FULL = "storage_full"
    UNAVAILABLE = "unavailable"
    INTERNAL = "internal"


RETRYABLE = frozenset(
    {
        ErrorCode.QUEUE_FULL,
        ErrorCode.RATE_LIMITED,
        ErrorCode.TOO_MANY_CONNECTIONS,
        ErrorCode.UNAVAILABLE,
        ErrorCode.INTERNAL,
    }
)


class RunErrorCode(StrEnum):
    """Codes of RUN_ERROR events (PROTOCOL, section 9)."""

    AGENT_ERROR = "agent_error"
    RUN_TIMEOUT = "run_timeout"
    WORKER_LOST = "worker_lost"
    CONTENT_TOO_LARGE = "content_too_large"
    MODEL_RATE_LIMITED = "model_rate_limited"
    MODEL_UNAVAILABLE = "model_unavailable"
    MODEL_REFUSED = "model_refused"


class ToolErrorCode(StrEnum):
    """Codes of `tool.failed` events (PROTOCOL, section 9)."""

    NO_EXECUTOR = "no_executor"
    DEADLINE = "deadline"
    OUTCOME_UNKNOWN = "outcome_unknown"
    NOT_RUN = "not_run"
    REJECTED = "rejected"
    ERROR = "error"


class CloseCode(IntEnum):
    """WebSocket close codes. The hundreds say what the client should do (PROTOCOL, section 8)."""

    INTERNAL = 4100
    UNAVAILABLE = 4101
    SLOW_READER = 4102
    DRAINING = 4200
    TOO_MANY_CONNECTIONS = 4201
    TOKEN_EXPIRED = 4300
    TOKEN_REVOKED = 4301
    BAD_FRAME = 4400
    UNAUTHORIZED = 4401
    NOT_ALLOWED = 4403
    UNSUPPORTED_PROTOCOL = 4406
    HELLO_TIMEOUT = 4408
    FLOOD = 4429


class Refused(AntiphonError):
    """A command is refused. `code` goes to its sender, with `data` (JSON values) beside it."""

    def __init__(self, code: ErrorCode, message: str, **data: Any) -> None:
        self.code = code
        self.message = message
        self.data = data
        super().__init__(f"{code}: {message}")

    @property
    def retryable(self) -> bool:
        return self.code in RETRYABLE


class LogError(AntiphonError):
    """The log refused an operation or did not answer."""


class Unavailable(LogError):
    """The log cannot be reached or did not answer in time: nothing is known of the outcome.

    Sending again with the same ids is safe.
    """


class LogFull(Unavailable):
    """The log's storage is full: nothing was stored. Free space, or raise the storage limit of the server."""


class NotPermitted(Unavailable):
    """NATS does not allow this process's user to publish on `subject`, or to subscribe to it: nothing was stored.

    `operation` is `publish` or `subscribe`. Trying again is of no use until an operator has given the user what its role
    needs; the servers take that in while we are connected.
    """

    def __init__(self, operation: str, subject: str, hint: str = "") -> None:
        self.operation = operation
        self.subject = subject
        super().__init__(f"NATS does not let this user {operation} {subject}: " + (hint or ROLES_HINT))


ROLES_HINT = "give it what its role needs (docs/SECURITY-NATS.md; `antiphon doctor --role` compares)"


class WrongSequence(LogError):
    """A compare-and-set lost: another writer claimed the lane. A fenced writer that gets this must stop at once."""


class AttachmentGone(LogError):
    """An attachment, or its session, has been deleted while it was read or written."""


class CursorError(LogError):
    """A cursor that this log cannot serve; `code` is CURSOR_BAD, CURSOR_EPOCH or CURSOR_FUTURE."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        self.code = code
        super().__init__(message)


class TopologyError(LogError):
    """Streams are absent or not as they must be; run `antiphon topology apply`."""
