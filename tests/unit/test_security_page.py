"""SECURITY.md names tests, settings and alerts that exist."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from broker.config import AttachmentSettings, LogSettings, NatsSettings, TraceSettings
from gateway.config import GatewaySettings
from webhooks.config import WebhookSettings

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "SECURITY.md"
SETTINGS = {
    f"ANTIPHON_{field.name.upper()}"
    for cls in (NatsSettings, LogSettings, GatewaySettings, AttachmentSettings, WebhookSettings, TraceSettings)
    for field in fields(cls)
}
_TEST = re.compile(r"`((?:unit|integration|behaviours|browser|conformance)/\w+\.py)(?:::(\w+))?`")


def missing(page: str) -> list[str]:
    """What a page names that does not exist."""
    found = []
    for file, name in _TEST.findall(page):
        path = ROOT / "tests" / file
        if not path.exists():
            found.append(file)
        elif name:
            tests = re.findall(r"^(?:async )?def (test_\w+)\(", path.read_text(encoding="utf-8"), re.MULTILINE)
            found += [] if name in tests else [f"{file}::{name}"]
    found += sorted(set(re.findall(r"`(ANTIPHON_[A-Z0-9_]+)`", page)) - SETTINGS)
    rules = (ROOT / "deploy/prometheus/rules.yml").read_text(encoding="utf-8")
    found += [name for name in re.findall(r"`(Antiphon\w+)`", page) if f"alert: {name}\n" not in rules]
    found += [
        f"tests/unit/{n}" for n in re.findall(r"`tests/unit/(\w+\.py)`", page) if not (ROOT / "tests/unit" / n).exists()
    ]
    return found


def rows(page: str) -> list[list[str]]:
    """The tables of the section on threats, without their heads."""
    section = page.partition("## Threats")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [
        [cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if not line.startswith("| threat")
    ]


def test_what_it_names_exists() -> None:
    assert missing(PAGE.read_text(encoding="utf-8")) == []


def test_every_threat_has_what_is_done_and_what_shows_it() -> None:
    found = rows(PAGE.read_text(encoding="utf-8"))
    assert len(found) > 25
    for row in found:
        assert len(row) == 3, row
        assert _TEST.search(row[2]), row


@pytest.mark.parametrize(
    ("planted", "named"),
    [
        ("`unit/test_nothing.py::test_x`", "unit/test_nothing.py"),
        ("`unit/test_auth.py::test_nothing_of_that_name`", "unit/test_auth.py::test_nothing_of_that_name"),
        ("`ANTIPHON_NOTHING`", "ANTIPHON_NOTHING"),
        ("`AntiphonNothing`", "AntiphonNothing"),
        ("`tests/unit/test_nothing.py`", "tests/unit/test_nothing.py"),
    ],
)
def test_the_check_can_fail(planted: str, named: str) -> None:
    assert missing(f"as {planted} shows") == [named]
