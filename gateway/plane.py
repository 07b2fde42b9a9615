"""Commands of the session plane, as clients send them: tools, approvals, hand-overs, sessions (PROTOCOL, section 7)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from broker.subjects import MAIN_LANE, check_claim_id, check_input_id, check_lane, check_session, check_worker_id
from gateway.fields import Fields, Writing

LEASE_MS_MIN, LEASE_MS_MAX, LEASE_MS_DEFAULT = 1_000, 120_000, 15_000
KEY_CHARS = 256
TITLE_CHARS = 200
LIST_MAX, LIST_DEFAULT = 200, 50


@dataclass(frozen=True, slots=True)
class ToolClaim(Writing):
    id: int
    session: str
    tool_call_id: str
    claim_id: str
    lease_ms: int


@dataclass(frozen=True, slots=True)
class ToolProgress(Writing):
    id: int
    session: str
    tool_call_id: str
    claim_id: str
    value: Any


@dataclass(frozen=True, slots=True)
class ToolResult(Writing):
    """`error` is None if there is a `result`, which may be null."""

    id: int
    session: str
    tool_call_id: str
    claim_id: str
    result: Any
    error: str | None


@dataclass(frozen=True, slots=True)
class ToolRelease(Writing):
    id: int
    session: str
    tool_call_id: str
    claim_id: str


@dataclass(frozen=True, slots=True)
class ApprovalRespond(Writing):
    """`payload` None: there is none."""

    id: int
    session: str
    approval_id: str
    option: str
    payload: Any


@dataclass(frozen=True, slots=True)
class ApprovalRevoke(Writing):
    id: int
    session: str
    key: str


@dataclass(frozen=True, slots=True)
class HandoffClaim(Writing):
    """`lane` None: the hand-over's, or the main lane if there is no `handoff_id`."""

    id: int
    session: str
    lane: str | None
    handoff_id: str | None


@dataclass(frozen=True, slots=True)
class HandoffReturn(Writing):
    id: int
    session: str
    lane: str
    input_id: str
    note: str


@dataclass(frozen=True, slots=True)
class SessionCreate(Writing):
    id: int
    session: str
    title: str | None
    metadata: Mapping[str, Any] | None
    config: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class SessionUpdate(Writing):
    id: int
    session: str
    title: str | None
    metadata: Mapping[str, Any] | None
    config: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class SessionClose(Writing):
    id: int
    session: str


@dataclass(frozen=True, slots=True)
class SessionReopen(Writing):
    id: int
    session: str


@dataclass(frozen=True, slots=True)
class SessionDelete(Writing):
    id: int
    session: str


@dataclass(frozen=True, slots=True)
class SessionFork(Writing):
    """`before` None: with all messages."""

    id: int
    session: str
    to: str
    before: int | None


@dataclass(frozen=True, slots=True)
class SessionList:
    id: int
    limit: int
    after: str | None


@dataclass(frozen=True, slots=True)
class HandoffList:
    id: int
    limit: int


PlaneCommand = (
    ToolClaim
    | ToolProgress
    | ToolResult
    | ToolRelease
    | ApprovalRespond
    | ApprovalRevoke
    | HandoffClaim
    | HandoffReturn
    | SessionCreate
    | SessionUpdate
    | SessionClose
    | SessionReopen
    | SessionDelete
    | SessionFork
    | SessionList
    | HandoffList
)


def parse_plane(op: str, id_: int, fields: Fields) -> PlaneCommand | None:
    """The command named `op`; None if there is none of that name. Raises BadFrame, InvalidName."""
    parse = _PARSERS.get(op)
    return None if parse is None else parse(id_, fields)


def _tool_claim(id_: int, fields: Fields) -> ToolClaim:
    lease_ms = fields.maybe_int("leaseMs", LEASE_MS_MIN, LEASE_MS_MAX) or LEASE_MS_DEFAULT
    return ToolClaim(id_, fields.session(), _call_id(fields), _claim_id(fields), lease_ms)


def _tool_progress(id_: int, fields: Fields) -> ToolProgress:
    if not fields.has("value"):
        raise fields.wrong("value", "must be there")
    return ToolProgress(id_, fields.session(), _call_id(fields), _claim_id(fields), fields.any("value"))


def _tool_result(id_: int, fields: Fields) -> ToolResult:
    error = fields.maybe_text("error")
    if (error is None) != fields.has("result"):
        raise fields.wrong("result", "or `error` must be there, and not both")
    return ToolResult(id_, fields.session(), _call_id(fields), _claim_id(fields), fields.any("result"), error)


def _tool_release(id_: int, fields: Fields) -> ToolRelease:
    return ToolRelease(id_, fields.session(), _call_id(fields), _claim_id(fields))


def _approval_respond(id_: int, fields: Fields) -> ApprovalRespond:
    approval_id = check_worker_id("approvalId", fields.text("approvalId"))
    return ApprovalRespond(id_, fields.session(), approval_id, fields.text("option"), fields.any("payload"))


def _approval_revoke(id_: int, fields: Fields) -> ApprovalRevoke:
    key = fields.text("key")
    if not 1 <= len(key) <= KEY_CHARS:
        raise fields.wrong("key", f"must be of 1-{KEY_CHARS} characters")
    return ApprovalRevoke(id_, fields.session(), key)


def _handoff_claim(id_: int, fields: Fields) -> HandoffClaim:
    lane = fields.maybe_text("lane")
    handoff_id = None if fields.any("handoffId") is None else check_worker_id("handoffId", fields.text("handoffId"))
    return HandoffClaim(id_, fields.session(), None if lane is None else check_lane(lane), handoff_id)


def _handoff_return(id_: int, fields: Fields) -> HandoffReturn:
    lane = MAIN_LANE if fields.any("lane") is None else check_lane(fields.text("lane"))
    input_id = check_input_id(fields.text("inputId"))
    return HandoffReturn(id_, fields.session(), lane, input_id, fields.maybe_text("note") or "")


def _session_create(id_: int, fields: Fields) -> SessionCreate:
    return SessionCreate(id_, fields.session(), *_about(fields))


def _session_update(id_: int, fields: Fields) -> SessionUpdate:
    title, metadata, config = _about(fields)
    if title is None and metadata is None and config is None:
        raise fields.wrong("title", "or `metadata` or `config` must be there")
    return SessionUpdate(id_, fields.session(), title, metadata, config)


def _session_fork(id_: int, fields: Fields) -> SessionFork:
    to = check_session(fields.text("to"))
    return SessionFork(id_, fields.session(), to, fields.maybe_int("before", 0, 2**53))


def _limit(fields: Fields) -> int:
    return fields.maybe_int("limit", 1, LIST_MAX) or LIST_DEFAULT


def _about(fields: Fields) -> tuple[str | None, dict[str, Any] | None, dict[str, Any] | None]:
    return fields.maybe_text("title"), fields.maybe_object("metadata"), fields.maybe_object("config")


_PARSERS: dict[str, Callable[[int, Fields], PlaneCommand]] = {
    "tool.claim": _tool_claim,
    "tool.progress": _tool_progress,
    "tool.result": _tool_result,
    "tool.release": _tool_release,
    "approval.respond": _approval_respond,
    "approval.revoke": _approval_revoke,
    "handoff.claim": _handoff_claim,
    "handoff.return": _handoff_return,
    "session.create": _session_create,
    "session.update": _session_update,
    "session.close": lambda id_, fields: SessionClose(id_, fields.session()),
    "session.reopen": lambda id_, fields: SessionReopen(id_, fields.session()),
    "session.delete": lambda id_, fields: SessionDelete(id_, fields.session()),
    "session.fork": _session_fork,
    "session.list": lambda id_, fields: SessionList(id_, _limit(fields), fields.maybe_text("after")),
    "handoff.list": lambda id_, fields: HandoffList(id_, _limit(fields)),
}
OPS = frozenset(_PARSERS)
"""The names of the commands."""


def _call_id(fields: Fields) -> str:
    return check_worker_id("toolCallId", fields.text("toolCallId"))


def _claim_id(fields: Fields) -> str:
    return check_claim_id(fields.text("claimId"))
