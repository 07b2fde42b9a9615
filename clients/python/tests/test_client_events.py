"""Typed events: all of the protocol are there, with their fields, and nothing that comes is lost."""

from __future__ import annotations

import json
import re
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import ag_ui.core as ag_ui
import pytest

from antiphon_client import Entry, events
from antiphon_client.events import reading
from clients.python.tests.test_conformance import CASES

PROTOCOL = (Path(__file__).parents[3] / "docs/PROTOCOL.md").read_text(encoding="utf-8")
SECTION = PROTOCOL.partition("\n## 5. Events\n")[2].partition("\n## ")[0]


def spelt(cls: type[events.Event]) -> dict[str, bool]:
    """The fields as on the wire, and whether each must be there."""
    plan = reading._plan(cls.TYPE)
    return {name: needed for _, name, _, needed in plan}


def rows() -> list[tuple[str, list[str]]]:
    """The session plane: types, and their fields as the page lists them."""
    found = []
    for kinds, listed in re.findall(r"^\| ((?:`[a-z.]+`(?:, )?)+) \|(.*?)\|", SECTION, re.MULTILINE):
        names = re.findall(r"\w+\??", listed.replace("` or `", ", "))
        found += [(kind, names) for kind in re.findall(r"`([a-z.]+)`", kinds)]
    return found


def test_the_page_is_understood() -> None:
    assert len(rows()) > 25


@pytest.mark.parametrize(("kind", "listed"), rows())
def test_the_session_plane_is_that_of_the_page(kind: str, listed: list[str]) -> None:
    found = spelt(reading.BY_TYPE[kind])
    assert set(found) == {name.rstrip("?") for name in listed}
    optional = {name.rstrip("?") for name in listed if name.endswith("?")}
    assert not {name for name, needed in found.items() if needed} & optional


@pytest.mark.parametrize("cls", [cls for kind, cls in reading.BY_TYPE.items() if "." not in kind], ids=lambda c: c.TYPE)
def test_the_agent_plane_is_that_of_ag_ui(cls: type[events.Event]) -> None:
    name = "".join(word.capitalize() for word in cls.TYPE.split("_")) + "Event"
    theirs = getattr(ag_ui, name).model_fields
    aliases = {field.alias or key: field for key, field in theirs.items()}
    for spelling, needed in spelt(cls).items():
        assert spelling in aliases
        if needed:
            assert aliases[spelling].is_required(), spelling


def test_what_is_known_is_read() -> None:
    raw = {"type": "tool.claimed", "toolCallId": "c", "claimId": "k", "expiresAt": 5, "more": 1}
    assert events.read(raw) == events.ToolClaimed("c", "k", 5, None)
    entry = Entry(
        "demo", 2, 1, events=({"type": "TEXT_MESSAGE_CONTENT", "messageId": "m", "delta": "Hi"}, {"type": "X"})
    )
    match entry.typed:
        case (events.TextDelta(message_id="m", delta=delta), events.Unknown(type="X")):
            assert delta == "Hi"
        case _:
            raise AssertionError(entry.typed)


@pytest.mark.parametrize(
    "raw",
    [
        {"type": "CUSTOM", "name": "x"},
        {"type": "TEXT_MESSAGE_CONTENT", "messageId": "m"},
        {"type": "TEXT_MESSAGE_CONTENT", "messageId": 5, "delta": "x"},
        {"type": "tool.claimed", "toolCallId": "c", "claimId": "k", "expiresAt": True},
        {"no": "type"},
        {"type": 7},
    ],
)
def test_what_is_not_is_kept(raw: dict[str, Any]) -> None:
    found = events.read(raw)
    assert isinstance(found, events.Unknown)
    assert found.raw == raw


def test_optional_fields_that_are_malformed_are_as_if_absent() -> None:
    assert events.read({"type": "input.sent", "inputId": "i", "content": "x", "mode": 5}) == events.InputSent("i", "x")


def test_every_field_has_a_type_that_is_read() -> None:
    for cls in reading.BY_TYPE.values():
        assert {each.name for each in fields(cls)} == {attribute for attribute, *_ in reading._plan(cls.TYPE)}
        needed = [needed for *_, needed in reading._plan(cls.TYPE)]
        assert needed == [each.default is MISSING for each in fields(cls)]


def test_the_events_of_the_conformance_cases() -> None:
    """Of types that are known, hardly any is malformed: only those that a case makes so."""
    known = unknown = 0
    for path in CASES.glob("*.json"):
        content = json.loads(path.read_text(encoding="utf-8"))
        for case in content if isinstance(content, list) else [content]:
            for frame in case.get("entries", ()):
                for raw in frame.get("events", ()):
                    if isinstance(raw, dict) and raw.get("type") in reading.BY_TYPE:
                        known += 1
                        unknown += isinstance(events.read(raw), events.Unknown)
    assert known > 1000
    assert unknown < known // 50
