"""The nemesis' schedule: the same for a seed, and every kind of fault in it."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from tests.chaos.nemesis import kinds_here, schedule
from tests.chaos.world import GATEWAYS, SERVERS, WORKERS

EVERYTHING = kinds_here(cuts=True, disks=True)


@given(st.integers(0, 2**32))
def test_a_seed_has_one_schedule(seed: int) -> None:
    first, again = (list(itertools.islice(schedule(seed, EVERYTHING), 60)) for _ in range(2))
    assert first == again
    # A longer run begins as a shorter one does.
    assert list(itertools.islice(schedule(seed, EVERYTHING), 20)) == first[:20]


@given(st.integers(0, 2**32))
def test_every_kind_comes_before_one_comes_again(seed: int) -> None:
    faults = list(itertools.islice(schedule(seed, EVERYTHING), len(EVERYTHING)))
    assert sorted(fault.kind for fault in faults) == sorted(EVERYTHING)
    for fault in faults:
        assert fault.lasts_s <= 4.0
        assert fault.target != fault.other or not fault.target


def test_what_a_machine_cannot_do_is_left_out() -> None:
    without = set(kinds_here(cuts=False, disks=False))
    assert set(EVERYTHING) - without == {"partition", "isolation", "slow disk", "full disk"}


def test_every_part_is_hurt() -> None:
    hurt = {fault.target for fault in itertools.islice(schedule(1, EVERYTHING), 400)}
    assert {*SERVERS, *GATEWAYS, *WORKERS} <= hurt
