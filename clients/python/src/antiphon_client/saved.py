"""What a session has folded, and what waits to be sent, as JSON: for an application to keep between processes. Pure.

A snapshot of the gateway stands where nothing runs; what is saved here may stand in the middle of a
run, and so carries all that it takes to judge the entries to come.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from ._json import JsonObject, as_count, as_object, as_objects, as_str, as_strings
from ._trace import headers_of
from .fold import Fold
from .ledger import Ledger, Past
from .outbox import Unsent
from .protocol import Cursor

FORMAT: Final = 1


@dataclass(frozen=True, slots=True)
class Saved:
    """A session as it was: folded up to `place`, given out up to `handled` (None: not iterated), and unsent messages."""

    session: str
    place: Cursor | None
    handled: Cursor | None
    fold: JsonObject = field(default_factory=dict)
    unsent: tuple[Unsent, ...] = ()

    @property
    def begin(self) -> Cursor | None:
        """After which entry to read; what is folded already is not folded again."""
        return self.place if self.handled is None else self.handled

    def as_dict(self) -> dict[str, object]:
        """Ready for JSON."""
        return {
            "format": FORMAT,
            "session": self.session,
            "cursor": None if self.place is None else str(self.place),
            "handled": None if self.handled is None else str(self.handled),
            "fold": self.fold,
            "unsent": [each.as_dict() for each in self.unsent],
        }

    @classmethod
    def parse(cls, raw: Mapping[str, object], session: str) -> Saved:
        """Read what `as_dict` has written. Raises ValueError for anything else, and for another session's."""
        if raw.get("format") != FORMAT or raw.get("session") != session:
            raise ValueError(f"not what `Session.save` wrote of session {session}")
        place, handled = (None if (text := as_str(raw.get(name))) is None else Cursor.parse(text) for name in _CURSORS)
        if place is None or handled is None or handled.epoch != place.epoch or handled.seq > place.seq:
            handled = None  # the fold's own place is good
        unsent = (Unsent.from_dict(each) for each in as_objects(raw.get("unsent")))
        fold = as_object(raw.get("fold")) or {}
        return cls(session, place, handled, fold, tuple(each for each in unsent if each is not None))


_CURSORS: Final = ("cursor", "handled")


def dump_fold(fold: Fold) -> dict[str, object]:
    """A fold as JSON, with all that its rules need."""
    return {"state": dump_ledger(fold.state.ledger), "messages": fold.transcript.dump()}


def load_fold(raw: JsonObject, message_limit: int | None) -> Fold:
    """The fold that `dump_fold` has written; what is malformed is left out."""
    fold = Fold(message_limit=message_limit)
    fold.state.ledger = load_ledger(as_object(raw.get("state")) or {})
    fold.transcript.load(as_objects(raw.get("messages")))
    return fold


def dump_ledger(ledger: Ledger) -> dict[str, object]:
    """As in a snapshot, and what a snapshot leaves out."""
    return {
        "snapshot": ledger.as_dict(),
        "partial": ledger.partial,
        "created": ledger.created,
        "asked": {key: {"agent": each.agent, "detached": each.detached} for key, each in ledger.queue.items()},
        "traces": {key: dict(each.trace) for key, each in ledger.calls.items() if each.trace},
        "detached": [key for key, each in ledger.runs.items() if each.detached],
        "seen": sorted(ledger.seen),
        "ended": [list(end) for end in ledger.ended],
        "past": {
            run_id: [sorted(past.calls), sorted(past.approvals), sorted(past.handoffs)]
            for run_id, past in ledger.past.items()
        },
        "written": dict(ledger.written),
    }


def load_ledger(raw: JsonObject) -> Ledger:
    """The ledger that `dump_ledger` has written; what is malformed is left out."""
    ledger = Ledger.from_dict(as_object(raw.get("snapshot")) or {})
    ledger.partial, ledger.created = raw.get("partial") is True, raw.get("created") is True
    for input_id, asked in (as_object(raw.get("asked")) or {}).items():
        if input_id in ledger.queue and isinstance(asked, dict):
            ledger.queue[input_id] = replace(
                ledger.queue[input_id], agent=as_str(asked.get("agent")), detached=asked.get("detached") is True
            )
    for call_id, trace in (as_object(raw.get("traces")) or {}).items():
        if call_id in ledger.calls:
            ledger.calls[call_id] = replace(ledger.calls[call_id], trace=headers_of(as_object(trace) or {}))
    for run_id in as_strings(raw.get("detached")):
        if run_id in ledger.runs:
            ledger.runs[run_id] = replace(ledger.runs[run_id], detached=True)
    ledger.seen = set(as_strings(raw.get("seen")))
    ledger.past = dict(_read_past(as_object(raw.get("past")) or {}))
    written = ((lane, as_count(number)) for lane, number in (as_object(raw.get("written")) or {}).items())
    ledger.written = {lane: number for lane, number in written if number is not None}
    ended = raw.get("ended")
    for end in ended if isinstance(ended, list) else []:
        match end:
            case [str() as input_id, None | dict() as by, bool() as taken_back]:
                ledger.ended.append((input_id, by, taken_back))
    return ledger


def _read_past(raw: JsonObject) -> Iterable[tuple[str, Past]]:
    for run_id, names in raw.items():
        match names:
            case [calls, approvals, handoffs]:
                yield run_id, Past(*(set(as_strings(each)) for each in (calls, approvals, handoffs)))
