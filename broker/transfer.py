"""A session as lines of JSON: written out whole, and restored into another log.

The first line says what follows; each other line is one entry, in the order of the log, at its place:
``{"place":"in"}``, ``{"place":"own","lane":…}``, ``{"place":"ev","lane":…}`` or ``{"place":"d","lane":…}``, with its `seq`
and its stored body as `entry`. Attachments follow (`broker.carrying`). In the new log entries get new sequences, so the writes of a lane are named by its new
fences; all else stays as it was, times included.
"""

from __future__ import annotations

import asyncio
import dataclasses
import secrets
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

import orjson

from broker.carrying import carried, carrying, is_carried, referred
from broker.codec import decode_at, entry_from_wire, entry_to_wire
from broker.errors import AntiphonError, AttachmentGone, CodecError, Unavailable
from broker.events import (
    Entry,
    InputScheduled,
    InputSent,
    Participant,
    SessionClosed,
    SessionCreated,
    SessionDeleted,
    SessionReopened,
)
from broker.interfaces import AttachmentStore, SessionLog
from broker.lease import WriteId, parse_write_id
from broker.subjects import AttachmentPlace, Kind, Place, SessionSubjects, place_of
from broker.tail import StoredEntry

FORMAT = "antiphon.session"
VERSION = 1


_NOBODY = Participant("system", "")
_STALE_S, _STALE_WAIT_S = 10.0, 0.02
"""How long a replica of the log may stay behind its leader."""


class TransferError(AntiphonError):
    """The lines are not those of an exported session, or the session to restore into holds something else."""


class Deleted(AntiphonError):
    """The session was deleted while it was read: what was read is not all of what there was, nor what is there now."""


class Into(Enum):
    """What the session that is restored into may hold."""

    EMPTY = auto()
    PART = auto()
    """The beginning of the same: then the rest is written; what it holds beyond that is left as it is."""
    SAME = auto()
    """All of it: nothing is written, and what is missing is an error."""


async def exported(
    log: SessionLog, subjects: SessionSubjects, attachments: AttachmentStore | None = None
) -> AsyncIterator[bytes]:
    """The lines of a session: everything that its log holds when it is read, and the attachments that messages refer to.

    Raises Unavailable, Deleted.
    """
    head = await log.head(subjects)
    last = 0 if head is None else head.seq
    yield _line({"format": FORMAT, "version": VERSION, "session": subjects.key, "head": last})
    first = begun = 0
    attached: dict[str, None] = {}
    async for stored in entries_until(log, subjects, last):
        first = first or stored.seq
        place = place_of(stored.subject)
        if place is None:
            continue
        entry, _ = decode_at(place, stored.body)
        begun = stored.seq if _deletes(entry) else begun
        attached.update(dict.fromkeys(referred(entry)))
        where = {"place": place.kind.value} | ({"lane": place.lane} if place.lane else {})
        yield _line({**where, "seq": stored.seq, "entry": entry_to_wire(entry)})
    if attachments is not None:
        try:
            async for wire in carried(attachments, AttachmentPlace(subjects.key, begun), attached):
                yield _line(wire)
        except AttachmentGone:
            raise Deleted(f"an attachment of {subjects.key!r} was deleted while it was read") from None
    # The first entry is a record, which only a deletion takes away; it may have taken others that were not read yet.
    if first and not await log.holds(subjects, first):
        raise Deleted(f"the session {subjects.key!r} was deleted while it was read")


def _deletes(entry: Entry) -> bool:
    """Whether the session begins anew with it."""
    return any(isinstance(event, SessionDeleted) for event in entry.events)


async def entries_until(log: SessionLog, subjects: SessionSubjects, last: int) -> AsyncIterator[StoredEntry]:
    """What the log holds up to entry `last`, which its leader has named. Raises Unavailable."""
    loop = asyncio.get_running_loop()
    position, deadline = 0, loop.time() + _STALE_S
    while position < last:
        page, end = await log.read(subjects, position)
        for stored in page:
            position = stored.seq
            if position <= last:
                yield stored
        if page:
            deadline = loop.time() + _STALE_S
        elif end and not await log.holds(subjects, last):
            return  # it was a delta, and has aged out
        elif loop.time() > deadline:
            raise Unavailable("a replica of the log stays behind")
        else:
            await asyncio.sleep(_STALE_WAIT_S)


def _line(wire: dict[str, Any]) -> bytes:
    return orjson.dumps(wire, option=orjson.OPT_APPEND_NEWLINE)


@dataclass(frozen=True, slots=True)
class Restored:
    """What came of a restoration: entries that were written, and those that had been there before."""

    written: int
    present: int
    active: Mapping[str, int]
    """When each user was last active in the session, ms since 1970."""
    closed_by: Participant | None
    """Who has closed the session, if it is closed."""
    beyond: bool
    """The session holds more than was restored: it has gone on since an earlier restoration."""


async def restore(
    log: SessionLog,
    subjects: SessionSubjects,
    lines: AsyncIterable[bytes],
    *,
    into: Into = Into.EMPTY,
    attachments: AttachmentStore | None = None,
) -> Restored:
    """Writes an exported session into another one; `into` says what that may hold.

    What an owner wrote after it had lost its lane counted for nothing, and is left out. Raises TransferError (for lines of
    another kind and a session with other content, before anything is written), CarryingError, Unavailable.
    """
    reading = aiter(lines)
    _check_head(_parse(await anext(reading, b""), 1))
    found = await log.head(subjects)
    if found is not None and into is Into.EMPTY:
        raise TransferError(f"the session {subjects.key!r} is not empty: choose another name")
    restoring = _Restoring(log, subjects, 0 if found is None else found.seq, into)
    async with carrying(attachments, subjects.key, only_compare=into is Into.SAME) as carrier:
        number = 1
        async for line in reading:
            number += 1
            wire = _parse(line, number)
            if not is_carried(wire):
                await restoring.take(number, wire)
            elif carrier is not None:
                await carrier.take(wire, restoring.begun)
    return await restoring.restored()


class _Restoring:
    def __init__(self, log: SessionLog, subjects: SessionSubjects, head: int, into: Into) -> None:
        self._log = log
        self._subjects = subjects
        self._into = into
        self._there = aiter(entries_until(log, subjects, head))
        self._next: tuple[int, Place, Entry] | None = None
        self._id = secrets.token_hex(6)
        """A session may be restored, deleted and restored again within the time in which the log knows ids."""
        self._fences: dict[str, tuple[int, int]] = {}
        """By lane: the fence in the old log, and the one in the new."""
        self._written = self._present = 0
        self.begun = 0
        """Where the new session began anew, as far as it is restored."""
        self._active: dict[str, int] = {}
        self._closed_by: Participant | None = None

    async def restored(self) -> Restored:
        beyond = await self._peek() is not None
        return Restored(self._written, self._present, self._active, self._closed_by, beyond)

    async def take(self, number: int, wire: Mapping[str, Any]) -> None:
        """Sees to it that a line's entry is in the log: it is there already, or is written now."""
        place, seq, entry = _read(number, wire)
        self._note(entry)
        renamed = self._renamed(place, entry)
        if renamed is None:
            return
        there = await self._peek()
        if there is None:
            if self._into is Into.SAME and place.kind is Kind.DELTA:
                return  # it has aged out
            if self._into is Into.SAME:
                raise TransferError(f"line {number}: the session {self._subjects.key!r} lacks this entry")
            self._stored(place, seq, entry, await self._write(number, place, renamed))
            self._written += 1
        elif there[1:] == (place, renamed):
            self._stored(place, seq, entry, there[0])
            self._next = None
            self._present += 1
        elif place.kind is not Kind.DELTA:  # which may have aged out there
            raise TransferError(f"line {number}: the session {self._subjects.key!r} holds something else")

    def _renamed(self, place: Place, entry: Entry) -> Entry | None:
        """The entry as the new log has it; None for one that counted for nothing."""
        if place.kind in (Kind.INPUT, Kind.OWNER):
            return entry
        old, new = self._fences.get(place.lane, (0, 0))
        write = parse_write_id(entry.id)
        if write is None or write.fence != old:
            return None
        return dataclasses.replace(entry, id=str(WriteId(new, write.n)))

    async def _peek(self) -> tuple[int, Place, Entry] | None:
        """The next entry that is there already, in the order of the log."""
        while self._next is None:
            stored = await anext(self._there, None)
            if stored is None:
                return None
            place = place_of(stored.subject)
            if place is not None:
                self._next = stored.seq, place, decode_at(place, stored.body)[0]
        return self._next

    async def _write(self, number: int, place: Place, entry: Entry) -> int:
        match place.kind:
            case Kind.INPUT:
                return (await self._log.append_input(self._subjects, entry, f"import:{self._id}:{number}")).seq
            case Kind.OWNER:
                _, expected = self._fences.get(place.lane, (0, 0))
                return await self._log.own(self._subjects, place.lane, expected, entry)
            case _:
                return await self._log.append(
                    self._subjects, place.lane, self._fences.get(place.lane, (0, 0))[1], entry
                )

    def _stored(self, place: Place, old: int, entry: Entry, new: int) -> None:
        if place.kind is Kind.OWNER:
            self._fences[place.lane] = old, new
        elif place.kind is Kind.INPUT and _deletes(entry):
            self.begun = new

    def _note(self, entry: Entry) -> None:
        for event in entry.events:
            match event:
                case InputSent() | InputScheduled() | SessionCreated() if (
                    entry.by is not None and entry.by.kind == "user"
                ):
                    self._active[entry.by.id] = entry.ts
                case SessionClosed():
                    self._closed_by = entry.by or _NOBODY
                case SessionReopened():
                    self._closed_by = None
                case SessionDeleted():
                    self._active.clear()
                    self._closed_by = None
                case _:
                    pass


def entries_of(lines: Iterable[bytes]) -> list[tuple[int, Entry]]:
    """All entries of an exported session, as they were in the old log. Raises TransferError."""
    found: list[tuple[int, Entry]] = []
    for number, line in enumerate(lines, 1):
        wire = _parse(line, number)
        if number == 1:
            _check_head(wire)
        elif not is_carried(wire):
            _, seq, entry = _read(number, wire)
            found.append((seq, entry))
    return found


def _check_head(wire: Mapping[str, Any]) -> None:
    if (wire.get("format"), wire.get("version")) != (FORMAT, VERSION):
        raise TransferError("line 1: this is not a session that `antiphon export` has written")


def _read(number: int, wire: Mapping[str, Any]) -> tuple[Place, int, Entry]:
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
