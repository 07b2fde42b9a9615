"""Sessions in which everything happens, at random: people steer, decide, claim and answer, rightly and wrongly, owners crash.

After every step the books of `session_world.World` must balance: one live claim and one result of a call, one decision of
an approval, one end of every input, no dangling call in an ended run, the queue in order. At the end the log, replayed from
its beginning and from every quiet place, must come to what the live reader has.
"""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from broker.events import (
    ApprovalRequested,
    ApprovalResolved,
    Event,
    HandoffExpired,
    HandoffRequested,
    InputApplied,
    InputFailed,
    InputScheduled,
    InputUnscheduled,
    MessageSegment,
    RunError,
    RunFinished,
    RunRequested,
    RunStarted,
    RunTakenOver,
    SessionCreated,
    SessionStateChanged,
    TextMessageContent,
    ToolCallEnd,
    ToolCallResult,
    ToolClaimed,
    ToolFailed,
    ToolLapsed,
    ToolRequested,
)
from broker.lease import WriteId, has_work
from tests.unit.session_people import (
    People,
    again,
    asked_options,
    claim_ids,
    configs,
    lanes,
    seldom,
    some,
    spans,
    users,
)
from tests.unit.session_world import LANES, USERS, idle_lane, plain
from tests.unit.strategies import kinds, start_event, texts


class SessionMachine(People):
    """What the owners of lanes do beside it; a claim of a lane that has one is the crash of its worker."""

    def running(self) -> bool:
        return bool(self.state.runs)

    def writer(self, lane: str) -> str:
        """A lane in which a worker has a run: `lane` if there is work, else another; "" if a human has it.

        A write that is on its way there arrives first. If nobody is at work, a worker comes and begins.
        """
        work = [name for name in LANES if has_work(self.state, name)]
        name = lane if lane in work else next(iter(work), "main")
        self.world.deliver(name)
        held = self.state.lane(name)
        if held.human is not None:
            return ""
        if held.owner is None:
            self.world.claimed(name, "agent", "w-3", ("inject",))
        if held.run is None:
            if not self.state.queue(name):
                self.send(USERS[1], None, "enqueue")
            self.start(name, 1, False)
        return name if self.state.lane(name).run else ""

    @initialize(can=st.sampled_from(((), ("inject",))), config=st.just({}) | st.just({}) | configs)
    def begin(self, can: tuple[str, ...], config: dict[str, Any]) -> None:
        self.world.said(USERS[0], SessionCreated("A session", {"ticket": 1}, config))
        self.world.claimed("main", "agent", "w-1", can)
        self.send(USERS[0], None, "enqueue")
        self.start("main", 1, False)

    # --- owners: who has a lane --------------------------------------------------------------------------------------------

    @precondition(lambda self: any(has_work(self.state, lane) for lane in LANES))
    @rule(
        lane=lanes,
        worker=st.sampled_from(("w-1", "w-2")),
        can=st.sampled_from(((), ("inject",))),
        settles=st.booleans(),
    )
    def claim_lane(self, lane: str, worker: str, can: tuple[str, ...], settles: bool) -> None:
        """A worker gets the lane's job: the one before it may have died, with a write on its way."""
        work = [name for name in LANES if has_work(self.state, name)]
        lane = lane if lane in work else work[0]
        self.world.claimed(lane, "agent", worker, can)
        run = self.state.lane_run(lane)
        if run is not None and settles:
            self.world.wrote(
                lane, *self.world.settlement(lane, "worker_lost"), RunTakenOver(run.run_id, run.attempt + 1, "continue")
            )
        self.world.deliver(lane)

    @rule(lane=lanes)
    def release_lane(self, lane: str) -> None:
        self.world.deliver(lane)
        if idle_lane(self.state.lane(lane)):
            self.world.claimed(lane, "none", "")

    @rule(lane=lanes)
    def deliver(self, lane: str) -> None:
        self.world.deliver(lane)

    @precondition(lambda self: self.world.log)
    @rule(lane=lanes)
    def repeat(self, lane: str) -> None:
        """The lane's last write once more: its outcome was not known."""
        mine = [entry for _, entry in self.world.log if entry.lane == lane and not entry.id.startswith("own")]
        held, before = self.state.lane(lane), plain(self.state)
        if mine and mine[-1].id == str(WriteId(held.fence, held.last_n)):
            self.world.stored(mine[-1])
            assert plain(self.state) == before | {"as_of": self.state.as_of}

    @precondition(lambda self: self.running())
    @rule(lane=lanes, number=some)
    def haunt(self, lane: str, number: int) -> None:
        """A former owner, or one that never was, ends the run, or takes an input: the world sees that nothing comes of it."""
        fences = [seq for seq, entry in self.world.log if entry.id == "own" and seq != self.state.lane(lane).fence]
        fence = fences[number % len(fences)] if fences else 0
        events: tuple[Event, ...] = (
            RunError("zombie"),
            InputFailed(self._input(number), "zombie"),
            ToolFailed("call_1", "x"),
        )
        entry = self.world.log[-1][1]
        self.world.stored(type(entry)(str(WriteId(fence, 99)), self.world.now, events, lane))

    # --- owners: runs ------------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.state.inputs)
    @rule(lane=lanes, count=st.integers(1, 2), later=seldom)
    def start(self, lane: str, count: int, later: bool) -> None:
        """The first that waits begins a run; the next one may join it at once (coalesce merge)."""
        self.world.deliver(lane)
        queue = self.state.queue(lane)[:count]
        if not idle_lane(self.state.lane(lane)) or not queue:
            return
        run_id = f"run_{queue[0].input_id}"
        applied = [InputApplied(queued.input_id, run_id, f"msg_{queued.input_id}") for queued in queue]
        self.world.wrote(lane, RunStarted("s", run_id), *applied, run=run_id, later=later)

    @precondition(lambda self: self.running() and self.state.inputs)
    @rule(lane=lanes, later=seldom, fails=seldom)
    def inject(self, lane: str, later: bool, fails: bool) -> None:
        lane = self.writer(lane)
        for queued in self.state.queue(lane)[:1]:
            applied = InputApplied(queued.input_id, self.state.lane(lane).run, f"msg_{queued.input_id}")
            self.world.wrote(lane, InputFailed(queued.input_id, "bad_input") if fails else applied, later=later)

    @rule(lane=lanes, kind=kinds, text=texts, settles=st.booleans())
    def speak(self, lane: str, kind: Any, text: str, settles: bool) -> None:
        """A text, or the arguments of a call, is begun; a delta, perhaps a segment."""
        if lane := self.writer(lane):
            id_ = self.world.fresh("call" if kind == "tool_call" else "m")
            self.world.wrote(lane, start_event(kind, id_))
            self.world.texts[id_] = text
            if kind == "text":
                held = self.state.lane(lane)
                delta = self.world.log[-1][1]
                self.world.stored(
                    type(delta)(f"{held.fence}-9", self.world.now, (TextMessageContent(id_, text),), lane, off=0)
                )
            if settles:
                self.world.wrote(lane, MessageSegment(id_, 0, len(text), text))

    @precondition(lambda self: self.running())
    @rule(lane=lanes, how=st.sampled_from(("success", "cancelled", "error")), later=seldom, at_once=st.booleans())
    def end_run(self, lane: str, how: str, later: bool, at_once: bool) -> None:
        """A correct worker ends a run when nothing of it is open any more; in one write or in two."""
        lane = self.writer(lane)
        run_id = self.state.lane(lane).run
        if not lane or run_id is None:
            return
        ending: Event = (
            RunError("it broke", "agent_error") if how == "error" else RunFinished("s", run_id, {"type": how})
        )
        settled = [*self.world.settlement(lane, "complete"), *self.world.answers(lane)]
        if not at_once and settled:
            self.world.wrote(lane, *settled)
            settled = []
        self.world.wrote(lane, *settled, ending, later=later)

    @precondition(lambda self: self.running())
    @rule(
        lane=lanes,
        state=st.sampled_from(("paused", "paused", "running", "asleep")),
        reason=st.sampled_from((None, "unwatched")),
    )
    def hold(self, lane: str, state: str, reason: str | None) -> None:
        if lane := self.writer(lane):
            self.world.wrote(lane, SessionStateChanged(state, reason))

    @precondition(lambda self: self.running())
    @rule(lane=lanes, number=again, at=some, back=st.booleans())
    def send_later_as_agent(self, lane: str, number: int | None, at: int, back: bool) -> None:
        if lane := self.writer(lane):
            if back:
                self.world.wrote(lane, InputUnscheduled(self._input(number or 0)))
            else:
                id_ = self.world.input_id(number)
                self.world.wrote(lane, InputScheduled(id_, f"later {id_}", at))

    @rule(lane=lanes, child=st.sampled_from(LANES), number=again, detached=st.booleans(), right=st.booleans())
    def ask_agent(self, lane: str, child: str, number: int | None, detached: bool, right: bool) -> None:
        if lane := self.writer(lane):
            parent = self.state.lane(lane).run if right else next(iter(self.state.runs))
            id_ = self.world.input_id(number)
            self.world.wrote(lane, RunRequested(id_, parent, child, "helper", "default", f"say {id_}", detached))

    # --- owners: what runs wait for ------------------------------------------------------------------------------------------

    @rule(
        lane=lanes,
        executor=st.sampled_from(("client", "client", "client", "agent")),
        idempotent=st.booleans(),
        claimant=st.none() | users,
        whom=st.sampled_from(((None, None), (None, None), ("user-1", None), ("user-2", "phone"), (None, "phone"))),
        times=st.tuples(st.none() | spans, st.none() | spans),
        number=again,
    )
    def call(
        self, lane: str, executor: str, idempotent: bool, claimant: Any, whom: Any, times: Any, number: Any
    ) -> None:
        """A call is requested when its arguments are complete; or, wrongly, again. Somebody may be quick to claim it."""
        if not (lane := self.writer(lane)):
            return
        begun = [s.id for s in self.state.lane(lane).streams.values() if s.kind == "tool_call"]
        repeats = number is not None and bool(self.state.calls)
        id_ = self._call(number or 0) if repeats else begun[0] if begun else self.world.fresh("call")
        events: list[Event] = [] if repeats or begun else [start_event("tool_call", id_)]
        if not repeats:
            text = self.world.texts.get(id_, "")
            events += [MessageSegment(id_, 0, len(text), text, True, "complete"), ToolCallEnd(id_)]
        now = self.world.now
        any_after, deadline = (None if span is None else now + span for span in times)
        requested = ToolRequested(id_, "pick", {}, executor, idempotent, *whom, any_after, deadline)
        self.world.wrote(lane, *events, requested)
        if claimant is not None:
            self.world.said(claimant, ToolClaimed(id_, "c1", now + 5, whom[1]))

    @precondition(lambda self: self.state.calls)
    @rule(lane=lanes, number=some, fails=st.booleans(), later=seldom)
    def settle_call(self, lane: str, number: int, fails: bool, later: bool) -> None:
        """The owner fails a call, or puts a result of a client, or of the agent's own tool, into the transcript; once."""
        lane = self.writer(lane)
        calls = [c for c in self.state.calls.values() if c.run == self.state.lane(lane).run and not c.answered]
        if calls:
            call = calls[number % len(calls)]
            failed: tuple[Event, ...] = (ToolFailed(call.id, "deadline"),) if fails else ()
            self.world.wrote(lane, *failed, ToolCallResult(f"r_{call.id}", call.id, "done"), later=later)

    @precondition(lambda self: any(call.claim for call in self.state.calls.values()))
    @rule(lane=lanes, number=some, claim=claim_ids, later=seldom)
    def lapse(self, lane: str, number: int, claim: str, later: bool) -> None:
        """A correct owner lets a claim lapse when it has run out; of a call that lapses at all, or not."""
        lane = self.writer(lane)
        run_out = [c for c in self.state.calls.values() if c.claim is not None and c.claim.expires_at < self.world.now]
        if lane and run_out:
            call = run_out[number % len(run_out)]
            self.world.wrote(lane, ToolLapsed(call.id, claim if number == 0 else call.claim.claim_id), later=later)

    @rule(
        lane=lanes,
        options=asked_options,
        quorum=st.integers(0, 3),
        key=st.sampled_from((None, "k1", "k2")),
        roles=st.sampled_from((None, ["lead"], ["guest", "support"])),
        expires=st.none() | spans,
        number=again,
    )
    def ask_people(
        self, lane: str, options: Any, quorum: int, key: str | None, roles: Any, expires: int | None, number: int | None
    ) -> None:
        if lane := self.writer(lane):
            ids = [*self.state.approvals, "apr_1"]
            id_ = self.world.fresh("apr") if number is None else ids[number % len(ids)]
            at = None if expires is None else self.world.now + expires
            self.world.wrote(
                lane,
                ApprovalRequested(id_, "approval", "May I?", options, options[-1], at, None, key, roles, quorum),
            )

    @precondition(lambda self: self.state.approvals)
    @rule(lane=lanes, number=some, status=st.sampled_from(("expired", "cancelled")), later=seldom)
    def end_approval(self, lane: str, number: int, status: str, later: bool) -> None:
        lane = self.writer(lane)
        if lane and self.state.approvals:
            ids = [*self.state.approvals]
            self.world.wrote(lane, ApprovalResolved(ids[number % len(ids)], status), later=later)

    @rule(lane=lanes, ends=st.booleans(), later=seldom)
    def want_human(self, lane: str, ends: bool, later: bool) -> None:
        if lane := self.writer(lane):
            waiting = [h.id for h in self.state.handoffs.values()]
            event = (
                HandoffExpired(waiting[-1])
                if ends and waiting
                else HandoffRequested(self.world.fresh("ho"), "support", "refund")
            )
            self.world.wrote(lane, event, later=later)

    # --- what is always so -------------------------------------------------------------------------------------------------

    @invariant()
    def books_balance(self) -> None:
        self.world.check()

    def teardown(self) -> None:
        self.world.check_replay()


SessionMachine.TestCase.settings = settings(stateful_step_count=120)
TestSessionMachine = SessionMachine.TestCase
