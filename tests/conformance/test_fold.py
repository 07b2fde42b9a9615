"""The shared cases (`cases/*.json`) against the fold that gateways and workers use.

Every reader of the log folds the same cases: the Python client in clients/python/tests/test_conformance.py, the
TypeScript one, which the page uses, in clients/typescript/tests/conformance/fold.test.ts. What a case expects is worked out from PROTOCOL, section 6, not from any of them.

A case: `entries` as in section 4, and the `state` and the `messages` they come to; the `seq` of a message is that of the
entry that added it (as in the replies to `history`). `counted` is what the state counts, where it counts messages that
are none because their ids are there already.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from broker.codec import encode, entry_from_wire, frame
from broker.session import fold
from broker.state import SessionState
from broker.transcript import Transcript
from broker.view import public_view

CASES = sorted((Path(__file__).parent / "cases").glob("*.json"))


def read(path: Path) -> dict[str, Any]:
    case: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return case


def test_there_are_cases() -> None:
    assert len(CASES) >= 80


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_case(path: Path) -> None:
    case = read(path)
    transcript = Transcript()
    for entry in case["entries"]:
        transcript.apply(entry["seq"], entry_from_wire(entry))
    assert public_view(transcript.state) == case["state"]
    assert [message.as_dict() for message in transcript.messages] == case["messages"]
    assert transcript.state.messages == case.get("counted", len(case["messages"]))


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_the_state_is_in_the_records_alone(path: Path) -> None:
    case = read(path)
    state = SessionState()
    for entry in case["entries"]:
        if "off" not in entry:
            state = fold(state, entry["seq"], entry_from_wire(entry))
    assert public_view(state) == case["state"]


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_entries_are_frames_as_a_gateway_sends_them(path: Path) -> None:
    """The chain holds, and nothing that a reader knows of an entry is lost on the way to it."""
    last = 0
    for entry in read(path)["entries"]:
        assert (entry["prev"], entry["op"], entry["session"]) == (last, "entry", "demo")
        assert entry["seq"] > last
        last = entry["seq"]
        again = json.loads(frame("demo", entry["seq"], entry["prev"], encode(entry_from_wire(entry))))
        assert entry_from_wire(again) == entry_from_wire(entry)
