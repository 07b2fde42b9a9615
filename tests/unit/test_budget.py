"""The budget's check: what costs twice as much is seen, in numbers and in a part that really does its work twice."""

from __future__ import annotations

import pytest

from tests.bench.budget import MARGINS, Budget, doubled, measure_parts, over, read_budget
from tests.bench.budget_parts import parts
from tests.bench.budget_processes import PROCESSES

BUDGET = read_budget()
ROUNDS = 8


def test_every_path_has_a_budget() -> None:
    assert BUDGET.costs["parts"].keys() == parts().keys()
    assert BUDGET.costs["processes"].keys() == PROCESSES.keys()


@pytest.mark.parametrize("kind", [*MARGINS])
def test_what_costs_its_budget_or_a_bit_more_is_well(kind: str) -> None:
    assert over(kind, BUDGET.costs[kind], BUDGET) == []
    assert over(kind, {path: cost * 1.4 for path, cost in BUDGET.costs[kind].items()}, BUDGET) == []


@pytest.mark.parametrize("kind", [*MARGINS])
def test_a_doubled_cost_is_seen_for_every_path(kind: str) -> None:
    for path, cost in BUDGET.costs[kind].items():
        (said,) = over(kind, {**BUDGET.costs[kind], path: cost * 2}, BUDGET)
        assert said.startswith(f"{path}: ")
        assert "2.00 times its budget" in said


def test_a_path_without_budget_and_a_budget_without_path_are_seen() -> None:
    costs = {**BUDGET.costs["parts"], "new": 1.0}
    del costs["decode"]
    assert [said.partition(":")[0] for said in over("parts", costs, BUDGET)] == ["decode", "new"]


def test_a_slower_machine_is_no_higher_cost() -> None:
    assert BUDGET.scaled(30.0, BUDGET.calibration_ms * 3) == pytest.approx(10.0)


@pytest.mark.parametrize("path", ["encode", "decode", "receive", "fold"])
def test_work_that_is_done_twice_is_seen_as_such(path: str) -> None:
    part = parts()[path]
    # Measured in one go, by turns: how busy the machine is does not tell them apart.
    costs, calibration_ms = measure_parts({"once": part, "twice": doubled(part), "again": part}, ROUNDS)
    budget = Budget(calibration_ms, {"parts": dict.fromkeys(costs, costs["once"])})
    assert [said.partition(":")[0] for said in over("parts", costs, budget)] == ["twice"]
