"""How fast what clients send is taken."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.limits import TokenBucket
from gateway.pacing import FrameHeads, Groups, Newcomers, Pace, PacingSettings

PAUSES = st.lists(st.floats(0, 3), min_size=1, max_size=60)


# --- an allowance ----------------------------------------------------------------------------------------------------------


def test_what_was_saved_and_then_the_rate() -> None:
    pace = Pace(burst_s=3.0)
    assert [pace.take(10.0, 1.0) for _ in range(3)] == [0.0, 0.0, 0.0]
    # Each in its order, one a second.
    assert [pace.take(10.0, 1.0) for _ in range(3)] == pytest.approx([1.0, 2.0, 3.0])
    assert pace.take(13.0, 1.0) == pytest.approx(1.0)
    assert pace.take(100.0, 1.0) == 0.0


def test_what_costs_more_than_can_be_saved_is_due_when_all_is_saved_and_leaves_a_debt() -> None:
    pace = Pace(burst_s=1.0)
    assert pace.take(0.0, 5.0) == 0.0
    assert pace.take(0.0, 0.5) == pytest.approx(4.5)


def test_what_is_given_back_is_there_again() -> None:
    pace = Pace(burst_s=1.0)
    pace.take(0.0, 1.0)
    assert pace.wait_s(0.0, 1.0) == pytest.approx(1.0)
    pace.give_back(1.0)
    assert pace.wait_s(0.0, 1.0) == 0.0
    assert pace.take(0.0, 1.0) == 0.0


@given(st.floats(0.1, 5), st.lists(st.tuples(st.floats(0, 3), st.floats(0.001, 1)), max_size=60))
def test_never_more_is_due_than_was_saved_and_has_come(burst_s: float, taken: list[tuple[float, float]]) -> None:
    pace, now, due, cost = Pace(burst_s), 0.0, 0.0, 0.0
    for pause, cost_s in taken:
        now += pause
        due = max(due, now + pace.take(now, cost_s))
        cost += cost_s
        assert cost <= burst_s + due + 1 + 1e-6


def test_over_is_who_has_to_wait_until_half_is_saved_again() -> None:
    pace = Pace(burst_s=2.0)
    pace.take(0.0, 2.0)
    assert pace.over_since is None
    pace.take(1.0, 1.5)
    assert pace.over_since == 1.0
    # It is let in, and is no calmer for it.
    assert pace.take(2.0, 0.1) == pytest.approx(0.0, abs=0.7)
    assert pace.over_since == 1.0
    pace.take(60.0, 0.1)
    assert pace.over_since is None


@given(
    st.lists(st.tuples(st.floats(0, 2), st.integers(1, 70_000)), max_size=300),
    st.floats(1, 100),
    st.integers(1, 200),
)
def test_who_is_within_the_limits_never_waits(sent: list[tuple[float, int]], rate: float, burst: int) -> None:
    """A connection is refused before it is held back, by whichever limit; and who is not refused is not held back."""
    settings = PacingSettings(2 * rate, 2 * burst, 2 * 100_000, 2 * 500_000)
    frames, sizes = TokenBucket(rate, burst, 0.0), TokenBucket(100_000, 500_000, 0.0)
    pace, now = Pace(settings.burst_s), 0.0
    for pause, size in sent:
        now += pause
        # Whoever is told to wait does.
        now += max(sizes.take(now, size), 0.0)
        now += max(frames.take(now), 0.0) + 1e-6
        assert pace.take(now, settings.frame_s + size * settings.byte_s) == 0.0


# --- what is shared --------------------------------------------------------------------------------------------------------


def test_a_group_is_one_whoever_joins_it() -> None:
    groups = Groups(frames_per_second=10, burst_s=1.0)
    one, other = groups.join("a"), groups.join("a")
    assert one is other is not None
    assert groups.join("b") is not one
    assert one.pace.take(0.0, one.cost_s(10)) == 0.0
    assert other.pace.take(0.0, other.cost_s(1)) == pytest.approx(0.1)


def test_large_frames_cost_more() -> None:
    group = Groups(frames_per_second=10, burst_s=1.0).join("a")
    assert group is not None
    assert group.cost_s(1, 65_536) == pytest.approx(0.5)


def test_who_leaves_and_comes_again_has_no_more_than_before() -> None:
    groups = Groups(frames_per_second=10, burst_s=1.0)
    group = groups.join("a")
    assert group is not None
    group.pace.take(0.0, 1.0)
    groups.leave(group, 0.0)
    assert groups.join("a") is group


def test_groups_that_matter_no_more_are_forgotten() -> None:
    groups = Groups(frames_per_second=10, burst_s=1.0, kept=3)
    for number in range(10):
        group = groups.join(f"g{number}")
        assert group is not None
        group.pace.take(0.0, 1.0)
        groups.leave(group, 0.0)
    assert len(groups) == 3
    last = groups.join("last")
    assert last is not None
    groups.leave(last, 2.0)
    assert len(groups) == 0


def test_without_a_limit_there_is_no_group() -> None:
    assert Groups(frames_per_second=0, burst_s=1.0).join("a") is None


# --- new sockets -----------------------------------------------------------------------------------------------------------


def test_newcomers_of_a_burst_begin_at_once_and_then_at_the_rate() -> None:
    newcomers = Newcomers[str](per_second=2, burst=2)
    assert [newcomers.came(0.0, "a", name) for name in "xy"] == [0.0, 0.0]
    assert newcomers.came(0.0, "a", "z") == pytest.approx(0.5)
    assert newcomers
    assert newcomers.next(0.0) == (None, pytest.approx(0.5))
    assert newcomers.next(0.5) == ("z", 0.0)
    assert not newcomers
    assert newcomers.next(0.5) == (None, 0.0)


def test_addresses_take_turns() -> None:
    """Whoever opens a thousand keeps nobody else waiting for more than one of them."""
    newcomers = Newcomers[str](per_second=1, burst=1)
    newcomers.came(0.0, "many", "first")
    for number in range(1000):
        newcomers.came(0.0, "many", f"m{number}")
    newcomers.came(0.0, "one", "x")
    begun = [newcomers.next(float(second))[0] for second in (1, 2)]
    assert "x" in begun


def test_who_goes_while_it_waits_takes_nobodys_place() -> None:
    newcomers = Newcomers[str](per_second=1, burst=1)
    for name in "abc":
        newcomers.came(0.0, "address", name)
    newcomers.gone("address", "b")
    newcomers.gone("address", "b")
    newcomers.gone("nowhere", "b")
    assert newcomers.next(1.0) == ("c", 0.0)
    assert not newcomers


@given(st.lists(st.tuples(st.floats(0, 0.5), st.sampled_from("abc")), max_size=80))
def test_no_more_newcomers_than_the_rate_and_each_once(coming: list[tuple[float, str]]) -> None:
    newcomers, now, begun = Newcomers[int](per_second=5, burst=3), 0.0, []
    for number, (pause, address) in enumerate(coming):
        now += pause
        if not newcomers.came(now, address, number):
            begun.append(number)
        while (found := newcomers.next(now))[0] is not None:
            begun.append(found[0])
        assert len(begun) <= 3 + 5 * now + 1
    for _ in range(len(coming) + 1):
        now += 0.21
        if (one := newcomers.next(now)[0]) is not None:
            begun.append(one)
    assert Counter(begun) == Counter(range(len(coming)))


# --- frames ----------------------------------------------------------------------------------------------------------------


def frame(size: int, *, masked: bool = True) -> bytes:
    mask = bytes(4) if masked else b""
    bit = 0x80 if masked else 0
    if size < 126:
        head = bytes((0x81, bit | size))
    elif size < 65_536:
        head = bytes((0x81, bit | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((0x81, bit | 127)) + size.to_bytes(8, "big")
    # Bytes that look like heads.
    return head + mask + b"\x81\x80" * (size // 2) + b"\x81" * (size % 2)


SIZES = st.lists(st.sampled_from([0, 1, 2, 125, 126, 127, 1000, 65_535, 65_536, 70_000]), max_size=12)


@given(SIZES, st.integers(1, 5), st.randoms(use_true_random=False), st.booleans())
def test_frames_are_found_however_they_come(sizes: list[int], most: int, chance: random.Random, masked: bool) -> None:
    data = b"".join(frame(size, masked=masked) for size in sizes)
    heads, found, taken, at = FrameHeads(), 0, b"", 0
    while at < len(data):
        # A few bytes at a time, so that heads are cut, or many.
        piece = data[at : at + chance.choice([1, 2, 3, 5, 13, 1000, 100_000])]
        at += len(piece)
        begin = 0
        while begin < len(piece):
            count, end = heads.take(piece, begin, most)
            assert count <= most
            assert end > begin
            found += count
            taken += piece[begin:end]
            begin = end
    assert found == len(sizes)
    assert taken == data


def test_where_the_next_frame_begins() -> None:
    data = frame(3) + frame(200) + frame(0) + frame(5)
    heads = FrameHeads()
    assert heads.take(data, 0, 2) == (2, len(frame(3) + frame(200)))
    assert heads.take(data, len(frame(3) + frame(200)), 2) == (2, len(data))
    assert heads.take(frame(1), 0, 2) == (1, len(frame(1)))


def test_most_is_reached_at_a_head_that_is_cut() -> None:
    heads, data = FrameHeads(), frame(1) + frame(200)[:1]
    assert heads.take(data, 0, 1) == (1, len(frame(1)))
    assert heads.take(data, len(frame(1)), 1) == (1, len(data))
    assert heads.take(frame(200)[1:], 0, 1) == (0, len(frame(200)) - 1)
