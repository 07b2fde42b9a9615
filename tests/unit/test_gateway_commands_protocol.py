"""Frames of the session plane in, commands out. No socket."""

from __future__ import annotations

import contextlib
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import ErrorCode
from broker.session_config import ON_BUSY
from gateway.fields import BadFrame
from gateway.plane import (
    KEY_CHARS,
    LEASE_MS_DEFAULT,
    LEASE_MS_MAX,
    LEASE_MS_MIN,
    ApprovalRespond,
    ApprovalRevoke,
    HandoffClaim,
    HandoffReturn,
    PlaneCommand,
    SessionClose,
    SessionCreate,
    SessionReopen,
    SessionUpdate,
    ToolClaim,
    ToolProgress,
    ToolRelease,
    ToolResult,
)
from gateway.protocol import Command, InputSend, RunCancel, parse
from tests.unit.strategies import json_values

CALL = {"session": "s", "toolCallId": "c" * 128, "claimId": "k" * 64}
IDS = (1, "s", "c" * 128, "k" * 64)

GOOD: list[tuple[dict[str, Any], PlaneCommand]] = [
    ({"op": "tool.claim", **CALL}, ToolClaim(*IDS, LEASE_MS_DEFAULT)),
    ({"op": "tool.claim", **CALL, "leaseMs": LEASE_MS_MIN}, ToolClaim(*IDS, LEASE_MS_MIN)),
    ({"op": "tool.claim", **CALL, "leaseMs": LEASE_MS_MAX}, ToolClaim(*IDS, LEASE_MS_MAX)),
    ({"op": "tool.progress", **CALL, "value": None}, ToolProgress(*IDS, None)),
    ({"op": "tool.result", **CALL, "result": None}, ToolResult(*IDS, None, None)),
    ({"op": "tool.result", **CALL, "result": {"a": [1]}, "error": None}, ToolResult(*IDS, {"a": [1]}, None)),
    ({"op": "tool.result", **CALL, "error": ""}, ToolResult(*IDS, None, "")),
    ({"op": "tool.release", **CALL}, ToolRelease(*IDS)),
    (
        {"op": "approval.respond", "session": "s", "approvalId": "a", "option": "x"},
        ApprovalRespond(1, "s", "a", "x", None),
    ),
    (
        {"op": "approval.respond", "session": "s", "approvalId": "a", "option": "x", "payload": False},
        ApprovalRespond(1, "s", "a", "x", False),
    ),
    ({"op": "approval.revoke", "session": "s", "key": "k" * KEY_CHARS}, ApprovalRevoke(1, "s", "k" * KEY_CHARS)),
    ({"op": "handoff.claim", "session": "s"}, HandoffClaim(1, "s", None, None)),
    ({"op": "handoff.claim", "session": "s", "lane": "l", "handoffId": "h"}, HandoffClaim(1, "s", "l", "h")),
    ({"op": "handoff.return", "session": "s", "inputId": "i"}, HandoffReturn(1, "s", "main", "i", "")),
    (
        {"op": "handoff.return", "session": "s", "lane": "l", "inputId": "i", "note": "n"},
        HandoffReturn(1, "s", "l", "i", "n"),
    ),
    ({"op": "session.create", "session": "s"}, SessionCreate(1, "s", None, None, None)),
    (
        {"op": "session.create", "session": "s", "title": "t", "metadata": {}, "config": {"onBusy": "auto"}},
        SessionCreate(1, "s", "t", {}, {"onBusy": "auto"}),
    ),
    ({"op": "session.update", "session": "s", "metadata": {}}, SessionUpdate(1, "s", None, {}, None)),
    ({"op": "session.close", "session": "s"}, SessionClose(1, "s")),
    ({"op": "session.reopen", "session": "s"}, SessionReopen(1, "s")),
]

NAMES = {"session", "toolCallId", "claimId", "approvalId", "handoffId", "lane", "inputId"}


@pytest.mark.parametrize(("wire", "command"), GOOD, ids=lambda v: v.get("op") if isinstance(v, dict) else "")
def test_commands(wire: dict[str, Any], command: Command) -> None:
    assert parse(orjson.dumps({"id": 1} | wire)) == command
    assert parse(orjson.dumps({"id": 1, "unknown": {"x": 1}} | wire)) == command


@pytest.mark.parametrize("mode", ON_BUSY)
def test_modes_of_inputs(mode: str) -> None:
    wire = {"op": "input.send", "id": 1, "session": "s", "inputId": "i", "content": "c", "mode": mode}
    assert parse(orjson.dumps(wire)) == InputSend(1, "s", "i", "c", mode)


def test_modes_of_a_cancel() -> None:
    wire = {"op": "run.cancel", "id": 1, "session": "s", "runId": "run_i", "mode": "after_step"}
    assert parse(orjson.dumps(wire)) == RunCancel(1, "s", "run_i", "after_step")


def refusal_of(wire: dict[str, Any]) -> BadFrame:
    with pytest.raises(BadFrame) as caught:
        parse(orjson.dumps({"id": 7} | wire))
    assert caught.value.id == 7
    return caught.value


@pytest.mark.parametrize("wire", [wire for wire, _ in GOOD], ids=lambda wire: wire["op"])
def test_each_name_has_its_form(wire: dict[str, Any]) -> None:
    for name in NAMES & wire.keys():
        for value in ("", "a b", "ä", "x" * 129, "a.b", "a:b", "*"):
            refusal = refusal_of(wire | {name: value})
            assert (refusal.code, refusal.data["field"]) == (ErrorCode.BAD_NAME, name)
        refusal = refusal_of(wire | {name: 5})
        assert (refusal.code, refusal.data["field"]) == (ErrorCode.BAD_COMMAND, name)


@pytest.mark.parametrize(
    ("wire", "field"),
    [
        ({"op": "tool.claim", **CALL, "leaseMs": LEASE_MS_MIN - 1}, "leaseMs"),
        ({"op": "tool.claim", **CALL, "leaseMs": LEASE_MS_MAX + 1}, "leaseMs"),
        ({"op": "tool.claim", **CALL, "leaseMs": True}, "leaseMs"),
        ({"op": "tool.progress", **CALL}, "value"),
        ({"op": "tool.result", **CALL}, "result"),
        ({"op": "tool.result", **CALL, "result": 1, "error": "e"}, "result"),
        ({"op": "tool.result", **CALL, "error": 1}, "error"),
        ({"op": "approval.respond", "session": "s", "approvalId": "a"}, "option"),
        ({"op": "approval.revoke", "session": "s", "key": ""}, "key"),
        ({"op": "approval.revoke", "session": "s", "key": "k" * (KEY_CHARS + 1)}, "key"),
        ({"op": "handoff.return", "session": "s"}, "inputId"),
        ({"op": "handoff.return", "session": "s", "inputId": "i", "note": []}, "note"),
        ({"op": "session.create", "session": "s", "title": 1}, "title"),
        ({"op": "session.create", "session": "s", "metadata": "x"}, "metadata"),
        ({"op": "session.create", "session": "s", "config": []}, "config"),
        ({"op": "session.update", "session": "s"}, "title"),
        ({"op": "input.send", "session": "s", "inputId": "i", "content": "c", "mode": {}}, "mode"),
        ({"op": "run.cancel", "session": "s", "runId": "run_i", "mode": None}, "mode"),
    ],
)
def test_the_field_that_is_wrong_is_named(wire: dict[str, Any], field: str) -> None:
    refusal = refusal_of(wire)
    assert (refusal.code, refusal.data["field"]) == (ErrorCode.BAD_COMMAND, field)


@given(st.sampled_from([wire for wire, _ in GOOD]), st.data())
def test_no_value_of_any_field_is_a_fault(wire: dict[str, Any], data: st.DataObject) -> None:
    field = data.draw(st.sampled_from(sorted(wire.keys() - {"op"})))
    changed = {"id": 1} | wire | {field: data.draw(json_values)}
    with contextlib.suppress(BadFrame):
        parse(orjson.dumps(changed))
