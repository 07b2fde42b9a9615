"""Which file shows which behaviour, and what a run of it said. No pytest here: its report is read from its XML file."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

FIGURE = "figure"
"""The property under which a test leaves what it has seen."""

ALONE = frozenset({"B03", "B06", "B08", "B09", "B11", "B13", "B21", "B27", "B28", "B29"})
"""Behaviours whose figures are times, or that take all cores: beside others they would say little."""

_FILE = re.compile(r"test_b(\d\d)_\w+\.py")


def behaviours(directory: Path) -> dict[str, Path]:
    """The test files by number (`B01`), in order."""
    found = {number_of(path): path for path in directory.iterdir() if _FILE.fullmatch(path.name)}
    return dict(sorted(found.items()))


def number_of(path: Path) -> str:
    """The number of the behaviour that a test file shows."""
    match = _FILE.fullmatch(path.name)
    assert match is not None, path
    return f"B{match[1]}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the tests of one behaviour said."""

    tests: int
    not_passed: tuple[str, ...]
    figures: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """All passed; a skipped test has shown nothing."""
        return self.tests > 0 and not self.not_passed

    def line(self, number: str, seconds: float) -> str:
        """`B01 ok   1000 cuts, 0 lost, 21.3 s`."""
        said = self.figures if self.ok else self.not_passed or ("no test ran",)
        return f"{number} {'ok  ' if self.ok else 'FAIL'} {'; '.join(said)}, {seconds:.1f} s"


def read_outcome(junit: Path) -> Outcome:
    """The outcome in pytest's XML file. A file that is not there says that pytest did not get far enough."""
    if not junit.exists():
        return Outcome(0, (), ())
    cases = list(ET.parse(junit).getroot().iter("testcase"))  # noqa: S314 (the file is our own)
    return Outcome(
        tests=len(cases),
        not_passed=tuple(bad for case in cases for bad in _not_passed(case)),
        figures=tuple(
            prop.get("value", "") for case in cases for prop in case.iter("property") if prop.get("name") == FIGURE
        ),
    )


def _not_passed(case: ET.Element) -> list[str]:
    """A line for each way in which a test did not pass."""
    bad = [child for child in case if child.tag in ("failure", "error", "skipped")]
    return [f"{case.get('name')}: {_first_line(child.get('message') or child.tag)}" for child in bad]


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0][:200] if text.strip() else "no reason given"
