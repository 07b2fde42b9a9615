"""A session with everything that may happen to it, for the state machine in test_session_machine.py.

The world stores what participants send as it comes, right or wrong, and writes for the lanes' owners what a correct
worker (or the gateway of a human who has the lane) would write. It watches every entry change the state, and keeps books
of its own on what must happen at most once.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

from broker.checkpoint import Checkpoint, decode_checkpoint, encode_checkpoint
from broker.codec import decode, encode
from broker.events import (
    Entry,
    Event,
    MessageSegment,
    Participant,
    SessionOwner,
    ToolCallResult,
    ToolClaimed,
    ToolFailed,
    ToolLapsed,
    ToolReleased,
    ToolResolved,
    stream_end,
)
from broker.lease import WriteId
from broker.session import counts, fold
from broker.state import Lane, SessionState
from broker.transcript import Transcript
from tests.unit.strategies import Log

USERS = (
    Participant("user", "user-1", "A user"),
    Participant("user", "user-2", None, ("lead",)),
    Participant("user", "user-3", None, ("guest",)),
    Participant("user", "user-4", None, ("guest", "support")),
)
AGENT = Participant("agent", "echo")
LANES = ("main", "helper", "deep")
OVERTAKING = ("interrupt", "rollback")


def plain(state: SessionState) -> dict[str, Any]:
    """The state for comparison: how `Seen` is spread over its sets says nothing, the order of mappings does."""
    fields: dict[str, Any] = {name: getattr(state, name) for name in SessionState.__slots__}
    ordered = {name: list(value.items()) for name, value in fields.items() if isinstance(value, dict)}
    # Lanes and metadata have no order; nor has anything in a lane.
    del ordered["lanes"], ordered["metadata"]
    return fields | ordered | {"seen": state.seen.hashes()}


class World:
    """The log, its fold while it is written (`live`), and what must be true of them."""

    def __init__(self) -> None:
        self.log: Log = []
        self.live = Transcript()
        self.now = 1_000
        self.ids: Counter[str] = Counter()
        self.in_flight: dict[str, Entry] = {}
        self.texts: dict[str, str] = {}
        self.input_ids: list[str] = []
        self.quiet: list[SessionState] = []
        self.ends: Counter[str] = Counter()
        self.holders: dict[int, ToolClaimed] = {}
        self.results: Counter[int] = Counter()
        self.decisions: Counter[int] = Counter()

    @property
    def state(self) -> SessionState:
        return self.live.state

    def fresh(self, kind: str) -> str:
        """An id that was never used."""
        self.ids[kind] += 1
        return f"{kind}_{self.ids[kind]}"

    def input_id(self, again: int | None) -> str:
        """A new inputId, or one that was used."""
        if again is not None and self.input_ids:
            return self.input_ids[again % len(self.input_ids)]
        self.input_ids.append(self.fresh("i"))
        return self.input_ids[-1]

    # --- who writes what -----------------------------------------------------------------------------------------------

    def said(self, by: Participant, event: Event) -> None:
        """A participant's entry; a gateway has stored it as it came."""
        self._store(Entry("said", self.now, (event,), by=by))

    def claimed(self, lane: str, kind: str, who: str, can: tuple[str, ...] = ()) -> None:
        by = Participant(kind, who) if kind != "none" else AGENT
        event = SessionOwner(lane, kind, who if kind != "none" else "", can)
        self._store(Entry("own", self.now, (event,), lane, by=by))

    def wrote(self, lane: str, *events: Event, run: str | None = None, later: bool = False) -> None:
        """What the lane's owner writes. `later`: it is on its way while others write; `deliver` stores it."""
        held = self.state.lane(lane)
        write = str(WriteId(held.fence, held.last_n + 1))
        entry = Entry(write, self.now, events, lane, run or held.run, held.human or AGENT)
        if later:
            self.in_flight[lane] = entry
        else:
            self._store(entry)

    def deliver(self, lane: str) -> None:
        """One write of a lane is on its way at a time: the next one is decided when it has arrived."""
        entry = self.in_flight.pop(lane, None)
        if entry is not None:
            self._store(replace(entry, ts=self.now))

    def stored(self, entry: Entry) -> None:
        """An entry as somebody made it: an old one once more, or a zombie's."""
        self._store(entry)

    def settlement(self, lane: str, reason: str) -> list[Event]:
        """Ends the texts that are open in a lane; a call that was begun and never requested gets its one result."""
        events: list[Event] = []
        for stream in self.state.lane(lane).streams.values():
            rest = self.texts.get(stream.id, "")[stream.settled :]
            segment = MessageSegment(stream.id, stream.settled, len(rest), rest, True, reason)
            events += [segment, stream_end(stream.kind, stream.id)]
            if stream.kind == "tool_call":
                events.append(ToolCallResult(f"r_{stream.id}", stream.id, "It was not made."))
        return events

    def answers(self, lane: str) -> list[Event]:
        """One result for each call of the lane's run that has none in the transcript; what is open fails first."""
        events: list[Event] = []
        for call in self.state.calls.values():
            if call.run != self.state.lane(lane).run or call.answered:
                continue
            if call.status == "open":
                events.append(ToolFailed(call.id, "not_run"))
            events.append(ToolCallResult(f"r_{call.id}", call.id, "It was not run."))
        return events

    # --- what every entry does -------------------------------------------------------------------------------------------

    def _store(self, entry: Entry) -> None:
        entry = decode(encode(entry))
        seq = (self.log[-1][0] if self.log else 0) + 1
        self.log.append((seq, entry))
        before, messages = self.state, len(self.live.messages)
        self.live.apply(seq, entry)
        if not counts(before, entry):
            assert plain(self.state) == plain(replace(before, as_of=seq)), "a stale write counts as nothing"
            assert len(self.live.messages) == messages
        self._watch_inputs(before)
        self._watch_calls(before, entry)
        self._watch_decisions(before)
        self._watch_runs(before)
        if self.state.idle and not before.idle:
            self.quiet.append(self.state)

    def _watch_inputs(self, before: SessionState) -> None:
        for fate in reversed(self.state.fates):
            if before.fates and fate is before.fates[-1]:
                break
            self.ends[fate.input_id] += 1

    def _watch_calls(self, before: SessionState, entry: Entry) -> None:
        for id_, old in before.calls.items():
            new = self.state.calls.get(id_)
            if old.status != "open":
                assert new is None or (new.status, new.code) == (old.status, old.code), "a call ends once"
            elif new is not None and new.status != "open":
                self.results[old.requested_seq] += 1
        for event in entry.events:
            match event:
                case ToolClaimed():
                    self._watch_claim(before, entry, event)
                case ToolReleased() | ToolLapsed():
                    call = self.state.calls.get(event.tool_call_id)
                    if call is not None and call.claim is None:
                        held = self.holders.pop(call.requested_seq, None)
                        assert held is None or entry.lane is None or call.idempotent, "only an idempotent call lapses"
                case ToolResolved():
                    self._watch_result(before, entry, event)

    def _watch_claim(self, before: SessionState, entry: Entry, event: ToolClaimed) -> None:
        """A claim that counts is the only one: the one before it is its own, or has been let go, or has run out."""
        old, new = before.calls.get(event.tool_call_id), self.state.calls.get(event.tool_call_id)
        if old is None or new is None or new.claim is old.claim or new.claim is None or entry.by is None:
            return
        assert (new.claim.claim_id, new.claim.by) == (event.claim_id, entry.by)
        assert new.deadline is None or entry.ts <= new.deadline
        holder = self.holders.get(new.requested_seq)
        if holder is not None and (
            old.claim is None or (holder.claim_id, old.claim.by.id) != (event.claim_id, entry.by.id)
        ):
            assert new.idempotent, "what may not be executed twice is not given away"
            assert holder.expires_at < entry.ts, "a claim that lives is the only one"
        self.holders[new.requested_seq] = event

    def _watch_result(self, before: SessionState, entry: Entry, event: ToolResolved) -> None:
        old, new = before.calls.get(event.tool_call_id), self.state.calls.get(event.tool_call_id)
        if old is None or new is None or old.status == new.status:
            return
        assert old.claim is not None
        assert entry.by is not None
        assert (old.claim.claim_id, old.claim.by.id) == (event.claim_id, entry.by.id), (
            "only the claimant's result counts"
        )
        assert self.holders[old.requested_seq].claim_id == event.claim_id

    def _watch_decisions(self, before: SessionState) -> None:
        for id_, old in before.approvals.items():
            new = self.state.approvals.get(id_)
            if old.status != "pending":
                assert new is None or new is old, "a decision stays"
            elif new is None or new.status != "pending":
                self.decisions[old.seq] += 1
        for id_, asked in before.handoffs.items():
            later = self.state.handoffs.get(id_)
            assert asked.status == "waiting" or later in (None, asked), "a hand-over ends once"

    def _watch_runs(self, before: SessionState) -> None:
        for run_id in before.runs.keys() - self.state.runs.keys():
            mine = [message for message in self.live.messages if message.run == run_id]
            results = Counter(message.tool_call_id for message in mine if message.role == "tool")
            for message in mine:
                assert message.status == "done"
                if message.role == "tool_call":
                    assert results[message.id] == 1, "a call in an ended run has one result"

    # --- what is always so -------------------------------------------------------------------------------------------------

    def check(self) -> None:
        state = self.state
        assert max([*self.results.values(), *self.decisions.values()], default=0) <= 1
        self._check_inputs(state)
        assert state.messages == len(self.live.messages)
        assert {name: lane.run for name, lane in state.lanes.items() if lane.run} == {
            run.lane: run.run_id for run in state.runs.values()
        }
        held = [*state.calls.values(), *state.approvals.values(), *state.handoffs.values()]
        assert {thing.run for thing in held} <= state.runs.keys()
        for run in state.runs.values():
            if run.parent is not None and not run.detached:
                parent = state.runs.get(run.parent)
                stopped = parent is None or (parent.cancel is not None and parent.cancel.mode == "immediate")
                assert not stopped or (run.cancel is not None and run.cancel.mode == "immediate")

    def _check_inputs(self, state: SessionState) -> None:
        waiting = Counter(queued.input_id for queued in state.inputs)
        waiting.update(planned.input_id for planned in state.scheduled)
        for input_id in self.input_ids:
            assert waiting[input_id] + self.ends[input_id] == (input_id in state.seen), input_id
        ahead = [queued.seq for queued in state.inputs if queued.mode in OVERTAKING]
        rest = [queued.seq for queued in state.inputs if queued.mode not in OVERTAKING]
        assert [queued.seq for queued in state.inputs] == [*sorted(ahead), *sorted(rest)]
        assert list(state.scheduled) == sorted(state.scheduled, key=lambda planned: (planned.at, planned.seq))
        if state.lane("main").human is not None:
            assert all(queued.parent is not None for queued in state.queue("main")), "what people say waits for nobody"
        for queued in state.inputs:
            if queued.parent is not None and not queued.detached:
                parent = state.runs[queued.parent]
                assert parent.cancel is None or parent.cancel.mode != "immediate"

    def check_replay(self) -> None:
        """The log from its beginning, and from every quiet place, comes to what the live reader has."""
        again = Transcript()
        for seq, entry in self.log:
            again.apply(seq, entry)
        assert plain(again.state) == plain(self.state)
        assert [m.as_dict() for m in again.messages] == [m.as_dict() for m in self.live.messages]
        for place in self.quiet:
            state = decode_checkpoint(encode_checkpoint(Checkpoint(place))).state
            assert plain(state) == plain(place)
            for seq, entry in self.log:
                state = fold(state, seq, entry)
            assert plain(state) == plain(self.state)


def idle_lane(lane: Lane) -> bool:
    """Whether a worker that has the lane may begin a run in it."""
    return lane.owner is not None and lane.human is None and lane.run is None
