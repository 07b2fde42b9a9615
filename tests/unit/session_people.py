"""People in a session, for the state machine in test_session_machine.py: they steer, decide, claim and answer."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from broker.events import (
    ApprovalResolved,
    ApprovalResponded,
    ApprovalRevoked,
    Event,
    HandoffExpired,
    HandoffReturned,
    InputCancelRequested,
    InputFailed,
    InputScheduled,
    InputSent,
    RunCancelRequested,
    RunError,
    RunFinished,
    RunStarted,
    SessionClosed,
    SessionCreated,
    SessionReopened,
    SessionUpdated,
    ToolClaimed,
    ToolFailed,
    ToolReleased,
    ToolResolved,
)
from broker.session_config import COALESCE, ON_BUSY
from tests.unit.session_world import USERS, World, plain

lanes = st.sampled_from(("main", "main", "main", "helper", "deep"))
users = st.sampled_from(USERS)
modes = st.sampled_from((*ON_BUSY, "enqueue", None, None, None, "someday"))
some = st.integers(0, 7)
again = st.none() | st.none() | some
mostly = st.sampled_from((True, True, True, False))
seldom = st.sampled_from((False, False, False, True))
claim_ids = st.sampled_from(("c1", "c2", "c3"))
spans = st.integers(-2, 40)
options = st.sampled_from(("allow_once", "allow_always", "reject_once", "reject_always", "answer", "never"))
asked_options = st.sampled_from(
    (
        ("allow_once", "reject_once"),
        ("allow_once", "allow_always", "reject_once", "reject_always"),
        ("answer", "decline"),
    )
)
role_limits = st.fixed_dictionaries(
    {},
    optional={
        "modes": st.none() | st.lists(st.sampled_from(ON_BUSY), max_size=3),
        "maxQueue": st.none() | st.integers(0, 3),
        "cancel": st.booleans(),
    },
)
configs: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {},
    optional={
        "onBusy": st.sampled_from((*ON_BUSY, "never")),
        "coalesce": st.sampled_from((*COALESCE, None)),
        "maxQueue": st.sampled_from((1, 2, 3, 16, 0, 65, True)),
        "approvalOnInput": st.sampled_from(("wait", "cancel", 1)),
        "roles": st.dictionaries(st.sampled_from(("guest", "lead", "*")), role_limits, max_size=2) | st.just([]),
    },
)


class People(RuleBasedStateMachine):
    """What participants do, rightly and wrongly, and how time goes by."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()

    @property
    def state(self) -> Any:
        return self.world.state

    # --- people: inputs and cancels --------------------------------------------------------------------------------------

    @rule(by=users, number=again, mode=modes)
    def send(self, by: Any, number: int | None, mode: str | None) -> None:
        if self.state.closed and mode is None:
            self.world.said(by, SessionReopened())
        id_ = self.world.input_id(number)
        self.world.said(by, InputSent(id_, f"say {id_}", mode))

    @rule(by=users, number=again, mode=modes, at=some)
    def send_later(self, by: Any, number: int | None, mode: str | None, at: int) -> None:
        id_ = self.world.input_id(number)
        self.world.said(by, InputScheduled(id_, f"later {id_}", at, mode))

    @precondition(lambda self: self.state.scheduled)
    @rule(number=some, late=st.booleans(), right=mostly)
    def fall_due(self, number: int, late: bool, right: bool) -> None:
        """A gateway says that an input is due; perhaps another says it, too, or says it of another time."""
        planned = self.state.scheduled[number % len(self.state.scheduled)]
        at = planned.at if right else planned.at + 1
        event = InputSent(planned.input_id, planned.content, planned.mode, None, at)
        before = self.state
        self.world.said(planned.by, event)
        if not right:
            assert plain(self.state) == plain(before) | {"as_of": self.state.as_of}
        elif self.state.planned(planned.input_id) is not None:
            assert self.state.closed or self.state.inputs, "it waits for a session to be opened, or for room"
        if late:
            again, waits = self.state, self.state.planned(planned.input_id) is not None
            self.world.said(planned.by, event)
            assert waits or plain(self.state) == plain(again) | {"as_of": self.state.as_of}, "it is due once"

    @rule(by=users, number=some, what=st.sampled_from(("input", "immediate", "after_step", "gently")))
    def stop(self, by: Any, number: int, what: str) -> None:
        """Takes an input back, or cancels a run: one that runs, waits, is over or never was."""
        if what == "input":
            self.world.said(by, InputCancelRequested(self._input(number)))
        else:
            runs = [f"run_{self._input(number)}", *self.state.runs, "run_"]
            self.world.said(by, RunCancelRequested(runs[number % len(runs)], what))

    def _input(self, number: int) -> str:
        waiting = [*self.state.inputs, *self.state.scheduled]
        ids = [*(queued.input_id for queued in waiting), *self.world.input_ids, "i_0"]
        return ids[number % len(ids)]

    # --- people: calls ---------------------------------------------------------------------------------------------------

    def _call(self, number: int) -> str:
        ids = [*(call.id for call in self.state.calls.values() if call.status == "open"), *self.state.calls]
        return ids[number % len(ids)]

    @precondition(lambda self: self.state.calls)
    @rule(
        tries=st.lists(st.tuples(users, claim_ids, st.booleans(), st.integers(0, 2)), min_size=1, max_size=4),
        number=some,
        lease=st.integers(0, 6),
    )
    def race_for_call(self, tries: list[Any], number: int, lease: int) -> None:
        """Some people claim a call one after another, or renew, perhaps when the claim before it has just run out."""
        id_ = self._call(number)
        for by, claim, phone, waits in tries:
            held = self.state.calls[id_].claim
            if waits and held is not None:
                self.world.now = max(self.world.now, held.expires_at + waits - 1)
            self.world.said(by, ToolClaimed(id_, claim, self.world.now + lease, "phone" if phone else None))

    @precondition(lambda self: self.state.calls)
    @rule(
        tries=st.lists(st.tuples(users, claim_ids, st.integers(0, 3)), min_size=1, max_size=3),
        number=some,
        release=seldom,
    )
    def answer_call(self, tries: list[Any], number: int, release: bool) -> None:
        """Results or releases: from the claimant, under the right claim or another, or from anybody."""
        claimed = [call.id for call in self.state.calls.values() if call.claim is not None and call.status == "open"]
        id_ = claimed[number % len(claimed)] if claimed else self._call(number)
        for anybody, another, right in tries:
            held = self.state.calls[id_].claim
            by = held.by if held is not None and right else anybody
            claim = held.claim_id if held is not None and right > 1 else another
            self.world.said(by, ToolReleased(id_, claim) if release else ToolResolved(id_, claim, {"ok": True}))

    # --- people: decisions -----------------------------------------------------------------------------------------------

    @precondition(lambda self: self.state.approvals)
    @rule(by=users, number=some, option=options, right=mostly)
    def decide(self, by: Any, number: int, option: str, right: bool) -> None:
        pending = [approval for approval in self.state.approvals.values() if approval.status == "pending"]
        approval = pending[number % len(pending)] if pending and right else next(iter(self.state.approvals.values()))
        if right:
            option = approval.options[number % len(approval.options)]
        self.world.said(by, ApprovalResponded(approval.id, option))

    @precondition(lambda self: self.state.remembered)
    @rule(by=users, key=st.sampled_from(("k1", "k2")))
    def revoke(self, by: Any, key: str) -> None:
        self.world.said(by, ApprovalRevoked(key))

    @precondition(lambda self: any(lane.human for lane in self.state.lanes.values()))
    @rule(lane=lanes, later=seldom)
    def close_run_of_taken_lane(self, lane: str, later: bool) -> None:
        """The gateway of the human who took the lane ends what was going on there, under the human's fence."""
        self.world.deliver(lane)
        held = self.state.lane(lane)
        if held.human is not None and held.run is not None:
            outcome = RunFinished("s", held.run, {"type": "cancelled", "reason": "handed_over"})
            self.world.wrote(
                lane, *self.world.settlement(lane, "handed_over"), *self.world.answers(lane), outcome, later=later
            )

    @precondition(lambda self: any(lane.human for lane in self.state.lanes.values()))
    @rule(by=users, lane=lanes, number=again, note=st.sampled_from(("", "Go on")), right=mostly)
    def give_back(self, by: Any, lane: str, number: int | None, note: str, right: bool) -> None:
        human = self.state.lane(lane).human
        by = next((user for user in USERS if right and human is not None and user.id == human.id), by)
        self.world.said(by, HandoffReturned(lane, self.world.input_id(number), note))

    # --- people: the session ---------------------------------------------------------------------------------------------

    @rule(by=users, what=st.sampled_from(("update", "update", "close", "create", "take")), config=configs, lane=lanes)
    def manage(self, by: Any, what: str, config: dict[str, Any], lane: str) -> None:
        """The session is changed, closed, created again; or a human takes a lane, asked or not, from whoever has it."""
        match what:
            case "update":
                self.world.said(by, SessionUpdated(by.name, None if by.name else {"by": by.id}, config))
            case "close":
                self.world.said(by, SessionReopened() if self.state.closed else SessionClosed())
            case "create":
                self.world.said(by, SessionCreated("Mine", {}, config))
            case "take":
                self.world.claimed(lane, "user", by.id)

    @rule(by=users, number=some)
    def forge(self, by: Any, number: int) -> None:
        """A participant writes as a lane's owner would: nothing comes of it."""
        before = plain(self.state)
        run = next(iter(self.state.runs), "run_i_1")
        forged: list[Event] = [RunFinished("s", run), RunError("x"), RunStarted("s", "run_i_1"), HandoffExpired("ho_1")]
        forged += [ToolFailed("call_1", "x"), ApprovalResolved("apr_1", "expired"), InputFailed(self._input(0), "x")]
        self.world.said(by, forged[number % len(forged)])
        assert plain(self.state) == before | {"as_of": self.state.as_of}

    @rule(ms=st.integers(1, 15))
    def wait(self, ms: int) -> None:
        self.world.now += ms
