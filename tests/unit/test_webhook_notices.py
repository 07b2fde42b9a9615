"""What is told of a session's log, entry by entry, and in what order one endpoint gets it."""

from __future__ import annotations

import itertools
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from broker.events import (
    ApprovalRequested,
    ApprovalResolved,
    ApprovalResponded,
    Entry,
    Event,
    HandoffExpired,
    HandoffRequested,
    InputApplied,
    InputSent,
    MessagesImported,
    Participant,
    RunCancelRequested,
    RunError,
    RunFinished,
    RunRequested,
    RunStarted,
    SessionCreated,
    SessionDeleted,
    SessionOwner,
)
from broker.session import fold
from broker.state import SessionState
from webhooks.backlog import DOWN_AFTER, Backlog, Waiting
from webhooks.due import Due
from webhooks.notices import TYPES, Known, Notice, judged, notice_id

USER = Participant("user", "user-1")
BOSS = Participant("user", "user-2", roles=("boss",))
AGENT = Participant("agent", "w-1", "helper")


class Log:
    """Judges as it writes, in lanes that are owned."""

    def __init__(self, key: str = "s") -> None:
        self.key = key
        self.known = Known()
        self.told: list[Notice] = []
        self.seq = 0
        self.fences: dict[str, int] = {}
        self.n = 0

    def said(self, *events: Event, by: Participant = USER) -> list[Notice]:
        return self._take(Entry(f"x:{self.seq}", self.seq, events, by=by))

    def claimed(self, lane: str = "main", by: Participant = AGENT) -> list[Notice]:
        notices = self._take(Entry("own", self.seq, (SessionOwner(lane, by.kind, by.id),), lane, by=by))
        self.fences[lane] = self.seq
        return notices

    def wrote(self, *events: Event, lane: str = "main", fence: int | None = None) -> list[Notice]:
        self.n += 1
        fence = self.fences[lane] if fence is None else fence
        return self._take(Entry(f"{fence}-{self.n}", self.seq, events, lane, by=AGENT))

    def _take(self, entry: Entry) -> list[Notice]:
        self.seq += 1
        before = self.known.state
        self.known, notices = judged(self.known, self.key, self.seq, entry)
        assert self.known.state == fold(before, self.seq, entry)
        self.told += notices
        return list(notices)


def running(key: str = "s") -> Log:
    """A run of user-1's is going on."""
    log = Log(key)
    log.claimed()
    log.said(InputSent("i1", "Hello"))
    log.wrote(RunStarted("s", "run_i1"), InputApplied("i1", "run_i1", "m1"))
    assert log.told == []
    return log


def approval(id_: str, **more: Any) -> ApprovalRequested:
    return ApprovalRequested(id_, "approval", "Sure?", ("allow_once", "reject_once"), "reject_once", **more)


def types(notices: list[Notice]) -> list[str]:
    return [notice.type for notice in notices]


def test_ends_of_runs() -> None:
    (notice,) = running().wrote(RunFinished("s", "run_i1", {"type": "success"}))
    assert (notice.type, notice.users, notice.roles, notice.child) == ("run.finished", ("user-1",), (), False)
    assert notice.data == {
        "session": "s",
        "seq": 4,
        "lane": "main",
        "runId": "run_i1",
        "agent": "helper",
        "status": "success",
    }
    (notice,) = running().wrote(RunError("broken", "agent_error"))
    assert (notice.type, notice.data["reason"], notice.text) == ("run.failed", "agent_error", "broken")
    (notice,) = running().wrote(RunFinished("s", "run_i1", {"type": "cancelled", "reason": "requested"}))
    assert (notice.type, notice.data["reason"]) == ("run.cancelled", "requested")


def test_what_is_told_of_a_tenants_session_names_the_tenant() -> None:
    finished = RunFinished("s", "run_i1", {"type": "success"})
    (plain,), (notice,) = running().wrote(finished), running("acme~s").wrote(finished)
    assert notice.data == {**plain.data, "tenant": "acme"}
    assert notice.id != plain.id


def test_a_run_that_begins_and_ends_in_one_entry() -> None:
    log = Log()
    log.claimed()
    log.said(InputSent("i1", "Hello"))
    begun = RunStarted("s", "run_i1"), InputApplied("i1", "run_i1", "m1")
    (notice,) = log.wrote(*begun, approval("a1"), RunFinished("s", "run_i1"))
    assert (notice.type, notice.users, notice.data["runId"]) == ("run.finished", ("user-1",), "run_i1")


def test_a_run_that_never_started_is_not_told() -> None:
    log = Log()
    log.claimed()
    log.said(InputSent("i1", "Hello"))
    assert log.said(RunCancelRequested("run_i1")) == []


def test_what_counts_for_nothing_is_not_told() -> None:
    log = running()
    stale = log.fences["main"]
    log.claimed()
    for nothing in (
        log.wrote(approval("a1"), RunFinished("s", "run_i1"), fence=stale),
        log.wrote(RunFinished("s", "run_other")),
        log.said(ApprovalResponded("a1", "allow_once")),
        log.said(MessagesImported(({"id": "m", "text": "x"},))),
        log.said(SessionCreated("A title")),
    ):
        assert nothing == []
    assert types(log.wrote(approval("a1", roles=("boss",)))) == ["approval.waiting"]
    assert log.wrote(approval("a1")) == []
    assert log.said(ApprovalResponded("a1", "allow_once")) == []  # user-1 has no role
    assert types(log.said(ApprovalResponded("a1", "allow_once"), by=BOSS)) == ["approval.resolved"]
    assert log.wrote(ApprovalResolved("a1", "expired")) == []


def test_a_quorum_is_told_when_it_is_full() -> None:
    log = running()
    (waiting,) = log.wrote(approval("a1", quorum=2, expires_at=99))
    assert (waiting.data["quorum"], waiting.data["expiresAt"], waiting.text) == (2, 99, "Sure?")
    assert log.said(ApprovalResponded("a1", "allow_once")) == []
    (resolved,) = log.said(ApprovalResponded("a1", "allow_once"), by=BOSS)
    assert (resolved.data["status"], resolved.data["decision"]) == ("resolved", "allow_once")
    assert resolved.data["by"] == ["user-1", "user-2"]


def test_what_waits_is_withdrawn_however_it_ends() -> None:
    log = running()
    log.wrote(approval("a1"), approval("a2"), HandoffRequested("h1", "boss", "refund"))
    (expired,) = log.wrote(ApprovalResolved("a1", "expired"))
    assert (expired.data["status"], expired.data["decision"]) == ("expired", "reject_once")
    (nobody,) = log.wrote(HandoffExpired("h1"))
    assert (nobody.type, nobody.data["status"], nobody.roles) == ("handoff.resolved", "expired", ("boss",))
    ended = log.wrote(RunFinished("s", "run_i1"))
    assert types(ended) == ["approval.resolved", "run.finished"]
    assert (ended[0].data["approvalId"], ended[0].data["status"]) == ("a2", "cancelled")


def test_a_human_who_takes_the_lane_has_accepted() -> None:
    log = running()
    log.wrote(HandoffRequested("h1", "boss", "refund", "They want it back"))
    assert log.told[-1].text == "refund\nThey want it back"
    (accepted,) = log.claimed(by=BOSS)
    assert (accepted.data["status"], accepted.data["by"]) == ("accepted", ["user-2"])


def test_a_deletion_withdraws_and_begins_anew() -> None:
    log = running()
    (before,) = log.wrote(approval("a1"))
    assert types(log.said(SessionDeleted())) == ["approval.resolved", "run.cancelled"]
    assert log.told[-1].data["reason"] == "session_deleted"
    log.claimed()
    log.said(InputSent("i1", "Hello"))
    log.wrote(RunStarted("s", "run_i1"), InputApplied("i1", "run_i1", "m1"))
    (after,) = log.wrote(approval("a1"))
    # The same ids, and another thing.
    assert after.id != before.id


def test_runs_that_agents_ask_for_are_of_who_asked_first() -> None:
    log = running()
    log.wrote(RunRequested("i2", "run_i1", "child", "researcher", "pool", "Find it"))
    log.claimed("child")
    log.wrote(RunStarted("s", "run_i2"), InputApplied("i2", "run_i2", "m2"), lane="child")
    (waiting,) = log.wrote(approval("a1"), lane="child")
    assert (waiting.users, waiting.data["agent"], waiting.data["parentRunId"]) == (("user-1",), "researcher", "run_i1")
    ended = log.wrote(RunFinished("s", "run_i2"), lane="child")
    assert [(notice.type, notice.child) for notice in ended] == [("approval.resolved", True), ("run.finished", True)]


def test_ids_are_of_what_happened() -> None:
    ids = {notice_id(s, since, t, x) for s in "ab" for since in (0, 7) for t in TYPES for x in ("a1", "a2")}
    assert len(ids) == 2 * 2 * len(TYPES) * 2
    assert notice_id("s", 0, "run.finished", "run_i1") == "msg_jtn7kpllklchlwhgyxitjxsmui6euhje"
    assert judged(Known(SessionState(as_of=9)), "s", 9, Entry("x", 1, (SessionDeleted(),)))[1] == ()


# --- the order in which one endpoint gets it -------------------------------------------------------------------------------


def waiting(session: str, place: int) -> Waiting:
    return Waiting(Due(f"msg_{place}", "run.finished", 1, "one", session, 0, place, {}), place)


def test_sessions_take_turns_and_do_not_wait_for_each_other() -> None:
    backlog = Backlog(2)
    for place, session in enumerate("aab"):
        backlog.add(waiting(session, place))
    first, second = backlog.take(0), backlog.take(0)
    assert first is not None
    assert second is not None
    assert (first.place, second.place, backlog.take(0)) == (0, 2, None)
    backlog.failed(first, 5.0, 0.0)
    backlog.done(second)
    assert backlog.take(0) is None
    assert backlog.due_at() == 5.0
    assert backlog.take(5) is first


def test_a_receiver_that_is_down_is_asked_with_one_request_at_a_time() -> None:
    backlog = Backlog(4)
    for place, session in enumerate("abcd"):
        backlog.add(waiting(session, place))
    for n in range(DOWN_AFTER):
        taken = backlog.take(0)
        assert taken is not None
        backlog.failed(taken, 100.0, 2.0 if n == DOWN_AFTER - 1 else 0.0)
    assert backlog.down
    assert backlog.take(1.0) is None
    probe = backlog.take(2.0)
    assert probe is not None
    assert backlog.take(99) is None
    backlog.done(probe)
    # It is up again: what waited for it to come back waits no more.
    assert [taken.place for taken in iter(lambda: backlog.take(3.0), None) if taken is not None] == [0, 1, 2]


def test_a_session_that_was_deleted_is_forgotten() -> None:
    backlog = Backlog(4)
    for place, session in enumerate("aab"):
        backlog.add(waiting(session, place))
    under_way = backlog.take(0)
    assert under_way is not None
    assert backlog.holds(under_way)
    backlog.forget("a")
    assert not backlog.holds(under_way)
    backlog.add(waiting("a", 9))
    assert len(backlog) == 2
    other = backlog.take(0)
    assert other is not None
    assert (other.place, backlog.take(0)) == (2, None)
    backlog.done(under_way)
    later = backlog.take(0)
    assert later is not None
    assert later.place == 9


@given(
    sessions=st.lists(st.sampled_from("abc"), max_size=20),
    in_flight=st.integers(1, 4),
    fates=st.lists(st.booleans(), max_size=200),
)
def test_each_session_gets_its_events_in_order_whatever_fails(
    sessions: list[str], in_flight: int, fates: list[bool]
) -> None:
    backlog = Backlog(in_flight)
    for place, session in enumerate(sessions):
        backlog.add(waiting(session, place))
    got: list[Waiting] = []
    out: list[Waiting] = []
    verdicts = itertools.chain(fates, itertools.repeat(True))
    now = 0.0
    while len(backlog) or out:
        now += 1
        while (taken := backlog.take(now)) is not None:
            assert taken.due.session not in {other.due.session for other in out}
            out.append(taken)
        assert 0 < len(out) <= in_flight
        done = out.pop(0)
        if next(verdicts):
            got.append(done)
            backlog.done(done)
        else:
            backlog.failed(done, now + 1, now)
    for session in "abc":
        assert [w.place for w in got if w.due.session == session] == [i for i, s in enumerate(sessions) if s == session]
    assert backlog.oldest_ts is None
    assert list(backlog) == []
