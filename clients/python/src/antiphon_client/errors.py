"""Every error of this package, in one tree.

::

    AntiphonError                     code, message, retryable, data
    ├── CommandRefused                the gateway answered a command with an `error`
    │   ├── NotAllowed                the token lacks the right named in `data["right"]`
    │   │   ├── RoleRequired          its user has none of the roles that this needs
    │   │   └── ModeRefused           the input's mode is not for this sender, or not for now
    │   ├── QueueFull                 as many inputs wait as may; try again with a new input id
    │   ├── SessionFull               the session holds its maximum of inputs
    │   ├── SessionClosed             the session takes no inputs
    │   ├── ScheduleRefused           the message cannot be sent later
    │   ├── ContentTooLarge           the content is over `limits.input_bytes`, or a file is too large
    │   ├── AttachmentRefused         a file may not be there: its type, its id, or no room
    │   ├── ValueRefused              a value is not as its schema, or the request, says
    │   ├── NotFound                  no such input, run, call, approval, hand-over, key or attachment
    │   ├── TooLate                   the input is applied, the run has ended, a deadline has passed
    │   ├── NotFirst                  somebody (or you) claimed, resolved, voted, created before
    │   └── NotYours                  the call, or the lane, is somebody else's
    ├── InputNotApplied               a stored input will never enter the transcript
    ├── RunFailed                     the run of an answer was cancelled, or failed
    ├── FrameTooLarge                 a frame is over the limit of one of the two sides
    ├── CommandQueueFull              too many commands wait for a reply (a limit of this client)
    ├── WebhookInvalid                a request is no webhook of ours (`antiphon_client.webhooks`)
    ├── CursorInvalid                 a cursor is not `<epoch>:<seq>` (also a ValueError)
    ├── ChainBroken                   the gateway keeps leaving out entries, again and again
    └── ConnectionClosed              there is no connection, and there will be none
        ├── Unauthorized              the token is refused, or expired with no provider to ask
        ├── ConnectFailed             no gateway could be reached
        └── ClientClosed              this client, or session, was closed by its owner

A dropped socket is not an error: the client reconnects and goes on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ._json import retry_after_s

_NO_DATA: Final[Mapping[str, object]] = {}

UNDELIVERABLE: Final = "undeliverable"
"""The code of the `ConnectionClosed` of a command with which connection after connection died."""


class AntiphonError(Exception):
    """Root of all errors raised by this package.

    `code` is a word of the protocol's error table where the gateway gave one, else one of this
    package. `retryable` says whether the same call may succeed later. `data` carries whatever
    else came with it (for example `retry_after_ms`, `right`, `field`).
    """

    def __init__(
        self,
        code: str,
        message: str = "",
        *,
        retryable: bool = False,
        data: Mapping[str, object] = _NO_DATA,
    ) -> None:
        super().__init__(f"{code}: {message}" if message else code)
        self.code = code
        self.message = message
        self.retryable = retryable
        self.data = data


class CommandRefused(AntiphonError):
    """The gateway refused a command; nothing was stored."""

    @property
    def retry_after_s(self) -> float | None:
        """The pause the gateway asks for, in seconds; None if it asks for none."""
        return retry_after_s(self.data)


class NotAllowed(CommandRefused):
    """The token does not give the right that `data["right"]` names."""


class RoleRequired(NotAllowed):
    """The user has none of the roles that the approval or the hand-over needs."""


class ModeRefused(NotAllowed):
    """The mode of the input cannot be had.

    `mode_not_allowed` (the config forbids it to your roles), `busy` (the mode is `reject`, and a
    run is active), `cannot_inject` (the agent takes no inputs in the middle of a run).
    """


class QueueFull(CommandRefused):
    """The session's queue of inputs is full. The input id is spent: send with a new one."""


class SessionFull(CommandRefused):
    """The session holds its maximum of inputs; go on in a new one."""


class SessionClosed(CommandRefused):
    """The session takes no inputs until it is opened again."""


class ScheduleRefused(CommandRefused):
    """The message cannot be sent later.

    `schedule_full` (as much is scheduled in the session as may be), `too_far_ahead` (of `limits.schedule_ahead_s`), or
    `not_supported` (the gateway is of a version that would send it now).
    """


class ContentTooLarge(CommandRefused):
    """The content has more bytes than `limits.input_bytes`."""


class AttachmentRefused(CommandRefused):
    """A file may not be in the session, or may not go from it.

    `media_type_refused` (its type is not allowed, or its content is not of its type),
    `attachment_exists` (its id is another's), `attachments_full` (the session has as many as it may),
    `attachment_in_use` (a message refers to it).
    """


class ValueRefused(CommandRefused):
    """A value is not as its schema says, or a schema or a config cannot be used."""

    @property
    def path(self) -> str | None:
        """The place in the value, or the field of a config, where something is wrong."""
        path = self.data.get("path", self.data.get("field"))
        return None if path is None else str(path)


class NotFound(CommandRefused):
    """There is no such input, run, call, approval, hand-over or key."""


class TooLate(CommandRefused):
    """The input is in the transcript already, the run has ended, or the deadline has passed."""


class NotFirst(CommandRefused):
    """Somebody, perhaps you, was first; `data` says who (`by`) and what came of it."""


class NotYours(CommandRefused):
    """You did not declare this tool, or the call, the claim or the lane is not yours."""


class InputNotApplied(AntiphonError):
    """The input is stored but will never enter the transcript; `code` says why.

    `cancelled` (taken back in time), `superseded` (the sender's next one took its place), the code
    of a refusal of `input.send`, or that of the owner's `input.failed`.
    """


class RunFailed(AntiphonError):
    """The run that was to answer did not end well; what it had said until then is in `text`.

    `kind` is that of the `Outcome`: `cancelled` or `error`; `code` is the outcome's code, else its
    reason, else its kind.
    """

    def __init__(self, kind: str, code: str, message: str, text: str) -> None:
        super().__init__(code, message)
        self.kind = kind
        self.text = text


class FrameTooLarge(AntiphonError):
    """A command is over the gateway's `limits.frame_bytes`, or a reply over this client's limit."""


class CommandQueueFull(AntiphonError):
    """As many commands wait for their reply as `Settings.pending_commands` allows."""


class CursorInvalid(AntiphonError, ValueError):
    """The text is not a cursor."""


class ChainBroken(AntiphonError):
    """Reading the same place again and again did not mend the chain of entries."""


class ConnectionClosed(AntiphonError):
    """The connection has ended and the close code says not to come back.

    `close_code` is the WebSocket close code, None where there was none.
    """

    def __init__(
        self,
        code: str,
        message: str = "",
        *,
        close_code: int | None = None,
        retryable: bool = False,
        data: Mapping[str, object] = _NO_DATA,
    ) -> None:
        super().__init__(code, message, retryable=retryable, data=data)
        self.close_code = close_code


class Unauthorized(ConnectionClosed):
    """The gateway does not accept the token, and there is no other to try."""


class ConnectFailed(ConnectionClosed):
    """No gateway could be reached within the time or attempts allowed."""


class ClientClosed(ConnectionClosed):
    """The client (or the session) was closed by the program that opened it."""


_BY_CODE: Final[Mapping[str, type[CommandRefused]]] = {
    "not_allowed": NotAllowed,
    "role_required": RoleRequired,
    "mode_not_allowed": ModeRefused,
    "busy": ModeRefused,
    "cannot_inject": ModeRefused,
    "queue_full": QueueFull,
    "session_full": SessionFull,
    "session_closed": SessionClosed,
    "schedule_full": ScheduleRefused,
    "too_far_ahead": ScheduleRefused,
    "content_too_large": ContentTooLarge,
    "media_type_refused": AttachmentRefused,
    "attachment_exists": AttachmentRefused,
    "attachments_full": AttachmentRefused,
    "attachment_in_use": AttachmentRefused,
    "attachment_not_found": NotFound,
    "arguments_invalid": ValueRefused,
    "result_invalid": ValueRefused,
    "payload_invalid": ValueRefused,
    "schema_invalid": ValueRefused,
    "config_invalid": ValueRefused,
    "bad_option": ValueRefused,
    "input_not_found": NotFound,
    "run_not_found": NotFound,
    "call_not_found": NotFound,
    "approval_not_found": NotFound,
    "handoff_not_found": NotFound,
    "key_not_found": NotFound,
    "input_already_applied": TooLate,
    "run_ended": TooLate,
    "deadline_passed": TooLate,
    "already_claimed": NotFirst,
    "already_resolved": NotFirst,
    "already_voted": NotFirst,
    "session_exists": NotFirst,
    "not_declared": NotYours,
    "not_targeted": NotYours,
    "not_claimed": NotYours,
    "not_owner": NotYours,
}

_ENVELOPE: Final = frozenset({"op", "id", "code", "message", "retryable"})


def refusal(frame: Mapping[str, object]) -> CommandRefused:
    """The typed error of an `error` frame; fields it lacks get harmless values."""
    code, message = frame.get("code"), frame.get("message")
    code = code if isinstance(code, str) else "internal"
    kind = _BY_CODE.get(code, CommandRefused)
    return kind(
        code,
        message if isinstance(message, str) else "",
        retryable=frame.get("retryable") is True,
        data={key: value for key, value in frame.items() if key not in _ENVELOPE},
    )
