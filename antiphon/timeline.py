"""One request through all parts, as its session's log tells it: what happened, where, and how long after what. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from broker.events import (
    ApprovalRequested,
    ApprovalResolved,
    ApprovalResponded,
    Entry,
    Event,
    HandoffExpired,
    HandoffRequested,
    HandoffReturned,
    InputApplied,
    InputCancelRequested,
    InputFailed,
    InputScheduled,
    InputSent,
    InputUnscheduled,
    MessageSegment,
    RunCancelRequested,
    RunError,
    RunFinished,
    RunRequested,
    RunStarted,
    RunTakenOver,
    SessionOwner,
    SessionStateChanged,
    StepFinished,
    StepStarted,
    ToolCallResult,
    ToolClaimed,
    ToolFailed,
    ToolLapsed,
    ToolReleased,
    ToolRequested,
    ToolResolved,
)
from broker.session import counts, fold
from broker.state import SessionState
from broker.subjects import run_id_of
from broker.tracing import is_trace_id

_RUN_PREFIX = "run_"


@dataclass(frozen=True, slots=True)
class Moment:
    """Something that happened: when (ms since 1970, by the clock of who wrote it), where in the log, what, with which ids."""

    seq: int
    ts: int
    what: str
    lane: str | None = None
    run: str | None = None
    ids: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RunSpan:
    """Where in the log a run's text is: after `start`, and up to `end` (None: it goes on)."""

    run: str
    lane: str
    start: int
    end: int | None


class Timeline:
    """Follows one request: the inputs, runs and calls that an id stands for, and those that come of them.

    The id is an inputId, a runId or a trace id. `take` gets every record of the session, in order.
    """

    def __init__(self, id_: str) -> None:
        self._trace_id = id_ if is_trace_id(id_) else None
        self._inputs = {id_.removeprefix(_RUN_PREFIX), id_}
        self._runs: set[str] = {id_} if id_.startswith(_RUN_PREFIX) else set()
        self._waits: dict[str, str | None] = {}
        """Calls, approvals and hand-overs, with their runs."""
        self._state = SessionState()
        self._open: dict[str, RunSpan] = {}
        self.moments: list[Moment] = []
        self.spans: list[RunSpan] = []
        self.trace_ids: dict[str, None] = {}

    @property
    def text(self) -> list[RunSpan]:
        """Where the text of the runs is, of those that go on too."""
        return [*self.spans, *self._open.values()]

    @property
    def ended(self) -> bool:
        """Nothing of the request runs or waits any more."""
        waiting = {
            *(i.input_id for i in self._state.inputs),
            *(i.input_id for i in self._state.scheduled),
        } & self._inputs
        return bool(self.moments) and not self._open and not waiting

    def take(self, seq: int, entry: Entry) -> None:
        """The next record."""
        before, self._state = self._state, fold(self._state, seq, entry)
        if not counts(before, entry):
            return
        # A run begins before its inputs are applied, in one record.
        for event in entry.events:
            if isinstance(event, InputApplied) and event.input_id in self._inputs:
                self._runs.add(event.run_id)
        for event in entry.events:
            found = self._moment(before, seq, entry, event)
            if found is not None:
                self.moments.append(found)
                if entry.trace is not None:
                    self.trace_ids[entry.trace.trace_id] = None

    def _moment(self, before: SessionState, seq: int, entry: Entry, event: Event) -> Moment | None:
        if entry.lane is None:
            told = self._participant(entry, event)
            run = self._waits.get(_wait_of(event) or "")
            return None if told is None else Moment(seq, entry.ts, told[0], None, run, _by(entry) | told[1])
        if isinstance(event, SessionOwner):
            return self._owner(before, seq, entry, event)
        if entry.run not in self._runs:
            return None
        told = self._lane(seq, entry, entry.lane, event)
        return None if told is None else Moment(seq, entry.ts, told[0], entry.lane, entry.run, told[1])

    def _participant(self, entry: Entry, event: Event) -> tuple[str, dict[str, Any]] | None:
        match event:
            case InputSent(input_id=id_, content=text) | HandoffReturned(input_id=id_, note=text):
                if entry.trace is not None and entry.trace.trace_id == self._trace_id:
                    self._inputs.add(id_)
                if id_ in self._inputs:
                    return "input stored", {"input": id_, "characters": len(text)}
            case InputScheduled(input_id=id_, content=text):
                return self._scheduled(entry, event, id_, text)
            case InputCancelRequested(input_id=id_) if id_ in self._inputs:
                return "input cancelled", {"input": id_}
            case RunCancelRequested() if event.run_id in self._runs or event.run_id in map(run_id_of, self._inputs):
                return "cancel asked for", {"run": event.run_id, "mode": event.mode}
            case ToolClaimed() if event.tool_call_id in self._waits:
                return "tool claimed", {"call": event.tool_call_id, "device": event.device}
            case ToolReleased() if event.tool_call_id in self._waits:
                return "tool released", {"call": event.tool_call_id}
            case ToolResolved() if event.tool_call_id in self._waits:
                how = "error" if event.error is not None else "result"
                return "tool resolved", {"call": event.tool_call_id, "with": how}
            case ApprovalResponded() if event.approval_id in self._waits:
                return "approval answered", {"approval": event.approval_id, "option": event.option}
        return None

    def _scheduled(self, entry: Entry, event: InputScheduled, id_: str, text: str) -> tuple[str, dict[str, Any]] | None:
        if entry.trace is not None and entry.trace.trace_id == self._trace_id:
            self._inputs.add(id_)
        ids = {"input": id_, "characters": len(text), "at": event.at}
        return ("input scheduled", ids) if id_ in self._inputs else None

    def _owner(self, before: SessionState, seq: int, entry: Entry, event: SessionOwner) -> Moment | None:
        """A claim or a release of a lane that this request is in: it waits there, or its run goes on."""
        ids: dict[str, Any] = {"owner": event.id, "fence": seq}
        if event.kind == "none":
            owner = before.lane(event.lane).owner
            what, ids = "lane released", {"owner": None if owner is None else owner.id}
        else:
            what = "lane taken by a human" if event.kind == "user" else "lane claimed"
        run = before.lane(event.lane).run
        waits = any(i.input_id in self._inputs for i in before.queue(event.lane))
        return Moment(seq, entry.ts, what, event.lane, run, ids) if waits or run in self._runs else None

    def _lane(self, seq: int, entry: Entry, lane: str, event: Event) -> tuple[str, dict[str, Any]] | None:
        match event:
            case RunStarted() | RunTakenOver() | RunFinished() | RunError():
                return self._run(seq, entry, lane, event)
            case InputApplied() if event.input_id in self._inputs:
                return "input applied", {"input": event.input_id}
            case InputScheduled():
                return self._scheduled(entry, event, event.input_id, event.content)
            case InputUnscheduled() if event.input_id in self._inputs:
                return "input cancelled", {"input": event.input_id}
            case InputFailed():
                return "input failed", {"input": event.input_id, "code": event.code}
            case RunRequested():
                self._inputs.add(event.input_id)
                return "asks an agent", {"agent": event.agent, "lane": event.child_lane, "input": event.input_id}
            case SessionStateChanged():
                return event.state, {"reason": event.reason}
            case StepStarted():
                return "step started", {"step": event.step_name}
            case StepFinished():
                return "step ended", {"step": event.step_name}
            case MessageSegment() if event.final:
                ids = {"message": event.message_id, "characters": event.offset + event.length, "reason": event.reason}
                return "text ended", ids
            case _:
                return self._wait(entry, event)

    def _run(
        self, seq: int, entry: Entry, lane: str, event: RunStarted | RunTakenOver | RunFinished | RunError
    ) -> tuple[str, dict[str, Any]]:
        run = entry.run or ""
        match event:
            case RunStarted():
                self._open[run] = RunSpan(run, lane, seq, None)
                owner = self._state.lane(lane).owner
                ids = {"worker": None if owner is None else owner.id, "fence": self._state.lane(lane).fence}
                return "run started", ids
            case RunTakenOver():
                return "run taken over", {"attempt": event.attempt, "policy": event.policy}
            case RunFinished():
                self._over(run, seq)
                outcome = event.outcome or {}
                return "run ended", {"end": outcome.get("type", "success"), "reason": outcome.get("reason")}
            case RunError():
                self._over(run, seq)
                return "run ended", {"end": "error", "code": event.code}

    def _over(self, run: str, seq: int) -> None:
        span = self._open.pop(run, None)
        if span is not None:
            self.spans.append(RunSpan(span.run, span.lane, span.start, seq))

    def _wait(self, entry: Entry, event: Event) -> tuple[str, dict[str, Any]] | None:
        """What a run waits for."""
        match event:
            case ToolRequested():
                self._waits[event.tool_call_id] = entry.run
                ids = {"call": event.tool_call_id, "tool": event.name, "executor": event.executor}
                return "tool requested", ids
            case ToolFailed():
                return "tool failed", {"call": event.tool_call_id, "code": event.code}
            case ToolLapsed():
                return "tool offered again", {"call": event.tool_call_id}
            case ToolCallResult():
                return "tool result", {"call": event.tool_call_id}
            case ApprovalRequested():
                self._waits[event.approval_id] = entry.run
                return "approval requested", {"approval": event.approval_id, "kind": event.kind}
            case ApprovalResolved():
                return "approval ended", {"approval": event.approval_id, "status": event.status}
            case HandoffRequested():
                return "hand-over requested", {"handoff": event.handoff_id, "to": event.to}
            case HandoffExpired():
                return "hand-over expired", {"handoff": event.handoff_id}
            case _:
                return None


def _wait_of(event: Event) -> str | None:
    match event:
        case ToolClaimed() | ToolReleased() | ToolResolved():
            return event.tool_call_id
        case ApprovalResponded():
            return event.approval_id
        case _:
            return None


def _by(entry: Entry) -> dict[str, Any]:
    return {"by": None if entry.by is None else entry.by.id, "gateway": entry.via}


def with_text(moments: Sequence[Moment], text: Sequence[Moment]) -> list[Moment]:
    """All moments in the order of the log."""
    return sorted([*moments, *text], key=lambda moment: moment.seq)


def as_lines(moments: Sequence[Moment]) -> Iterator[str]:
    """A line for each: seconds since the first, seconds since the one before, lane, what, ids."""
    if not moments:
        return
    begin = before = moments[0].ts
    for moment in moments:
        since, after = (moment.ts - begin) / 1000, (moment.ts - before) / 1000
        before = moment.ts
        ids = "  ".join(f"{name} {value}" for name, value in moment.ids.items() if value is not None)
        yield f"{since:>10.3f} s {after:>+9.3f}  {moment.lane or '':<12} {moment.what:<20} {ids}".rstrip()


def as_wire(moments: Sequence[Moment]) -> list[dict[str, Any]]:
    """For JSON: `sinceMs` counts from the first, `afterMs` from the one before."""
    wire: list[dict[str, Any]] = []
    for moment, before in zip(moments, [*moments[:1], *moments], strict=False):
        wire.append(
            {
                "seq": moment.seq,
                "ts": moment.ts,
                "sinceMs": moment.ts - moments[0].ts,
                "afterMs": moment.ts - before.ts,
                "what": moment.what,
                "lane": moment.lane,
                "run": moment.run,
                "ids": {name: value for name, value in moment.ids.items() if value is not None},
            }
        )
    return wire
