"""What a soak comes to: whether anything grew, was left behind, or does not add up. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tests.soak.trend import HOUR_S, Allowed, Growth, Series, growth

MB = 1_000_000

ALLOWED: Mapping[str, Allowed] = {
    "memory": Allowed(0.04, 1.5 * MB),
    "files": Allowed(0.0, 3.0),
    "threads": Allowed(0.0, 1.0),
    "tasks": Allowed(0.05, 4.0),
    "subscriptions": Allowed(0.05, 4.0),
    "connections": Allowed(0.05, 4.0),
    "sessions": Allowed(0.05, 4.0),
    "participants": Allowed(0.05, 4.0),
}
"""How much may be gained over the last two thirds of the time, whatever that time is."""
OF_NATS: Mapping[str, Allowed] = {"memory": Allowed(0.25, 10 * MB), "files": Allowed(0.2, 20.0)}
"""nats-server collects its garbage in large steps, keeps what it has read, and opens files as its streams grow."""


MEMORY_JUDGED_S, MEMORY_OF_NATS_JUDGED_S = 300.0, 1500.0
"""Over less than that, without the time at the beginning, memory is still settling, and its growth says nothing.
nats-server fills its caches for a quarter of an hour."""


@dataclass(slots=True)
class Verdict:
    """`lines` is what was seen, `wrong` what must not be."""

    lines: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.wrong

    def flat(self, all_series: Iterable[Series]) -> None:
        """Nothing may grow."""
        for series in all_series:
            process, _, thing = series.name.partition(" ")
            allowed = (OF_NATS if process == "nats" else {}).get(thing, ALLOWED[thing])
            seen = growth(series, allowed)
            judged_s = MEMORY_OF_NATS_JUDGED_S if process == "nats" else MEMORY_JUDGED_S
            judged = thing != "memory" or seen.span_s >= judged_s
            self.lines.append(_told(thing, seen) + ("" if judged else ", too short to be judged"))
            if judged and not seen.is_flat:
                self.wrong.append(f"{series.name} grows: {_told(thing, seen)}")

    def back(self, before: Mapping[str, float], after: Mapping[str, float]) -> None:
        """When everybody has left, everything is as it was before anybody came."""
        for name, value in before.items():
            left = after[name] - value
            self.lines.append(f"{name}: {value:g} before, {after[name]:g} after everybody has left")
            if left > 0:
                self.wrong.append(f"{name}: {left:g} are left over")

    def sums(self, wrong: Sequence[str], lines: Sequence[str]) -> None:
        self.lines += lines
        self.wrong += wrong


def _told(thing: str, seen: Growth) -> str:
    scale, unit = (MB, " MB") if thing == "memory" else (1.0, "")
    sees = seen.allowed * HOUR_S / seen.span_s / scale
    return (
        f"{seen.name}: {seen.median / scale:.1f}{unit}, {seen.slope * HOUR_S / scale:+.2f}{unit}/h "
        f"(at least {seen.low * HOUR_S / scale:+.2f}; more than {sees:.2f} would be too much)"
    )
