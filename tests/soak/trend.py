"""Whether a series of measurements grows. Pure.

The slope is that of Theil and Sen, the median of the slopes of all pairs: a third of the values may be anything, a peak or
a step of the garbage collector, without moving it much. Its lower limit is Sen's (1968), by the normal approximation of
Kendall's S. Neighbouring values of memory depend on each other, which that does not know, so it is not a proof alone:
what counts is growth that is certain by it **and** larger than what is allowed.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

CONFIDENCE_Z = 2.576
"""99 %, two-sided."""
SETTLING = 1 / 3
"""That part of the time at the beginning is left out: caches fill, and the allocator finds its size."""
SAMPLES_MIN = 8
HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class Series:
    """Values of one thing, with the seconds at which they were taken, in order."""

    name: str
    seconds: Sequence[float]
    values: Sequence[float]

    def settled(self) -> Series:
        """Without the time in which the process was settling."""
        if not self.seconds:
            return self
        start = self.seconds[0] + (self.seconds[-1] - self.seconds[0]) * SETTLING
        kept = [i for i, at in enumerate(self.seconds) if at >= start]
        return Series(self.name, [self.seconds[i] for i in kept], [self.values[i] for i in kept])


@dataclass(frozen=True, slots=True)
class Allowed:
    """How much a series may grow over the time that is looked at: the larger of a share of its median, and a value."""

    share: float
    value: float

    def of(self, median: float) -> float:
        return max(self.share * median, self.value)


@dataclass(frozen=True, slots=True)
class Growth:
    """What a series does. `slope` and `low` are a second."""

    name: str
    span_s: float
    median: float
    slope: float
    low: float
    allowed: float
    """Over the span."""

    @property
    def is_flat(self) -> bool:
        return self.low * self.span_s <= self.allowed

    @property
    def share_per_hour(self) -> float:
        """The slope, for an hour, of the median."""
        return self.slope * HOUR_S / self.median if self.median else 0.0


def growth(series: Series, allowed: Allowed) -> Growth:
    """Raises ValueError if there are too few values to say anything."""
    settled = series.settled()
    if len(settled.values) < SAMPLES_MIN:
        raise ValueError(f"{series.name}: {len(settled.values)} values are too few; at least {SAMPLES_MIN} are needed")
    slope, low = _theil_sen(settled.seconds, settled.values)
    median = statistics.median(settled.values)
    return Growth(series.name, settled.seconds[-1] - settled.seconds[0], median, slope, low, allowed.of(median))


def _theil_sen(seconds: Sequence[float], values: Sequence[float]) -> tuple[float, float]:
    """The slope, and its lower limit."""
    slopes = sorted(
        (values[j] - values[i]) / (seconds[j] - seconds[i])
        for i in range(len(values))
        for j in range(i + 1, len(values))
        if seconds[j] > seconds[i]
    )
    n = len(values)
    spread = CONFIDENCE_Z * math.sqrt(n * (n - 1) * (2 * n + 5) / 18)
    lowest = max(0, math.floor((len(slopes) - spread) / 2))
    return statistics.median(slopes), slopes[lowest]
