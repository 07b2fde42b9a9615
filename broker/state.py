"""The state of a session: what the fold (`broker.session`) makes of its log. Immutable; states share their parts."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from broker.events import Participant
from broker.session_config import SessionConfig
from broker.subjects import MAIN_LANE, run_id_of
from broker.tracing import TraceContext

MAX_INPUTS = 50_000
"""Inputs in a session's life; bounds the checkpoint, which holds 8 bytes for each."""
MAX_CALLS = 1000
"""Tool calls of the runs that are running. One more counts as nothing."""
MAX_OPEN_CALLS = 64
"""Tool calls that wait for their result."""
MAX_APPROVALS = 1000
"""Approvals of the runs that are running."""
MAX_PENDING_APPROVALS = 64
"""Approvals that wait for a decision."""
MAX_REMEMBERED = 256
"""Decisions for always that a session remembers; the oldest is asked again."""
MAX_STEPS = 1000
"""Recorded steps of a run. One more counts as nothing."""
MAX_SCHEDULED = 64
"""Inputs of a session that are scheduled and not due yet."""
MAX_SCHEDULED_BYTES = 262_144
"""Bytes of their contents, together: they are in every checkpoint and snapshot."""
FATES_KEPT = 64
"""Ended inputs, runs, calls and approvals whose end is remembered, for receipts. Older ones are known to have been."""

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
    """An input that waits to be applied. `seq` is where it stands in the log.

    `mode` is what became of its sender's wish when it came: inject, enqueue, interrupt or rollback. `parent` is the run
    that asked for it, if an agent did, `agent` who was asked, and `pool` whose workers take it. `trace` is the span that
    it came in. `attachments` are references, as the log has them.
    """

    input_id: str
    seq: int
    ts: int
    by: Participant | None
    content: str
    mode: str = "enqueue"
    lane: str = MAIN_LANE
    parent: str | None = None
    agent: str | None = None
    pool: str | None = None
    detached: bool = False
    trace: TraceContext | None = None
    attachments: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class ScheduledInput:
    """An input that is to be sent at `at` (ms since 1970). `seq` and `ts` are of the entry that scheduled it; `mode` is what
    its sender wishes (None: what the session says then).
    """

    input_id: str
    seq: int
    ts: int
    by: Participant | None
    content: str
    at: int
    mode: str | None = None
    attachments: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class InputFate:
    """How an input ended its time in the queue: applied (to `run`), cancelled, failed or refused."""

    input_id: str
    seq: int
    status: str
    code: str | None = None
    by: Participant | None = None
    run: str | None = None


@dataclass(frozen=True, slots=True)
class Cancel:
    """A run has to stop: who asked first, how (immediate or after_step), and why.

    `reason` is requested, interrupt, rollback or parent (the run that asked for it has been cancelled or has ended).
    """

    mode: str
    by: Participant | None
    reason: str = "requested"


@dataclass(frozen=True, slots=True)
class Step:
    """A step that a run has behind it, recorded at `seq`. `asked` is a digest of what it was called with, `error` the type
    of what it raised.
    """

    seq: int
    name: str
    error: str | None = None
    asked: str | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """A running run. `attempt` counts the workers it has had, from 1; `lost` those that did not hand it over.

    `parent` is the run that asked for it, `agent` who was asked, of `pool`; a detached run outlives its parent. `cause` is
    the span that its input came in, `trace` that of its latest attempt, which began at `since` (ms since 1970);
    `lost_fence` is the fence of the claim that found its worker lost last. `steps` are those recorded so far, by id.
    """

    run_id: str
    lane: str
    input_id: str
    started_seq: int
    attempt: int = 1
    cancel: Cancel | None = None
    lost: int = 0
    parent: str | None = None
    agent: str | None = None
    pool: str | None = None
    detached: bool = False
    cause: TraceContext | None = None
    trace: TraceContext | None = None
    since: int = 0
    lost_fence: int = 0
    steps: Mapping[str, Step] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OpenStream:
    """A text that is being streamed: `settled` code points are in records, the last of them at `settled_seq`."""

    id: str
    kind: str
    settled_seq: int
    settled: int = 0


@dataclass(frozen=True, slots=True)
class Lane:
    """A writer's place. `fence` is the sequence of its last ownership record, `last_n` the last write under it.

    `can` is what the owner said that its agent takes; `paused` is why the run is held; `pool` is whose workers had the last
    run (None: the default ones).
    """

    fence: int = 0
    owner: Participant | None = None
    last_n: int = 0
    run: str | None = None
    streams: Mapping[str, OpenStream] = field(default_factory=dict)
    can: tuple[str, ...] = ()
    paused: str | None = None
    pool: str | None = None

    @property
    def human(self) -> Participant | None:
        """The human who has the lane."""
        return self.owner if self.owner is not None and self.owner.kind == "user" else None


@dataclass(frozen=True, slots=True)
class ToolClaim:
    """Who executes a call, until `expires_at` (ms since 1970)."""

    claim_id: str
    by: Participant
    expires_at: int
    device: str | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call of a running run; `requested_seq` and `write_id` are those of its `tool.requested` entry.

    `status` is open, resolved or failed (with `code`); `settled_seq` is the entry that says so. `answered`: its result is
    in the transcript. `args` and `result_schema` are kept while it is open.
    """

    id: str
    lane: str
    run: str
    name: str
    executor: str
    requested_seq: int
    write_id: str
    args: Mapping[str, Any] | None = None
    idempotent: bool = False
    participant: str | None = None
    device: str | None = None
    any_after: int | None = None
    deadline: int | None = None
    result_schema: Mapping[str, Any] | None = None
    claim: ToolClaim | None = None
    claims: int = 0
    status: str = "open"
    code: str | None = None
    settled_seq: int = 0
    answered: bool = False


@dataclass(frozen=True, slots=True)
class Vote:
    """What a participant chose, in entry `seq`."""

    by: Participant
    option: str
    seq: int


@dataclass(frozen=True, slots=True)
class Approval:
    """A decision or an answer that a running run waits for, or has had.

    `status` is pending, resolved, expired or cancelled; `decision` is the option that counts, and `decided_seq` the entry
    that settled it, with the payload.
    """

    id: str
    lane: str
    run: str
    kind: str
    seq: int
    message: str
    options: tuple[str, ...]
    default: str
    expires_at: int | None = None
    tool_call_id: str | None = None
    key: str | None = None
    roles: tuple[str, ...] = ()
    quorum: int = 1
    response_schema: Mapping[str, Any] | None = None
    details: Mapping[str, Any] | None = None
    votes: tuple[Vote, ...] = ()
    status: str = "pending"
    decision: str | None = None
    decided_seq: int = 0


@dataclass(frozen=True, slots=True)
class Remembered:
    """A decision for always: allow_always or reject_always, by whom, in entry `seq`."""

    option: str
    by: Participant
    seq: int


@dataclass(frozen=True, slots=True)
class Handoff:
    """A hand-over that waits for somebody with role `to`, or that somebody has taken.

    `status` is waiting, accepted, expired or cancelled.
    """

    id: str
    lane: str
    run: str
    to: str
    reason: str
    summary: str
    seq: int
    expires_at: int | None = None
    status: str = "waiting"
    by: Participant | None = None


@dataclass(frozen=True, slots=True)
class Ended:
    """How something ended that is gone from the state: a run, a call, an approval or a hand-over."""

    id: str
    status: str
    code: str | None = None


@dataclass(frozen=True, slots=True)
class SessionState:
    """State after the record at `as_of`. `messages` counts the transcript's messages so far.

    `deleted_seq` is where the session was deleted and began anew, if it was.
    """

    as_of: int = 0
    lanes: Mapping[str, Lane] = field(default_factory=dict)
    runs: Mapping[str, Run] = field(default_factory=dict)
    inputs: tuple[QueuedInput, ...] = ()
    scheduled: tuple[ScheduledInput, ...] = ()
    """The next first."""
    calls: Mapping[str, Call] = field(default_factory=dict)
    approvals: Mapping[str, Approval] = field(default_factory=dict)
    handoffs: Mapping[str, Handoff] = field(default_factory=dict)
    remembered: Mapping[str, Remembered] = field(default_factory=dict)
    config: SessionConfig = field(default_factory=SessionConfig)
    title: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    created_by: Participant | None = None
    created_seq: int = 0
    closed: bool = False
    deleted_seq: int = 0
    seen: Seen = field(default_factory=Seen)
    fates: tuple[InputFate, ...] = ()
    ended: tuple[Ended, ...] = ()
    messages: int = 0

    def lane(self, name: str) -> Lane:
        return self.lanes.get(name, _NO_LANE)

    def lane_run(self, name: str) -> Run | None:
        """The run of a lane."""
        return self.runs.get(self.lane(name).run or "")

    def queue(self, lane: str) -> tuple[QueuedInput, ...]:
        """The inputs that wait in a lane, in order."""
        return tuple(i for i in self.inputs if i.lane == lane)

    def queued(self, input_id: str) -> QueuedInput | None:
        return next((i for i in self.inputs if i.input_id == input_id), None)

    def planned(self, input_id: str) -> ScheduledInput | None:
        """An input that is scheduled and not due yet."""
        return next((i for i in self.scheduled if i.input_id == input_id), None)

    def fate(self, input_id: str) -> InputFate | None:
        """The end of an input, if it is among the latest `FATES_KEPT`."""
        return next((f for f in reversed(self.fates) if f.input_id == input_id), None)

    def trace_of(self, run_id: str) -> TraceContext | None:
        """The span that a run, or the input that it waits for to begin with, is in."""
        run = self.runs.get(run_id)
        if run is not None:
            return run.trace
        queued = next((i for i in self.inputs if run_id_of(i.input_id) == run_id), None)
        return None if queued is None else queued.trace

    def end_of(self, id_: str) -> Ended | None:
        """How a run, a call, an approval or a hand-over ended, if it is among the latest `FATES_KEPT`."""
        return next((e for e in reversed(self.ended) if e.id == id_), None)

    @property
    def untouched(self) -> bool:
        """Nobody has sent or claimed anything yet."""
        return not self.lanes and not len(self.seen)

    @property
    def idle(self) -> bool:
        """Nothing runs and nothing waits."""
        return not self.runs and not self.inputs

    @property
    def status(self) -> str:
        """closed, paused, requires_action, running, human or idle: what matters most of what is the case."""
        if self.closed:
            return "closed"
        if any(lane.paused is not None for lane in self.lanes.values()):
            return "paused"
        if self.waits_for_people():
            return "requires_action"
        if self.runs or self.inputs:
            return "running"
        return "human" if self.lane(MAIN_LANE).human is not None else "idle"

    def waits_for_people(self) -> bool:
        """An approval, a tool of a client or a hand-over is open."""
        return (
            any(a.status == "pending" for a in self.approvals.values())
            or any(c.status == "open" and c.executor == "client" for c in self.calls.values())
            or any(h.status == "waiting" for h in self.handoffs.values())
        )

    def settled_floor(self) -> int | None:
        """The oldest `settled_seq` of any open stream: up to it, records alone hold all text. None: all is settled."""
        return min((s.settled_seq for lane in self.lanes.values() for s in lane.streams.values()), default=None)


_NO_LANE = Lane()
