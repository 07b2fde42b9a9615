"""The verdict of a soak finds planted leaks under noise, and takes noise for none; its books find what does not add up."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest

from tests.soak.books import CAUGHT_UP, Books, Counted, Due, parsed
from tests.soak.trend import Allowed, Series, growth
from tests.soak.verdict import MB, Verdict

HOUR_S = 3600.0
EVERY_S = 15.0
MEMORY = Allowed(0.04, 1.5 * MB)
BASE = 60 * MB


def series(value: Callable[[float], float], *, hours: float = 1.0, name: str = "gateway-0 memory") -> Series:
    seconds = [i * EVERY_S for i in range(int(hours * HOUR_S / EVERY_S))]
    return Series(name, seconds, [value(at) for at in seconds])


def noise(seed: int, of: float) -> Callable[[float], float]:
    rng = random.Random(seed)
    return lambda _: rng.gauss(0, of)


FLAT: dict[str, Callable[[random.Random, float], float]] = {
    "still": lambda _rng, _at: BASE,
    "noisy": lambda rng, _at: BASE + rng.gauss(0, 2 * MB),
    "a sawtooth, as of a garbage collector": lambda _rng, at: BASE + 8 * MB * (at % 300) / 300,
    "waves of people": lambda rng, at: BASE + 5 * MB * math.sin(at / 60) + rng.gauss(0, MB),
    "peaks": lambda rng, _at: BASE + (40 * MB if rng.random() < 0.1 else 0) + rng.gauss(0, MB),
    "caches that fill at first": lambda rng, at: BASE + 20 * MB * (1 - math.exp(-at / 200)) + rng.gauss(0, MB / 2),
    "a step up at first": lambda rng, at: BASE + (10 * MB if at > 600 else 0) + rng.gauss(0, MB / 2),
    "shrinking": lambda rng, at: BASE - 6 * MB * at / HOUR_S + rng.gauss(0, MB),
}
LEAKS: dict[str, Callable[[random.Random, float], float]] = {
    "a slow one": lambda rng, at: BASE + 6 * MB * at / HOUR_S + rng.gauss(0, MB / 4),
    "under noise of its own size": lambda rng, at: BASE + 10 * MB * at / HOUR_S + rng.gauss(0, 4 * MB),
    "under a sawtooth": lambda _rng, at: BASE + 10 * MB * at / HOUR_S + 8 * MB * (at % 300) / 300,
    "by steps": lambda rng, at: BASE + 2 * MB * (at // 400) + rng.gauss(0, MB / 2),
    "under peaks": lambda rng, at: BASE + 12 * MB * at / HOUR_S + (40 * MB if rng.random() < 0.1 else 0),
    "one that begins late": lambda rng, at: BASE + max(0.0, 20 * MB * (at - 1800) / HOUR_S) + rng.gauss(0, MB / 4),
}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kind", FLAT)
def test_what_is_flat(kind: str, seed: int) -> None:
    rng = random.Random(seed)
    seen = growth(series(lambda at: FLAT[kind](rng, at)), MEMORY)
    assert seen.is_flat, seen


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kind", LEAKS)
def test_a_planted_leak_is_found(kind: str, seed: int) -> None:
    rng = random.Random(seed)
    seen = growth(series(lambda at: LEAKS[kind](rng, at)), MEMORY)
    assert not seen.is_flat, seen


def test_the_slope_is_that_of_the_leak() -> None:
    jitter = noise(1, 0.2 * MB)
    seen = growth(series(lambda at: BASE + 10 * MB * at / HOUR_S + jitter(at)), MEMORY)
    assert seen.slope * HOUR_S == pytest.approx(10 * MB, rel=0.02)
    assert 0 < seen.low < seen.slope
    assert seen.share_per_hour == pytest.approx(10 / 66.7, rel=0.03)


def test_a_file_that_stays_open_every_five_minutes() -> None:
    allowed = Allowed(0.0, 3.0)
    assert not growth(series(lambda at: 20 + at // 300, name="gateway-0 files"), allowed).is_flat
    assert growth(series(lambda at: 20 + at // 60 % 5, name="gateway-0 files"), allowed).is_flat


def test_too_few_values_say_nothing() -> None:
    with pytest.raises(ValueError, match="too few"):
        growth(series(lambda at: at, hours=0.03), MEMORY)


def test_the_verdict_names_what_grows() -> None:
    verdict = Verdict()
    verdict.flat([series(lambda _: BASE), series(lambda at: 100 + at / 60, name="gateway-0 tasks")])
    assert [wrong.partition(":")[0] for wrong in verdict.wrong] == ["gateway-0 tasks grows"]
    assert len(verdict.lines) == 2


def test_the_memory_of_a_short_run_is_told_and_not_judged() -> None:
    """Other things of it are judged."""
    verdict = Verdict()
    rising = [series(lambda at: BASE + at * MB, hours=0.1), series(lambda at: at, hours=0.1, name="gateway-0 files")]
    verdict.flat(rising)
    assert "too short" in verdict.lines[0]
    assert [wrong.partition(":")[0] for wrong in verdict.wrong] == ["gateway-0 files grows"]


def test_the_verdict_names_what_is_left_over() -> None:
    verdict = Verdict()
    verdict.back({"gateway-0 tasks": 12, "nats subscriptions": 90}, {"gateway-0 tasks": 13, "nats subscriptions": 88})
    assert verdict.wrong == ["gateway-0 tasks: 1 are left over"]


# --- the books -------------------------------------------------------------------------------------------------------------


def gateway(**changed: float) -> dict[str, float]:
    """The samples of a gateway whose sums are right: 100 = 80 + 20."""
    entries = "antiphon_gateway_entries_"
    samples = {f'{entries}caught_up_total{{how="{how}"}}': 0.0 for how in CAUGHT_UP}
    samples |= {
        f"{entries}due_total": 100.0,
        f"{entries}delivered_total": 80.0,
        f'{entries}caught_up_total{{how="frame"}}': 4.0,
        f'{entries}caught_up_total{{how="merged"}}': 10.0,
        f'{entries}caught_up_total{{how="left_out"}}': 5.0,
        f"{entries}in_flight": 1.0,
        f'{entries}replayed_total{{how="frame"}}': 6.0,
        f'{entries}replayed_total{{how="merged"}}': 3.0,
        'antiphon_log_messages_stored_total{kind="entry"}': 7.0,
        'antiphon_log_messages_stored_total{kind="checkpoint"}': 0.0,
    }
    return samples | {f"{entries}{name}": value for name, value in changed.items()}


def books(**changed: float) -> Books:
    worker = {
        'antiphon_log_messages_stored_total{kind="entry"}': 30.0,
        'antiphon_log_messages_stored_total{kind="checkpoint"}': 2.0,
        'antiphon_log_messages_stored_total{kind="duplicate"}': 5.0,
    }
    return Books({"gateway-0": gateway(**changed)}, {"worker-0": worker}, Counted(frames=90, merged=13), 39)


def test_books_that_are_right() -> None:
    assert books().wrong() == []
    assert Due.of(gateway()).missing == 0
    assert any("in flight 1" in line for line in books().lines())


@pytest.mark.parametrize(
    ("name", "missing"),
    [("due_total", 1), ("delivered_total", -1), ("in_flight", -1), ('caught_up_total{how="unread"}', -1)],
)
def test_an_entry_too_many_or_too_few_at_a_gateway(name: str, missing: int) -> None:
    before = gateway()[f"antiphon_gateway_entries_{name}"]
    changed = books(**{name: before + 1})
    assert Due.of(changed.gateways["gateway-0"]).missing == missing
    assert any("cannot be found again" in wrong for wrong in changed.wrong())


def test_a_frame_that_no_reader_got() -> None:
    wrong = books(**{'replayed_total{how="frame"}': 7.0}).wrong()
    assert wrong == ["gateways say that they gave 91 frames; readers have counted 90"]


def test_a_message_that_nobody_says_to_have_stored() -> None:
    right = books()
    right.stored += 1
    assert right.wrong() == ["processes say that they stored 39 messages; the streams were given 40"]


@pytest.mark.parametrize("what", ["twice", "lost", "missing"])
def test_what_a_reader_has_counted(what: str) -> None:
    right = books()
    setattr(right.counted, what, 2)
    assert right.wrong() == [f"readers have counted 2 entries {what}"]


def test_an_exposition_is_read_with_its_labels() -> None:
    text = '# HELP a b\n# TYPE a counter\na_total{how="x"} 3.0\nb 1e3\n'
    assert parsed(text) == {'a_total{how="x"}': 3.0, "b": 1000.0}
