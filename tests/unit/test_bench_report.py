"""The page of benchmarks: what is made of the measured figures is what the page has, and prose stays."""

from __future__ import annotations

import copy
import xml.etree.ElementTree as ET
from typing import Any

import orjson
import pytest

from antiphon.bench import bench_names
from tests.bench.report import COMPARED, DATA, IMAGES, PAGE, PICTURES, TARGETS, page_of, pictures_of
from tests.bench.svg import Bar, bars

REPORT: dict[str, Any] = orjson.loads(DATA.read_bytes())


def test_the_page_and_its_pictures_are_made_of_the_figures_beside_them() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page_of(page, REPORT) == page, "make it anew: python -m tests.bench.report --from-file"
    for file, picture in pictures_of(REPORT).items():
        assert (IMAGES / file).read_text(encoding="utf-8") == picture, file
        assert f"images/{file}" in page


def test_what_has_been_measured_is_explained() -> None:
    page = PAGE.read_text(encoding="utf-8")
    measured = {row["name"] for row in REPORT["rows"] if row["peer"] == "antiphon"}
    assert measured <= set(bench_names())
    for name in measured:
        assert f"\n### {name}\n" in page
    for target in TARGETS:
        assert f"`{target.figure.removeprefix('sparse_')}`" in page


def test_other_figures_change_only_what_is_made() -> None:
    other = copy.deepcopy(REPORT)
    (fanout,) = (row for row in other["rows"] if (row["name"], row["peer"]) == ("fanout", "antiphon"))
    fanout["events_per_second_per_core"] = 123_456.0
    page = PAGE.read_text(encoding="utf-8")
    made = page_of(page, other)
    assert made.count("123,456") == 3  # targets, peers, all figures
    changed = [line for line in made.splitlines() if line not in page.splitlines()]
    assert all(line.startswith("| ") for line in changed)
    assert "| fanout | `events_per_second_per_core` | ≥ 1,000,000 | 123,456 |" in made
    assert "**no** |" in made


def test_a_peer_that_is_missing_has_no_figures_in_tables_and_pictures() -> None:
    other = copy.deepcopy(REPORT)
    for name in COMPARED:
        other["rows"] = [row for row in other["rows"] if (row["name"], row["peer"]) != (name, "aiohttp")]
        other["rows"].append({"name": name, "peer": "aiohttp", "missing": "there is no package aiohttp", "machine": {}})
    lines = [
        line for line in page_of(PAGE.read_text(encoding="utf-8"), other).splitlines() if line.startswith("| aiohttp ")
    ]
    assert len(lines) == len(COMPARED)
    assert all(set(line.split("|")[3:-1]) == {" missing "} for line in lines)
    assert all("not installed" in picture for picture in pictures_of(other).values())


def test_what_was_not_measured_yet_is_said_to_be_so() -> None:
    other = REPORT | {"rows": [row for row in REPORT["rows"] if row["name"] not in ("idle", "open")]}
    made = page_of(PAGE.read_text(encoding="utf-8"), other)
    assert "| idle | `bytes_per_connection` | ≤ 16,384 | not measured yet | | |" in made
    assert "Not reckoned yet: the costs have no `bytes_per_connection` of the benchmark `idle`" in made


def test_a_mark_that_nothing_stands_for_is_an_error() -> None:
    with pytest.raises(KeyError, match="weather"):
        page_of("<!-- made: weather -->\n<!-- end -->", REPORT)


def test_a_picture_is_well_formed_and_as_long_as_its_figures() -> None:
    assert len(pictures_of(REPORT)) == len(PICTURES)
    picture = bars(
        "A & B", "note", [Bar("one", 50, 40, 100, own=True), Bar("two", 25, 20, 30), Bar("three", None)], target=75
    )
    root = ET.fromstring(picture)  # noqa: S314 (made here)
    widths = [float(rect.get("width", 0)) for rect in root.iter("{http://www.w3.org/2000/svg}rect")]
    assert len(widths) == 2
    assert widths[0] == pytest.approx(2 * widths[1])
    assert "not installed" in picture
