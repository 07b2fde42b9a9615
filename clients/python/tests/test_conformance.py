"""The shared cases that every reader of the log must fold alike (tests/conformance/cases)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from antiphon_client import Entry, Fold

CASES = Path(__file__).parents[3] / "tests" / "conformance" / "cases"


def load_cases() -> list[Any]:
    contents = [(path.stem, json.loads(path.read_text(encoding="utf-8"))) for path in sorted(CASES.glob("*.json"))]
    cases = [
        (stem, case) for stem, content in contents for case in (content if isinstance(content, list) else [content])
    ]
    return [pytest.param(case, id=f"{stem}:{case['name']}") for stem, case in cases]


def test_there_are_cases() -> None:
    assert load_cases(), f"no conformance cases in {CASES}"


def fold(frames: list[dict[str, Any]]) -> Any:
    folded = Fold()
    for frame in frames:
        entry = Entry.parse(frame)
        if entry is not None:
            folded.apply(entry)
    return json.loads(json.dumps(folded.as_dict()))


@pytest.mark.parametrize("case", load_cases())
def test_case(case: dict[str, Any]) -> None:
    folded = fold(case["entries"])
    assert folded["state"] == case["state"]
    expected = case["messages"]
    if not any("seq" in message for message in expected):  # part of a page of history; cases may leave it out
        for message in folded["messages"]:
            del message["seq"]
    assert folded["messages"] == expected
