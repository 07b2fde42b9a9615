"""Streams of AG-UI: gateways and the TypeScript client make the same ones, and the real clients accept them.

The shared cases are in `agui/*.json`; every random log is told to the client of `@ag-ui/client` 1.0.0 or 0.0.59, with its
own verifier and reducer, and leaves it with the messages that the log shows.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.codec import entry_from_wire
from broker.state import SessionState
from gateway.agui.interrupts import Page
from gateway.agui.projection import Projection
from tests.conformance.agui_logs import AguiModel, agui_sessions
from tests.conformance.test_readers_agree import sent

HERE = Path(__file__).parent
TYPESCRIPT = HERE.parents[1] / "clients" / "typescript"
CASES = sorted((HERE / "agui").glob("*.json"))

Json = dict[str, Any]
Reader = Callable[[Json], Json]


def project(asked: Json) -> tuple[list[Json], list[Json]]:
    """The events that a gateway makes of a log, and the messages that the log shows when the stream ends."""
    page = asked["page"]
    who = Page(page["user"], tuple(page["roles"]), page["approves"], frozenset(page["tools"]))
    projection = Projection(asked["threadId"], asked["runId"], who, modern=asked["isModern"])
    projection.load(SessionState())
    events: list[Json] = []

    def begin() -> None:
        events.extend(projection.begin(asked["client"], asked["fresh"]))
        events.extend(projection.aim(asked["aim"]["runId"], asked["aim"].get("seq", 0)))

    def miss() -> None:
        """Entries turn out to have been missed: the log is folded anew."""
        projection.load(SessionState())
        for frame in asked["entries"][:n]:
            projection.take(frame["seq"], entry_from_wire(frame))
        events.extend(projection.again())

    for n, frame in enumerate(asked["entries"]):
        if n == asked["begin"]:
            begin()
        if n == asked.get("gap") and not projection.over:
            miss()
        if not projection.over:
            events += projection.take(frame["seq"], entry_from_wire(frame))
    if len(asked["entries"]) == asked["begin"]:
        begin()
    if not projection.over:
        events += _finish(projection, asked["end"])
    return events, projection.shown()


def _finish(projection: Projection, end: Json) -> list[Json]:
    waiting = projection.waiting(end["now"])
    if end["how"] == "waits" and waiting.approvals:
        return projection.interrupt(waiting)
    if end["how"] == "waits" and waiting.calls:
        return projection.hand_over(waiting.calls)
    return projection.fail("cut", "cut")


@pytest.fixture(scope="module")
def typescript() -> Iterator[Reader]:
    """The TypeScript client's projection, and the real clients of AG-UI."""
    node = shutil.which("node")
    if node is None or not (TYPESCRIPT / "dist" / "ag-ui" / "projection.js").exists():
        pytest.skip("the TypeScript client is not built: `make typescript`, which runs this, too")
    command = [node, str(HERE / "agui_streams.mjs")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def read(asked: Json) -> Json:
            assert process.stdin is not None
            assert process.stdout is not None
            print(json.dumps(asked), file=process.stdin, flush=True)
            found: Json = json.loads(process.stdout.readline())
            return found

        yield read
        process.stdin.close()


@st.composite
def asked_for(draw: st.DrawFn) -> Json:
    """A log, and somebody who reads it from some place on, with the messages of some place before."""
    model: AguiModel = draw(agui_sessions())
    cut = draw(st.integers(0, len(model.log)) | st.integers(0, 3))
    merge = draw(st.booleans())
    at = model.log[cut - 1][0] if cut else 0
    before, after = [e for e in model.log if e[0] <= at], [e for e in model.log if e[0] > at]
    had, coming = sent(before, 0, merge=merge), sent(after, at, merge=False)
    modern = draw(st.booleans())
    client = _messages_at(had, draw(st.integers(0, len(had))), modern=modern) if draw(st.booleans()) else []
    target = draw(st.sampled_from([None, *(f"run_{input_id}" for input_id in model.fates)]))
    return {
        "threadId": "s",
        "runId": "r",
        "isModern": modern,
        "page": {
            "user": "user-1",
            "roles": [],
            "approves": draw(st.booleans()),
            "tools": draw(st.sampled_from([[], ["pick"]])),
        },
        "client": client,
        "fresh": [{"id": "new", "role": "user", "content": "new"}] if draw(st.booleans()) else [],
        "entries": had + coming,
        "begin": len(had),
        "gap": len(had) + draw(st.integers(0, 20)) if draw(st.booleans()) else None,
        "aim": {"runId": target, "seq": draw(st.sampled_from([0, 10**6]))},
        "end": {"how": draw(st.sampled_from(["waits", "cut"])), "now": 50},
    }


def _messages_at(frames: list[Json], end: int, *, modern: bool) -> list[Json]:
    projection = Projection("s", "r", Page("user-1"), modern=modern)
    projection.load(SessionState())
    for frame in frames[:end]:
        projection.take(frame["seq"], entry_from_wire(frame))
    return projection.shown()


@given(asked=asked_for())
def test_both_make_the_same_stream_and_clients_accept_it(typescript: Reader, asked: Json) -> None:
    events, shown = project(asked)
    found = typescript(asked)
    assert found["events"] == events
    assert found["shown"] == shown
    assert found["problem"] is None, found["problem"]
    assert found["seen"] == [event["type"] for event in events]
    own = [m for m in found["messages"] if m["role"] != "activity" and m["id"] != "new"]
    assert [_told(m) for m in own] == [_told(m) for m in shown]


def _told(message: Json) -> tuple[str, str, Any, Any]:
    calls = "".join(call["function"]["arguments"] for call in message.get("toolCalls") or ())
    return message["id"], message["role"], message.get("content") or calls, message.get("metadata")


def test_there_are_cases() -> None:
    assert len(CASES) >= 39


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_case(path: Path) -> None:
    case = json.loads(path.read_text(encoding="utf-8"))
    events, _ = project(case)
    assert events == case["events"]


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_clients_accept_the_case(typescript: Reader, path: Path) -> None:
    case = json.loads(path.read_text(encoding="utf-8"))
    found = typescript(case)
    assert (found["problem"], found["events"]) == (None, case["events"])
