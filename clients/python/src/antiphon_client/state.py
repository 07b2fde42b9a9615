"""The state of a session: the fold of its entries (PROTOCOL, section 6, State).

Pure and deterministic: every reader who folds the same entries has the same state. Nothing
here raises on an entry or event that is unknown or malformed; such an event counts as nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import ClassVar, Final

from ._json import JsonObject, as_count, as_int, as_object, as_objects, as_str
from .protocol import Entry

MAX_QUEUED: Final = 16
"""Inputs that may wait in a session; more are refused (rule 2)."""

WITHDRAWN_KEPT: Final = 64
"""Withdrawn inputs whose content is kept, for the case that a worker had begun them already."""

RUN_PREFIX: Final = "run_"
DEFAULT_CANCEL: Final = "immediate"


@dataclass(frozen=True, slots=True)
class Lane:
    """One writer's place. `owner` is None if nobody writes there, `run` the running run's id."""

    owner: JsonObject | None
    fence: int
    run: str | None

    def as_dict(self) -> dict[str, object]:
        """As in a snapshot."""
        owner = None if self.owner is None else dict(self.owner)
        return {"owner": owner, "fence": self.fence, "run": self.run}


@dataclass(frozen=True, slots=True)
class Run:
    """A running run. `cancel` is None, or the mode in which somebody stops it."""

    run_id: str
    lane: str
    input_id: str | None
    attempt: int
    cancel: str | None

    def as_dict(self) -> dict[str, object]:
        """As in a snapshot."""
        return {
            "runId": self.run_id,
            "lane": self.lane,
            "inputId": self.input_id,
            "attempt": self.attempt,
            "cancel": self.cancel,
        }


@dataclass(frozen=True, slots=True)
class Input:
    """A participant's message that waits. `ts` is in ms since 1970."""

    input_id: str
    seq: int
    ts: int
    by: JsonObject | None
    content: str
    mode: str | None

    @property
    def run_id(self) -> str:
        """The run that this input will start."""
        return RUN_PREFIX + self.input_id

    def as_dict(self) -> dict[str, object]:
        """As in a snapshot."""
        return {
            "inputId": self.input_id,
            "seq": self.seq,
            "ts": self.ts,
            "by": None if self.by is None else dict(self.by),
            "content": self.content,
            "mode": self.mode,
        }


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended.

    `kind` is `success`, `cancelled`, `error`, or `unknown` (it ended before this client began to
    read, so that its end lies before the snapshot). `code` and `message` belong to an error.
    """

    kind: str
    code: str | None = None
    message: str | None = None

    @property
    def ok(self) -> bool:
        """Whether the run ended well."""
        return self.kind == "success"


@dataclass(frozen=True, slots=True)
class InputApplied:
    """An input has entered the transcript, as the message `message_id`."""

    input_id: str
    run_id: str | None
    message_id: str | None


@dataclass(frozen=True, slots=True)
class InputDropped:
    """An input will not be applied: `cancelled`, `queue_full`, or the owner's code."""

    input_id: str
    code: str


@dataclass(frozen=True, slots=True)
class RunEnded:
    """A run has ended."""

    run_id: str
    outcome: Outcome


Change = InputApplied | InputDropped | RunEnded
"""What an event did that somebody may wait for."""


class State:
    """The folded state; `apply` moves it on. What its properties return does not change later.

    `partial` is for a reader who begins at a stored cursor and so has not seen which fence is a
    lane's current one: it takes the first it meets (the log holds no entry of an old fence).
    """

    def __init__(self, *, partial: bool = False) -> None:
        self.partial = partial
        self._lanes: dict[str, Lane] = {}
        self._runs: dict[str, Run] = {}
        self._queue: dict[str, Input] = {}
        # Ids are kept for the session's life, as rule 2 asks; their number is bounded by the
        # gateway's limit of inputs in a session (`session_full`).
        self._seen: set[str] = set()
        self._withdrawn: dict[str, str] = {}
        self._withdrawn_inputs: OrderedDict[str, Input] = OrderedDict()

    @classmethod
    def from_dict(cls, raw: JsonObject) -> State:
        """The state of a snapshot; parts that are malformed are left out."""
        state = cls()
        for name, lane in (as_object(raw.get("lanes")) or {}).items():
            fence = as_count((as_object(lane) or {}).get("fence"))
            if isinstance(lane, dict) and fence is not None:
                owner, run = as_object(lane.get("owner")), as_str(lane.get("run"))
                state._lanes[name] = Lane(owner, fence, run)
        for item in as_objects(raw.get("runs")):
            run_id, lane_name = as_str(item.get("runId")), as_str(item.get("lane"))
            if run_id is not None and lane_name is not None:
                state._add_run(_read_run(item, run_id, lane_name))
        for item in as_objects(raw.get("inputs")):
            if (waiting := _read_input(item)) is not None:
                state._queue[waiting.input_id] = waiting
                state._seen.add(waiting.input_id)
        return state

    def as_dict(self) -> dict[str, object]:
        """As in a snapshot, ready for JSON."""
        return {
            "lanes": {name: lane.as_dict() for name, lane in self._lanes.items()},
            "runs": [run.as_dict() for run in self._runs.values()],
            "inputs": [waiting.as_dict() for waiting in self._queue.values()],
        }

    @property
    def lanes(self) -> Mapping[str, Lane]:
        """The lanes by name."""
        return MappingProxyType(dict(self._lanes))

    @property
    def runs(self) -> tuple[Run, ...]:
        """The running runs, in the order of their start."""
        return tuple(self._runs.values())

    @property
    def inputs(self) -> tuple[Input, ...]:
        """The inputs that wait, next first."""
        return tuple(self._queue.values())

    def is_running(self, run_id: str) -> bool:
        """Whether this run is running."""
        return run_id in self._runs

    def is_queued(self, input_id: str) -> bool:
        """Whether this input waits."""
        return input_id in self._queue

    def find_input(self, input_id: str) -> Input | None:
        """An input that waits, or that was withdrawn lately."""
        return self._queue.get(input_id) or self._withdrawn_inputs.get(input_id)

    def counts(self, entry: Entry, event: JsonObject) -> bool:
        """Rule 1: whether an event of this entry counts now (`apply` asks by itself)."""
        if entry.lane is None or event.get("type") == "session.owner":
            return True
        fence = entry.fence
        if fence is None:
            return False
        lane = self._lanes.get(entry.lane)
        if lane is None and self.partial:
            self._lanes[entry.lane] = Lane(None, fence, None)
            return True
        return lane is not None and lane.fence == fence

    def apply(self, entry: Entry) -> list[Change]:
        """Fold one entry; returns what somebody may wait for, in order."""
        changes = []
        for event in entry.events:
            if self.counts(entry, event):
                change = self.apply_event(entry, event)
                if change is not None:
                    changes.append(change)
        return changes

    def apply_event(self, entry: Entry, event: JsonObject) -> Change | None:
        """Fold one event that counts."""
        kind = event.get("type")
        rule = self._RULES.get(kind) if isinstance(kind, str) else None
        return None if rule is None else rule(self, entry, event)

    # ---- the rules

    def _owner(self, entry: Entry, event: JsonObject) -> Change | None:
        name = as_str(event.get("lane")) or entry.lane
        kind, owner_id = as_str(event.get("kind")), as_str(event.get("id"))
        if name is None or kind is None:
            return None
        before = self._lanes.get(name)
        owner = None if kind == "none" else {"kind": kind, "id": owner_id}
        self._lanes[name] = Lane(owner, entry.seq, None if before is None else before.run)
        return None

    def _input_sent(self, entry: Entry, event: JsonObject) -> Change | None:
        input_id, content = as_str(event.get("inputId")), as_str(event.get("content"))
        if input_id is None or content is None or input_id in self._seen:
            return None
        self._seen.add(input_id)
        if len(self._queue) >= MAX_QUEUED:
            return InputDropped(input_id, "queue_full")
        mode = as_str(event.get("mode"))
        self._queue[input_id] = Input(input_id, entry.seq, entry.ts, entry.by, content, mode)
        return None

    def _input_cancel(self, _entry: Entry, event: JsonObject) -> Change | None:
        return self._withdraw(as_str(event.get("inputId")), DEFAULT_CANCEL)

    def _run_cancel(self, _entry: Entry, event: JsonObject) -> Change | None:
        run_id, mode = as_str(event.get("runId")), as_str(event.get("mode")) or DEFAULT_CANCEL
        if run_id is None:
            return None
        run = self._runs.get(run_id)
        if run is None:
            return self._withdraw(_input_of(run_id), mode)
        if run.cancel is None:
            self._runs[run_id] = replace(run, cancel=mode)
        return None

    def _withdraw(self, input_id: str | None, mode: str) -> Change | None:
        waiting = None if input_id is None else self._queue.pop(input_id, None)
        if waiting is None:
            return None
        self._withdrawn[waiting.input_id] = mode
        self._withdrawn_inputs[waiting.input_id] = waiting
        if len(self._withdrawn_inputs) > WITHDRAWN_KEPT:
            self._withdrawn_inputs.popitem(last=False)
        return InputDropped(waiting.input_id, "cancelled")

    def _run_started(self, entry: Entry, event: JsonObject) -> Change | None:
        run_id = as_str(event.get("runId"))
        if run_id is None or entry.lane is None or run_id in self._runs:
            return None
        input_id = _input_of(run_id)
        cancel = None if input_id is None else self._withdrawn.get(input_id)
        self._add_run(Run(run_id, entry.lane, input_id, 1, cancel))
        return None

    def _add_run(self, run: Run) -> None:
        lane = self._lanes.get(run.lane)
        if lane is not None:
            if lane.run is not None and lane.run != run.run_id:
                self._runs.pop(lane.run, None)  # a lane has one run
            self._lanes[run.lane] = replace(lane, run=run.run_id)
        self._runs[run.run_id] = run
        if run.input_id is not None:
            self._seen.add(run.input_id)

    def _input_applied(self, entry: Entry, event: JsonObject) -> Change | None:
        input_id = as_str(event.get("inputId"))
        if input_id is None:
            return None
        self._queue.pop(input_id, None)
        self._withdrawn_inputs.pop(input_id, None)
        self._seen.add(input_id)
        run_id = as_str(event.get("runId")) or entry.run
        return InputApplied(input_id, run_id, as_str(event.get("messageId")))

    def _input_failed(self, _entry: Entry, event: JsonObject) -> Change | None:
        input_id = as_str(event.get("inputId"))
        if input_id is None:
            return None
        self._queue.pop(input_id, None)
        return InputDropped(input_id, as_str(event.get("code")) or "failed")

    def _taken_over(self, _entry: Entry, event: JsonObject) -> Change | None:
        run_id, attempt = as_str(event.get("runId")), as_count(event.get("attempt"))
        run = None if run_id is None else self._runs.get(run_id)
        if run is not None and attempt is not None:
            self._runs[run.run_id] = replace(run, attempt=attempt)
        return None

    def _run_finished(self, entry: Entry, event: JsonObject) -> Change | None:
        kind = as_str((as_object(event.get("outcome")) or {}).get("type"))
        return self._end_run(entry, event, Outcome(kind or "success"))

    def _run_error(self, entry: Entry, event: JsonObject) -> Change | None:
        code, message = as_str(event.get("code")), as_str(event.get("message"))
        return self._end_run(entry, event, Outcome("error", code or "agent_error", message))

    def _end_run(self, entry: Entry, event: JsonObject, outcome: Outcome) -> Change | None:
        if entry.lane is None:
            return None
        lane = self._lanes.get(entry.lane)
        running = None if lane is None else lane.run
        if lane is not None and running is not None:
            self._runs.pop(running, None)
            self._lanes[entry.lane] = replace(lane, run=None)
        ended = running or as_str(event.get("runId")) or entry.run
        return None if ended is None else RunEnded(ended, outcome)

    _RULES: ClassVar[Mapping[str, Callable[[State, Entry, JsonObject], Change | None]]] = {
        "session.owner": _owner,
        "input.sent": _input_sent,
        "input.cancel.requested": _input_cancel,
        "input.applied": _input_applied,
        "input.failed": _input_failed,
        "run.cancel.requested": _run_cancel,
        "run.taken_over": _taken_over,
        "RUN_STARTED": _run_started,
        "RUN_FINISHED": _run_finished,
        "RUN_ERROR": _run_error,
    }


def _input_of(run_id: str) -> str | None:
    """The input that starts a run (section 2, names)."""
    return run_id.removeprefix(RUN_PREFIX) if run_id.startswith(RUN_PREFIX) else None


def _read_run(item: JsonObject, run_id: str, lane: str) -> Run:
    input_id, cancel = as_str(item.get("inputId")), as_str(item.get("cancel"))
    return Run(run_id, lane, input_id, as_count(item.get("attempt")) or 1, cancel)


def _read_input(item: JsonObject) -> Input | None:
    input_id, content = as_str(item.get("inputId")), as_str(item.get("content"))
    if input_id is None or content is None:
        return None
    return Input(
        input_id=input_id,
        seq=as_count(item.get("seq")) or 0,
        ts=as_int(item.get("ts")) or 0,
        by=as_object(item.get("by")),
        content=content,
        mode=as_str(item.get("mode")),
    )
