"""Entries to the frames of a reader: live ones shared by all, replayed ones merged. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from broker import codec
from broker.events import Entry, MessageSegment, StepRecorded
from broker.lease import fence_in
from broker.subjects import Place

_TEXT_KEYS = {
    "TEXT_MESSAGE_CONTENT": "messageId",
    "REASONING_MESSAGE_CONTENT": "messageId",
    "TOOL_CALL_ARGS": "toolCallId",
}
MERGED_TEXT_MAX = 32_768
"""Code points that merged deltas may add up to in one frame."""


@dataclass(slots=True)
class ReplayEntry:
    """An entry to be sent: `prev` is the entry before it in the log; `delta` says that it may be merged. Not to be changed,
    as a `StoredEntry`.

    Where `body` leaves out the text of segments, `settles` names their streams, and `full` is the body with the text.
    """

    seq: int
    prev: int
    body: bytes
    delta: bool
    settles: tuple[str, ...] = ()
    full: bytes = b""


def sane_body(entry: Entry, faithful: bool, body: bytes) -> bytes:
    """The body that clients get: as stored if it says only what its writer may say, else without the rest."""
    return body if faithful else codec.encode(entry)


def delta_body(place: Place, body: bytes) -> bytes:
    """As `sane_body`, for a delta, which is not taken apart unless something is odd about it."""
    return body if codec.is_plain_delta(place, body) else sane_body(*codec.decode_at(place, body), body)


def for_clients(entry: Entry) -> Entry:
    """The entry as clients may see it; itself, nearly always. What a step came to is between attempts of its run."""
    if not any(isinstance(e, StepRecorded) and e.result is not None for e in entry.events):
        return entry
    return replace(
        entry, events=tuple(replace(e, result=None) if isinstance(e, StepRecorded) else e for e in entry.events)
    )


def settled_streams(entry: Entry) -> tuple[str, ...]:
    """The streams of which the entry has segments with text."""
    return tuple(event.message_id for event in entry.events if isinstance(event, MessageSegment) and event.text)


def without_settled_text(entry: Entry, body: bytes) -> bytes:
    """The body for readers that have had the deltas: segments lose their text."""
    if not settled_streams(entry):
        return body
    events = tuple(replace(e, text=None) if isinstance(e, MessageSegment) else e for e in entry.events)
    return codec.encode(replace(entry, events=events))


def for_doubtful(entries: Iterable[ReplayEntry], settled: int, had: set[str]) -> list[ReplayEntry]:
    """Ring entries for a reader that lacks deltas up to entry `settled`, and may lack earlier ones.

    Segments up to `settled` keep their text, and so does each stream's first one after it, which may stand for deltas
    from before. The ones that follow stand for deltas among the entries. `had` holds the streams whose first segment
    the reader has been given, and is brought up to date.
    """
    out = []
    for entry in entries:
        doubtful = entry.seq <= settled or not had.issuperset(entry.settles)
        if entry.seq <= settled:
            had.clear()
        else:
            had.update(entry.settles)
        out.append(replace(entry, body=entry.full) if doubtful and entry.settles else entry)
    return out


def pieces(entries: Sequence[ReplayEntry], size: int) -> Iterator[list[ReplayEntry]]:
    """The entries in runs of at most so many bytes of bodies, or one that has more."""
    piece: list[ReplayEntry] = []
    held = 0
    for entry in entries:
        if piece and held + len(entry.body) > size:
            yield piece
            piece, held = [], 0
        piece.append(entry)
        held += len(entry.body)
    if piece:
        yield piece


def frames(session: str, entries: Iterable[ReplayEntry], last: int, *, merge: bool) -> list[bytes]:
    """Frames for entries that follow `last` in what the reader is given. With `merge`, neighbouring deltas are joined."""
    out: list[bytes] = []
    pending: _Merger | None = None
    for entry in entries:
        if merge and entry.delta:
            if pending is not None and pending.join(entry):
                continue
            if pending is not None:
                out.append(pending.frame(session, last))
                last = pending.seq
            pending = _Merger.start(entry)
            if pending is not None:
                continue
        elif pending is not None:
            out.append(pending.frame(session, last))
            last, pending = pending.seq, None
        out.append(codec.frame(session, entry.seq, last, entry.body))
        last = entry.seq
    if pending is not None:
        out.append(pending.frame(session, last))
    return out


class _Merger:
    """Joins deltas of one text that follow each other."""

    __slots__ = ("_count", "_key", "_parts", "_size", "_wire", "seq")

    def __init__(self, entry: ReplayEntry, wire: dict[str, Any], key: tuple[Any, ...], text: str) -> None:
        self.seq = entry.seq
        self._wire = wire
        self._key = key
        self._parts = [text]
        self._size = len(text)
        self._count = 1

    @classmethod
    def start(cls, entry: ReplayEntry) -> _Merger | None:
        """None for a body that cannot be merged."""
        read = _read_delta(entry.body)
        return None if read is None else cls(entry, *read)

    def join(self, entry: ReplayEntry) -> bool:
        read = _read_delta(entry.body)
        if read is None:
            return False
        wire, key, text = read
        if (
            key != self._key
            or wire["off"] != self._wire["off"] + self._size
            or self._size + len(text) > MERGED_TEXT_MAX
        ):
            return False
        self._parts.append(text)
        self._size += len(text)
        self._count += 1
        self.seq = entry.seq
        self._wire["id"] = wire["id"]
        return True

    def frame(self, session: str, last: int) -> bytes:
        wire = self._wire
        wire["events"][0]["delta"] = "".join(self._parts)
        if self._count > 1:
            wire["merged"] = self._count
        return codec.frame(session, self.seq, last, orjson.dumps(wire))


def _read_delta(body: bytes) -> tuple[dict[str, Any], tuple[Any, ...], str] | None:
    try:
        wire = orjson.loads(body)
        (event,) = wire["events"]
        text, off = event["delta"], wire["off"]
        fence = fence_in(wire["id"])
        key = (wire["lane"], event["type"], event[_TEXT_KEYS[event["type"]]], fence)
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError):
        return None
    if fence is None or not isinstance(text, str) or not isinstance(off, int):
        return None
    return wire, key, text
