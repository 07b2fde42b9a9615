"""The fold: what a session's log says its state is. One pure function, the same in gateways and workers.

PROTOCOL, section 6, is the specification, and clients implement it on their own; the conformance cases in
`tests/conformance/cases` hold all implementations to it. The fold reads records alone: token deltas do not change
the state. It never raises on what a log may hold: an entry that has no right to count changes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from broker.codec import participant_to_wire
from broker.events import (
    Entry,
    Event,
    InputApplied,
    InputCancelRequested,
    InputFailed,
    InputSent,
    MessageSegment,
    Participant,
    ReasoningMessageEnd,
    ReasoningMessageStart,
    RunCancelRequested,
    RunError,
    RunFinished,
    RunStarted,
    RunTakenOver,
    SessionOwner,
    TextMessageEnd,
    TextMessageStart,
    ToolCallEnd,
    ToolCallResult,
    ToolCallStart,
)
from broker.lease import parse_write_id
from broker.subjects import run_id_of

MAX_QUEUE = 16
"""Queued inputs a session may hold; one more is refused."""
MAX_INPUTS = 50_000
"""Inputs in a session's life; bounds the checkpoint, which holds 8 bytes for each."""
FATES_KEPT = 64
"""Ended inputs and runs whose end is remembered in the state, for receipts. Older ones are known to have been."""

_SEEN_MERGE = 256


@dataclass(frozen=True, slots=True)
class Seen:
    """The inputIds a session has ever had, as 64-bit hashes; persistent, so that states can share it.

    Hashes are 64 bits of BLAKE2b: with 50,000 ids the chance that a new id is taken for an old one is 3e-15.
    """

    base: frozenset[int] = frozenset()
    recent: frozenset[int] = frozenset()

    def __len__(self) -> int:
        return len(self.base) + len(self.recent)

    def __contains__(self, input_id: str) -> bool:
        value = _hash(input_id)
        return value in self.recent or value in self.base

    def add(self, input_id: str) -> Seen:
        recent = self.recent | {_hash(input_id)}
        if len(recent) < _SEEN_MERGE:
            return Seen(self.base, recent)
        return Seen(self.base | recent, frozenset())

    def hashes(self) -> frozenset[int]:
        return self.base | self.recent


def _hash(input_id: str) -> int:
    return int.from_bytes(hashlib.blake2b(input_id.encode(), digest_size=8).digest(), "big")


@dataclass(frozen=True, slots=True)
class QueuedInput:
    """An input that waits to be applied. `seq` is where it stands in the log."""

    input_id: str
    seq: int
    ts: int
    by: Participant | None
    content: str
    mode: str | None


@dataclass(frozen=True, slots=True)
class InputFate:
    """How an input ended its time in the queue: applied, cancelled, failed or refused."""

    input_id: str
    seq: int
    status: str
    code: str | None = None
    by: Participant | None = None


@dataclass(frozen=True, slots=True)
class Cancel:
    """A run has to stop: who asked first, and how."""

    mode: str
    by: Participant | None


@dataclass(frozen=True, slots=True)
class Run:
    """A running run. `attempt` counts the workers it has had, from 1; `lost` those that did not hand it over."""

    run_id: str
    lane: str
    input_id: str
    started_seq: int
    attempt: int = 1
    cancel: Cancel | None = None
    lost: int = 0


@dataclass(frozen=True, slots=True)
class OpenStream:
    """A text that is being streamed: `settled` code points are in records, the last of them at `settled_seq`."""

    id: str
    kind: str
    settled_seq: int
    settled: int = 0


@dataclass(frozen=True, slots=True)
class Lane:
    """A writer's place. `fence` is the sequence of its last ownership record, `last_n` the last write under it."""

    fence: int = 0
    owner: Participant | None = None
    last_n: int = 0
    run: str | None = None
    streams: Mapping[str, OpenStream] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SessionState:
    """State after the record at `as_of`. `messages` counts the transcript's messages so far."""

    as_of: int = 0
    lanes: Mapping[str, Lane] = field(default_factory=dict)
    runs: Mapping[str, Run] = field(default_factory=dict)
    inputs: tuple[QueuedInput, ...] = ()
    seen: Seen = field(default_factory=Seen)
    fates: tuple[InputFate, ...] = ()
    ended_runs: tuple[tuple[str, str], ...] = ()
    messages: int = 0

    def lane(self, name: str) -> Lane:
        return self.lanes.get(name, _NO_LANE)

    def queued(self, input_id: str) -> QueuedInput | None:
        return next((i for i in self.inputs if i.input_id == input_id), None)

    def fate(self, input_id: str) -> InputFate | None:
        """The end of an input, if it is among the latest `FATES_KEPT`."""
        return next((f for f in reversed(self.fates) if f.input_id == input_id), None)

    def run_end(self, run_id: str) -> str | None:
        """How a run ended (success, cancelled, error), if it is among the latest `FATES_KEPT`."""
        return next((status for id_, status in reversed(self.ended_runs) if id_ == run_id), None)

    @property
    def idle(self) -> bool:
        """Nothing runs and nothing waits."""
        return not self.runs and not self.inputs

    def settled_floor(self) -> int | None:
        """The oldest `settled_seq` of any open stream: up to it, records alone hold all text. None: all is settled."""
        return min((s.settled_seq for lane in self.lanes.values() for s in lane.streams.values()), default=None)


_NO_LANE = Lane()


def counts(state: SessionState, entry: Entry) -> bool:
    """Whether a lane's entry was written under the lane's current fence. Other entries always count."""
    if entry.lane is None or _is_claim(entry):
        return True
    write, lane = parse_write_id(entry.id), state.lanes.get(entry.lane)
    return write is not None and lane is not None and write.fence == lane.fence


def _is_claim(entry: Entry) -> bool:
    return len(entry.events) == 1 and isinstance(entry.events[0], SessionOwner)


def fold(state: SessionState, seq: int, entry: Entry) -> SessionState:
    """The state after a record. `seq` is its place in the log; entries must come in order, deltas may be left out."""
    if seq <= state.as_of or entry.off is not None:
        return state
    state = replace(state, as_of=seq)
    if not counts(state, entry):
        return state
    if entry.lane is not None and not _is_claim(entry):
        advanced = _advance(state, entry)
        if advanced is None:
            return state
        state = advanced
    for event in entry.events:
        state = _apply(state, seq, entry, event)
    return state


def _advance(state: SessionState, entry: Entry) -> SessionState | None:
    """Notes the write's number; None if it was there before (a write repeated after an unknown outcome)."""
    assert entry.lane is not None
    write = parse_write_id(entry.id)
    lane = state.lane(entry.lane)
    if write is None or write.n <= lane.last_n:
        return None
    return _with_lane(state, entry.lane, replace(lane, last_n=write.n))


def _apply(state: SessionState, seq: int, entry: Entry, event: Event) -> SessionState:
    match event:
        case InputSent():
            return _input_sent(state, seq, entry, event)
        case InputCancelRequested():
            return _end_input(state, event.input_id, "cancelled", by=entry.by)
        case RunCancelRequested():
            return _cancel_run(state, event, entry.by)
        case SessionOwner():
            return _claim(state, seq, event, entry.by)
        case _ if entry.lane is not None:
            return _apply_lane(state, seq, entry.lane, event)
        case _:
            return state


def _apply_lane(state: SessionState, seq: int, lane: str, event: Event) -> SessionState:
    match event:
        case RunStarted():
            return _start_run(state, seq, lane, event)
        case InputApplied():
            applied = _end_input(state, event.input_id, "applied")
            return state if applied is state else replace(applied, messages=state.messages + 1)
        case InputFailed():
            return _end_input(state, event.input_id, "failed", code=event.code)
        case RunTakenOver():
            return _take_over(state, lane, event)
        case RunFinished():
            outcome = (event.outcome or {}).get("type", "success")
            return _end_run(state, lane, "cancelled" if outcome == "cancelled" else "success", event.run_id)
        case RunError():
            return _end_run(state, lane, "error")
        case TextMessageStart():
            return _open_stream(state, seq, lane, event.message_id, "text")
        case ReasoningMessageStart():
            return _open_stream(state, seq, lane, event.message_id, "reasoning")
        case ToolCallStart():
            return _open_stream(state, seq, lane, event.tool_call_id, "tool_call")
        case MessageSegment():
            return _settle(state, seq, lane, event)
        case TextMessageEnd() | ReasoningMessageEnd():
            return _close_stream(state, lane, event.message_id)
        case ToolCallEnd():
            return _close_stream(state, lane, event.tool_call_id)
        case ToolCallResult():
            return replace(state, messages=state.messages + 1)
        case _:
            return state


def _input_sent(state: SessionState, seq: int, entry: Entry, event: InputSent) -> SessionState:
    if event.input_id in state.seen:
        return state
    code = None
    if len(state.inputs) >= MAX_QUEUE:
        code = "queue_full"
    elif len(state.seen) >= MAX_INPUTS:
        code = "session_full"
    state = replace(state, seen=state.seen.add(event.input_id))
    if code is not None:
        return _remember(state, InputFate(event.input_id, seq, "refused", code))
    queued = QueuedInput(event.input_id, seq, entry.ts, entry.by, event.content, event.mode)
    return replace(state, inputs=(*state.inputs, queued))


def _end_input(
    state: SessionState, input_id: str, status: str, *, code: str | None = None, by: Participant | None = None
) -> SessionState:
    queued = state.queued(input_id)
    if queued is None:
        return state
    rest = tuple(i for i in state.inputs if i is not queued)
    return _remember(replace(state, inputs=rest), InputFate(input_id, queued.seq, status, code, by))


def _remember(state: SessionState, fate: InputFate) -> SessionState:
    return replace(state, fates=(*state.fates, fate)[-FATES_KEPT:])


def _cancel_run(state: SessionState, event: RunCancelRequested, by: Participant | None) -> SessionState:
    run = state.runs.get(event.run_id)
    if run is not None:
        if run.cancel is not None:
            return state
        return _with_run(state, replace(run, cancel=Cancel(event.mode, by)))
    waiting = next((i for i in state.inputs if run_id_of(i.input_id) == event.run_id), None)
    return state if waiting is None else _end_input(state, waiting.input_id, "cancelled", by=by)


def _claim(state: SessionState, seq: int, event: SessionOwner, by: Participant | None) -> SessionState:
    owner = None if event.kind == "none" else Participant(event.kind, event.id, by.name if by else None)
    lane = state.lane(event.lane)
    run = state.runs.get(lane.run or "")
    if owner is not None and lane.owner is not None and run is not None:
        state = _with_run(state, replace(run, lost=run.lost + 1))
    return _with_lane(state, event.lane, replace(lane, fence=seq, owner=owner, last_n=0))


def _start_run(state: SessionState, seq: int, lane_name: str, event: RunStarted) -> SessionState:
    lane = state.lane(lane_name)
    if lane.run is not None or event.run_id in state.runs:
        return state
    input_id = event.run_id.removeprefix("run_")
    fate = state.fate(input_id)
    cancel = Cancel("immediate", fate.by) if fate is not None and fate.status == "cancelled" else None
    run = Run(event.run_id, lane_name, input_id, seq, cancel=cancel)
    return _with_lane(_with_run(state, run), lane_name, replace(lane, run=event.run_id))


def _take_over(state: SessionState, lane_name: str, event: RunTakenOver) -> SessionState:
    run = state.runs.get(event.run_id)
    if run is None or run.lane != lane_name:
        return state
    return _with_run(state, replace(run, attempt=event.attempt))


def _end_run(state: SessionState, lane_name: str, status: str, run_id: str | None = None) -> SessionState:
    lane = state.lane(lane_name)
    if lane.run is None or run_id not in (None, lane.run):
        return state
    runs = {id_: run for id_, run in state.runs.items() if id_ != lane.run}
    ended = (*state.ended_runs, (lane.run, status))[-FATES_KEPT:]
    return _with_lane(replace(state, runs=runs, ended_runs=ended), lane_name, replace(lane, run=None, streams={}))


def _open_stream(state: SessionState, seq: int, lane_name: str, id_: str, kind: str) -> SessionState:
    lane = state.lane(lane_name)
    streams = {**lane.streams, id_: OpenStream(id_, kind, seq)}
    return _with_lane(replace(state, messages=state.messages + 1), lane_name, replace(lane, streams=streams))


def _settle(state: SessionState, seq: int, lane_name: str, event: MessageSegment) -> SessionState:
    lane = state.lane(lane_name)
    stream = lane.streams.get(event.message_id)
    if stream is None:
        return state
    settled = max(stream.settled, event.offset + event.length)
    streams = {**lane.streams, stream.id: replace(stream, settled_seq=seq, settled=settled)}
    return _with_lane(state, lane_name, replace(lane, streams=streams))


def _close_stream(state: SessionState, lane_name: str, id_: str) -> SessionState:
    lane = state.lane(lane_name)
    if id_ not in lane.streams:
        return state
    streams = {key: stream for key, stream in lane.streams.items() if key != id_}
    return _with_lane(state, lane_name, replace(lane, streams=streams))


def _with_lane(state: SessionState, name: str, lane: Lane) -> SessionState:
    return replace(state, lanes={**state.lanes, name: lane})


def _with_run(state: SessionState, run: Run) -> SessionState:
    return replace(state, runs={**state.runs, run.run_id: run})


def public_view(state: SessionState) -> dict[str, Any]:
    """The state as clients see it (PROTOCOL, section 6)."""
    return {
        "lanes": {
            name: {
                "owner": None if lane.owner is None else {"kind": lane.owner.kind, "id": lane.owner.id},
                "fence": lane.fence,
                "run": lane.run,
            }
            for name, lane in state.lanes.items()
        },
        "runs": [
            {
                "runId": run.run_id,
                "lane": run.lane,
                "inputId": run.input_id,
                "attempt": run.attempt,
                "cancel": None if run.cancel is None else _cancel_view(run.cancel),
            }
            for run in state.runs.values()
        ],
        "inputs": [
            {
                "inputId": i.input_id,
                "seq": i.seq,
                "ts": i.ts,
                "by": None if i.by is None else participant_to_wire(i.by),
                "content": i.content,
                "mode": i.mode,
            }
            for i in state.inputs
        ],
    }


def _cancel_view(cancel: Cancel) -> dict[str, Any]:
    return {"mode": cancel.mode, "by": None if cancel.by is None else participant_to_wire(cancel.by)}
