"""A session as lines of JSON: written out whole, and restored into another log.

The first line says what follows; each other line is one entry, in the order of the log, at its place:
``{"place":"in"}``, ``{"place":"own","lane":…}``, ``{"place":"ev","lane":…}`` or ``{"place":"d","lane":…}``, with its `seq`
and its stored body as `entry`. In the new log entries get new sequences, so the writes of a lane are named by its new
fences; all else stays as it was, times included.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Iterable
from typing import Any

import orjson

from broker.codec import decode_at, entry_from_wire, entry_to_wire
from broker.errors import AntiphonError, CodecError
from broker.events import Entry
from broker.interfaces import SessionLog
from broker.lease import WriteId, parse_write_id
from broker.subjects import Kind, Place, SessionSubjects, place_of

FORMAT = "antiphon.session"
VERSION = 1


class TransferError(AntiphonError):
    """The lines are not those of an exported session, or the session to restore into is not empty."""


async def exported(log: SessionLog, subjects: SessionSubjects) -> AsyncIterator[bytes]:
    """The lines of a session: everything that its log holds when it is read. Raises Unavailable."""
    head = await log.head(subjects)
    last = 0 if head is None else head.seq
    yield _line({"format": FORMAT, "version": VERSION, "session": subjects.session, "head": last})
    position, end = 0, False
    while not end and position < last:
        page, end = await log.read(subjects, position)
        for stored in page:
            position = stored.seq
            place = place_of(stored.subject)
            if place is None or stored.seq > last:
                continue
            entry, _ = decode_at(place, stored.body)
            where = {"place": place.kind.value} | ({"lane": place.lane} if place.lane else {})
            yield _line({**where, "seq": stored.seq, "entry": entry_to_wire(entry)})


def _line(wire: dict[str, Any]) -> bytes:
    return orjson.dumps(wire, option=orjson.OPT_APPEND_NEWLINE)


async def restore(log: SessionLog, subjects: SessionSubjects, lines: Iterable[bytes]) -> int:
    """Writes an exported session into an empty one; returns the number of entries.

    What an owner wrote after it had lost its lane counted for nothing, and is left out. Raises TransferError (before
    anything is written, for a session that is not empty or lines of another kind), Unavailable.
    """
    rest = iter(lines)
    head = _parse(next(rest, b""), 1)
    if (head.get("format"), head.get("version")) != (FORMAT, VERSION):
        raise TransferError("line 1: this is not a session that `antiphon export` has written")
    if await log.head(subjects) is not None:
        raise TransferError(f"the session {subjects.session!r} is not empty: choose another name")
    restoring = _Restoring(log, subjects)
    for number, line in enumerate(rest, 2):
        await restoring.write(number, line)
    return restoring.written


class _Restoring:
    def __init__(self, log: SessionLog, subjects: SessionSubjects) -> None:
        self._log = log
        self._subjects = subjects
        self._fences: dict[str, tuple[int, int]] = {}
        """By lane: the fence in the old log, and the one in the new."""
        self.written = 0

    async def write(self, number: int, line: bytes) -> None:
        place, seq, entry = _read(number, line)
        match place.kind:
            case Kind.INPUT:
                await self._log.append_input(self._subjects, entry, f"import:{number}")
            case Kind.OWNER:
                _, expected = self._fences.get(place.lane, (0, 0))
                fence = await self._log.own(self._subjects, place.lane, expected, entry)
                self._fences[place.lane] = seq, fence
            case _:
                old, new = self._fences.get(place.lane, (0, 0))
                write = parse_write_id(entry.id)
                if write is None or write.fence != old:
                    return
                renamed = dataclasses.replace(entry, id=str(WriteId(new, write.n)))
                await self._log.append(self._subjects, place.lane, new, renamed)
        self.written += 1


def _read(number: int, line: bytes) -> tuple[Place, int, Entry]:
    wire = _parse(line, number)
    try:
        place = Place(Kind(wire["place"]), wire.get("lane", ""))
        return place, int(wire["seq"]), entry_from_wire(wire["entry"])
    except (KeyError, ValueError, TypeError, CodecError) as error:
        raise TransferError(f"line {number}: this is no entry of a session: {error}") from None


def _parse(line: bytes, number: int) -> dict[str, Any]:
    try:
        wire = orjson.loads(line)
    except orjson.JSONDecodeError:
        raise TransferError(f"line {number}: this is not JSON") from None
    if not isinstance(wire, dict):
        raise TransferError(f"line {number}: this is not a JSON object")
    return wire
