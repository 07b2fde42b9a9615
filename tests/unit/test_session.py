"""The fold of state, rule by rule (PROTOCOL, section 6)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from broker.events import (
    Entry,
    Event,
    InputApplied,
    InputCancelRequested,
    InputFailed,
    InputSent,
    MessageSegment,
    OtherEvent,
    Participant,
    ReasoningMessageEnd,
    ReasoningMessageStart,
    RunCancelRequested,
    RunError,
    RunFinished,
    RunStarted,
    RunTakenOver,
    SessionOwner,
    TextMessageContent,
    TextMessageEnd,
    TextMessageStart,
    ToolCallEnd,
    ToolCallResult,
    ToolCallStart,
)
from broker.fold import inputs
from broker.session import fold
from broker.session_config import MAX_QUEUE, SessionConfig, config_to_wire
from broker.state import (
    FATES_KEPT,
    Cancel,
    Ended,
    InputFate,
    Lane,
    OpenStream,
    QueuedInput,
    Run,
    Seen,
    SessionState,
)
from broker.view import public_view

USER = Participant("user", "user-1", "A user")
OTHER_USER = Participant("user", "user-2")


class Log:
    """Folds as it writes: `said` by a participant, `wrote` by the lane's owner under its fence."""

    def __init__(self) -> None:
        self.state = SessionState()
        self.fence, self.n = 0, 0

    def said(self, *events: Event, by: Participant = USER) -> SessionState:
        return self._fold(Entry("x", self.state.as_of + 1, events, by=by))

    def claimed(self, kind: str = "agent", owner: str = "w1", lane: str = "main") -> SessionState:
        self._fold(Entry("own", 1, (SessionOwner(lane, kind, owner),), lane))
        self.fence, self.n = self.state.as_of, 0
        return self.state

    def wrote(
        self, *events: Event, fence: int | None = None, n: int | None = None, lane: str = "main", off: int | None = None
    ) -> SessionState:
        self.n = self.n + 1 if n is None else n
        return self._fold(Entry(f"{self.fence if fence is None else fence}-{self.n}", 1, events, lane, off=off))

    def started(self, input_id: str = "i1") -> SessionState:
        run_id = f"run_{input_id}"
        return self.wrote(RunStarted("s", run_id), InputApplied(input_id, run_id, f"msg_{input_id}"))

    def _fold(self, entry: Entry) -> SessionState:
        self.state = fold(self.state, self.state.as_of + 1, entry)
        return self.state


@pytest.fixture
def log() -> Log:
    """A lane that is owned, and one input that waits."""
    log = Log()
    log.claimed()
    log.said(InputSent("i1", "Hello"))
    return log


# --- rule 1: fences --------------------------------------------------------------------------------------------------


def test_a_claim_makes_its_sequence_the_fence() -> None:
    log = Log()
    assert log.claimed().lane("main").fence == 1
    assert log.claimed(owner="w2").lane("main") == Lane(2, Participant("agent", "w2"))


@pytest.mark.parametrize("id_", ["0-1", "2-1", "x", "", "1", "1-", "-1", "1-1-1", "one-1"])
def test_only_the_current_fence_counts(id_: str) -> None:
    state = Log().claimed()
    after = fold(state, 2, Entry(id_, 1, (RunStarted("s", "run_i1"),), "main"))
    assert after == replace(state, as_of=2)


def test_a_lane_that_nobody_claimed_has_no_fence() -> None:
    assert fold(SessionState(), 1, Entry("0-1", 1, (RunStarted("s", "run_i1"),), "main")) == SessionState(as_of=1)


def test_each_lane_has_its_own_fence(log: Log) -> None:
    log.claimed(lane="other")
    assert log.wrote(RunStarted("s", "run_x"), lane="main").runs == {}
    assert log.wrote(RunStarted("s", "run_x"), lane="other").lane("other").run == "run_x"


def test_a_release_leaves_the_lane_to_nobody(log: Log) -> None:
    log.started()
    lane = log.claimed(kind="none", owner="").lane("main")
    assert (lane.owner, lane.run) == (None, "run_i1")


@pytest.mark.parametrize("n", [1, 2])
def test_a_repeated_write_counts_as_nothing(log: Log, n: int) -> None:
    log.started()
    before = log.wrote(RunFinished("s", "run_i1"))
    assert log.wrote(RunStarted("s", "run_i1"), n=n) == replace(before, as_of=before.as_of + 1)


def test_an_owner_that_does_not_let_go_is_lost_to_its_run(log: Log) -> None:
    log.started()
    assert log.claimed(owner="w2").runs["run_i1"].lost == 1
    log.claimed(kind="none", owner="")
    assert log.claimed(owner="w3").runs["run_i1"].lost == 1, "it was handed over"
    assert log.claimed(owner="w4").runs["run_i1"].lost == 2
    log.wrote(RunFinished("s", "run_i1"))
    assert log.claimed(owner="w5").runs == {}


def test_numbers_begin_anew_under_a_new_fence(log: Log) -> None:
    log.wrote(n=7)
    log.claimed(owner="w2")
    assert log.started().lane("main").run == "run_i1"


# --- rules 4 to 8: inputs and cancels --------------------------------------------------------------------------------


def test_an_input_waits_as_it_was_sent() -> None:
    log = Log()
    log.said(InputSent("i1", "Hello", "enqueue"))
    assert log.state.inputs == (QueuedInput("i1", 1, 1, USER, "Hello", "enqueue"),)


def test_an_input_id_counts_once(log: Log) -> None:
    assert [i.content for i in log.said(InputSent("i1", "Again")).inputs] == ["Hello"]
    log.said(InputCancelRequested("i1"))
    assert log.said(InputSent("i1", "And again")).inputs == ()


def test_one_more_than_the_queue_holds_is_refused_for_ever(log: Log) -> None:
    for number in range(2, MAX_QUEUE + 2):
        log.said(InputSent(f"i{number}", "x"))
    assert len(log.state.inputs) == MAX_QUEUE
    refused = log.state.fate("i17")
    assert refused is not None
    assert (refused.status, refused.code) == ("refused", "queue_full")
    log.said(InputCancelRequested("i1"))
    assert log.said(InputSent("i17", "x")).queued("i17") is None
    assert log.said(InputSent("i18", "x")).queued("i18") is not None


def test_a_session_takes_a_bounded_number_of_inputs(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "MAX_INPUTS", 2)
    log.said(InputSent("i2", "x"))
    fate = log.said(InputSent("i3", "x")).fate("i3")
    assert fate is not None
    assert (fate.status, fate.code) == ("refused", "session_full")
    assert [i.input_id for i in log.state.inputs] == ["i1", "i2"]


def test_an_input_is_taken_back(log: Log) -> None:
    log.said(InputSent("i2", "x"))
    log.said(InputCancelRequested("i1"), by=OTHER_USER)
    assert [i.input_id for i in log.state.inputs] == ["i2"]
    fate = log.state.fate("i1")
    assert fate == InputFate("i1", 2, "cancelled", None, OTHER_USER)


def test_an_input_that_is_not_queued_cannot_be_taken_back(log: Log) -> None:
    before = log.started()
    assert log.said(InputCancelRequested("i1")) == replace(before, as_of=before.as_of + 1)
    assert log.said(InputCancelRequested("nothing")).fate("nothing") is None


def test_the_first_to_cancel_a_run_counts(log: Log) -> None:
    log.started()
    log.said(RunCancelRequested("run_i1"), by=OTHER_USER)
    log.said(RunCancelRequested("run_i1"), by=USER)
    assert log.state.runs["run_i1"].cancel == Cancel("immediate", OTHER_USER)


def test_a_run_that_waits_is_cancelled_with_its_input(log: Log) -> None:
    log.said(InputSent("i2", "x"))
    log.said(RunCancelRequested("run_i2"))
    assert [i.input_id for i in log.state.inputs] == ["i1"]
    log.started()
    assert log.state.runs["run_i1"].cancel is None


def test_cancelling_never_hits_another_run(log: Log) -> None:
    before = log.started()
    for run_id in ("run_i9", "i1", "run_", ""):
        assert log.said(RunCancelRequested(run_id)) == replace(before, as_of=log.state.as_of)


# --- rules 9 and 10: runs --------------------------------------------------------------------------------------------


def test_a_run_starts_and_its_input_is_applied(log: Log) -> None:
    state = log.started()
    assert state.runs["run_i1"] == Run("run_i1", "main", "i1", 3, since=1)
    assert state.lane("main").run == "run_i1"
    assert (state.inputs, state.messages) == ((), 1)
    fate = state.fate("i1")
    assert fate is not None
    assert (fate.status, fate.seq) == ("applied", 2)


@pytest.mark.parametrize("taken_back", [InputCancelRequested("i1"), RunCancelRequested("run_i1")])
def test_a_run_that_starts_too_late_is_cancelled_from_the_start(log: Log, taken_back: Event) -> None:
    log.said(taken_back)
    state = log.started()
    assert state.runs["run_i1"].cancel == Cancel("immediate", USER)
    assert state.messages == 0, "an input that was taken back does not enter the transcript"


def test_a_lane_runs_one_run(log: Log) -> None:
    before = log.started()
    assert log.wrote(RunStarted("s", "run_i2")).runs == before.runs


def test_a_run_runs_in_one_lane(log: Log) -> None:
    log.started()
    log.claimed(lane="other")
    assert log.wrote(RunStarted("s", "run_i1"), lane="other").lane("other").run is None


def test_an_input_fails(log: Log) -> None:
    fate = log.wrote(InputFailed("i1", "bad_input")).fate("i1")
    assert fate is not None
    assert (fate.status, fate.code, log.state.inputs) == ("failed", "bad_input", ())


def test_a_takeover_counts_attempts_of_the_lanes_run(log: Log) -> None:
    log.started()
    log.claimed(owner="w2")
    assert log.wrote(RunTakenOver("run_i1", 2, "continue")).runs["run_i1"].attempt == 2
    assert log.wrote(RunTakenOver("run_i9", 3, "continue")).runs["run_i1"].attempt == 2


@pytest.mark.parametrize(
    ("ending", "status"),
    [
        (RunFinished("s", "run_i1"), "success"),
        (RunFinished("s", "run_i1", {"type": "success"}), "success"),
        (RunFinished("s", "run_i1", {"type": "cancelled"}), "cancelled"),
        (RunFinished("s", "run_i1", {}), "success"),
        (RunError("it broke"), "error"),
    ],
)
def test_a_run_ends(log: Log, ending: Event, status: str) -> None:
    log.started()
    log.wrote(TextMessageStart("m1"))
    state = log.wrote(ending)
    assert (state.runs, state.lane("main").run, state.end_of("run_i1")) == ({}, None, Ended("run_i1", status))
    assert state.settled_floor() is None
    assert state.idle


def test_the_end_of_another_run_ends_nothing(log: Log) -> None:
    before = log.started()
    assert log.wrote(RunFinished("s", "run_i9")).runs == before.runs


def test_an_end_without_a_run_is_nothing(log: Log) -> None:
    assert log.wrote(RunError("it broke")).ended == ()


# --- texts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "end", "kind"),
    [
        (TextMessageStart("m1"), TextMessageEnd("m1"), "text"),
        (ReasoningMessageStart("m1"), ReasoningMessageEnd("m1"), "reasoning"),
        (ToolCallStart("m1", "look_up"), ToolCallEnd("m1"), "tool_call"),
    ],
)
def test_texts_are_known_while_they_are_open(log: Log, start: Event, end: Event, kind: str) -> None:
    log.started()
    opened_at = log.wrote(start).as_of
    assert log.state.lane("main").streams["m1"] == OpenStream("m1", kind, opened_at)
    assert log.state.settled_floor() == opened_at
    settled_at = log.wrote(MessageSegment("m1", 0, 5)).as_of
    assert log.state.lane("main").streams["m1"] == OpenStream("m1", kind, settled_at, 5)
    assert log.wrote(end).settled_floor() is None
    assert log.state.messages == 2


def test_a_segment_that_comes_late_does_not_unsettle(log: Log) -> None:
    log.wrote(TextMessageStart("m1"))
    log.wrote(MessageSegment("m1", 0, 9))
    assert log.wrote(MessageSegment("m1", 0, 5)).lane("main").streams["m1"].settled == 9
    assert log.wrote(MessageSegment("m9", 0, 5)).lane("main").streams.keys() == {"m1"}


def test_the_oldest_open_text_says_what_is_settled(log: Log) -> None:
    first = log.wrote(TextMessageStart("m1")).as_of
    log.wrote(ToolCallStart("t1", "look_up"))
    assert log.state.settled_floor() == first
    assert log.wrote(MessageSegment("m1", 0, 1)).settled_floor() == first + 1


def test_results_are_messages(log: Log) -> None:
    assert log.wrote(ToolCallResult("m1", "t1", "42")).messages == 1


# --- what does not count ---------------------------------------------------------------------------------------------


def test_deltas_do_not_touch_the_state(log: Log) -> None:
    before = log.wrote(TextMessageStart("m1"))
    assert log.wrote(TextMessageContent("m1", "x"), off=0) is before


def test_an_entry_that_was_folded_is_not_folded_again(log: Log) -> None:
    again = Entry("x", 1, (InputSent("i2", "x"),), by=USER)
    assert fold(log.state, log.state.as_of, again) is log.state


@pytest.mark.parametrize("event", [RunStarted("s", "run_i1"), InputApplied("i1", "run_i1", "m"), RunError("x")])
def test_a_participant_cannot_speak_as_the_lane(log: Log, event: Event) -> None:
    before = log.state
    assert log.said(event) == replace(before, as_of=before.as_of + 1)


def test_unknown_events_change_nothing_and_have_their_place(log: Log) -> None:
    before = log.state
    assert log.said(OtherEvent("x.y", {"type": "x.y"})) == replace(before, as_of=before.as_of + 1)
    assert log.wrote(OtherEvent("CUSTOM", {"type": "CUSTOM"})).runs == before.runs


# --- bounds and views ------------------------------------------------------------------------------------------------


def test_what_is_remembered_of_ends_is_bounded() -> None:
    log = Log()
    log.claimed()
    for number in range(FATES_KEPT + 1):
        log.said(InputSent(f"i{number}", "x"))
        log.started(f"i{number}")
        log.wrote(RunFinished("s", f"run_i{number}"))
    assert len(log.state.fates) == len(log.state.ended) == FATES_KEPT
    assert (log.state.fate("i0"), log.state.end_of("run_i0")) == (None, None)
    assert "i0" in log.state.seen
    assert log.state.end_of("run_i1") == Ended("run_i1", "success")


def test_seen_keeps_every_id_through_its_merges() -> None:
    seen, ids = Seen(), [f"i{number}" for number in range(600)]
    for id_ in ids:
        seen = seen.add(id_)
    assert all(id_ in seen for id_ in ids)
    assert "i600" not in seen
    assert (len(seen), len(seen.hashes())) == (600, 600)


def test_what_clients_see(log: Log) -> None:
    log.started()
    log.said(RunCancelRequested("run_i1"), by=OTHER_USER)
    log.said(InputSent("i2", "And?"))
    log.claimed(kind="none", owner="")
    assert public_view(log.state) == {
        "status": "running",
        "title": None,
        "metadata": {},
        "config": config_to_wire(SessionConfig()),
        "lanes": {"main": {"owner": None, "fence": 6, "run": "run_i1", "can": [], "paused": None}},
        "runs": [
            {
                "runId": "run_i1",
                "lane": "main",
                "inputId": "i1",
                "attempt": 1,
                "cancel": {"mode": "immediate", "by": {"kind": "user", "id": "user-2"}, "reason": "requested"},
                "parent": None,
                "agent": None,
            }
        ],
        "inputs": [
            {
                "inputId": "i2",
                "seq": 5,
                "ts": 5,
                "by": {"kind": "user", "id": "user-1", "name": "A user"},
                "content": "And?",
                "mode": "enqueue",
                "lane": "main",
                "parent": None,
            }
        ],
        "scheduled": [],
        "calls": [],
        "approvals": [],
        "handoffs": [],
        "remembered": {},
    }
