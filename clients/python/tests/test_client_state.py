"""The fold of the state, rule by rule (PROTOCOL, section 6)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon_client import Entry, Fold, Input, InputApplied, Lane, Outcome, Run, State
from antiphon_client.changes import Change, InputDropped, RunEnded
from antiphon_client.rules.inputs import MAX_INPUTS

Event = dict[str, Any]
USER = {"kind": "user", "id": "user-1"}
BY_USER = {"mode": "immediate", "by": USER, "reason": "requested"}


class Log:
    """Builds entries and folds them into a state."""

    def __init__(self, state: State | None = None) -> None:
        self.state = State() if state is None else state
        self.seq = 0
        self.fence = 0

    def lane(
        self, *events: Event, fence: int | None = None, lane: str = "main", number: int | None = None, **fields: Any
    ) -> list[Change]:
        self.seq += 1
        name = f"{self.fence if fence is None else fence}-{self.seq if number is None else number}"
        return self.state.apply(Entry("demo", self.seq, self.seq - 1, id=name, lane=lane, events=events, **fields))

    def owner(self, kind: str = "agent", lane: str = "main") -> None:
        self.lane({"type": "session.owner", "lane": lane, "kind": kind, "id": "w-1"}, fence=0, lane=lane)
        self.fence = self.seq

    def person(self, kind: str, **fields: Any) -> list[Change]:
        self.seq += 1
        event = {"type": kind, **fields}
        return self.state.apply(
            Entry("demo", self.seq, self.seq - 1, id="x", ts=self.seq * 10, by=USER, events=(event,))
        )

    def send(self, input_id: str, content: str = "hi", **fields: Any) -> list[Change]:
        return self.person("input.sent", inputId=input_id, content=content, **fields)

    def start(self, input_id: str, **fields: Any) -> list[Change]:
        return self.lane({"type": "RUN_STARTED", "threadId": "demo", "runId": "run_" + input_id}, **fields)

    def queued(self) -> list[str]:
        return [waiting.input_id for waiting in self.state.inputs]


@pytest.fixture
def log() -> Log:
    log = Log()
    log.owner()
    return log


def test_a_run_from_end_to_end(log: Log) -> None:
    assert log.send("i", "Hello", mode="m") == []
    assert log.state.inputs == (Input("i", 2, 20, USER, "Hello", "enqueue"),)
    log.start("i")
    assert log.state.runs == (Run("run_i", "main", "i", 1, None),)
    applied = {"type": "input.applied", "inputId": "i", "runId": "run_i", "messageId": "msg"}
    assert log.lane(applied) == [InputApplied("i", "run_i", "msg", Input("i", 2, 20, USER, "Hello"))]
    assert log.queued() == []
    assert log.state.lanes["main"] == Lane({"kind": "agent", "id": "w-1"}, 1, "run_i")
    ended = log.lane({"type": "RUN_FINISHED", "runId": "run_i", "outcome": {"type": "success"}})
    assert ended == [RunEnded("run_i", Outcome("success"))]
    assert not log.state.is_running("run_i")
    assert log.state.lanes["main"].run is None


class TestLanes:
    def test_the_owner_sets_the_fence(self, log: Log) -> None:
        assert log.state.lanes == {"main": Lane({"kind": "agent", "id": "w-1"}, 1, None)}
        log.owner("none")
        assert log.state.lanes == {"main": Lane(None, 2, None)}

    def test_lanes_are_apart(self, log: Log) -> None:
        log.owner(lane="side")
        log.start("a", lane="side")
        log.start("b", fence=1)
        assert {name: lane.run for name, lane in log.state.lanes.items()} == {"side": "run_a", "main": "run_b"}

    def test_an_owner_without_a_lane_owns_that_of_its_entry(self, log: Log) -> None:
        log.lane({"type": "session.owner", "kind": "user", "id": "user-1"})
        assert log.state.lanes["main"].owner == {"kind": "user", "id": "user-1"}

    @pytest.mark.parametrize("fence", [0, 2, 99])
    def test_only_the_current_fence_counts(self, log: Log, fence: int) -> None:
        log.start("i", fence=fence)
        assert log.state.runs == ()

    def test_a_lane_that_nobody_ever_owned_does_not_count(self) -> None:
        log = Log()
        log.start("i")
        assert log.state.as_dict() == State().as_dict()

    def test_an_entry_without_a_fence_does_not_count(self, log: Log) -> None:
        started = {"type": "RUN_STARTED", "runId": "run_i"}
        log.state.apply(Entry("demo", 2, 1, id="i", lane="main", events=(started,)))
        assert log.state.runs == ()

    def test_a_repeated_record_counts_once(self, log: Log) -> None:
        log.start("a", number=5)
        log.lane({"type": "RUN_FINISHED", "runId": "run_a"}, number=6)
        log.start("a", number=5)
        assert not log.state.is_running("run_a")
        log.start("b", number=6)
        assert not log.state.is_running("run_b")
        log.start("b", number=7)
        assert [run.run_id for run in log.state.runs] == ["run_b"]

    def test_numbers_begin_anew_under_a_new_fence(self, log: Log) -> None:
        log.start("a", number=9)
        log.owner()
        log.lane({"type": "run.taken_over", "runId": "run_a", "attempt": 2}, number=0)
        assert log.state.runs[0].attempt == 2

    def test_deltas_have_no_part_in_the_numbers(self, log: Log) -> None:
        log.lane({"type": "TEXT_MESSAGE_CONTENT", "messageId": "m", "delta": "x"}, number=50, off=0)
        log.start("a", number=2)
        assert [run.run_id for run in log.state.runs] == ["run_a"]

    def test_a_run_outlives_its_owner(self, log: Log) -> None:
        log.start("i")
        log.owner()
        assert log.state.lanes["main"].run == "run_i"
        log.lane({"type": "run.taken_over", "runId": "run_i", "attempt": 2, "policy": "continue"})
        assert log.state.runs == (Run("run_i", "main", "i", 2, None),)

    def test_an_owner_counts_only_alone_in_its_entry(self, log: Log) -> None:
        owner = {"type": "session.owner", "lane": "main", "kind": "agent", "id": "w-2"}
        log.lane({"type": "RUN_STARTED", "runId": "run_i"}, owner)
        log.lane(owner, {"type": "RUN_STARTED", "runId": "run_j"}, fence=3)
        assert log.state.lanes == {"main": Lane({"kind": "agent", "id": "w-1"}, 1, "run_i")}

    def test_a_reader_who_begins_in_the_middle_meets_a_run(self) -> None:
        log = Log(State(partial=True))
        request = {"type": "tool.requested", "toolCallId": "c", "name": "pick", "args": {}, "executor": "client"}
        log.lane(request, fence=7, run="run_i")
        assert [(run.run_id, run.input_id) for run in log.state.runs] == [("run_i", "i")]
        assert [call.tool_call_id for call in log.state.calls] == ["c"]


class TestQueue:
    def test_an_id_counts_once(self, log: Log) -> None:
        log.send("i", "one")
        log.send("i", "two")
        assert [waiting.content for waiting in log.state.inputs] == ["one"]
        log.lane({"type": "input.applied", "inputId": "i", "runId": "run_i", "messageId": "m"})
        log.send("i", "three")
        assert log.queued() == []

    def test_sixteen_wait_and_the_next_is_spent(self, log: Log) -> None:
        for number in range(16):
            assert log.send(f"i{number}") == []
        assert log.send("late") == [InputDropped("late", "queue_full")]
        assert len(log.state.inputs) == 16
        log.person("input.cancel.requested", inputId="i0")
        log.send("late")
        assert "late" not in log.queued()
        log.send("later")
        assert log.queued()[-1] == "later"

    def test_a_session_has_a_limited_number_of_inputs(self, log: Log) -> None:
        for number in range(MAX_INPUTS):
            log.send(f"i{number}")
            log.person("input.cancel.requested", inputId=f"i{number}")
        assert log.send("late") == [InputDropped("late", "session_full")]
        assert log.queued() == []

    def test_taking_back(self, log: Log) -> None:
        log.send("i")
        assert log.person("input.cancel.requested", inputId="i") == [InputDropped("i", "cancelled")]
        assert log.person("input.cancel.requested", inputId="i") == []
        assert log.queued() == []
        log.send("i")
        assert log.queued() == []

    def test_taking_back_comes_too_late(self, log: Log) -> None:
        log.send("i")
        log.start("i")
        log.lane({"type": "input.applied", "inputId": "i", "runId": "run_i", "messageId": "m"})
        assert log.person("input.cancel.requested", inputId="i") == []
        assert log.state.runs[0].cancel is None

    def test_a_failed_input_leaves_the_queue(self, log: Log) -> None:
        log.send("i")
        failed = {"type": "input.failed", "inputId": "i", "code": "content_too_large"}
        assert log.lane(failed) == [InputDropped("i", "content_too_large")]
        assert log.queued() == []


class TestCancelling:
    def test_a_running_run_once(self, log: Log) -> None:
        log.start("i")
        log.person("run.cancel.requested", runId="run_i", mode="immediate")
        log.person("run.cancel.requested", runId="run_i", mode="later")
        assert log.state.runs[0].cancel == BY_USER
        assert log.lane({"type": "RUN_FINISHED", "runId": "run_i", "outcome": {"type": "cancelled"}}) == [
            RunEnded("run_i", Outcome("cancelled"))
        ]

    def test_before_the_run_starts(self, log: Log) -> None:
        log.send("i")
        changes = log.person("run.cancel.requested", runId="run_i", mode="immediate")
        assert changes == [InputDropped("i", "cancelled")]
        assert log.queued() == []

    @pytest.mark.parametrize("run_id", ["run_other", "other", "run_", 7, None])
    def test_another_run_is_not_touched(self, log: Log, run_id: Any) -> None:
        log.send("i")
        log.start("i")
        before = log.state.as_dict()
        log.person("run.cancel.requested", runId=run_id, mode="immediate")
        assert log.state.as_dict() == before

    def test_a_run_that_starts_after_its_input_was_taken_back_is_to_stop(self, log: Log) -> None:
        log.send("i")
        log.person("input.cancel.requested", inputId="i")
        log.start("i")
        assert log.state.runs == (Run("run_i", "main", "i", 1, BY_USER),)


class TestEnding:
    def test_an_error(self, log: Log) -> None:
        log.start("i")
        ended = log.lane({"type": "RUN_ERROR", "message": "boom", "code": "agent_error"})
        assert ended == [RunEnded("run_i", Outcome("error", "agent_error", "boom"))]
        assert log.state.runs == ()

    def test_a_lane_has_one_run(self, log: Log) -> None:
        log.start("a")
        log.start("b")
        assert [run.run_id for run in log.state.runs] == ["run_a"]

    def test_another_run_cannot_be_finished(self, log: Log) -> None:
        log.start("a")
        assert log.lane({"type": "RUN_FINISHED", "runId": "run_b", "outcome": {"type": "success"}}) == []
        assert log.lane({"type": "RUN_FINISHED", "outcome": {"type": "success"}}) == []
        assert [run.run_id for run in log.state.runs] == ["run_a"]

    def test_nothing_runs_nothing_ends(self, log: Log) -> None:
        assert log.lane({"type": "RUN_ERROR", "code": "agent_error"}, run="run_a") == []

    def test_only_success_is_ok(self) -> None:
        assert [Outcome(kind).ok for kind in ("success", "cancelled", "error", "unknown")] == [True] + [False] * 3


class TestSnapshot:
    def test_goes_on_where_it_stands(self, log: Log) -> None:
        log.send("a")
        log.start("a")
        log.person("run.cancel.requested", runId="run_a", mode="immediate")
        log.send("b")
        copy = Log(State.from_dict(json.loads(json.dumps(log.state.as_dict()))))
        assert copy.state.as_dict() == log.state.as_dict()
        copy.seq, copy.fence = log.seq, log.fence
        for each in (log, copy):
            each.send("b", "again")
            each.lane({"type": "input.applied", "inputId": "b", "runId": "run_b", "messageId": "m"})
            each.lane({"type": "RUN_FINISHED", "runId": "run_a", "outcome": {"type": "success"}})
        assert copy.state.as_dict() == log.state.as_dict()

    def test_is_that_of_the_protocol(self) -> None:
        cancel = {"mode": "immediate", "by": USER, "reason": "requested"}
        claim = {"claimId": "c1", "by": USER, "device": "d", "expiresAt": 50}
        raw = {
            "status": "paused",
            "title": "Trip",
            "metadata": {"a": [1]},
            "config": {
                "onBusy": "reject", "coalesce": "latest", "maxQueue": 3, "approvalOnInput": "cancel",
                "whenUnwatched": "pause", "unwatchedGraceMs": 0, "pool": "big",
                "roles": {"*": {"modes": ["auto"], "maxQueue": 0, "cancel": False}},
            },
            "lanes": {
                "main": {"owner": {"kind": "agent", "id": "w-71"}, "fence": 1180, "run": "run_a", "can": ["inject"], "paused": "unwatched"},
            },
            "runs": [{"runId": "run_a", "lane": "main", "inputId": "a", "attempt": 1, "cancel": cancel, "parent": "run_x", "agent": "writer"}],
            "inputs": [{"inputId": "b", "seq": 1201, "ts": 17, "by": USER, "content": "And then?", "mode": "inject", "lane": "main", "parent": None}],
            "scheduled": [{"inputId": "s", "seq": 1190, "ts": 16, "by": USER, "content": "Later", "at": 99, "mode": "enqueue"}],
            "calls": [{"toolCallId": "c", "lane": "main", "runId": "run_a", "name": "pick", "args": {"a": 1}, "executor": "client", "idempotent": True,
                       "participant": "user-1", "device": "d", "anyAfter": 4, "deadline": 9, "claim": claim}],
            "approvals": [{"approvalId": "p", "kind": "question", "lane": "main", "runId": "run_a", "message": "Which?", "options": ["answer", "decline"],
                           "default": "decline", "expiresAt": 8, "toolCallId": "c", "key": "k", "roles": ["boss"], "quorum": 2,
                           "responseSchema": {"type": "string"}, "details": {"a": None}, "votes": [{"by": USER, "option": "answer"}]}],
            "handoffs": [{"handoffId": "h", "lane": "main", "runId": "run_a", "to": "support", "reason": "refund", "summary": "s", "expiresAt": None}],
            "remembered": {"k": {"option": "allow_always", "by": USER}},
        }  # fmt: skip
        assert State.from_dict(raw).as_dict() == raw

    @pytest.mark.parametrize(
        "raw",
        [
            {},
            {
                "lanes": [],
                "runs": {},
                "inputs": 3,
                "calls": "x",
                "approvals": {},
                "handoffs": None,
                "remembered": [],
                "config": 7,
            },
            {
                "calls": [{}, {"toolCallId": "c"}],
                "approvals": [{"approvalId": "p"}],
                "handoffs": [{"handoffId": 1}],
                "title": 4,
            },
            {
                "remembered": {"k": 1},
                "config": {"onBusy": "no", "maxQueue": 65, "roles": {"a": {"modes": ["no"]}}, "pool": ""},
            },
            {"lanes": {"main": None, "side": {"fence": "x"}}, "runs": [{}, 1], "inputs": [{}, None, {"inputId": 1}]},
        ],
    )
    def test_leaves_out_what_is_malformed(self, raw: Event) -> None:
        assert State.from_dict(raw).as_dict() == State().as_dict()


class TestPartial:
    def test_takes_the_first_fence_it_meets(self) -> None:
        log = Log(State(partial=True))
        log.start("i", fence=7)
        assert log.state.lanes == {"main": Lane(None, 7, "run_i")}
        log.start("j", fence=6)
        assert [run.run_id for run in log.state.runs] == ["run_i"]

    def test_tells_of_runs_whose_start_it_missed(self) -> None:
        log = Log(State(partial=True))
        finished = {"type": "RUN_FINISHED", "runId": "run_i", "outcome": {"type": "success"}}
        assert log.lane(finished, fence=7) == [RunEnded("run_i", Outcome("success"))]
        assert log.lane({"type": "RUN_ERROR"}, fence=7, run="run_j") == [
            RunEnded("run_j", Outcome("error", "agent_error"))
        ]


KINDS = (
    "session.owner", "input.sent", "input.cancel.requested", "input.applied", "input.failed", "run.cancel.requested",
    "run.taken_over", "RUN_STARTED", "RUN_FINISHED", "RUN_ERROR", "TEXT_MESSAGE_START", "TEXT_MESSAGE_CONTENT",
    "run.requested", "run.dropped", "session.state", "tool.requested", "tool.claimed", "tool.released", "tool.resolved",
    "tool.lapsed", "tool.failed", "approval.requested", "approval.responded", "approval.resolved", "approval.revoked",
    "handoff.requested", "handoff.returned", "handoff.expired", "session.created", "session.updated", "session.closed",
    "session.reopened",
    "TEXT_MESSAGE_END", "TOOL_CALL_START", "TOOL_CALL_ARGS", "TOOL_CALL_RESULT", "message.segment", "CUSTOM",
)  # fmt: skip
NAMES = (
    "inputId", "runId", "lane", "kind", "id", "mode", "attempt", "messageId", "toolCallId", "content", "outcome",
    "delta", "offset", "text", "final", "reason", "code", "claimId", "expiresAt", "name", "executor", "idempotent",
    "participant", "device", "anyAfter", "deadline", "approvalId", "option", "options", "roles", "quorum", "key", "can",
    "state", "handoffId", "note", "title", "metadata", "config", "childLane", "parentRunId", "votes",
)  # fmt: skip
odd = st.one_of(
    st.sampled_from(["a", "b", "run_a", "run_b", "main", "none", "agent", ""]),
    st.none(), st.booleans(), st.integers(-2, 5), st.lists(st.integers(), max_size=1),
    st.fixed_dictionaries({"type": st.sampled_from(["success", "cancelled", 3])}),
    st.sampled_from(["user", "client", "allow_once", "allow_always", "paused"]),
    st.lists(st.sampled_from(["inject", "allow_once", "allow_always"]), max_size=2),
    st.fixed_dictionaries({}, optional={"onBusy": st.sampled_from(["interrupt", 1]), "coalesce": st.just("latest"), "roles": st.just({"*": {"maxQueue": 0}})}),
    st.fixed_dictionaries({"kind": st.just("user"), "id": st.sampled_from(["a", "b"])}),
)  # fmt: skip
events = st.builds(
    lambda kind, fields: {"type": kind, **fields},
    st.sampled_from(KINDS) | odd,
    st.dictionaries(st.sampled_from(NAMES), odd, max_size=8),
)
raw_entries = st.fixed_dictionaries(
    {"events": st.lists(events | odd, max_size=3)},
    optional={
        "id": st.sampled_from(["1-1", "2-2", "x", 3]),
        "lane": st.sampled_from(["main", 4]),
        "off": odd,
        "by": odd,
    },
)


@given(st.lists(raw_entries, max_size=25))
def test_any_log_folds_without_an_error_and_always_alike(raw: list[Event]) -> None:
    folds = Fold(), Fold()
    for folded in folds:
        for index, fields in enumerate(raw):
            entry = Entry.parse({"session": "demo", "seq": index + 1, "prev": index, **fields})
            assert entry is not None
            folded.apply(entry)
    first, second = (json.dumps(folded.as_dict()) for folded in folds)
    assert first == second
    state = folds[0].state
    assert len(state.inputs) <= 16
    assert {run.run_id for run in state.runs} == {lane.run for lane in state.lanes.values() if lane.run is not None}
    assert State.from_dict(json.loads(first)["state"]).as_dict() == state.as_dict()
