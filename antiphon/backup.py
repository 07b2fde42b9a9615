"""`antiphon backup` and `antiphon restore`: many sessions to a directory, and back. They speak to NATS, not to a gateway."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Final, Self, TypeVar

from antiphon.archive import Archive, Part, Saved
from antiphon.processes import BrokerSettings
from antiphon.transfer import Site, settle, users_of
from broker.clock import now_ms
from broker.errors import AntiphonError
from broker.jetstream.catalogue import sessions_of
from broker.subjects import stream_name
from broker.transfer import Deleted, Into, exported, restore

_TRIES: Final = 3
"""How often a session is read that is deleted while it is read."""

T = TypeVar("T")


@dataclass(slots=True)
class Tally:
    """What has come of the sessions, in numbers; each that failed is told at once."""

    done: int = 0
    unchanged: int = 0
    entries: int = 0
    bytes: int = 0
    failed: list[str] = field(default_factory=list)

    def fail(self, session: str, error: AntiphonError) -> None:
        self.failed.append(session)
        print(f"antiphon: {session}: {error}", file=sys.stderr)


async def backup(broker: BrokerSettings, path: Path, pattern: str, at_once: int) -> int:
    """Saves the sessions that match, but for those that have not changed since. Returns 1 if one could not be saved.

    Raises ArchiveError, ConfigError, TopologyError, Unavailable.
    """
    async with Site.of(broker) as site:
        archive, tally = Archive.made(path, site.log.partitions), Tally()
        for partition in range(archive.partitions):
            part = Part(path / stream_name(partition))
            known = part.saved()
            part.compact(known)
            names = sessions_of(site.connection, partition, pattern)
            await each(names, at_once, partial(_save, site, part, known, tally))
            part.compact(part.saved())
    print(
        f"{tally.done} sessions saved ({tally.entries} entries, {tally.bytes} bytes), {tally.unchanged} unchanged, "
        f"{len(tally.failed)} failed"
    )
    return 1 if tally.failed else 0


async def _save(site: Site, part: Part, known: dict[str, Saved], tally: Tally, name: str) -> None:
    subjects = site.log.subjects(name)
    try:
        epoch, head = await site.log.epoch(subjects), await site.log.head(subjects)
        before = known.get(name)
        if before is not None and head is not None and (before.epoch, before.head) == (epoch, head.seq):
            tally.unchanged += 1
            return
        saved = await _saved(site, part, name, epoch)
    except AntiphonError as error:
        tally.fail(name, error)
        return
    tally.done += 1
    tally.entries += saved.entries
    tally.bytes += saved.bytes


async def _saved(site: Site, part: Part, name: str, epoch: str) -> Saved:
    for _ in range(_TRIES - 1):
        with contextlib.suppress(Deleted):
            return await part.save(name, epoch, now_ms(), exported(site.log, site.log.subjects(name), site.attachments))
    return await part.save(name, epoch, now_ms(), exported(site.log, site.log.subjects(name), site.attachments))


async def restore_all(broker: BrokerSettings, path: Path, pattern: str, at_once: int, *, check: bool) -> int:
    """Restores the sessions that match; with `check`, only compares. Returns 1 if one failed.

    What is there already is compared, and gone on with: so a restoration that was cut short is run again. Raises
    ArchiveError, TopologyError, Unavailable.
    """
    archive, tally = Archive(path), Tally()
    assert archive.partitions
    async with Site.of(broker) as site:
        with Notes() as notes:
            for part in archive.parts():
                saved = (one for name, one in sorted(part.saved().items()) if fnmatchcase(name, pattern))
                await each(_given(saved), at_once, partial(_restore, site, part, tally, notes, check))
            for kind, whose, session, ts in notes:
                await site.directory.note(kind, whose, session, ts)
    what = "are as in the backup" if check else "restored"
    print(f"{tally.done} sessions {what} ({tally.entries} entries written), {len(tally.failed)} failed")
    return 1 if tally.failed else 0


async def _restore(site: Site, part: Part, tally: Tally, notes: Notes, check: bool, saved: Saved) -> None:
    subjects = site.log.subjects(saved.session)
    try:
        await asyncio.to_thread(part.check, saved)
        into = Into.SAME if check else Into.PART
        restored = await restore(site.log, subjects, part.lines(saved), into=into, attachments=site.attachments)
        if not check:
            found = users_of(restored) + await settle(site, subjects)
            notes.add((kind, whose, saved.session, ts) for kind, whose, ts in found)
    except AntiphonError as error:
        tally.fail(saved.session, error)
        return
    tally.done += 1
    tally.entries += restored.written


class Notes:
    """What is to be noted in the directory, by time, for its order is that of its notes. On disk: they may be many."""

    def __init__(self) -> None:
        self._rows = sqlite3.connect("")  # a temporary file of SQLite's own
        self._rows.execute("CREATE TABLE notes (ts INTEGER, kind TEXT, whose TEXT, session TEXT)")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._rows.close()

    def __iter__(self) -> Iterator[tuple[str, str, str, int]]:
        yield from self._rows.execute("SELECT kind, whose, session, ts FROM notes ORDER BY ts")

    def add(self, rows: Iterable[tuple[str, str, str, int]]) -> None:
        self._rows.executemany("INSERT INTO notes (kind, whose, session, ts) VALUES (?, ?, ?, ?)", rows)


async def each(items: AsyncIterator[T], at_once: int, work: Callable[[T], Awaitable[None]]) -> None:
    """Does the work for each item, for some of them at once."""
    room = asyncio.Semaphore(at_once)

    async def one(item: T) -> None:
        try:
            await work(item)
        finally:
            room.release()

    async with asyncio.TaskGroup() as tasks:
        async for item in items:
            await room.acquire()
            tasks.create_task(one(item))


async def _given(items: Iterable[T]) -> AsyncIterator[T]:
    for item in items:
        yield item
