"""The parts of a session's state (PROTOCOL, section 6, State), as frozen values.

Each part is read by `from_dict`, which answers None for what has no usable place in the state, and
written by `as_dict`, as in a snapshot. All times are in ms since 1970.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from ._json import JsonObject, as_count, as_int, as_object, as_objects, as_str, as_strings


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the state. Fields with `repr=False` are no part of a snapshot."""

    def as_dict(self) -> dict[str, object]:
        """As in a snapshot, ready for JSON."""
        return {_camel(each.name): plain(getattr(self, each.name)) for each in fields(self) if each.repr}


def plain(value: object) -> object:
    """The value as JSON has it."""
    match value:
        case Part():
            return value.as_dict()
        case tuple():
            return [plain(item) for item in value]
        case Mapping():
            return {key: plain(item) for key, item in value.items()}
        case _:
            return value


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(word.capitalize() for word in others)


@dataclass(frozen=True, slots=True)
class Lane(Part):
    """One writer's place. `owner` is None if nobody writes there, `run` the running run's id.

    `can` has `inject` if the agent takes inputs in the middle of a run; `paused` is the reason
    for which the run is held, None while it is not.
    """

    owner: JsonObject | None
    fence: int
    run: str | None
    can: tuple[str, ...] = ()
    paused: str | None = None

    @property
    def human(self) -> str | None:
        """The id of the human who has the lane, if one has."""
        return as_str(self.owner.get("id")) if self.owner is not None and self.owner.get("kind") == "user" else None

    @classmethod
    def from_dict(cls, raw: JsonObject) -> Lane | None:
        """Read a lane; None without a fence."""
        fence = as_count(raw.get("fence"))
        if fence is None:
            return None
        owner, run = as_object(raw.get("owner")), as_str(raw.get("run"))
        return cls(owner, fence, run, as_strings(raw.get("can")), as_str(raw.get("paused")))


@dataclass(frozen=True, slots=True)
class Run(Part):
    """A running run. `cancel` is None, or how it is to stop (`mode`), for whom and for what reason.

    `parent` is the run that asked for it, `agent` the agent that was asked. `detached` runs are
    not stopped with their parent; a snapshot does not tell.
    """

    run_id: str
    lane: str
    input_id: str | None
    attempt: int = 1
    cancel: JsonObject | None = None
    parent: str | None = None
    agent: str | None = None
    detached: bool = field(default=False, repr=False)

    @classmethod
    def from_dict(cls, raw: JsonObject) -> Run | None:
        """Read a run; None without an id or a lane."""
        run_id, lane = as_str(raw.get("runId")), as_str(raw.get("lane"))
        if run_id is None or lane is None:
            return None
        return cls(
            run_id,
            lane,
            input_id=as_str(raw.get("inputId")),
            attempt=as_count(raw.get("attempt")) or 1,
            cancel=as_object(raw.get("cancel")),
            parent=as_str(raw.get("parent")),
            agent=as_str(raw.get("agent")),
        )


@dataclass(frozen=True, slots=True)
class Input(Part):
    """A message that waits, with the `mode` it got; `parent` is the run that asks, None for a participant's.

    `agent` and `detached` belong to what a run asks of another agent; a snapshot does not tell.
    `attachments` are `Attachment`s as the log has them: `Attachment.from_dict` reads them.
    """

    input_id: str
    seq: int
    ts: int
    by: JsonObject | None
    content: str
    mode: str = "enqueue"
    lane: str = "main"
    parent: str | None = None
    agent: str | None = field(default=None, repr=False)
    detached: bool = field(default=False, repr=False)
    attachments: tuple[JsonObject, ...] = field(default=(), repr=False)

    def as_dict(self) -> dict[str, object]:
        """As in a snapshot: the attachments only where there are any."""
        found = Part.as_dict(self)
        return found | ({"attachments": plain(self.attachments)} if self.attachments else {})

    @classmethod
    def from_dict(cls, raw: JsonObject) -> Input | None:
        """Read an input; None without an id or a content."""
        input_id, content = as_str(raw.get("inputId")), as_str(raw.get("content"))
        if input_id is None or content is None:
            return None
        return cls(
            input_id=input_id,
            seq=as_count(raw.get("seq")) or 0,
            ts=as_int(raw.get("ts")) or 0,
            by=as_object(raw.get("by")),
            content=content,
            mode=as_str(raw.get("mode")) or "enqueue",
            lane=as_str(raw.get("lane")) or "main",
            parent=as_str(raw.get("parent")),
            attachments=as_objects(raw.get("attachments")),
        )


@dataclass(frozen=True, slots=True)
class Scheduled(Part):
    """A message that is to be sent at `at` (ms since 1970); `mode` is what its sender wishes, None if nothing.

    `seq` and `ts` are of the entry that scheduled it. `attachments` are as of an `Input`.
    """

    input_id: str
    seq: int
    ts: int
    by: JsonObject | None
    content: str
    at: int
    mode: str | None = None
    attachments: tuple[JsonObject, ...] = field(default=(), repr=False)

    def as_dict(self) -> dict[str, object]:
        """As in a snapshot: the attachments only where there are any."""
        found = Part.as_dict(self)
        return found | ({"attachments": plain(self.attachments)} if self.attachments else {})

    @classmethod
    def from_dict(cls, raw: JsonObject) -> Scheduled | None:
        """Read what is scheduled; None without an id, a content or a time."""
        input_id, content, at = as_str(raw.get("inputId")), as_str(raw.get("content")), as_int(raw.get("at"))
        if input_id is None or content is None or at is None:
            return None
        return cls(
            input_id=input_id,
            seq=as_count(raw.get("seq")) or 0,
            ts=as_int(raw.get("ts")) or 0,
            by=as_object(raw.get("by")),
            content=content,
            at=at,
            mode=as_str(raw.get("mode")),
            attachments=as_objects(raw.get("attachments")),
        )


@dataclass(frozen=True, slots=True)
class Claim(Part):
    """Who is executing a call, until when."""

    claim_id: str
    by: JsonObject | None
    device: str | None
    expires_at: int

    @classmethod
    def from_dict(cls, raw: JsonObject) -> Claim | None:
        """Read a claim; None without an id or an end."""
        claim_id, expires_at = as_str(raw.get("claimId")), as_int(raw.get("expiresAt"))
        if claim_id is None or expires_at is None:
            return None
        return cls(claim_id, as_object(raw.get("by")), as_str(raw.get("device")), expires_at)


@dataclass(frozen=True, slots=True)
class Call(Part):
    """An open call of a tool; `executor` is `client` or `agent`.

    From `any_after` on it is for anybody, before only for `participant` and `device`, as far as
    they are named. `trace` has the headers of the entry that requested it.
    """

    tool_call_id: str
    lane: str
    run_id: str
    name: str
    args: object
    executor: str
    idempotent: bool = False
    participant: str | None = None
    device: str | None = None
    any_after: int | None = None
    deadline: int | None = None
    claim: Claim | None = None
    trace: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def from_dict(cls, raw: JsonObject) -> Call | None:
        """Read a call; None without an id, a lane, a run or a name."""
        lane, run_id = as_str(raw.get("lane")), as_str(raw.get("runId"))
        if lane is None or run_id is None:
            return None
        return cls.requested(raw, lane, run_id, Claim.from_dict(as_object(raw.get("claim")) or {}))

    @classmethod
    def requested(cls, raw: JsonObject, lane: str, run_id: str, claim: Claim | None = None) -> Call | None:
        """Read a call of this run, also from `tool.requested`."""
        call_id, name, executor = as_str(raw.get("toolCallId")), as_str(raw.get("name")), as_str(raw.get("executor"))
        if call_id is None or name is None or executor is None:
            return None
        return cls(
            tool_call_id=call_id,
            lane=lane,
            run_id=run_id,
            name=name,
            args=raw.get("args"),
            executor=executor,
            idempotent=raw.get("idempotent") is True,
            participant=as_str(raw.get("participant")),
            device=as_str(raw.get("device")),
            any_after=as_int(raw.get("anyAfter")),
            deadline=as_int(raw.get("deadline")),
            claim=claim,
        )


@dataclass(frozen=True, slots=True)
class Vote(Part):
    """What somebody said to a pending approval."""

    by: JsonObject | None
    option: str

    @classmethod
    def from_dict(cls, raw: JsonObject) -> Vote | None:
        """Read a vote; None without an option."""
        option = as_str(raw.get("option"))
        return None if option is None else cls(as_object(raw.get("by")), option)


@dataclass(frozen=True, slots=True)
class Approval(Part):
    """A decision (`kind` `approval`) or an answer (`question`) that a run waits for."""

    approval_id: str
    kind: str
    lane: str
    run_id: str
    message: str
    options: tuple[str, ...]
    default: str | None
    expires_at: int | None = None
    tool_call_id: str | None = None
    key: str | None = None
    roles: tuple[str, ...] = ()
    quorum: int = 1
    response_schema: object = None
    details: object = None
    votes: tuple[Vote, ...] = ()

    @classmethod
    def from_dict(cls, raw: JsonObject) -> Approval | None:
        """Read an approval; None without an id, a lane or a run."""
        lane, run_id = as_str(raw.get("lane")), as_str(raw.get("runId"))
        if lane is None or run_id is None:
            return None
        votes = (Vote.from_dict(vote) for vote in as_objects(raw.get("votes")))
        return cls.requested(raw, lane, run_id, tuple(vote for vote in votes if vote is not None))

    @classmethod
    def requested(cls, raw: JsonObject, lane: str, run_id: str, votes: tuple[Vote, ...] = ()) -> Approval | None:
        """Read an approval of this run, also from `approval.requested`."""
        approval_id = as_str(raw.get("approvalId"))
        if approval_id is None:
            return None
        return cls(
            approval_id=approval_id,
            kind=as_str(raw.get("kind")) or "approval",
            lane=lane,
            run_id=run_id,
            message=as_str(raw.get("message")) or "",
            options=as_strings(raw.get("options")),
            default=as_str(raw.get("default")),
            expires_at=as_int(raw.get("expiresAt")),
            tool_call_id=as_str(raw.get("toolCallId")),
            key=as_str(raw.get("key")),
            roles=as_strings(raw.get("roles")),
            quorum=as_count(raw.get("quorum")) or 1,
            response_schema=raw.get("responseSchema"),
            details=raw.get("details"),
            votes=votes,
        )


@dataclass(frozen=True, slots=True)
class Handoff(Part):
    """A hand-over that waits for a human with the role `to`."""

    handoff_id: str
    lane: str
    run_id: str
    to: str
    reason: str = ""
    summary: str = ""
    expires_at: int | None = None

    @classmethod
    def from_dict(cls, raw: JsonObject) -> Handoff | None:
        """Read a hand-over; None without an id, a lane or a run."""
        lane, run_id = as_str(raw.get("lane")), as_str(raw.get("runId"))
        return None if lane is None or run_id is None else cls.requested(raw, lane, run_id)

    @classmethod
    def requested(cls, raw: JsonObject, lane: str, run_id: str) -> Handoff | None:
        """Read a hand-over of this run, also from `handoff.requested`."""
        handoff_id = as_str(raw.get("handoffId"))
        if handoff_id is None:
            return None
        reason, summary = as_str(raw.get("reason")) or "", as_str(raw.get("summary")) or ""
        expires_at = as_int(raw.get("expiresAt"))
        return cls(handoff_id, lane, run_id, as_str(raw.get("to")) or "", reason, summary, expires_at)
