"""What is told of a session: the difference that an entry makes to its folded state. Pure.

Entries are not told, what they come to is. A request of a participant that counted for nothing, a write under an old
fence, a repetition, changes no state, and so there is nothing to tell of it.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from broker.events import Entry, Participant, RunError, RunFinished, RunStarted
from broker.session import fold
from broker.state import Approval, Handoff, Run, SessionState
from broker.subjects import split_key
from broker.tracing import TraceContext

RUN_FINISHED, RUN_FAILED, RUN_CANCELLED = "run.finished", "run.failed", "run.cancelled"
APPROVAL_WAITING, APPROVAL_RESOLVED = "approval.waiting", "approval.resolved"
QUESTION_WAITING, QUESTION_RESOLVED = "question.waiting", "question.resolved"
HANDOFF_WAITING, HANDOFF_RESOLVED = "handoff.waiting", "handoff.resolved"
TYPES = (
    *(RUN_FINISHED, RUN_FAILED, RUN_CANCELLED),
    *(APPROVAL_WAITING, APPROVAL_RESOLVED),
    *(QUESTION_WAITING, QUESTION_RESOLVED),
    *(HANDOFF_WAITING, HANDOFF_RESOLVED),
)
"""All that an endpoint may be told of."""
WITHDRAWALS = frozenset({APPROVAL_RESOLVED, QUESTION_RESOLVED, HANDOFF_RESOLVED})
"""They take back what was told before, so they are told whoever watches."""

_RUN_ENDS = {"success": RUN_FINISHED, "error": RUN_FAILED, "cancelled": RUN_CANCELLED}
_DELETED = "session_deleted"


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that happened. `data` has no content; `text` is what there is of it, for endpoints that want it.

    `ts` is when, in ms since 1970; `users` and `roles` say who is meant.
    """

    id: str
    type: str
    ts: int
    data: Mapping[str, Any]
    users: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    text: str | None = None
    run: str | None = None
    child: bool = False
    trace: TraceContext | None = None


@dataclass(frozen=True, slots=True)
class Known:
    """A session as far as it was read: its state, and who began its runs, which the state does not keep."""

    state: SessionState = field(default_factory=SessionState)
    senders: Mapping[str, Participant] = field(default_factory=lambda: MappingProxyType({}))


def judged(known: Known, session: str, seq: int, entry: Entry) -> tuple[Known, tuple[Notice, ...]]:
    """The session after a record, and what is to be told of that."""
    before, after = known.state, fold(known.state, seq, entry)
    if after is before:
        return known, ()
    senders = _senders(known, entry)
    change = _Change(session, seq, entry, before, after, senders)
    notices = tuple(change.notices())
    return Known(after, {id_: by for id_, by in senders.items() if id_ in after.runs}), notices


def notice_id(session: str, since: int, type_: str, subject: str) -> str:
    """The same for the same thing, however often it is judged, by whom, and in whatever log the session is by then.

    `since` is where the session was deleted last: after that its ids may be used again.
    """
    said = "\0".join((session, str(since), type_, subject)).encode()
    return "msg_" + base64.b32encode(hashlib.blake2b(said, digest_size=20).digest()).decode().lower()


def _senders(known: Known, entry: Entry) -> Mapping[str, Participant]:
    """With those of the runs that begin in the entry: who sent their inputs, or began the run that asked for them."""
    started = [event.run_id for event in entry.events if isinstance(event, RunStarted)]
    if not started:
        return known.senders
    senders = dict(known.senders)
    for run_id in started:
        queued = known.state.queued(run_id.removeprefix("run_"))
        if queued is None or run_id in known.state.runs:
            continue
        by = senders.get(queued.parent) if queued.parent is not None else queued.by
        if by is not None:
            senders[run_id] = by
    return senders


@dataclass(frozen=True, slots=True)
class _Change:
    """One entry, and the states before and after it."""

    session: str
    seq: int
    entry: Entry
    before: SessionState
    after: SessionState
    senders: Mapping[str, Participant]

    @property
    def deleted(self) -> bool:
        return self.after.deleted_seq == self.seq

    def notices(self) -> Iterator[Notice]:
        # What ends comes first: in one entry, one thing may end and the next begin.
        for approval in self.before.approvals.values():
            if approval.status == "pending" and (status := self._end_of(approval)) is not None:
                yield self._resolved(approval, status)
        for handoff in self.before.handoffs.values():
            if handoff.status == "waiting" and (status := self._end_of(handoff)) is not None:
                yield self._handed_over(handoff, status)
        for run in self._over():
            yield self._ended(run)
        for approval in self.after.approvals.values():
            if approval.status == "pending" and approval.id not in self.before.approvals:
                yield self._waits(approval)
        for handoff in self.after.handoffs.values():
            if handoff.status == "waiting" and handoff.id not in self.before.handoffs:
                yield self._wants_human(handoff)

    def _end_of(self, waiting: Approval | Handoff) -> str | None:
        """How something that waited has ended with this entry; None if it still waits."""
        there = self.after.approvals if isinstance(waiting, Approval) else self.after.handoffs
        now = there.get(waiting.id)
        if now is not None:
            return None if now.status == waiting.status else now.status
        if self.deleted:
            return "cancelled"
        end = self.after.end_of(waiting.id)
        return "cancelled" if end is None else end.status

    def _over(self) -> Iterator[Run]:
        """The runs that this entry has ended, of which it may have seen the beginning too."""
        yield from (run for id_, run in self.before.runs.items() if id_ not in self.after.runs)
        for event in self.entry.events:
            if not isinstance(event, RunStarted) or event.run_id in {**self.before.runs, **self.after.runs}:
                continue
            if self.after.end_of(event.run_id) is not None and self.before.end_of(event.run_id) is None:
                queued = self.before.queued(event.run_id.removeprefix("run_"))
                parent, agent = (None, None) if queued is None else (queued.parent, queued.agent)
                lane = self.entry.lane or ""
                yield Run(event.run_id, lane, event.run_id.removeprefix("run_"), self.seq, parent=parent, agent=agent)

    # --- what is said of it ------------------------------------------------------------------------------------------

    def _ended(self, run: Run) -> Notice:
        status, reason, text = self._outcome(run)
        said = {"status": status} | ({} if reason is None else {"reason": reason})
        made = self._notice(_RUN_ENDS[status], run.run_id, run, said)
        return replace(made, text=text)

    def _outcome(self, run: Run) -> tuple[str, str | None, str | None]:
        """How a run ended, why, and what is said of it in words."""
        if self.deleted:
            return "cancelled", _DELETED, None
        for event in self.entry.events:
            match event:
                case RunFinished(run_id=run.run_id, outcome=outcome):
                    outcome = outcome or {}
                    if outcome.get("type") != "cancelled":
                        return "success", None, None
                    reason = outcome.get("reason")
                    return "cancelled", reason if isinstance(reason, str) else None, None
                case RunError(message=message, code=code) if self.entry.lane == run.lane:
                    return "error", code, message
        return "cancelled", None, None

    def _waits(self, approval: Approval) -> Notice:
        type_ = QUESTION_WAITING if approval.kind == "question" else APPROVAL_WAITING
        said: dict[str, Any] = {"approvalId": approval.id, "options": list(approval.options), "quorum": approval.quorum}
        said |= {"default": approval.default}
        said |= _given(toolCallId=approval.tool_call_id, expiresAt=approval.expires_at)
        made = self._notice(type_, approval.id, self.after.runs.get(approval.run), said, approval.roles)
        return replace(made, text=approval.message)

    def _resolved(self, approval: Approval, status: str) -> Notice:
        type_ = QUESTION_RESOLVED if approval.kind == "question" else APPROVAL_RESOLVED
        now = self.after.approvals.get(approval.id, approval)
        said: dict[str, Any] = {"approvalId": approval.id, "status": status, **_given(decision=now.decision)}
        if now.votes:
            said["by"] = [vote.by.id for vote in now.votes]
        return self._notice(type_, approval.id, self.before.runs.get(approval.run), said, approval.roles)

    def _wants_human(self, handoff: Handoff) -> Notice:
        said = {"handoffId": handoff.id, **_given(expiresAt=handoff.expires_at)}
        made = self._notice(HANDOFF_WAITING, handoff.id, self.after.runs.get(handoff.run), said, (handoff.to,))
        return replace(made, text="\n".join(text for text in (handoff.reason, handoff.summary) if text) or None)

    def _handed_over(self, handoff: Handoff, status: str) -> Notice:
        now = self.after.handoffs.get(handoff.id, handoff)
        said = {"handoffId": handoff.id, "status": status, **_given(by=None if now.by is None else [now.by.id])}
        return self._notice(HANDOFF_RESOLVED, handoff.id, self.before.runs.get(handoff.run), said, (handoff.to,))

    def _notice(
        self, type_: str, subject: str, run: Run | None, said: Mapping[str, Any], roles: tuple[str, ...] = ()
    ) -> Notice:
        """Meant is who has one of the roles; without any, who began the run."""
        sender = None if run is None else self.senders.get(run.run_id)
        users = (sender.id,) if sender is not None and sender.kind == "user" and not roles else ()
        tenant, name = split_key(self.session)
        data = {"session": name, **({"tenant": tenant} if tenant else {}), "seq": self.seq}
        if run is not None:
            data |= _given(lane=run.lane, runId=run.run_id, parentRunId=run.parent, agent=self._agent(run))
        return Notice(
            notice_id(self.session, self.before.deleted_seq, type_, subject),
            type_,
            self.entry.ts,
            data | dict(said),
            users,
            roles,
            run=None if run is None else run.run_id,
            child=run is not None and run.parent is not None,
            trace=self.entry.trace,
        )

    def _agent(self, run: Run) -> str | None:
        """The agent's name: what it was asked by, or what its worker calls it."""
        if run.agent is not None:
            return run.agent
        owner = self.before.lane(run.lane).owner
        return owner.name if owner is not None and owner.kind == "agent" else None


def _given(**fields: Any) -> dict[str, Any]:
    """The fields that are known."""
    return {name: value for name, value in fields.items() if value is not None}
