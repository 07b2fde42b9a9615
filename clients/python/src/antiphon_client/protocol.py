"""The wire protocol, version 1, without any input or output: frames, chain, cursors, back-off.

Written from `docs/PROTOCOL.md`, whose section numbers are given below. Nothing here knows a
clock, a socket or a source of randomness: whoever calls hands those in as arguments. Readers
of frames return None (or a harmless default) for what they cannot understand and never raise.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Final

from ._json import (
    JsonObject,
    as_bounded,
    as_count,
    as_int,
    as_object,
    as_objects,
    as_str,
    encode,
    parse_object,
)
from ._trace import headers_of
from .errors import CursorInvalid
from .events import Event, read
from .reconnect import Action, Backoff, CloseAdvice, classify_close, full_jitter_s

__all__ = [
    "Action",
    "Backoff",
    "CaughtUp",
    "CloseAdvice",
    "Cursor",
    "Entry",
    "Gap",
    "JsonObject",
    "Limits",
    "Reset",
    "SessionEvent",
    "Snapshot",
    "Verdict",
    "Welcome",
    "chain_verdict",
    "classify_close",
    "cursor_after",
    "encode",
    "full_jitter_s",
    "parse_object",
]

SUBPROTOCOL: Final = "antiphon.v1"
CONNECT_PATH: Final = "/v1/connect"
HEARTBEAT_CAP_MS: Final = 3_600_000

_CURSOR = re.compile(r"([^:\s]{1,64}):(\d{1,19})", re.ASCII)
_LANE_ID = re.compile(r"(\d{1,19})-(\d{1,19})", re.ASCII)


# ---- section 2 and 3: cursors and the chain


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in a session's log: just after the entry `seq` of the log `epoch`."""

    epoch: str
    seq: int

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Read `<epoch>:<seq>`. Raises `CursorInvalid`."""
        match = _CURSOR.fullmatch(text)
        if match is None:
            raise CursorInvalid("cursor_bad", "a cursor has the form <epoch>:<seq>")
        return cls(match[1], int(match[2]))

    def __str__(self) -> str:
        return f"{self.epoch}:{self.seq}"


class Verdict(Enum):
    """What the chain says about an entry."""

    NEXT = "next"
    """It follows what was read last: handle it."""
    DUPLICATE = "duplicate"
    """It was read before: drop it."""
    BROKEN = "broken"
    """Something before it is missing: subscribe again after `last`."""


def chain_verdict(last: int, seq: int, prev: int) -> Verdict:
    """Judge an entry by the `seq` read last (section 3, the chain)."""
    if seq <= last:
        return Verdict.DUPLICATE
    return Verdict.NEXT if prev == last else Verdict.BROKEN


# ---- sections 1, 3 and 4: frames that the gateway sends


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a session's log, as a frame (section 4).

    `off` and `merged` are None where the frame has none. `events` are AG-UI and session events
    as they came. `epoch` names the log, so that `cursor` can be stored. `trace` has the headers
    (`traceparent`, `tracestate`) by which requests made because of this entry continue its trace;
    `via` is the gateway that stored a participant's entry.
    """

    session: str
    seq: int
    prev: int
    id: str = ""
    ts: int = 0
    lane: str | None = None
    run: str | None = None
    by: JsonObject | None = None
    off: int | None = None
    merged: int | None = None
    events: tuple[JsonObject, ...] = ()
    epoch: str = ""
    trace: Mapping[str, str] = field(default_factory=dict)
    via: str | None = None

    @classmethod
    def parse(cls, frame: JsonObject, epoch: str = "") -> Entry | None:
        """Read an `entry` frame; None if it has no usable place in the log."""
        session, seq, prev = (
            as_str(frame.get("session")),
            as_count(frame.get("seq")),
            as_int(frame.get("prev")),
        )
        if session is None or seq is None or prev is None:
            return None
        return cls(
            session=session,
            seq=seq,
            prev=prev,
            id=as_str(frame.get("id")) or "",
            ts=as_int(frame.get("ts")) or 0,
            lane=as_str(frame.get("lane")),
            run=as_str(frame.get("run")),
            by=as_object(frame.get("by")),
            off=as_count(frame.get("off")),
            merged=as_count(frame.get("merged")),
            events=as_objects(frame.get("events")),
            epoch=epoch,
            trace=headers_of(frame),
            via=as_str(frame.get("via")),
        )

    @property
    def cursor(self) -> str:
        """The cursor to store once this entry is handled."""
        return f"{self.epoch}:{self.seq}"

    @property
    def typed(self) -> tuple[Event, ...]:
        """`events` as values of `antiphon_client.events`, made anew each time."""
        return tuple(read(raw) for raw in self.events)

    @property
    def fence(self) -> int | None:
        """The fence a lane's entry was written under; None if `id` is not `<fence>-<n>`."""
        match = _LANE_ID.fullmatch(self.id)
        return None if match is None else int(match[1])

    @property
    def number(self) -> int | None:
        """Which write under its fence this is; None if `id` is not `<fence>-<n>`."""
        match = _LANE_ID.fullmatch(self.id)
        return None if match is None else int(match[2])


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The folded state just after entry `as_of`; entries follow.

    `messages_before` counts the messages that are older and come by `Session.history()`.
    """

    session: str
    as_of: int
    messages_before: int
    state: JsonObject
    epoch: str = ""

    @classmethod
    def parse(cls, frame: JsonObject, epoch: str = "") -> Snapshot | None:
        """Read a `session.snapshot` frame; None if it does not say where it stands."""
        session, as_of = as_str(frame.get("session")), as_count(frame.get("asOf"))
        if session is None or as_of is None:
            return None
        before = as_count(frame.get("messagesBefore")) or 0
        return cls(session, as_of, before, as_object(frame.get("state")) or {}, epoch)

    @property
    def cursor(self) -> str:
        """The cursor to store once this snapshot is handled."""
        return f"{self.epoch}:{self.as_of}"


@dataclass(frozen=True, slots=True)
class CaughtUp:
    """What the log held at the time of the subscription has been given; live entries follow."""

    session: str
    seq: int
    cursor: str

    @classmethod
    def parse(cls, frame: JsonObject, epoch: str = "") -> CaughtUp | None:
        """Read a `session.caught_up` frame; None if it is malformed."""
        session, seq = as_str(frame.get("session")), as_count(frame.get("seq"))
        if session is None or seq is None:
            return None
        return cls(session, seq, as_str(frame.get("cursor")) or f"{epoch}:{seq}")


@dataclass(frozen=True, slots=True)
class Gap:
    """Entries between `start` and `end` had been missed: forget what you folded.

    A `Snapshot`, entries and a `CaughtUp` follow by themselves.
    """

    session: str
    start: int
    end: int

    @classmethod
    def parse(cls, frame: JsonObject) -> Gap | None:
        """Read a `session.gap` frame; None if it names no session."""
        session = as_str(frame.get("session"))
        if session is None:
            return None
        return cls(session, as_count(frame.get("from")) or 0, as_count(frame.get("to")) or 0)


@dataclass(frozen=True, slots=True)
class Reset:
    """The cursor was refused (`reason`: the error code): forget what you folded.

    Made by this client, not by the gateway; a `Snapshot` follows.
    """

    session: str
    reason: str


SessionEvent = Entry | Snapshot | CaughtUp | Gap | Reset


def cursor_after(event: SessionEvent, before: Cursor | None) -> Cursor | None:
    """The place to go on from once this event is handled; None: there is none, a snapshot follows."""
    match event:
        case Entry():
            return Cursor(event.epoch, event.seq)
        case Snapshot():
            return Cursor(event.epoch, event.as_of)
        case Gap() | Reset():
            return None
        case CaughtUp():
            return before


@dataclass(frozen=True, slots=True)
class Limits:
    """What the gateway of this connection allows: PROTOCOL, section 1, says of what each is a limit.

    Of connections, and of what a tenant may have, 0 is no limit.
    """

    frame_bytes: int = 131_072
    input_bytes: int = 65_536
    subscriptions: int = 64
    commands_per_second: int = 50
    commands_burst: int = 100
    command_queue: int = 64
    bytes_per_second: int = 2_097_152
    bytes_burst: int = 8_388_608
    inputs_per_second: int = 50
    inputs_burst: int = 100
    joins_per_second: int = 100
    joins_burst: int = 1000
    requests_per_second: int = 50
    requests_burst: int = 100
    user_connections: int = 0
    address_connections: int = 0
    tenant_sessions: int = 0
    tenant_bytes: int = 0
    scheduled_inputs: int = 0
    """0: the gateway cannot send later."""
    scheduled_bytes: int = 0
    schedule_ahead_s: int = 0

    @classmethod
    def parse(cls, raw: JsonObject | None) -> Limits:
        """Read `limits` of a `welcome`; what is missing or not positive keeps its default."""
        found = {}
        for each in fields(cls):
            value = as_count((raw or {}).get(each.name))
            if value:
                found[each.name] = value
        return cls(**found)


@dataclass(frozen=True, slots=True)
class Welcome:
    """The gateway's answer to `hello`. `token_expires_at` is in seconds since 1970."""

    gateway: str
    connection: str
    server: str
    user_id: str
    user_name: str
    token_expires_at: float | None
    heartbeat_s: float
    limits: Limits

    @classmethod
    def parse(cls, frame: JsonObject) -> Welcome:
        """Read a `welcome` frame; every field it lacks gets a default."""
        user = as_object(frame.get("user")) or {}
        heartbeat_ms = as_bounded(frame.get("heartbeat_ms"), HEARTBEAT_CAP_MS) or 25_000
        return cls(
            gateway=as_str(frame.get("gateway")) or "",
            connection=as_str(frame.get("connection")) or "",
            server=as_str(frame.get("server")) or "",
            user_id=as_str(user.get("id")) or "",
            user_name=as_str(user.get("name")) or "",
            token_expires_at=expiry_s(frame),
            heartbeat_s=heartbeat_ms / 1000,
            limits=Limits.parse(as_object(frame.get("limits"))),
        )


def expiry_s(frame: JsonObject) -> float | None:
    """`token_expires_at` of a `welcome` or of the reply to `auth.refresh`."""
    return as_bounded(frame.get("token_expires_at"), 1e12)
