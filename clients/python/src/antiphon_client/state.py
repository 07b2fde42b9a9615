"""The state of a session: the fold of its entries (PROTOCOL, section 6, State).

Pure and deterministic: every reader who folds the same entries has the same state. Nothing
here raises on an entry or event that is unknown or malformed; such an event counts as nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import ClassVar, Final, TypeAlias

from ._json import JsonObject, as_count, as_int, as_object, as_objects, as_str
from .protocol import Entry

MAX_QUEUED: Final = 16
"""Inputs that may wait in a session; more are refused (rule 2)."""

MAX_INPUTS: Final = 50_000
"""Inputs that a session may have in its life (rule 2). It bounds the ids kept here, too."""

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
    """A running run. `cancel` is None, or the mode in which somebody stops it, and who."""

    run_id: str
    lane: str
    input_id: str | None
    attempt: int
    cancel: JsonObject | None

    def as_dict(self) -> dict[str, object]:
        """As in a snapshot."""
        return {
            "runId": self.run_id,
            "lane": self.lane,
            "inputId": self.input_id,
            "attempt": self.attempt,
            "cancel": None if self.cancel is None else dict(self.cancel),
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
    """An input has entered the transcript, as the message `message_id`.

    `source` is the input as it waited; None if it did not (or this reader does not know).
    """

    input_id: str
    run_id: str | None
    message_id: str | None
    source: Input | None = None


@dataclass(frozen=True, slots=True)
class InputDropped:
    """An input will not be applied: `cancelled`, `queue_full`, `session_full`, or the owner's code."""

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
        self._seen: set[str] = set()
        self._withdrawn: dict[str, JsonObject] = {}
        self._written: dict[str, int] = {}  # of each lane: the highest n of a record under its fence

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
                running = _read_run(item, run_id, lane_name)
                state._add_run(running)
                state._seen.add(running.input_id or "")
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

    def admits(self, entry: Entry) -> bool:
        """Rule 1: whether this entry counts. Asked once for an entry (and after an owner in it).

        A `session.owner` counts in any case: it makes the fence.
        """
        if entry.lane is None:
            return True
        fence, number = entry.fence, entry.number
        if fence is None or number is None:
            return False
        lane = self._lanes.get(entry.lane)
        if lane is None and self.partial:
            lane = self._lanes[entry.lane] = Lane(None, fence, None)
        if lane is None or lane.fence != fence:
            return False
        if entry.off is None:  # a record; a repeated delta changes nothing anyway
            if number <= self._written.get(entry.lane, -1):
                return False
            self._written[entry.lane] = number
        return True

    def apply(self, entry: Entry) -> list[Change]:
        """Fold one entry; returns what somebody may wait for, in order."""
        return [change for _, change in self.apply_each(entry) if change is not None]

    def apply_each(self, entry: Entry) -> Iterator[tuple[JsonObject, Change | None]]:
        """Fold one entry, event by event; yields each event that counts, and what it did."""
        admitted = self.admits(entry)
        for event in entry.events:
            if event.get("type") == "session.owner" and entry.off is None:
                self._owner(entry, event)
                admitted = self.admits(entry)
                yield event, None
            elif admitted:
                rule = self._rule(entry, event)
                yield event, None if rule is None else rule(self, entry, event)

    def _rule(self, entry: Entry, event: JsonObject) -> _Rule | None:
        kind = event.get("type")
        if entry.off is not None or not isinstance(kind, str):
            return None  # deltas do not change the state
        return self._ANYBODYS.get(kind) or (None if entry.lane is None else self._OWNERS.get(kind))

    # ---- the rules

    def _owner(self, entry: Entry, event: JsonObject) -> None:
        name = as_str(event.get("lane")) or entry.lane
        kind, owner_id = as_str(event.get("kind")), as_str(event.get("id"))
        if name is None or kind is None:
            return
        before = self._lanes.get(name)
        owner = None if kind == "none" else {"kind": kind, "id": owner_id}
        self._lanes[name] = Lane(owner, entry.seq, None if before is None else before.run)
        self._written.pop(name, None)

    def _input_sent(self, entry: Entry, event: JsonObject) -> Change | None:
        input_id, content = as_str(event.get("inputId")), as_str(event.get("content"))
        if input_id is None or content is None or input_id in self._seen:
            return None
        self._seen.add(input_id)
        if len(self._queue) >= MAX_QUEUED:
            return InputDropped(input_id, "queue_full")
        if len(self._seen) > MAX_INPUTS:
            return InputDropped(input_id, "session_full")
        mode = as_str(event.get("mode"))
        self._queue[input_id] = Input(input_id, entry.seq, entry.ts, entry.by, content, mode)
        return None

    def _input_cancel(self, entry: Entry, event: JsonObject) -> Change | None:
        return self._withdraw(as_str(event.get("inputId")), _cancel(entry, event))

    def _run_cancel(self, entry: Entry, event: JsonObject) -> Change | None:
        run_id = as_str(event.get("runId"))
        if run_id is None:
            return None
        run = self._runs.get(run_id)
        if run is None:
            return self._withdraw(_input_of(run_id), _cancel(entry, event))
        if run.cancel is None:
            self._runs[run_id] = replace(run, cancel=_cancel(entry, event))
        return None

    def _withdraw(self, input_id: str | None, cancel: JsonObject) -> Change | None:
        waiting = None if input_id is None else self._queue.pop(input_id, None)
        if waiting is None:
            return None
        self._withdrawn[waiting.input_id] = cancel
        return InputDropped(waiting.input_id, "cancelled")

    def _run_started(self, entry: Entry, event: JsonObject) -> Change | None:
        run_id, lane = as_str(event.get("runId")), self._lanes.get(entry.lane or "")
        if run_id is None or entry.lane is None or run_id in self._runs:
            return None
        if lane is None or lane.run is not None:
            return None
        input_id = run_id.removeprefix(RUN_PREFIX)
        self._add_run(Run(run_id, entry.lane, input_id, 1, self._withdrawn.get(input_id)))
        return None

    def _add_run(self, run: Run) -> None:
        lane = self._lanes.get(run.lane)
        if lane is not None:
            self._lanes[run.lane] = replace(lane, run=run.run_id)
        self._runs[run.run_id] = run

    def _input_applied(self, entry: Entry, event: JsonObject) -> Change | None:
        input_id = as_str(event.get("inputId"))
        if input_id is None:
            return None
        source = self._queue.pop(input_id, None)
        run_id = as_str(event.get("runId")) or entry.run
        return InputApplied(input_id, run_id, as_str(event.get("messageId")), source)

    def _input_failed(self, _entry: Entry, event: JsonObject) -> Change | None:
        input_id = as_str(event.get("inputId"))
        if input_id is None:
            return None
        self._queue.pop(input_id, None)
        return InputDropped(input_id, as_str(event.get("code")) or "failed")

    def _taken_over(self, entry: Entry, event: JsonObject) -> Change | None:
        run, attempt = self._running_in(entry.lane), as_count(event.get("attempt"))
        if run is not None and attempt is not None and event.get("runId") == run.run_id:
            self._runs[run.run_id] = replace(run, attempt=attempt)
        return None

    def _run_finished(self, entry: Entry, event: JsonObject) -> Change | None:
        kind = as_str((as_object(event.get("outcome")) or {}).get("type"))
        return self._end_run(entry, as_str(event.get("runId")), Outcome(kind or "success"))

    def _run_error(self, entry: Entry, event: JsonObject) -> Change | None:
        code, message = as_str(event.get("code")), as_str(event.get("message"))
        run = self._running_in(entry.lane)
        run_id = entry.run if run is None else run.run_id
        return self._end_run(entry, run_id, Outcome("error", code or "agent_error", message))

    def _end_run(self, entry: Entry, run_id: str | None, outcome: Outcome) -> Change | None:
        run = self._running_in(entry.lane)
        if run_id is None:
            return None
        if run is None:
            # a reader who began in the middle has not seen the start
            return RunEnded(run_id, outcome) if self.partial else None
        if run.run_id != run_id:
            return None
        del self._runs[run_id]
        self._lanes[run.lane] = replace(self._lanes[run.lane], run=None)
        return RunEnded(run_id, outcome)

    def _running_in(self, lane_name: str | None) -> Run | None:
        lane = None if lane_name is None else self._lanes.get(lane_name)
        return None if lane is None or lane.run is None else self._runs.get(lane.run)

    _ANYBODYS: ClassVar[Mapping[str, _Rule]] = {
        "input.sent": _input_sent,
        "input.cancel.requested": _input_cancel,
        "run.cancel.requested": _run_cancel,
    }
    _OWNERS: ClassVar[Mapping[str, _Rule]] = {
        "input.applied": _input_applied,
        "input.failed": _input_failed,
        "run.taken_over": _taken_over,
        "RUN_STARTED": _run_started,
        "RUN_FINISHED": _run_finished,
        "RUN_ERROR": _run_error,
    }


_Rule: TypeAlias = Callable[[State, Entry, JsonObject], Change | None]


def _input_of(run_id: str) -> str | None:
    """The input that starts a run (section 2, names)."""
    return run_id.removeprefix(RUN_PREFIX) if run_id.startswith(RUN_PREFIX) else None


def _cancel(entry: Entry, event: JsonObject) -> JsonObject:
    """What a run's `cancel` says: how it is to stop, and who wants it."""
    return {"mode": as_str(event.get("mode")) or DEFAULT_CANCEL, "by": entry.by}


def _read_run(item: JsonObject, run_id: str, lane: str) -> Run:
    input_id, cancel = as_str(item.get("inputId")), as_object(item.get("cancel"))
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
