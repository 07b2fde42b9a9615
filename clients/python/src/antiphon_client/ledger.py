"""What the rules of the fold read and write: the state, and what it takes to go on folding.

A snapshot carries what its reader sees; what is only needed to judge later entries (ids that were
seen, what was taken back) begins empty after one.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, fields, replace
from typing import Final

from ._json import JsonObject, as_object, as_objects, as_str
from .changes import Change
from .config import Config
from .model import Approval, Call, Handoff, Input, Lane, Run, Scheduled

MAIN: Final = "main"
MAX_REMEMBERED: Final = 256
MAX_ENDED: Final = 64
"""Inputs that ended, of which it is known whether they were taken back (rule 9)."""


@dataclass(slots=True)
class Past:
    """What a running run has had, so that no id of it counts twice."""

    calls: set[str] = field(default_factory=set)
    approvals: set[str] = field(default_factory=set)
    handoffs: set[str] = field(default_factory=set)


@dataclass(slots=True)
class Ledger:
    """The state while it is folded. `changes` is what the event being folded has done so far."""

    partial: bool = False
    title: str | None = None
    metadata: JsonObject = field(default_factory=dict)
    config: Config = field(default_factory=Config)
    created: bool = False
    closed: bool = False
    lanes: dict[str, Lane] = field(default_factory=dict)
    runs: dict[str, Run] = field(default_factory=dict)
    queue: dict[str, Input] = field(default_factory=dict)
    scheduled: dict[str, Scheduled] = field(default_factory=dict)
    """By their time, then by their place in the log."""
    calls: dict[str, Call] = field(default_factory=dict)
    approvals: dict[str, Approval] = field(default_factory=dict)
    handoffs: dict[str, Handoff] = field(default_factory=dict)
    remembered: dict[str, JsonObject] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)
    ended: deque[tuple[str, JsonObject | None, bool]] = field(default_factory=lambda: deque(maxlen=MAX_ENDED))
    """The last inputs that ended; and of those that were taken back (True), by whom."""
    past: dict[str, Past] = field(default_factory=dict)
    written: dict[str, int] = field(default_factory=dict)
    """Of each lane: the highest n of a record under its fence."""
    changes: list[Change] = field(default_factory=list)

    @property
    def status(self) -> str:
        """The first that holds (section 6, State)."""
        asked = any(call.executor == "client" for call in self.calls.values())
        main = self.lanes.get(MAIN)
        holds = {
            "closed": self.closed,
            "paused": any(lane.paused is not None for lane in self.lanes.values()),
            "requires_action": asked or bool(self.approvals) or bool(self.handoffs),
            "running": bool(self.runs) or bool(self.queue),
            "human": main is not None and main.human is not None,
        }
        return next((status for status, true in holds.items() if true), "idle")

    def clear(self) -> None:
        """As of an empty session, of which everything is known."""
        empty = Ledger()
        for each in fields(self):
            setattr(self, each.name, getattr(empty, each.name))

    def copy(self) -> Ledger:
        """What a reader sees, as it stands; what is only needed to go on folding is left out."""
        copied = replace(self, seen=set(), ended=deque(), past={}, written={}, changes=[])
        for name in ("lanes", "runs", "queue", "scheduled", "calls", "approvals", "handoffs", "remembered"):
            setattr(copied, name, dict(getattr(self, name)))
        return copied

    def taken_back(self, input_id: str) -> tuple[JsonObject | None] | None:
        """Who took an input back, if that is what became of it, not long ago."""
        ends = (end for end in reversed(self.ended) if end[0] == input_id)
        _, by, was_taken_back = next(ends, ("", None, False))
        return (by,) if was_taken_back else None

    def running_in(self, lane_name: str | None) -> Run | None:
        """The run of a lane."""
        lane = None if lane_name is None else self.lanes.get(lane_name)
        return None if lane is None or lane.run is None else self.runs.get(lane.run)

    def waiting_in(self, lane_name: str) -> list[Input]:
        """The inputs that wait in a lane, next first."""
        return [waiting for waiting in self.queue.values() if waiting.lane == lane_name]

    def plan(self, planned: Scheduled) -> None:
        """An input is to be sent later."""
        every = sorted([*self.scheduled.values(), planned], key=lambda each: (each.at, each.seq))
        self.scheduled = {each.input_id: each for each in every}

    def add_run(self, run: Run) -> None:
        """A run is running in its lane."""
        lane = self.lanes.get(run.lane)
        if lane is not None:
            self.lanes[run.lane] = replace(lane, run=run.run_id)
        self.runs[run.run_id] = run
        self.past[run.run_id] = Past()

    def remember(self, key: str, decision: JsonObject) -> None:
        """Keep what was decided for always; the oldest goes."""
        self.remembered.pop(key, None)
        self.remembered[key] = decision
        if len(self.remembered) > MAX_REMEMBERED:
            del self.remembered[next(iter(self.remembered))]

    # ---- snapshots

    @classmethod
    def from_dict(cls, raw: JsonObject) -> Ledger:
        """The state of a snapshot; parts that are malformed are left out."""
        ledger = cls(title=as_str(raw.get("title")), metadata=as_object(raw.get("metadata")) or {})
        ledger.config = Config().updated(as_object(raw.get("config")) or {})
        ledger.closed = raw.get("status") == "closed"
        for name, lane in (as_object(raw.get("lanes")) or {}).items():
            if (read := Lane.from_dict(as_object(lane) or {})) is not None:
                ledger.lanes[name] = read
        ledger.remembered = {
            key: entry for key, entry in (as_object(raw.get("remembered")) or {}).items() if isinstance(entry, dict)
        }
        ledger._read_work(raw)
        return ledger

    def _read_work(self, raw: JsonObject) -> None:
        for item in as_objects(raw.get("runs")):
            if (run := Run.from_dict(item)) is not None:
                self.add_run(run)
                self.seen.add(run.input_id or "")
        for item in as_objects(raw.get("inputs")):
            if (waiting := Input.from_dict(item)) is not None:
                self.queue[waiting.input_id] = waiting
                self.seen.add(waiting.input_id)
        for item in as_objects(raw.get("scheduled")):
            if (planned := Scheduled.from_dict(item)) is not None:
                self.plan(planned)
                self.seen.add(planned.input_id)
        for item in as_objects(raw.get("calls")):
            if (call := Call.from_dict(item)) is not None:
                self.calls[call.tool_call_id] = call
                self.past.setdefault(call.run_id, Past()).calls.add(call.tool_call_id)
        for item in as_objects(raw.get("approvals")):
            if (approval := Approval.from_dict(item)) is not None:
                self.approvals[approval.approval_id] = approval
                self.past.setdefault(approval.run_id, Past()).approvals.add(approval.approval_id)
        for item in as_objects(raw.get("handoffs")):
            if (handoff := Handoff.from_dict(item)) is not None:
                self.handoffs[handoff.handoff_id] = handoff
                self.past.setdefault(handoff.run_id, Past()).handoffs.add(handoff.handoff_id)

    def as_dict(self) -> dict[str, object]:
        """As in a snapshot, ready for JSON."""
        return {
            "status": self.status,
            "title": self.title,
            "metadata": dict(self.metadata),
            "config": self.config.as_dict(),
            "lanes": {name: lane.as_dict() for name, lane in self.lanes.items()},
            "runs": [run.as_dict() for run in self.runs.values()],
            "inputs": [waiting.as_dict() for waiting in self.queue.values()],
            "scheduled": [planned.as_dict() for planned in self.scheduled.values()],
            "calls": [call.as_dict() for call in self.calls.values()],
            "approvals": [approval.as_dict() for approval in self.approvals.values()],
            "handoffs": [handoff.as_dict() for handoff in self.handoffs.values()],
            "remembered": {key: dict(decision) for key, decision in self.remembered.items()},
        }
