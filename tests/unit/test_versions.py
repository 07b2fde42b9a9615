"""The version is said in one place, and the formats are those of the code."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from broker.checkpoint import VERSION as CHECKPOINT
from broker.versions import LOG_FORMAT, PROTOCOL, VERSION, formats
from gateway.protocol import SUBPROTOCOL

ROOT = Path(__file__).resolve().parents[2]


def test_the_version_is_that_of_the_distribution() -> None:
    assert tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"] == VERSION


def test_the_formats_are_those_of_the_code_and_of_the_runbook() -> None:
    assert formats() == {"protocol": PROTOCOL, "log": LOG_FORMAT, "checkpoint": CHECKPOINT}
    assert f"antiphon.v{PROTOCOL}" == SUBPROTOCOL
    runbook = (ROOT / "docs/RUNBOOK.md").read_text(encoding="utf-8")
    told = {name: int(number) for name, number in re.findall(r"^\| `(\w+)` \| (\d+) \|", runbook, re.MULTILINE)}
    assert told == formats()
