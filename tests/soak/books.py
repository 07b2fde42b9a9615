"""The sums that must be right: what gateways and workers say they did, what NATS says, and what readers have counted. Pure.

* At every moment, at each gateway: what was due to readers is delivered, caught up, or in flight (`gateway.dues`).
* At the end, of all processes: what they say they stored is what the streams have been given.
* At the end, of all readers: what they have got is what gateways say they gave; nobody got anything twice, or out of order.
* Of each reader that wants every entry: it got as many as the session's log holds for the time that it was there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

Samples = Mapping[str, float]
"""Of an exposition: each sample's name, with its labels, and its value."""

CAUGHT_UP = ("frame", "merged", "left_out", "superseded", "unread")
_ENTRIES = "antiphon_gateway_entries_"


def parsed(exposition: str) -> dict[str, float]:
    """All samples of a Prometheus exposition."""
    found = {}
    for line in exposition.splitlines():
        if line and not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            found[name] = float(value)
    return found


@dataclass(frozen=True, slots=True)
class Due:
    """What was due to a gateway's readers, and what has become of it."""

    due: int
    delivered: int
    caught_up: Mapping[str, int]
    in_flight: int

    @classmethod
    def of(cls, samples: Samples) -> Due:
        return cls(
            int(samples[f"{_ENTRIES}due_total"]),
            int(samples[f"{_ENTRIES}delivered_total"]),
            {how: int(samples[f'{_ENTRIES}caught_up_total{{how="{how}"}}']) for how in CAUGHT_UP},
            int(samples[f"{_ENTRIES}in_flight"]),
        )

    @property
    def missing(self) -> int:
        """What cannot be found again; negative: what was counted twice."""
        return self.due - self.delivered - sum(self.caught_up.values()) - self.in_flight


@dataclass(slots=True)
class Counted:
    """What readers have got, as they have counted it themselves."""

    readers: int = 0
    frames: int = 0
    merged: int = 0
    """Entries that frames stood for beside their first."""
    twice: int = 0
    lost: int = 0
    missing: int = 0
    """Of readers that want every entry: those of the log that they did not get, or got beyond it."""
    audited: int = 0
    """Entries of the log that such readers were to get."""
    left_out: int = 0
    """Of the other readers: entries of the log for which they got something that says the same."""


@dataclass(slots=True)
class Books:
    """The last samples of each process, and what readers have counted."""

    gateways: dict[str, Samples] = field(default_factory=dict)
    workers: dict[str, Samples] = field(default_factory=dict)
    counted: Counted = field(default_factory=Counted)
    stored: int = 0
    """Messages that the streams of sessions have been given, by their sequences."""

    def wrong(self) -> list[str]:
        """What does not add up; empty if all does."""
        return [*self._unfound(), *self._unstored(), *self._ungiven(), *self._unread()]

    def _unfound(self) -> Iterable[str]:
        for name, samples in self.gateways.items():
            if missing := Due.of(samples).missing:
                yield f"{name}: {missing} entries that were due cannot be found again ({Due.of(samples)})"

    def _unstored(self) -> Iterable[str]:
        said = sum(
            samples[f'antiphon_log_messages_stored_total{{kind="{kind}"}}']
            for samples in (*self.gateways.values(), *self.workers.values())
            for kind in ("entry", "checkpoint")
        )
        if said != self.stored:
            yield f"processes say that they stored {said:.0f} messages; the streams were given {self.stored}"

    def _ungiven(self) -> Iterable[str]:
        given = {
            "frames": self._sum("delivered_total", 'caught_up_total{how="frame"}', 'replayed_total{how="frame"}'),
            "merged": self._sum('caught_up_total{how="merged"}', 'replayed_total{how="merged"}'),
        }
        got = {"frames": self.counted.frames, "merged": self.counted.merged}
        for what, count in given.items():
            if count != got[what]:
                yield f"gateways say that they gave {count} {what}; readers have counted {got[what]}"

    def _unread(self) -> Iterable[str]:
        for what in ("twice", "lost", "missing"):
            if count := getattr(self.counted, what):
                yield f"readers have counted {count} entries {what}"

    def _sum(self, *names: str) -> int:
        return int(sum(samples[f"{_ENTRIES}{name}"] for samples in self.gateways.values() for name in names))

    def lines(self) -> Sequence[str]:
        """What adds up, in numbers."""
        dues = [Due.of(samples) for samples in self.gateways.values()]
        how = {kind: sum(due.caught_up[kind] for due in dues) for kind in CAUGHT_UP}
        counted = self.counted
        caught_up = " + ".join(f"{count} ({kind})" for kind, count in how.items())
        due, delivered = sum(due.due for due in dues), sum(due.delivered for due in dues)
        in_flight = sum(due.in_flight for due in dues)
        return (
            f"stored in the log: {self.stored} messages, as processes say",
            f"due to readers: {due} = delivered {delivered} + caught up {caught_up} + in flight {in_flight}",
            f"readers: {counted.readers} stays got {counted.frames} frames and {counted.merged} entries merged into them",
            f"of these, twice {counted.twice}, lost {counted.lost}; gateways say the same",
            f"readers of every entry: {counted.audited} entries of the log, missing {counted.missing}",
            f"the other readers: {counted.left_out} entries were left out, since records say the same",
        )
