"""The bodies of requests: those that carry a conversation along, and the fields of all the others."""

from __future__ import annotations

import functools
from typing import Any

import orjson

from broker.errors import Refused
from broker.session import fold
from broker.state import SessionState
from gateway.agui.projection import Page, Projection
from gateway.agui.request import asked, check_history, fresh_messages, result_of
from gateway.http.declarations import Operation
from gateway.http.operations import OPERATIONS
from gateway.http.problems import Problem
from gateway.http.requests import Checks, accepted, body_of
from gateway.http.ui_messages.turns import Continuation, commands_of, turn_of
from gateway.protocol import parse_command
from tests.fuzz.seeds import WAITING
from tests.fuzz.targets import refusing
from tests.fuzz.targets_log import decoded, stored

_IN_THE_PATH = {"session": "demo", "inputId": "i1", "runId": "run_i1", "toolCallId": "call_1", "approvalId": "apr_1"}


@functools.cache
def _operations() -> dict[str, Operation]:
    return {operation.name: operation for operation in OPERATIONS}


@functools.cache
def _checks() -> Checks:
    return Checks()


@functools.cache
def _state() -> SessionState:
    """Of a session in which a call, an approval and a question wait."""
    state = SessionState()
    for seq, entry in decoded(stored(WAITING)):
        state = fold(state, seq, entry)
    assert len(state.approvals) == 2
    assert len(state.calls) == 1
    return state


def bodies(data: bytes) -> None:
    """`<operation> <body>`: the body is what its schema says, or it is refused."""
    name, _, body = data.partition(b" ")
    operation = _operations().get(name.decode("utf-8", "replace"))
    if operation is None or operation.body is None:
        return
    with refusing(Refused, Problem):
        fields = body_of(operation, body, _checks())
        match operation.name:
            case "runAgent":
                _agui(fields)
            case "sendChat":
                _chat(fields)
            case _ if operation.op:
                parse_command({**_IN_THE_PATH, **fields, "op": operation.op, "id": 1})


def _agui(fields: dict[str, Any]) -> None:
    request = asked(fields)
    orjson.dumps([request.results, request.last_input])
    known = _state().seen.__contains__
    projection = Projection(request.session, request.run_id, Page("user-1"), modern=request.modern)
    projection.load(_state())
    orjson.dumps(projection.begin(request.messages, fresh_messages(request.messages, known, request.session)))
    check_history(request.messages, projection.shown(), request.session)
    for message in request.results.values():
        orjson.dumps(result_of(message))


def _chat(fields: dict[str, Any]) -> None:
    turn = turn_of(fields)
    if isinstance(turn, Continuation):
        orjson.dumps([*commands_of(turn, _state())])


def accepts(data: bytes) -> None:
    """An `Accept` header."""
    offers = ("application/json", "text/event-stream")
    assert accepted(data.decode("latin-1"), offers) in (*offers, None)
