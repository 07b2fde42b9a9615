"""Token buckets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import Refused
from gateway.limits import CallerLimits, Limit, Places, TokenBucket


def test_a_burst_then_the_rate() -> None:
    bucket = TokenBucket(rate=2.0, burst=3, now=10.0)
    assert [bucket.take(10.0) for _ in range(3)] == [0.0, 0.0, 0.0]
    assert bucket.take(10.0) == pytest.approx(0.5)
    assert bucket.take(10.25) == pytest.approx(0.25)
    assert bucket.take(10.5) == 0.0
    assert bucket.take(10.5) > 0.0


def test_a_long_silence_saves_no_more_than_a_burst() -> None:
    bucket = TokenBucket(rate=100.0, burst=2, now=0.0)
    assert [bucket.take(1e6) for _ in range(2)] == [0.0, 0.0]
    assert bucket.take(1e6) > 0.0


@given(st.floats(0.1, 100), st.integers(1, 20), st.lists(st.floats(0, 3), max_size=60))
def test_never_more_than_the_burst_and_the_rate_allow(rate: float, burst: int, pauses: list[float]) -> None:
    bucket, now, taken = TokenBucket(rate, burst, 0.0), 0.0, 0
    for pause in pauses:
        now += pause
        taken += bucket.take(now) == 0.0
        assert taken <= burst + rate * now + 1e-6


@given(st.floats(0.1, 100), st.integers(1, 20), st.lists(st.floats(0, 3), min_size=1, max_size=30))
def test_who_waits_as_told_gets_a_token(rate: float, burst: int, pauses: list[float]) -> None:
    bucket, now = TokenBucket(rate, burst, 0.0), 0.0
    for pause in pauses:
        now += pause
        wait_s = bucket.take(now)
        if wait_s:
            now += wait_s + 1e-6
            assert bucket.take(now) == 0.0


def test_what_costs_more_is_taken_as_so_many() -> None:
    bucket = TokenBucket(rate=100.0, burst=1000, now=0.0)
    assert bucket.take(0.0, 600) == 0.0
    assert bucket.take(0.0, 600) == pytest.approx(2.0)
    assert bucket.take(2.0, 600) == 0.0


def test_what_costs_more_than_the_burst_needs_a_full_bucket_and_leaves_a_debt() -> None:
    bucket = TokenBucket(rate=100.0, burst=1000, now=0.0)
    assert bucket.take(0.0, 1) == 0.0
    assert bucket.take(0.0, 3000) == pytest.approx(0.01)
    assert bucket.take(0.02, 3000) == 0.0
    assert bucket.take(0.02, 1) == pytest.approx(20.01)


@given(st.floats(0.1, 100), st.integers(1, 20), st.lists(st.tuples(st.floats(0, 3), st.floats(0, 40)), max_size=60))
def test_never_more_than_a_burst_beyond_the_rate_whatever_it_costs(
    rate: float, burst: int, events: list[tuple[float, float]]
) -> None:
    bucket, now, taken = TokenBucket(rate, burst, 0.0), 0.0, 0.0
    for pause, cost in events:
        now += pause
        if bucket.take(now, cost) == 0.0:
            taken += cost
            # One that is larger than the burst may be ahead by itself.
            assert taken <= burst + rate * now + max(0.0, cost - burst) + 1e-6


def test_a_caller_is_told_which_limit_it_was() -> None:
    limits = CallerLimits(Limit.INPUTS, rate=2.0, burst=1)
    limits.require("a", 0.0)
    with pytest.raises(Refused) as refused:
        limits.require("a", 0.0)
    assert refused.value.data == {"retry_after_ms": 500, "exceeded": "inputs_per_second"}


def test_callers_are_remembered_until_they_may_do_as_much_as_before() -> None:
    limits = CallerLimits(Limit.JOINS, rate=1.0, burst=3)
    for number in range(1000):
        limits.take(f"user-{number}", 0.0)
    assert len(limits) == 1000
    limits.take("user-0", 0.5)
    assert len(limits) == 1000, "none of them is full yet"
    for _ in range(100):
        limits.take("somebody", 1.2)
    assert len(limits) == 2, "user-0, who came later, is not full yet"
    limits.take("somebody", 60.0)
    assert len(limits) == 1


def test_a_flood_of_callers_is_forgotten_a_few_at_a_time() -> None:
    limits = CallerLimits(Limit.REQUESTS, rate=1.0, burst=3)
    for number in range(10_000):
        limits.take(f"user-{number}", 0.0)
    before = len(limits)
    limits.take("somebody", 60.0)
    assert 1 < before - len(limits) < 100, "nobody is to wait until thousands are forgotten"


@given(
    st.floats(0.5, 20),
    st.integers(1, 5),
    st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 3)), min_size=1, max_size=60),
)
def test_to_be_forgotten_changes_nothing(rate: float, burst: int, events: list[tuple[str, float]]) -> None:
    limits, now = CallerLimits(Limit.INPUTS, rate, burst), 0.0
    kept = {caller: TokenBucket(rate, burst, 0.0) for caller in "abc"}
    for caller, pause in events:
        now += pause
        assert limits.take(caller, now) == pytest.approx(kept[caller].take(now), abs=1e-6)


def test_places() -> None:
    places = Places(Limit.USER, 2)
    first, second = places.take("a"), places.take("a")
    assert first is not None
    assert second is not None
    assert places.take("a") is None
    other = places.take("b")
    assert other is not None
    first.leave()
    first.leave()  # a place is left once
    again = places.take("a")
    assert again is not None
    assert places.take("a") is None
    for place in (second, again, other):
        place.leave()
    assert len(places) == 0, "who has nothing open is not kept"


def test_as_many_as_they_like() -> None:
    places = Places(Limit.ADDRESS, 0)
    assert all(places.take("a") is not None for _ in range(1000))
