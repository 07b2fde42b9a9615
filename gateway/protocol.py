"""The client protocol without a socket: frames in, typed commands out; replies to frames (PROTOCOL, sections 1-9)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import orjson

from broker import versions
from broker.attachments import INPUT_ATTACHMENTS_MAX
from broker.depth import SENT_DEPTH_MAX, is_deeper
from broker.errors import ErrorCode, InvalidName, Refused
from broker.presence import STATES, Present
from broker.session_config import ON_BUSY
from broker.subjects import check_attachment_id, check_device, check_input_id, check_run_id
from gateway.fields import BadFrame, Fields, Writing
from gateway.plane import PlaneCommand, parse_plane

PROTOCOL_VERSION = versions.PROTOCOL
SUBPROTOCOL = "antiphon.v1"
HISTORY_MAX = 200
TIME_MAX_MS = 2**53
"""Beyond what any clock says. How far ahead an input may be scheduled is a setting."""

Replay = Literal["merged", "every"]


@dataclass(frozen=True, slots=True)
class Hello:
    id: int
    token: str | None
    client: str
    device: str | None = None


@dataclass(frozen=True, slots=True)
class AuthRefresh:
    id: int
    token: str


@dataclass(frozen=True, slots=True)
class Ping:
    id: int


@dataclass(frozen=True, slots=True)
class Subscribe:
    id: int
    session: str
    after: str | None
    replay: Replay
    tools: Any = None
    """As sent: `broker.tools` parses them."""
    watching: bool = True
    acks: bool = False


@dataclass(frozen=True, slots=True)
class Ack:
    """Counts when it comes; only its reply waits for its turn."""

    id: int
    session: str
    seq: int


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    id: int
    session: str


@dataclass(frozen=True, slots=True)
class InputSend(Writing):
    id: int
    session: str
    input_id: str
    content: str
    mode: str | None
    attachments: tuple[str, ...] = ()
    """Their ids."""
    at: int | None = None
    """When it is to be sent, in ms since 1970; None: now, or after `delay_ms`."""
    delay_ms: int | None = None


@dataclass(frozen=True, slots=True)
class InputCancel(Writing):
    id: int
    session: str
    input_id: str


@dataclass(frozen=True, slots=True)
class RunCancel(Writing):
    id: int
    session: str
    run_id: str
    mode: str


@dataclass(frozen=True, slots=True)
class History:
    id: int
    session: str
    before: int | None
    limit: int


@dataclass(frozen=True, slots=True)
class PresenceSet:
    id: int
    session: str
    state: str


ConnectionCommand = Hello | AuthRefresh | Ping | Subscribe | Ack | Unsubscribe | PresenceSet
"""What is about the connection that it comes on."""
Command = ConnectionCommand | InputSend | InputCancel | RunCancel | History | PlaneCommand


def parse(data: str | bytes) -> Command:
    """The command in a frame. Raises BadFrame."""
    try:
        wire = orjson.loads(data)
    except orjson.JSONDecodeError:
        raise BadFrame(None, ErrorCode.BAD_JSON, "the frame is not JSON in UTF-8") from None
    if not isinstance(wire, dict):
        raise BadFrame(None, ErrorCode.BAD_JSON, "the frame is not a JSON object")
    if is_deeper(wire, data, SENT_DEPTH_MAX):
        raise BadFrame(None, ErrorCode.BAD_JSON, f"the frame is nested in more than {SENT_DEPTH_MAX} levels")
    return parse_command(wire)


def parse_command(wire: dict[str, Any]) -> Command:
    """The command that a JSON object is. Raises BadFrame."""
    id_ = wire.get("id")
    if not isinstance(id_, int) or isinstance(id_, bool) or not 0 <= id_ < 2**53:
        raise BadFrame(None, ErrorCode.BAD_COMMAND, "`id` must be a whole number from 0 to 2^53-1", field="id")
    try:
        fields = Fields(wire, id_)
        command = _ack(id_, fields) if wire.get("op") == "ack" else _command(wire, id_, fields)
    except InvalidName as error:
        raise BadFrame(id_, ErrorCode.BAD_NAME, str(error), field=error.kind) from None
    if isinstance(command, Writing) and (trace := fields.trace()) is not None:
        return replace(command, trace=trace)
    return command


def _command(wire: dict[str, Any], id_: int, fields: Fields) -> Command:
    match wire.get("op"):
        case "hello":
            device = fields.maybe_text("device")
            checked = None if device is None else check_device(device)
            return Hello(id_, fields.maybe_text("token"), (fields.maybe_text("client") or "")[:100], checked)
        case "auth.refresh":
            return AuthRefresh(id_, fields.text("token"))
        case "ping":
            return Ping(id_)
        case "subscribe":
            replay: Replay = "every" if fields.choice("replay", ("merged", "every")) == "every" else "merged"
            after, watching = fields.maybe_text("after"), fields.flag("watching", default=True)
            acks = fields.flag("acks", default=False)
            return Subscribe(id_, fields.session(), after, replay, fields.any("tools"), watching, acks)
        case "unsubscribe":
            return Unsubscribe(id_, fields.session())
        case "input.send":
            return _input_send(id_, fields)
        case "input.cancel":
            return InputCancel(id_, fields.session(), check_input_id(fields.text("inputId")))
        case "run.cancel":
            mode = fields.choice("mode", ("immediate", "after_step"))
            return RunCancel(id_, fields.session(), check_run_id(fields.text("runId")), mode)
        case "history":
            before = fields.maybe_int("before", 0, 2**53)
            return History(id_, fields.session(), before, fields.maybe_int("limit", 1, HISTORY_MAX) or 50)
        case "presence.set":
            if not fields.has("state"):
                raise fields.wrong("state", "must be there")
            return PresenceSet(id_, fields.session(), fields.choice("state", STATES))
        case str(op):
            command = parse_plane(op, id_, fields)
            if command is not None:
                return command
            raise BadFrame(id_, ErrorCode.BAD_COMMAND, f"there is no command {op[:40]!r}", field="op")
        case _:
            raise fields.wrong("op", "must be text")


def _ack(id_: int, fields: Fields) -> Ack:
    seq = fields.maybe_int("seq", 0, 2**53)
    if seq is None:
        raise fields.wrong("seq", "must be there")
    return Ack(id_, fields.session(), seq)


def _input_send(id_: int, fields: Fields) -> InputSend:
    session, input_id, attachments = fields.session(), check_input_id(fields.text("inputId")), _attachments(fields)
    content = _content(fields, may_be_empty=bool(attachments))
    at, delay_ms = fields.maybe_int("at", 0, TIME_MAX_MS), fields.maybe_int("delayMs", 0, TIME_MAX_MS)
    if at is not None and delay_ms is not None:
        raise fields.wrong("delayMs", "cannot be there beside `at`")
    mode = fields.maybe_choice("mode", ON_BUSY)
    return InputSend(id_, session, input_id, content, mode, attachments, at, delay_ms)


def _content(fields: Fields, *, may_be_empty: bool) -> str:
    content = fields.text("content")
    if not content and not may_be_empty:
        raise fields.wrong("content", "must not be empty, unless something is attached")
    return content


def _attachments(fields: Fields) -> tuple[str, ...]:
    """The ids that `attachments` names, each once."""
    value = fields.any("attachments")
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > INPUT_ATTACHMENTS_MAX:
        raise fields.wrong("attachments", f"must be a list of at most {INPUT_ATTACHMENTS_MAX}")
    ids = [item.get("id") if isinstance(item, dict) else None for item in value]
    if not all(isinstance(id_, str) for id_ in ids):
        raise fields.wrong("attachments", "must be objects with an `id`")
    return tuple(dict.fromkeys(check_attachment_id(id_) for id_ in ids if isinstance(id_, str)))


def ok(id_: int, **fields: Any) -> bytes:
    """The reply to a command that was carried out."""
    return orjson.dumps({"op": "ok", "id": id_, **fields})


def error(id_: int | None, refusal: Refused) -> bytes:
    """The reply to a command that was refused. Its data cannot take the place of what every reply has."""
    reply = {
        "op": "error",
        "id": id_,
        "code": refusal.code.value,
        "message": refusal.message,
        "retryable": refusal.retryable,
    }
    return orjson.dumps(reply | refusal.data | reply)


def pong(id_: int, ts: int) -> bytes:
    return orjson.dumps({"op": "pong", "id": id_, "ts": ts})


def snapshot(session: str, as_of: int, messages_before: int, state: dict[str, Any]) -> bytes:
    return orjson.dumps(
        {
            "op": "session.snapshot",
            "session": session,
            "asOf": as_of,
            "messagesBefore": messages_before,
            "state": state,
        }
    )


def caught_up(session: str, seq: int, epoch: str) -> bytes:
    return orjson.dumps({"op": "session.caught_up", "session": session, "seq": seq, "cursor": f"{epoch}:{seq}"})


def mark(session: str, seq: int) -> bytes:
    return orjson.dumps({"op": "session.mark", "session": session, "seq": seq})


def gap(session: str, from_: int, to: int) -> bytes:
    return orjson.dumps({"op": "session.gap", "session": session, "from": from_, "to": to})


def unsubscribed(session: str, refusal: Refused) -> bytes:
    """A subscription has ended because the token does not allow it any more."""
    wire = {"op": "session.unsubscribed", "session": session, "code": refusal.code.value, "message": refusal.message}
    return orjson.dumps(wire | refusal.data)


def presence(session: str, participants: tuple[Present, ...], more: int) -> bytes:
    """Who looks at the session; `more` devices are there that are not listed. Who only listens is nobody's company."""
    wire: dict[str, Any] = {
        "op": "session.presence",
        "session": session,
        "participants": [_participant(present) for present in participants if present.watching],
    }
    if more:
        wire["more"] = more
    return orjson.dumps(wire)


def _participant(present: Present) -> dict[str, Any]:
    return {
        "kind": present.kind,
        "id": present.id,
        "name": present.name,
        "roles": present.roles,
        "state": present.state,
        "devices": [
            {"device": device.device, "state": device.state, "tools": [tool.name for tool in device.tools]}
            for device in present.devices
            if device.watching
        ],
    }


def parse_cursor(value: str) -> tuple[str, int]:
    """Epoch and sequence of a cursor. Raises Refused (cursor_bad)."""
    epoch, colon, seq = value.partition(":")
    if not colon or not epoch or not seq.isascii() or not seq.isdigit() or len(seq) > 16:
        raise Refused(ErrorCode.CURSOR_BAD, "a cursor is <epoch>:<seq>; subscribe without `after`")
    return epoch, int(seq)


def log_status(available: bool) -> bytes:
    return orjson.dumps({"op": "log.back" if available else "log.away"})


PING = b"\x89\x00"
"""A WebSocket ping (RFC 6455, section 5.5.2)."""


def pong_frame(payload: bytes) -> bytes:
    """The answer to a WebSocket ping, which has at most 125 bytes."""
    return bytes((0x8A, len(payload))) + payload


def text_message(payload: bytes) -> bytes:
    """A WebSocket text message of a server: unmasked, in one frame (RFC 6455, section 5.2)."""
    size = len(payload)
    if size < 126:
        return bytes((0x81, size)) + payload
    if size < 65_536:
        return b"\x81\x7e" + size.to_bytes(2, "big") + payload
    return b"\x81\x7f" + size.to_bytes(8, "big") + payload
