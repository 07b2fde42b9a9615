"""How fast a gateway lets its clients go."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.draining import TICK_S, due

counts = st.integers(min_value=0, max_value=50_000)
paces = st.floats(min_value=1, max_value=5_000)


def closed_in_ticks(
    connections: int, over_s: float, per_second: float, late: dict[int, float]
) -> list[tuple[float, int]]:
    """When how many are closed, if ticks come `late` by so many seconds."""
    now, left, found = 0.0, connections, []
    tick = 0
    while left:
        count, wait_s = due(left, over_s - now, per_second)
        found.append((now, count))
        left -= count
        now += wait_s + late.get(tick, 0.0)
        tick += 1
    return found


@given(counts, st.floats(min_value=0, max_value=120), paces)
def test_all_are_closed_in_time(connections: int, over_s: float, per_second: float) -> None:
    closed = closed_in_ticks(connections, over_s, per_second, {})
    assert sum(count for _, count in closed) == connections
    assert all(at <= over_s for at, count in closed if count)


@given(counts, st.floats(min_value=1, max_value=120), paces)
def test_the_pace_is_the_one_that_was_asked_for_or_the_slowest_that_is_in_time(
    connections: int, over_s: float, per_second: float
) -> None:
    pace = max(per_second, connections / over_s)
    # A tick takes whole connections, and the last one, shorter than the others, what is left.
    most = math.ceil(pace * TICK_S * 1.1) + 1
    assert all(count <= most for _, count in closed_in_ticks(connections, over_s, per_second, {}))


def test_what_a_late_tick_has_missed_is_spread_over_the_others() -> None:
    closed = closed_in_ticks(1000, 10.0, 1.0, {50: 2.5})
    counts_ = [count for _, count in closed]
    assert max(counts_[:51]) <= 6
    # A quarter of the time is lost, half way: the rest goes twice as fast, and not at once.
    assert max(counts_[51:]) <= 10
    assert closed[-1][0] <= 10.0


def test_few_connections_do_not_wait_for_the_end_of_the_time() -> None:
    assert closed_in_ticks(3, 10.0, 200.0, {}) == [(0.0, 3)]
    assert [count for _, count in closed_in_ticks(30, 10.0, 200.0, {})] == [10, 10, 10]


def test_a_slow_pace_is_kept() -> None:
    closed = closed_in_ticks(20, 60.0, 5.0, {})
    assert [count for _, count in closed] == [1] * 20
    assert closed[-1][0] == pytest.approx(19 / 5)
