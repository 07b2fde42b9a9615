"""What each client has seen against the log: a part of it, in its order, with nothing missing."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.findings import Indexed, Kind, Violation, is_delta
from tests.chaos.history import Answer, CaughtUp, Copy, EntrySeen, Gap, Joined, Left, Logged, Record, Sent, Snapshot

_CURSOR_CODES = ("cursor_bad", "cursor_epoch", "cursor_future")


def check_views(indexed: Indexed) -> Iterator[Violation]:
    """All clients, each over all its subscriptions."""
    sequences = [logged.seq for logged in indexed.log]
    by_seq = {logged.seq: logged.entry for logged in indexed.log}
    for who, records in indexed.clients.items():
        view = _View(who, indexed.log, sequences, by_seq)
        for record in records:
            yield from view.take(record)
        yield from view.end()


@dataclass(slots=True)
class _View:
    """How far a client has come. `last` is None before it has a place."""

    who: str
    log: Sequence[Logged]
    sequences: Sequence[int]
    by_seq: Mapping[int, Mapping[str, Any]]
    last: int | None = None
    every: bool = False
    joined: bool = False
    holes: list[tuple[int, Violation]] = field(default_factory=list)
    """What was missing, by the entry that came instead. A gateway that finds out says so by a gap, and mends it."""

    def take(self, record: Record) -> Iterator[Violation]:
        match record:
            case Joined(after=after, every=every):
                self.joined, self.every = True, every
                if after is not None and after != self.last:
                    yield Violation(Kind.LOST_ENTRY, self.who, f"it went on after {after}, and was at {self.last}")
                self.last = after
            case Snapshot(as_of=as_of):
                self.last = as_of
            case EntrySeen(frame=frame):
                yield from self._entry(frame)
            case Gap(start=start):
                self.last = None
                self.holes = [(seq, hole) for seq, hole in self.holes if seq <= start]
            case CaughtUp(seq=seq):
                if self.last is None:
                    yield Violation(Kind.PHANTOM, self.who, "it was told that it had caught up before it had a place")
                    self.last = seq
                elif seq != self.last:
                    yield Violation(Kind.LOST_ENTRY, self.who, f"caught up at {seq}, and was at {self.last}")
            case Answer(op="subscribe", reply=reply) if reply.get("code") in _CURSOR_CODES:
                yield Violation(Kind.CURSOR_REFUSED, self.who, reply["code"])
            case Sent() | Answer() | Left() | Copy() | Logged():
                pass

    def end(self) -> Iterator[Violation]:
        """All of the log has come to it."""
        yield from (hole for _, hole in self.holes)
        if self.joined and self.sequences and self.last != self.sequences[-1]:
            yield Violation(Kind.LOST_ENTRY, self.who, f"it ended at {self.last}, the log at {self.sequences[-1]}")

    def _entry(self, frame: Mapping[str, Any]) -> Iterator[Violation]:
        seq, last = frame["seq"], self.last
        if last is None:
            yield Violation(Kind.PHANTOM, self.who, f"{seq} came before there was a place")
            last = frame["prev"]
        if seq <= last:
            yield Violation(Kind.DOUBLED_ENTRY, self.who, f"{seq}")
            return
        if frame["prev"] != last:
            yield Violation(Kind.LOST_ENTRY, self.who, f"{seq} came after {last}, and follows {frame['prev']}")
        else:
            self._between(frame, last)
        self.last = seq
        yield from self._as_logged(frame)

    def _between(self, frame: Mapping[str, Any], last: int) -> None:
        """What the log has between an entry and the one before it: nothing, or deltas that segments make up for."""
        start = bisect_right(self.sequences, last)
        between = self.log[start : bisect_right(self.sequences, frame["seq"] - 1)]
        missing = [logged.seq for logged in between if self.every or not is_delta(logged.entry)]
        if missing:
            hole = Violation(Kind.LOST_ENTRY, self.who, f"{missing} before {frame['seq']}")
            self.holes.append((frame["seq"], hole))

    def _as_logged(self, frame: Mapping[str, Any]) -> Iterator[Violation]:
        logged = self.by_seq.get(frame["seq"])
        if logged is None or logged["id"] != frame["id"]:
            yield Violation(Kind.PHANTOM, self.who, f"{frame['seq']} {frame['id']}")
        elif "merged" not in frame and not same_events(frame["events"], logged["events"]):
            yield Violation(Kind.PHANTOM, self.who, f"{frame['seq']} {frame['id']} says something else")


def same_events(seen: Sequence[Mapping[str, Any]], logged: Sequence[Mapping[str, Any]]) -> bool:
    """They say the same. Segments come without their text to whoever has had the deltas."""
    return len(seen) == len(logged) and all(map(_same, seen, logged))


def _same(seen: Mapping[str, Any], logged: Mapping[str, Any]) -> bool:
    if logged["type"] == "message.segment" and "text" not in seen:
        return dict(seen) == {key: value for key, value in logged.items() if key != "text"}
    return dict(seen) == dict(logged)
