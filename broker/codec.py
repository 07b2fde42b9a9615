"""Entries to bytes and back.

The stored body of an entry is a JSON object; a gateway makes a client's frame of it by putting the log's fields in
front (`frame`), so the live path copies bodies, and of a token only makes sure that it is one. Decoding never loses what it does not know: an
event of an unknown type, or of a known type whose fields are not as they should be, is an `OtherEvent`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, get_args

import orjson

from broker.depth import STORED_DEPTH_MAX, is_deeper
from broker.errors import CodecError
from broker.events import (
    ApprovalResponded,
    ApprovalRevoked,
    Delta,
    Entry,
    Event,
    HandoffReturned,
    InputCancelRequested,
    InputScheduled,
    InputSent,
    MessageSegment,
    MessagesImported,
    OtherEvent,
    Participant,
    ReasoningMessageContent,
    RunCancelRequested,
    RunTakenOver,
    SessionClosed,
    SessionCreated,
    SessionDeleted,
    SessionOwner,
    SessionReopened,
    SessionUpdated,
    TextMessageContent,
    ToolCallArgs,
    ToolClaimed,
    ToolReleased,
    ToolResolved,
)
from broker.session_config import well_formed
from broker.subjects import Kind, Place
from broker.tracing import parse_context

_PARTICIPANT_EVENTS = (
    InputSent,
    InputCancelRequested,
    RunCancelRequested,
    ToolClaimed,
    ToolReleased,
    ToolResolved,
    ApprovalResponded,
    ApprovalRevoked,
    HandoffReturned,
    SessionCreated,
    SessionUpdated,
    SessionClosed,
    SessionReopened,
    SessionDeleted,
    MessagesImported,
)


@dataclasses.dataclass(frozen=True, slots=True)
class EventField:
    """A field of an event: its name here and on the wire, and which values it takes."""

    attribute: str
    wire: str
    kind: str
    """Its annotation."""
    accepts: Callable[[Any], bool]
    required: bool
    flag: bool
    """A bool, which is False where it is absent."""


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)


_INT_MAX = 2**53 - 1
"""The largest whole number that every reader reads as itself (RFC 8259, section 6)."""
EVENTS_MAX = 4_096
"""Events of an entry; one with more says nothing. Each of them costs all readers something."""


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -_INT_MAX <= value <= _INT_MAX


def _is_texts(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(item, str) for item in value)


_ACCEPTS: dict[str, Callable[[Any], bool]] = {
    "str": lambda v: isinstance(v, str),
    "str | None": lambda v: v is None or isinstance(v, str),
    "int": _is_int,
    "int | None": lambda v: v is None or _is_int(v),
    "bool": lambda v: isinstance(v, bool),
    "Any": lambda _: True,
    "Mapping[str, Any]": lambda v: isinstance(v, dict),
    "Sequence[str]": _is_texts,
    "Sequence[Mapping[str, Any]]": lambda v: isinstance(v, list | tuple) and all(isinstance(i, dict) for i in v),
    "Sequence[Mapping[str, Any]] | None": lambda v: v is None or _ACCEPTS["Sequence[Mapping[str, Any]]"](v),
    "Sequence[str] | None": lambda v: v is None or _is_texts(v),
    "Mapping[str, Any] | None": lambda v: v is None or isinstance(v, dict),
}


def _fields_of(cls: type) -> tuple[EventField, ...]:
    return tuple(
        EventField(
            f.name,
            _camel(f.name),
            str(f.type),
            _ACCEPTS[str(f.type)],
            f.default is dataclasses.MISSING,
            str(f.type) == "bool",
        )
        for f in dataclasses.fields(cls)
        if f.name != "extra"
    )


EVENT_TYPES: dict[str, tuple[type, tuple[EventField, ...]]] = {
    cls.TYPE: (cls, _fields_of(cls)) for cls in get_args(Event) if cls is not OtherEvent
}
"""The events that some part of Antiphon acts on, by their type, with their fields."""
_FIELDS: dict[type, tuple[EventField, ...]] = dict(EVENT_TYPES.values())


def event_to_wire(event: Event) -> dict[str, Any]:
    """The event as a JSON object, `type` first; fields that are None, and flags that are not set, are left out."""
    if isinstance(event, OtherEvent):
        return dict(event.body)
    wire: dict[str, Any] = {"type": event.TYPE}
    for spec in _FIELDS[type(event)]:
        value = getattr(event, spec.attribute)
        if spec.required or (value is not None and not (spec.flag and value is False)):
            wire[spec.wire] = value
    wire.update(event.extra)
    return wire


def event_from_wire(wire: Mapping[str, Any]) -> Event:
    """The inverse of `event_to_wire`. Raises CodecError if there is no string `type`."""
    kind = wire.get("type")
    if not isinstance(kind, str):
        raise CodecError("an event needs a string `type`")
    known = EVENT_TYPES.get(kind)
    if known is None:
        return OtherEvent(kind, dict(wire))
    cls, specs = known
    values: dict[str, Any] = {}
    extra = dict(wire)
    del extra["type"]
    for spec in specs:
        if spec.wire in extra:
            value = extra.pop(spec.wire)
            if not spec.accepts(value):
                return OtherEvent(kind, dict(wire))
            values[spec.attribute] = value
        elif spec.required:
            return OtherEvent(kind, dict(wire))
    event: Event = cls(**values, extra=extra)
    return event


def entry_to_wire(entry: Entry) -> dict[str, Any]:
    """The entry as a JSON object, without the fields that the log adds (`session`, `seq`, `prev`)."""
    wire: dict[str, Any] = {"id": entry.id}
    if entry.lane is not None:
        wire["lane"] = entry.lane
    if entry.run is not None:
        wire["run"] = entry.run
    wire["ts"] = entry.ts
    if entry.by is not None:
        wire["by"] = participant_to_wire(entry.by)
    if entry.via is not None:
        wire["via"] = entry.via
    if entry.trace is not None:
        wire |= entry.trace.headers
    if entry.off is not None:
        wire["off"] = entry.off
    wire["events"] = [event_to_wire(event) for event in entry.events]
    return wire


def participant_to_wire(by: Participant) -> dict[str, Any]:
    wire: dict[str, Any] = {"kind": by.kind, "id": by.id}
    if by.name is not None:
        wire["name"] = by.name
    if by.roles:
        wire["roles"] = list(by.roles)
    if by.version is not None:
        wire["version"] = by.version
    return wire


def by_to_wire(by: Participant | None) -> dict[str, Any] | None:
    """As `participant_to_wire`, where there may be nobody."""
    return None if by is None else participant_to_wire(by)


def participant_from_wire(wire: Any) -> Participant | None:
    """None for anything that is not a participant."""
    match wire:
        case {"kind": str(kind), "id": str(id_)}:
            name, roles, version = wire.get("name"), wire.get("roles"), wire.get("version")
            return Participant(
                kind,
                id_,
                name if isinstance(name, str) else None,
                tuple(roles) if _is_texts(roles) else (),
                version if isinstance(version, str) else None,
            )
        case _:
            return None


def encode(entry: Entry) -> bytes:
    """The stored body of an entry."""
    return orjson.dumps(entry_to_wire(entry))


def decode(body: bytes) -> Entry:
    """The inverse of `encode`. Raises CodecError for bytes that are not an entry."""
    return entry_from_wire(_parse(body))


def _parse(body: bytes) -> Any:
    try:
        wire = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise CodecError("an entry must be JSON") from None
    if is_deeper(wire, body, STORED_DEPTH_MAX):
        raise CodecError(f"an entry must not have more than {STORED_DEPTH_MAX} levels")
    return wire


def entry_from_wire(wire: Any) -> Entry:
    """Raises CodecError for an object that is not an entry."""
    match wire:
        case {"id": str(id_), "ts": ts, "events": [*events]} if (
            _is_int(ts) and len(events) <= EVENTS_MAX and all(isinstance(e, dict) for e in events)
        ):
            lane, run, off, via = wire.get("lane"), wire.get("run"), wire.get("off"), wire.get("via")
            return Entry(
                id=id_,
                ts=ts,
                events=tuple(event_from_wire(event) for event in events),
                lane=lane if isinstance(lane, str) else None,
                run=run if isinstance(run, str) else None,
                by=participant_from_wire(wire.get("by")),
                off=off if _is_int(off) else None,
                trace=parse_context(wire.get("traceparent"), wire.get("tracestate")),
                via=via if isinstance(via, str) else None,
            )
        case _:
            raise CodecError(f"an entry needs `id`, `ts` and at most {EVENTS_MAX} `events`")


_FRAME_FIELDS = frozenset({"op", "session", "seq", "prev", "merged"})
"""What only a gateway says of an entry, in the frame around it."""

VOID = Entry(id="", ts=0, events=())
"""Stands for an entry that cannot be read: it keeps its place in the chain and says nothing."""


def decode_at(place: Place, body: bytes) -> tuple[Entry, bool]:
    """The entry stored at `place`, and whether it says just what its writer had the right to say there.

    Subjects are guarded by NATS permissions, bodies are not. A lane's owner cannot send a participant's input or
    claim a lane by an event, nor a participant write as an agent: such events are dropped, and so are those that are
    malformed, because not all readers would find the same in them; the lane is that of the subject, and `off` is for
    deltas, whatever the body says. A body that is no entry is `VOID`.
    """
    try:
        wire = _parse(body)
        entry = entry_from_wire(wire)
    except CodecError:
        return VOID, False
    sane = dataclasses.replace(
        entry,
        events=tuple(_sane(event) for event in entry.events if _belongs(place, entry, event)),
        lane=place.lane or None,
        off=entry.off if place.kind is Kind.DELTA else None,
    )
    # A frame is put around the body as it is: it must be an object from its first byte, with no field of the frame's.
    fits = body.startswith(b"{") and _FRAME_FIELDS.isdisjoint(wire)
    return sane, fits and sane == entry and wire.get("by") == by_to_wire(entry.by)


def is_plain_delta(place: Place, body: bytes) -> bool:
    """Whether a body is that of a delta, and of nothing else: `decode_at` need not be asked. For every token, so quick."""
    try:
        wire = orjson.loads(body)
        (event,) = wire["events"]
        id_, stream, text = wire["id"], event[_DELTA_IDS[event["type"]]], event["delta"]
        off, ts = wire["off"], wire["ts"]
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        return False
    # The types of what orjson makes: bool is not int here.
    return (
        type(id_) is type(stream) is type(text) is str
        and type(off) is type(ts) is int
        and 0 <= off <= _INT_MAX
        and -_INT_MAX <= ts <= _INT_MAX
        and wire.get("lane") == place.lane
        and wire.get("by") is None
        and _FRAME_FIELDS.isdisjoint(wire)
        and body.startswith(b"{")
        and not is_deeper(wire, body, STORED_DEPTH_MAX)
    )


_DELTA_IDS = {
    TextMessageContent.TYPE: "messageId",
    ReasoningMessageContent.TYPE: "messageId",
    ToolCallArgs.TYPE: "toolCallId",
}
"""The field of each kind of delta that says of which text it is."""


def _is_malformed(event: Event) -> bool:
    """Whether it is of a type that is known, and not as that type is."""
    match event:
        case OtherEvent():
            return event.type in EVENT_TYPES
        case MessageSegment():
            return event.offset < 0 or event.length < 0
        case RunTakenOver():
            return event.attempt < 0
        case SessionOwner():
            # An owner without a name is nobody.
            return event.kind != "none" and not event.id
        case _:
            return False


def _sane(event: Event) -> Event:
    """The event, with nothing in it that readers could take for different things."""
    match event:
        case MessagesImported():
            messages = [
                {**said, "by": by_to_wire(participant_from_wire(said["by"]))} if "by" in said else said
                for said in event.messages
            ]
            return event if messages == event.messages else dataclasses.replace(event, messages=messages)
        case SessionCreated() | SessionUpdated() if event.config is not None:
            config = well_formed(event.config)
            return event if config == event.config else dataclasses.replace(event, config=config)
        case _:
            return event


def _belongs(place: Place, entry: Entry, event: Event) -> bool:
    if _is_malformed(event):
        return False
    match place.kind:
        case Kind.INPUT:
            return isinstance(event, (*_PARTICIPANT_EVENTS, InputScheduled, OtherEvent))
        case Kind.OWNER:
            return isinstance(event, SessionOwner) and event.lane == place.lane
        case Kind.EVENT:
            return not isinstance(event, (*_PARTICIPANT_EVENTS, SessionOwner, *get_args(Delta)))
        case Kind.DELTA:
            alone = len(entry.events) == 1 and isinstance(event, get_args(Delta))
            return alone and entry.off is not None and entry.off >= 0


def frame(session: str, seq: int, prev: int, body: bytes) -> bytes:
    """The frame that clients get for an entry: the log's fields in front of its body, copied as it is."""
    return b'{"op":"entry","session":"%b","seq":%d,"prev":%d,%b' % (session.encode(), seq, prev, body[1:])


def published_at(body: bytes) -> int | None:
    """The `ts` of a stored body: when its writer wrote it, in milliseconds since 1970; None if it does not say."""
    try:
        ts = orjson.loads(body).get("ts")
    except (orjson.JSONDecodeError, AttributeError):
        return None
    return ts if isinstance(ts, int) else None
