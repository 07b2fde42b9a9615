"""Decisions and answers that a run waits for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent_worker.errors import NoAnswer, TooManyCalls
from agent_worker.scope import LATE_MS, LaneScope
from broker.events import ApprovalRequested, ApprovalResolved, ApprovalResponded, Participant
from broker.schema import Schema
from broker.state import Approval, SessionState

ALLOWING = ("allow_once", "allow_always")


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided: `option`, by whom, with what `payload` (edited arguments), and how it came about.

    `status` is resolved, expired (the default counts), cancelled (nothing was decided: not allowed), or remembered (it was
    decided for always before).
    """

    option: str | None
    status: str
    by: tuple[Participant, ...] = ()
    payload: Any = None

    @property
    def allowed(self) -> bool:
        return self.option in ALLOWING


@dataclass(frozen=True, slots=True)
class Permission:
    """How people are asked whether a tool may be called: see `SessionContext.approve`.

    Without a `message` it says "Run NAME?". `schema` is what edited arguments must be; None: an object.
    """

    message: str = ""
    roles: Sequence[str] = ()
    quorum: int = 1
    expires_s: float | None = None
    schema: Mapping[str, Any] | None = None

    def question(self, name: str, args: Mapping[str, Any], call_id: str) -> dict[str, Any]:
        """What `SessionContext.approve` is given to ask for one call. Another attempt of the run asks the same."""
        return {
            "message": self.message or f"Run {name}?",
            "details": {"name": name, "args": args},
            "expires_s": self.expires_s,
            "roles": self.roles,
            "quorum": self.quorum,
            "key": f"tool:{name}",
            "response_schema": {"type": "object"} if self.schema is None else self.schema,
            "tool_call_id": call_id,
            "call_key": f"permit:{call_id}",
        }


def remembered(scope: LaneScope, key: str | None) -> Decision | None:
    """What was decided for always."""
    known = None if key is None else scope.state.remembered.get(key)
    return None if known is None else Decision(known.option, "remembered", (known.by,))


def check_schema(schema: Mapping[str, Any] | None) -> None:
    """Raises SchemaInvalid for one that no answer could be checked against."""
    if schema is not None:
        Schema(schema)


async def request(scope: LaneScope, event: ApprovalRequested) -> None:
    """Asks, unless an earlier attempt of the run has. Raises TooManyCalls, ContentTooLarge, LogError."""
    if event.approval_id in scope.state.approvals:
        return
    scope.record(event)
    await scope.stored()
    if event.approval_id not in scope.state.approvals:
        raise TooManyCalls("the session has as many approvals as it may have")


async def decision(scope: LaneScope, approval_id: str) -> Decision:
    """Waits until it is decided, or expires. Raises LogError."""
    while True:
        approval = scope.state.approvals[approval_id]
        if approval.status != "pending":
            return await _decided(scope, approval)
        at_ms = None if approval.expires_at is None else approval.expires_at + LATE_MS
        if await scope.until(lambda state: _settled(state, approval_id), at_ms) is None:
            # An answer that came a moment before is first in the log, and counts.
            scope.writer.record(ApprovalResolved(approval_id, "expired"))
            await scope.stored()


def _settled(state: SessionState, approval_id: str) -> Approval | None:
    approval = state.approvals.get(approval_id)
    return approval if approval is not None and approval.status != "pending" else None


async def _decided(scope: LaneScope, approval: Approval) -> Decision:
    by = tuple(vote.by for vote in approval.votes)
    payload = None
    if approval.status == "resolved":
        entry = await scope.entry(approval.decided_seq)
        payload = next((e.payload for e in entry.events if isinstance(e, ApprovalResponded)), None)
    return Decision(approval.decision, approval.status, by, payload)


def question(
    approval_id: str, message: str, schema: Mapping[str, Any], *, roles: tuple[str, ...], expires_at: int | None
) -> ApprovalRequested:
    return ApprovalRequested(
        approval_id,
        "question",
        message,
        ("answer", "decline"),
        "decline",
        expires_at=expires_at,
        roles=roles or None,
        response_schema=schema,
    )


def answer_of(decided: Decision) -> Any:
    """The answer to a question. Raises NoAnswer."""
    if decided.option == "answer":
        return decided.payload
    raise NoAnswer("declined" if decided.status == "resolved" else decided.status)
