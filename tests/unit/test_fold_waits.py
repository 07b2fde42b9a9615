"""What runs wait for: the codes by which a command is told why it does not count, and the limits."""

from __future__ import annotations

from dataclasses import replace

import pytest

from broker.events import (
    ApprovalRequested,
    ApprovalResolved,
    ApprovalResponded,
    Entry,
    Event,
    HandoffRequested,
    InputSent,
    Participant,
    RunFinished,
    RunStarted,
    SessionOwner,
    ToolCallResult,
    ToolClaimed,
    ToolFailed,
    ToolRequested,
    ToolResolved,
)
from broker.fold import approvals
from broker.fold.approvals import response_problem
from broker.fold.tools import claim_problem, result_problem
from broker.session import fold
from broker.state import (
    MAX_APPROVALS,
    MAX_CALLS,
    MAX_OPEN_CALLS,
    MAX_PENDING_APPROVALS,
    MAX_REMEMBERED,
    Approval,
    Call,
    Ended,
    SessionState,
    ToolClaim,
    Vote,
)

USER, OTHER = Participant("user", "user-1", "A user"), Participant("user", "user-2", None, ("lead",))
OPEN = Call("call_1", "main", "run_i1", "pick", "client", 5, "2-2", {})
CLAIMED = replace(OPEN, claim=ToolClaim("c1", USER, 100), deadline=200)
AGAIN = replace(CLAIMED, idempotent=True)
RESOLVED = replace(OPEN, status="resolved", settled_seq=9)


# --- claims ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "ts", "by", "claim", "device", "code"),
    [
        (OPEN, 1, USER, "c1", None, None),
        (OPEN, 1, None, "c1", None, "not_targeted"),
        (replace(OPEN, executor="agent"), 1, USER, "c1", None, "not_targeted"),
        (RESOLVED, 1, USER, "c1", None, "already_resolved"),
        (replace(OPEN, status="failed", code="deadline"), 1, USER, "c1", None, "already_resolved"),
        (replace(OPEN, deadline=10), 10, USER, "c1", None, None),
        (replace(OPEN, deadline=10), 11, USER, "c1", None, "deadline_passed"),
        (replace(OPEN, participant="user-1"), 1, USER, "c1", "tv", None),
        (replace(OPEN, participant="user-1"), 1, OTHER, "c1", None, "not_targeted"),
        (replace(OPEN, participant="user-1", any_after=5), 4, OTHER, "c1", None, "not_targeted"),
        (replace(OPEN, participant="user-1", any_after=5), 5, OTHER, "c1", None, None),
        (replace(OPEN, device="tv"), 1, OTHER, "c1", "tv", None),
        (replace(OPEN, device="tv"), 1, OTHER, "c1", None, "not_targeted"),
        (replace(OPEN, participant="user-1", device="tv"), 1, OTHER, "c1", "tv", "not_targeted"),
        (replace(OPEN, participant="user-1", device="tv"), 1, USER, "c1", "phone", "not_targeted"),
        (CLAIMED, 50, OTHER, "c2", None, "already_claimed"),
        (CLAIMED, 50, USER, "c2", None, "already_claimed"),
        (CLAIMED, 50, OTHER, "c1", None, "already_claimed"),
        (CLAIMED, 101, OTHER, "c2", None, "already_claimed"),
        (CLAIMED, 101, USER, "c1", None, None),
        (CLAIMED, 201, USER, "c1", None, "deadline_passed"),
        (AGAIN, 100, OTHER, "c2", None, "already_claimed"),
        (AGAIN, 101, OTHER, "c2", None, None),
        (replace(CLAIMED, participant="user-9"), 50, USER, "c1", None, None),
        (replace(CLAIMED, participant="user-1"), 50, OTHER, "c2", None, "not_targeted"),
    ],
)
def test_why_a_claim_does_not_count(
    call: Call, ts: int, by: Participant | None, claim: str, device: str | None, code: str | None
) -> None:
    assert claim_problem(call, ts, by, ToolClaimed("call_1", claim, ts + 15, device)) == code


@pytest.mark.parametrize(
    ("call", "ts", "by", "claim", "code"),
    [
        (CLAIMED, 50, USER, "c1", None),
        (CLAIMED, 101, USER, "c1", None),
        (CLAIMED, 200, USER, "c1", None),
        (CLAIMED, 201, USER, "c1", "deadline_passed"),
        (CLAIMED, 50, OTHER, "c1", "not_claimed"),
        (CLAIMED, 50, None, "c1", "not_claimed"),
        (CLAIMED, 50, USER, "c2", "not_claimed"),
        (CLAIMED, 201, OTHER, "c1", "not_claimed"),
        (OPEN, 50, USER, "c1", "not_claimed"),
        (RESOLVED, 50, USER, "c1", "already_resolved"),
        (replace(CLAIMED, status="failed"), 50, USER, "c1", "already_resolved"),
    ],
)
def test_why_a_result_does_not_count(call: Call, ts: int, by: Participant | None, claim: str, code: str | None) -> None:
    assert result_problem(call, ts, by, claim) == code


# --- decisions -------------------------------------------------------------------------------------------------------

PENDING = Approval("apr_1", "main", "run_i1", "approval", 5, "Delete?", ("allow_once", "reject_once"), "reject_once")
VOTED = replace(PENDING, quorum=2, votes=(Vote(USER, "allow_once", 6),))


@pytest.mark.parametrize(
    ("approval", "ts", "by", "option", "code"),
    [
        (PENDING, 1, USER, "allow_once", None),
        (PENDING, 1, None, "allow_once", "role_required"),
        (PENDING, 1, USER, "allow_always", "bad_option"),
        (PENDING, 1, USER, "", "bad_option"),
        (replace(PENDING, expires_at=10), 10, USER, "allow_once", None),
        (replace(PENDING, expires_at=10), 11, USER, "allow_once", "deadline_passed"),
        (replace(PENDING, roles=("lead", "owner")), 1, OTHER, "reject_once", None),
        (replace(PENDING, roles=("lead", "owner")), 1, USER, "reject_once", "role_required"),
        (replace(PENDING, status="resolved", decision="allow_once"), 1, USER, "allow_once", "already_resolved"),
        (replace(PENDING, status="expired"), 1, USER, "allow_once", "already_resolved"),
        (replace(PENDING, status="cancelled"), 1, USER, "allow_once", "already_resolved"),
        (VOTED, 1, OTHER, "allow_once", None),
        (VOTED, 1, USER, "allow_once", "already_voted"),
        (VOTED, 1, USER, "reject_once", "already_voted"),
    ],
)
def test_why_a_decision_does_not_count(
    approval: Approval, ts: int, by: Participant | None, option: str, code: str | None
) -> None:
    assert response_problem(approval, ts, by, option) == code


# --- the fold: what clients do not see ---------------------------------------------------------------------------------


class Log:
    """A lane with a run; folds as it writes."""

    def __init__(self) -> None:
        self.state, self.n = SessionState(), 0
        self.said(InputSent("i1", "Go"))
        self._fold(Entry("own", 1, (SessionOwner("main", "agent", "w-1"),), "main"))
        self.wrote(RunStarted("s", "run_i1"))

    def said(self, event: Event, by: Participant = USER, ts: int = 10) -> SessionState:
        return self._fold(Entry("said", ts, (event,), by=by))

    def wrote(self, *events: Event) -> SessionState:
        self.n += 1
        return self._fold(Entry(f"2-{self.n}", 10, events, "main"))

    def _fold(self, entry: Entry) -> SessionState:
        self.state = fold(self.state, self.state.as_of + 1, entry)
        return self.state


@pytest.fixture
def log() -> Log:
    return Log()


def asks(id_: str, key: str | None = None) -> ApprovalRequested:
    return ApprovalRequested(id_, "approval", "May I?", ("allow_once", "allow_always"), "allow_once", key=key)


def test_a_run_has_a_bounded_number_of_calls(log: Log) -> None:
    for number in range(MAX_CALLS + 1):
        log.wrote(
            ToolRequested(f"call_{number}", "x", {}, "agent"), ToolCallResult(f"r_{number}", f"call_{number}", "")
        )
    assert len(log.state.calls) == MAX_CALLS
    assert log.state.messages == MAX_CALLS + 1
    log.wrote(RunFinished("s", "run_i1"), RunStarted("s", "run_i2"), ToolRequested("call_0", "x", {}, "agent"))
    assert list(log.state.calls) == ["call_0"], "those of runs that are over do not count"


def test_so_many_calls_may_be_open(log: Log) -> None:
    for number in range(MAX_OPEN_CALLS + 1):
        log.wrote(ToolRequested(f"call_{number}", "x", {}, "agent"))
    assert len(log.state.calls) == MAX_OPEN_CALLS


def test_a_run_has_a_bounded_number_of_approvals(log: Log) -> None:
    for number in range(MAX_APPROVALS + 1):
        log.wrote(asks(f"apr_{number}"), ApprovalResolved(f"apr_{number}", "cancelled"))
    assert len(log.state.approvals) == MAX_APPROVALS


def test_so_many_approvals_may_be_pending(log: Log) -> None:
    for number in range(MAX_PENDING_APPROVALS + 1):
        log.wrote(asks(f"apr_{number}"))
    assert len(log.state.approvals) == MAX_PENDING_APPROVALS


def test_the_oldest_of_too_many_decisions_for_always_is_forgotten(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_REMEMBERED == 256
    monkeypatch.setattr(approvals, "MAX_REMEMBERED", 3)
    for number, key in enumerate(("a", "b", "c", "a", "d")):
        log.wrote(asks(f"apr_{number}", key))
        log.said(ApprovalResponded(f"apr_{number}", "allow_always"))
    assert list(log.state.remembered) == ["c", "a", "d"], "a decision anew is the newest"


def test_what_became_of_a_call_is_told_while_its_run_runs_and_after(log: Log) -> None:
    log.wrote(*(ToolRequested(f"call_{number}", "x", {}, "client") for number in range(4)))
    log.said(ToolClaimed("call_0", "c1", 99))
    log.said(ToolResolved("call_0", "c1", {"ok": True}))
    log.wrote(ToolFailed("call_1", "no_executor"), ToolCallResult("r_2", "call_2", "done"))
    calls = log.state.calls
    assert [(c.status, c.code, c.answered) for c in calls.values()] == [
        ("resolved", None, False),
        ("failed", "no_executor", False),
        ("resolved", None, True),
        ("open", None, False),
    ]
    assert calls["call_0"].settled_seq == log.state.as_of - 1
    assert calls["call_0"].claims == 1
    ended = log.wrote(RunFinished("s", "run_i1"))
    assert [ended.end_of(f"call_{n}") for n in range(4)] == [
        Ended("call_0", "resolved"),
        Ended("call_1", "failed", "no_executor"),
        Ended("call_2", "resolved"),
        Ended("call_3", "failed", "run_ended"),
    ]


def test_what_became_of_approvals_and_hand_overs_is_told(log: Log) -> None:
    log.wrote(*(asks(f"apr_{number}") for number in range(4)), HandoffRequested("ho_1", "support", "refund"))
    log.said(ApprovalResponded("apr_0", "allow_once"), OTHER)
    log.wrote(ApprovalResolved("apr_1", "expired"), ApprovalResolved("apr_2", "cancelled"))
    told = [(a.status, a.decision) for a in log.state.approvals.values()]
    assert told == [("resolved", "allow_once"), ("expired", "allow_once"), ("cancelled", None), ("pending", None)]
    ended = log.wrote(RunFinished("s", "run_i1"))
    assert [ended.end_of(f"apr_{n}") for n in range(4)] == [
        Ended("apr_0", "resolved", "allow_once"),
        Ended("apr_1", "expired", "allow_once"),
        Ended("apr_2", "cancelled"),
        Ended("apr_3", "cancelled"),
    ]
    assert ended.end_of("ho_1") == Ended("ho_1", "cancelled")


def test_a_quorum_of_none_is_one(log: Log) -> None:
    log.wrote(replace(asks("apr_1"), quorum=0))
    assert log.said(ApprovalResponded("apr_1", "allow_once")).approvals["apr_1"].status == "resolved"


def test_a_decision_stays(log: Log) -> None:
    log.wrote(asks("apr_1"))
    decided = log.said(ApprovalResponded("apr_1", "allow_once")).approvals["apr_1"]
    log.said(ApprovalResponded("apr_1", "allow_always"), OTHER)
    assert log.wrote(ApprovalResolved("apr_1", "expired")).approvals["apr_1"] is decided


def test_a_second_result_does_not_settle_a_call_again(log: Log) -> None:
    log.wrote(ToolRequested("call_1", "x", {}, "client"))
    log.said(ToolClaimed("call_1", "c1", 99))
    settled = log.said(ToolResolved("call_1", "c1", 1)).calls["call_1"]
    log.said(ToolResolved("call_1", "c1", 2))
    log.wrote(ToolFailed("call_1", "deadline"))
    assert log.state.calls["call_1"] is settled
