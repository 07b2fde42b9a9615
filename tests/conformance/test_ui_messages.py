"""The shared cases (`cases/ui-messages/*.json`) against the mapping of answers to the AI SDK's chunks in gateways.

The TypeScript client has the same mapping and the same cases: clients/typescript/tests/conformance/ui-messages.test.ts.

A case: the `entries` of a log, whose answer (to which `input`) is shown to which `viewer`, the `epoch` of the log, and for
each entry its `chunks`, what the viewer is waited for with after it, and whether nothing more comes. Cases of
`cases/ui-transcripts`: `messages` as in the replies to `history` of the session `demo`, and the `uiMessages` they are.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.http.ui_messages.answer import Answer
from gateway.http.ui_messages.transcript import ui_messages

CASES = sorted((Path(__file__).parent / "cases" / "ui-messages").glob("*.json"))
APPROVAL_REQUEST = "tool-approval-request"


def answers(case: dict[str, Any], *, approvals: bool = True) -> list[dict[str, Any]]:
    answer = Answer(case["input"], case["viewer"], case["epoch"], approvals=approvals)
    return [
        {
            "seq": entry["seq"],
            "chunks": answer.take(entry),
            "waitsFor": list(answer.waits_for),
            "isOver": answer.over,
        }
        for entry in case["entries"]
    ]


def read(path: Path) -> dict[str, Any]:
    case: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return case


def test_there_are_cases() -> None:
    assert len(CASES) >= 17


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_case(path: Path) -> None:
    case = read(path)
    assert answers(case) == case["answer"]


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_a_version_without_approvals_gets_all_but_them(path: Path) -> None:
    case = read(path)
    expected = [
        {**step, "chunks": [chunk for chunk in step["chunks"] if chunk["type"] != APPROVAL_REQUEST]}
        for step in case["answer"]
    ]
    assert answers(case, approvals=False) == expected


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_it_may_begin_at_the_input(path: Path) -> None:
    """Whoever begins where the input was sent gets the same as who has read from the start."""
    case = read(path)
    sent = next(n for n, entry in enumerate(case["entries"]) if entry["events"][0].get("inputId") == case["input"])
    assert answers({**case, "entries": case["entries"][sent:]}) == case["answer"][sent:]


TRANSCRIPTS = sorted((Path(__file__).parent / "cases" / "ui-transcripts").glob("*.json"))


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_transcript(path: Path) -> None:
    case = read(path)
    assert ui_messages(case["messages"], "demo") == case["uiMessages"]


def test_there_are_transcripts() -> None:
    assert len(TRANSCRIPTS) >= 6
