"""Frames in, commands out; replies to frames. No socket."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import ErrorCode, Refused
from gateway import protocol
from gateway.protocol import (
    HISTORY_MAX,
    AuthRefresh,
    BadFrame,
    Command,
    Hello,
    History,
    InputCancel,
    InputSend,
    Ping,
    RunCancel,
    Subscribe,
    Unsubscribe,
    parse,
    parse_cursor,
    text_message,
)
from tests.unit.strategies import json_values

GOOD: list[tuple[dict[str, Any], Command]] = [
    ({"op": "hello", "token": "t", "client": "c/1"}, Hello(1, "t", "c/1")),
    ({"op": "hello"}, Hello(1, None, "")),
    ({"op": "hello", "token": None, "client": "x" * 200}, Hello(1, None, "x" * 100)),
    ({"op": "auth.refresh", "token": "t"}, AuthRefresh(1, "t")),
    ({"op": "ping"}, Ping(1)),
    ({"op": "subscribe", "session": "demo"}, Subscribe(1, "demo", None, "merged")),
    ({"op": "subscribe", "session": "demo", "after": "e:5", "replay": "every"}, Subscribe(1, "demo", "e:5", "every")),
    ({"op": "unsubscribe", "session": "demo"}, Unsubscribe(1, "demo")),
    ({"op": "input.send", "session": "demo", "inputId": "i1", "content": "x"}, InputSend(1, "demo", "i1", "x", None)),
    (
        {"op": "input.send", "session": "demo", "inputId": "i1", "content": "😀", "mode": "enqueue"},
        InputSend(1, "demo", "i1", "😀", "enqueue"),
    ),
    ({"op": "input.cancel", "session": "demo", "inputId": "i1"}, InputCancel(1, "demo", "i1")),
    ({"op": "run.cancel", "session": "demo", "runId": "run_i1"}, RunCancel(1, "demo", "run_i1", "immediate")),
    (
        {"op": "run.cancel", "session": "demo", "runId": "run_i1", "mode": "immediate"},
        RunCancel(1, "demo", "run_i1", "immediate"),
    ),
    ({"op": "history", "session": "demo"}, History(1, "demo", None, 50)),
    ({"op": "history", "session": "demo", "before": 0, "limit": HISTORY_MAX}, History(1, "demo", 0, HISTORY_MAX)),
]


@pytest.mark.parametrize(("wire", "command"), GOOD, ids=lambda v: v.get("op") if isinstance(v, dict) else "")
def test_commands(wire: dict[str, Any], command: Command) -> None:
    body = orjson.dumps({"id": 1} | wire)
    assert parse(body) == parse(body.decode()) == command
    assert parse(orjson.dumps({"id": 1, "fromTheFuture": [1]} | wire)) == command


BAD: list[tuple[dict[str, Any], ErrorCode, str]] = [
    ({}, ErrorCode.BAD_COMMAND, "op"),
    ({"op": None}, ErrorCode.BAD_COMMAND, "op"),
    ({"op": ["hello"]}, ErrorCode.BAD_COMMAND, "op"),
    ({"op": "fly"}, ErrorCode.BAD_COMMAND, "op"),
    ({"op": "hello", "token": 7}, ErrorCode.BAD_COMMAND, "token"),
    ({"op": "auth.refresh"}, ErrorCode.BAD_COMMAND, "token"),
    ({"op": "subscribe"}, ErrorCode.BAD_COMMAND, "session"),
    ({"op": "subscribe", "session": "a.b"}, ErrorCode.BAD_NAME, "session"),
    ({"op": "subscribe", "session": "x" * 129}, ErrorCode.BAD_NAME, "session"),
    ({"op": "subscribe", "session": "demo", "after": 5}, ErrorCode.BAD_COMMAND, "after"),
    ({"op": "subscribe", "session": "demo", "replay": "some"}, ErrorCode.BAD_COMMAND, "replay"),
    ({"op": "subscribe", "session": "demo", "replay": ["every"]}, ErrorCode.BAD_COMMAND, "replay"),
    ({"op": "unsubscribe", "session": ""}, ErrorCode.BAD_NAME, "session"),
    ({"op": "input.send", "session": "demo", "content": "x"}, ErrorCode.BAD_COMMAND, "inputId"),
    ({"op": "input.send", "session": "demo", "inputId": "i 1", "content": "x"}, ErrorCode.BAD_NAME, "inputId"),
    ({"op": "input.send", "session": "demo", "inputId": "i1"}, ErrorCode.BAD_COMMAND, "content"),
    ({"op": "input.send", "session": "demo", "inputId": "i1", "content": ""}, ErrorCode.BAD_COMMAND, "content"),
    ({"op": "input.send", "session": "demo", "inputId": "i1", "content": ["x"]}, ErrorCode.BAD_COMMAND, "content"),
    ({"op": "input.send", "session": "d", "inputId": "i", "content": "x", "mode": 1}, ErrorCode.BAD_COMMAND, "mode"),
    ({"op": "input.cancel", "session": "demo", "inputId": "x" * 65}, ErrorCode.BAD_NAME, "inputId"),
    ({"op": "run.cancel", "session": "demo", "runId": "i1"}, ErrorCode.BAD_NAME, "runId"),
    ({"op": "run.cancel", "session": "d", "runId": "run_i", "mode": "later"}, ErrorCode.BAD_COMMAND, "mode"),
    ({"op": "history", "session": "demo", "limit": 0}, ErrorCode.BAD_COMMAND, "limit"),
    ({"op": "history", "session": "demo", "limit": HISTORY_MAX + 1}, ErrorCode.BAD_COMMAND, "limit"),
    ({"op": "history", "session": "demo", "limit": True}, ErrorCode.BAD_COMMAND, "limit"),
    ({"op": "history", "session": "demo", "before": -1}, ErrorCode.BAD_COMMAND, "before"),
    ({"op": "history", "session": "demo", "before": 1.5}, ErrorCode.BAD_COMMAND, "before"),
]


@pytest.mark.parametrize(("wire", "code", "field"), BAD)
def test_a_bad_command_is_answered_with_what_is_wrong(wire: dict[str, Any], code: ErrorCode, field: str) -> None:
    with pytest.raises(BadFrame) as caught:
        parse(orjson.dumps({"id": 7} | wire))
    assert (caught.value.id, caught.value.code, caught.value.data) == (7, code, {"field": field})
    assert not caught.value.retryable


@pytest.mark.parametrize("id_", [None, -1, 2**53, 1.0, "1", True, [1]])
def test_a_command_needs_an_id(id_: Any) -> None:
    with pytest.raises(BadFrame) as caught:
        parse(orjson.dumps({"op": "ping", "id": id_}))
    assert (caught.value.id, caught.value.code) == (None, ErrorCode.BAD_COMMAND)


@pytest.mark.parametrize(
    "data", ["", "{", "[]", "null", "1", '"x"', b"\xff", b'{"id":1,}', '{"id":"\\ud800"}', "[" * 5000]
)
def test_what_is_no_json_object_is_called_so(data: str | bytes) -> None:
    with pytest.raises(BadFrame) as caught:
        parse(data)
    assert (caught.value.id, caught.value.code) == (None, ErrorCode.BAD_JSON)


fields = ["op", "id", "session", "token", "after", "replay", "inputId", "content", "mode", "runId", "before", "limit"]
commands = st.fixed_dictionaries(
    {"op": st.sampled_from([wire["op"] for wire, _ in GOOD]), "id": st.integers(0, 9)},
    optional={name: json_values | st.sampled_from(["demo", "i1", "run_i1", "every"]) for name in fields[2:]},
)


@given(st.binary(max_size=50) | json_values.map(orjson.dumps) | commands.map(orjson.dumps))
def test_no_frame_breaks_the_parser(data: bytes) -> None:
    """A command or a refusal that can be sent; and a refusal never repeats what was sent at length."""
    try:
        parse(data)
    except BadFrame as bad:
        reply = protocol.error(bad.id, bad)
        assert orjson.loads(reply)["op"] == "error"
        assert len(reply) < 300


def test_data_of_a_refusal_does_not_take_the_place_of_the_replys_own() -> None:
    refusal = Refused(ErrorCode.BAD_COMMAND, "no", id="other", op="other", limit=3)
    reply = orjson.loads(protocol.error(7, refusal))
    assert (reply["op"], reply["id"], reply["limit"]) == ("error", 7, 3)


def test_replies() -> None:
    assert orjson.loads(protocol.ok(3, session="demo")) == {"op": "ok", "id": 3, "session": "demo"}
    refusal = Refused(ErrorCode.RATE_LIMITED, "too fast", retry_after_ms=40)
    assert orjson.loads(protocol.error(3, refusal)) == {
        "op": "error",
        "id": 3,
        "code": "rate_limited",
        "message": "too fast",
        "retryable": True,
        "retry_after_ms": 40,
    }
    assert orjson.loads(protocol.pong(3, 17)) == {"op": "pong", "id": 3, "ts": 17}
    assert orjson.loads(protocol.gap("demo", 4, 9)) == {"op": "session.gap", "session": "demo", "from": 4, "to": 9}
    assert orjson.loads(protocol.caught_up("demo", 9, "e")) == {
        "op": "session.caught_up",
        "session": "demo",
        "seq": 9,
        "cursor": "e:9",
    }
    assert orjson.loads(protocol.snapshot("demo", 4, 2, {"runs": []})) == {
        "op": "session.snapshot",
        "session": "demo",
        "asOf": 4,
        "messagesBefore": 2,
        "state": {"runs": []},
    }


@pytest.mark.parametrize(
    ("cursor", "expected"), [("mb1x9k:1842", ("mb1x9k", 1842)), ("e:0", ("e", 0)), ("e:007", ("e", 7))]
)
def test_cursors(cursor: str, expected: tuple[str, int]) -> None:
    assert parse_cursor(cursor) == expected


@pytest.mark.parametrize(
    "cursor", ["", ":", "e", "e:", ":5", "e:-1", "e:1.5", "e:x", "e: 5", "e:٣", "e:²", "e:" + "9" * 17, "e:1:2"]
)
def test_what_is_no_cursor(cursor: str) -> None:
    with pytest.raises(Refused) as caught:
        parse_cursor(cursor)
    assert caught.value.code is ErrorCode.CURSOR_BAD


@pytest.mark.parametrize(
    ("size", "header"),
    [
        (0, b"\x81\x00"),
        (125, b"\x81\x7d"),
        (126, b"\x81\x7e\x00\x7e"),
        (65_535, b"\x81\x7e\xff\xff"),
        (65_536, b"\x81\x7f\x00\x00\x00\x00\x00\x01\x00\x00"),
    ],
)
def test_text_messages_are_framed(size: int, header: bytes) -> None:
    payload = b"x" * size
    assert text_message(payload) == header + payload
