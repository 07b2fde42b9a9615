"""The checker of the suite of faults: good histories are good, and each planted fault is found, and nothing beside it."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.chaos import history
from tests.chaos.checker import check
from tests.chaos.findings import Kind
from tests.chaos.history import Record
from tests.unit.chaos_faults import IN_A_VIEW, IN_THE_LOG
from tests.unit.chaos_histories import Scene, views

seeds = st.integers(0, 2**32)
FEWER = settings(max_examples=settings().max_examples // 5)
"""There are many faults, and each history has a few hundred records."""


@given(seeds)
def test_nothing_is_found_in_a_good_history(seed: int) -> None:
    assert check(views(Scene.of(random.Random(seed)))) == []


@pytest.mark.parametrize(("plant", "kinds"), IN_THE_LOG.items(), ids=lambda value: getattr(value, "__name__", ""))
@FEWER
@given(seed=seeds)
def test_what_is_wrong_in_the_log_is_found_and_nothing_else(
    plant: Callable[[Scene], None], kinds: set[Kind], seed: int
) -> None:
    scene = Scene.of(random.Random(seed))
    plant(scene)
    assert {violation.kind for violation in check(views(scene))} == kinds


@pytest.mark.parametrize(("plant", "kinds"), IN_A_VIEW.items(), ids=lambda value: getattr(value, "__name__", ""))
@FEWER
@given(seed=seeds)
def test_what_is_wrong_in_a_view_is_found_and_nothing_else(
    plant: Callable[[list[Record]], None], kinds: set[Kind], seed: int
) -> None:
    # What is missing may be made up for by a later gap.
    records = views(Scene.of(random.Random(seed)), gaps=False)
    plant(records)
    assert {violation.kind for violation in check(records)} == kinds


def test_each_kind_of_violation_has_been_planted() -> None:
    planted = set().union(*IN_THE_LOG.values(), *IN_A_VIEW.values())
    assert planted == set(Kind)
    assert {kind.group for kind in Kind} == {"lost", "duplicated", "fence", "other"}


@FEWER
@given(seed=seeds)
def test_a_history_survives_its_file(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    path = tmp_path_factory.mktemp("history") / "h.jsonl"
    records = views(Scene.of(random.Random(seed)))
    history.write(path, records)
    assert list(history.read(path)) == records


def test_a_line_that_is_no_record_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "h.jsonl"
    path.write_text('{"kind": "gossip"}\n')
    with pytest.raises(KeyError):
        list(history.read(path))
