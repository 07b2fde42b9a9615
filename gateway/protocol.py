"""The client protocol without a socket: frames in, typed commands out; replies to frames (PROTOCOL, sections 1-9)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import orjson

from broker.errors import ErrorCode, InvalidName, Refused
from broker.subjects import check_input_id, check_run_id, check_session

PROTOCOL_VERSION = 1
SUBPROTOCOL = "antiphon.v1"
HISTORY_MAX = 200

Replay = Literal["merged", "every"]


@dataclass(frozen=True, slots=True)
class Hello:
    id: int
    token: str | None
    client: str


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


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    id: int
    session: str


@dataclass(frozen=True, slots=True)
class InputSend:
    id: int
    session: str
    input_id: str
    content: str
    mode: str | None


@dataclass(frozen=True, slots=True)
class InputCancel:
    id: int
    session: str
    input_id: str


@dataclass(frozen=True, slots=True)
class RunCancel:
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


Command = Hello | AuthRefresh | Ping | Subscribe | Unsubscribe | InputSend | InputCancel | RunCancel | History


class BadFrame(Refused):
    """A frame that is no command. `id` is the command's, if it had one."""

    def __init__(self, id_: int | None, code: ErrorCode, message: str, **data: Any) -> None:
        super().__init__(code, message, **data)
        self.id = id_


class _Fields:
    """Reads a command's fields, and says which one is wrong."""

    def __init__(self, wire: dict[str, Any], id_: int) -> None:
        self._wire = wire
        self._id = id_

    def text(self, name: str) -> str:
        value = self._wire.get(name)
        if not isinstance(value, str):
            raise self.wrong(name, "must be text")
        return value

    def maybe_text(self, name: str) -> str | None:
        return None if self._wire.get(name) is None else self.text(name)

    def maybe_int(self, name: str, low: int, high: int) -> int | None:
        value = self._wire.get(name)
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise self.wrong(name, f"must be a whole number from {low} to {high}")
        return value

    def choice(self, name: str, choices: tuple[str, ...]) -> str:
        value = self._wire.get(name, choices[0])
        if value not in choices:
            raise self.wrong(name, f"must be one of {', '.join(choices)}")
        return str(value)

    def wrong(self, name: str, what: str) -> BadFrame:
        return BadFrame(self._id, ErrorCode.BAD_COMMAND, f"`{name}` {what}", field=name)


def parse(data: str | bytes) -> Command:
    """The command in a frame. Raises BadFrame."""
    try:
        wire = orjson.loads(data)
    except orjson.JSONDecodeError:
        raise BadFrame(None, ErrorCode.BAD_JSON, "the frame is not JSON in UTF-8") from None
    if not isinstance(wire, dict):
        raise BadFrame(None, ErrorCode.BAD_JSON, "the frame is not a JSON object")
    id_ = wire.get("id")
    if not isinstance(id_, int) or isinstance(id_, bool) or not 0 <= id_ < 2**53:
        raise BadFrame(None, ErrorCode.BAD_COMMAND, "`id` must be a whole number from 0 to 2^53-1", field="id")
    try:
        return _command(wire, id_, _Fields(wire, id_))
    except InvalidName as error:
        raise BadFrame(id_, ErrorCode.BAD_NAME, str(error), field=error.kind) from None


def _command(wire: dict[str, Any], id_: int, fields: _Fields) -> Command:
    match wire.get("op"):
        case "hello":
            return Hello(id_, fields.maybe_text("token"), (fields.maybe_text("client") or "")[:100])
        case "auth.refresh":
            return AuthRefresh(id_, fields.text("token"))
        case "ping":
            return Ping(id_)
        case "subscribe":
            replay: Replay = "every" if fields.choice("replay", ("merged", "every")) == "every" else "merged"
            return Subscribe(id_, _session(fields), fields.maybe_text("after"), replay)
        case "unsubscribe":
            return Unsubscribe(id_, _session(fields))
        case "input.send":
            input_id = check_input_id(fields.text("inputId"))
            return InputSend(id_, _session(fields), input_id, _content(fields), fields.maybe_text("mode"))
        case "input.cancel":
            return InputCancel(id_, _session(fields), check_input_id(fields.text("inputId")))
        case "run.cancel":
            mode = fields.choice("mode", ("immediate",))
            return RunCancel(id_, _session(fields), check_run_id(fields.text("runId")), mode)
        case "history":
            before = fields.maybe_int("before", 0, 2**53)
            return History(id_, _session(fields), before, fields.maybe_int("limit", 1, HISTORY_MAX) or 50)
        case str(op):
            raise BadFrame(id_, ErrorCode.BAD_COMMAND, f"there is no command {op[:40]!r}", field="op")
        case _:
            raise fields.wrong("op", "must be text")


def _session(fields: _Fields) -> str:
    return check_session(fields.text("session"))


def _content(fields: _Fields) -> str:
    content = fields.text("content")
    if not content:
        raise fields.wrong("content", "must not be empty")
    return content


def ok(id_: int, **fields: Any) -> bytes:
    """The reply to a command that was carried out."""
    return orjson.dumps({"op": "ok", "id": id_, **fields})


def error(id_: int | None, refusal: Refused) -> bytes:
    """The reply to a command that was refused."""
    return orjson.dumps(
        {
            "op": "error",
            "id": id_,
            "code": refusal.code.value,
            "message": refusal.message,
            "retryable": refusal.retryable,
            **refusal.data,
        }
    )


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


def gap(session: str, from_: int, to: int) -> bytes:
    return orjson.dumps({"op": "session.gap", "session": session, "from": from_, "to": to})


def parse_cursor(value: str) -> tuple[str, int]:
    """Epoch and sequence of a cursor. Raises Refused (cursor_bad)."""
    epoch, colon, seq = value.partition(":")
    if not colon or not epoch or not seq.isascii() or not seq.isdigit() or len(seq) > 16:
        raise Refused(ErrorCode.CURSOR_BAD, "a cursor is <epoch>:<seq>; subscribe without `after`")
    return epoch, int(seq)


def log_status(available: bool) -> bytes:
    return orjson.dumps({"op": "log.back" if available else "log.away"})


def text_message(payload: bytes) -> bytes:
    """A WebSocket text message of a server: unmasked, in one frame (RFC 6455, section 5.2)."""
    size = len(payload)
    if size < 126:
        return bytes((0x81, size)) + payload
    if size < 65_536:
        return b"\x81\x7e" + size.to_bytes(2, "big") + payload
    return b"\x81\x7f" + size.to_bytes(8, "big") + payload
