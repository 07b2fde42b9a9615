"""The directory of a backup: one compressed file for each session, and what is known of each.

::

    backup.json             what this is, and of which log
    S00/manifest.jsonl      a line for each session of the partition: the last one of a session counts
    S00/demo.1f3a99c0.jsonl.gz   a session, as `antiphon export` writes it

A session's line is written after its file, which is put in place whole. So a backup that was cut short is a backup of what
it got to, and the next one goes on there.
"""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import os
import zlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from broker.errors import AntiphonError, ConfigError

FORMAT: Final = "antiphon.backup"
VERSION: Final = 1
_LEVEL: Final = 3
"""Of gzip: sessions shrink to a tenth, about as far as at 6, in a third of the time."""


class ArchiveError(AntiphonError):
    """A backup is not as it was written."""


@dataclass(frozen=True, slots=True)
class Saved:
    """A session in a backup. `sha256`, `bytes` and `entries` are of the lines before they are compressed."""

    session: str
    file: str
    epoch: str
    head: int
    entries: int
    bytes: int
    sha256: str
    at: int
    """When it was read, ms since 1970."""


class Archive:
    """A backup in a directory."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def made(cls, path: Path, partitions: int) -> Archive:
        """Opens it for a log with so many partitions, or makes it. Raises ArchiveError, ConfigError."""
        archive = cls(path)
        header = path / "backup.json"
        try:
            path.mkdir(parents=True, exist_ok=True)
            if not header.exists():
                if any(path.iterdir()):
                    raise ArchiveError(f"{path} is no backup, and not empty: choose another directory")
                _replace(header, orjson.dumps({"format": FORMAT, "version": VERSION, "partitions": partitions}))
        except OSError as error:
            raise ConfigError(f"cannot write to {path}: {error.strerror}") from None
        if archive.partitions != partitions:
            text = f"{path} is of a log with {archive.partitions} partitions, this one has {partitions}"
            raise ArchiveError(f"{text}: choose another directory")
        return archive

    @property
    def partitions(self) -> int:
        """Of the log that was saved. Raises ArchiveError if this is no backup."""
        try:
            wire = orjson.loads((self.path / "backup.json").read_bytes())
            if (wire["format"], wire["version"]) == (FORMAT, VERSION):
                return int(wire["partitions"])
        except (OSError, orjson.JSONDecodeError, KeyError, TypeError, ValueError):
            pass
        raise ArchiveError(f"{self.path} is no backup that `antiphon backup` has made, or one of a newer version")

    def parts(self) -> Iterator[Part]:
        """The partitions that have been saved, in order."""
        for path in sorted(self.path.glob("S[0-9][0-9]")):
            yield Part(path)


class Part:
    """One partition's share of a backup."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._manifest = path / "manifest.jsonl"

    def saved(self) -> dict[str, Saved]:
        """What is known of each session. A last line that was cut short is not there. Raises ArchiveError."""
        if not self._manifest.exists():
            return {}
        known: dict[str, Saved] = {}
        lines = self._manifest.read_bytes().split(b"\n")
        for number, line in enumerate(lines[:-1], 1):
            try:
                saved = Saved(**orjson.loads(line))
            except (orjson.JSONDecodeError, TypeError):
                raise ArchiveError(f"{self._manifest}, line {number}: this is no line of a manifest") from None
            known[saved.session] = saved
        return known

    def compact(self, known: dict[str, Saved]) -> None:
        """Writes the manifest anew, a line for each session; what was cut short is gone."""
        self._path.mkdir(exist_ok=True)
        _replace(self._manifest, b"".join(_line(known[name]) for name in sorted(known)))

    async def save(self, session: str, epoch: str, at: int, lines: AsyncIterator[bytes]) -> Saved:
        """Puts a session's lines, the first of which says up to where they go, in place of those that were there.

        Raises ArchiveError if they cannot be written.
        """
        try:
            return await self._save(session, epoch, at, lines)
        except OSError as error:
            raise ArchiveError(f"cannot write to {self._path}: {error.strerror}") from None

    async def _save(self, session: str, epoch: str, at: int, lines: AsyncIterator[bytes]) -> Saved:
        name = f"{session}.{zlib.crc32(session.encode()):08x}.jsonl.gz"  # two names may differ in case alone
        digest, count, size, head = hashlib.sha256(), -1, 0, 0
        temporary = self._path / f".{name}.part"
        with temporary.open("wb") as raw, gzip.GzipFile("", "wb", _LEVEL, raw, mtime=0) as packed:
            async for line in lines:
                if count < 0:
                    head = int(orjson.loads(line)["head"])
                packed.write(line)
                digest.update(line)
                count += 1
                size += len(line)
        _settle(temporary, self._path / name)
        saved = Saved(session, name, epoch, head, count, size, digest.hexdigest(), at)
        with self._manifest.open("ab") as manifest:
            manifest.write(_line(saved))
        return saved

    def check(self, saved: Saved) -> None:
        """Reads a session through. Raises ArchiveError if it is not what was written."""
        digest = hashlib.sha256()
        for line in self._read(saved):
            digest.update(line)
        if digest.hexdigest() != saved.sha256:
            raise ArchiveError(f"{self._path / saved.file} is not what was written: its checksum differs")

    async def lines(self, saved: Saved) -> AsyncIterator[bytes]:
        """A session's lines. Raises ArchiveError."""
        for line in self._read(saved):
            yield line

    def _read(self, saved: Saved) -> Iterator[bytes]:
        path = self._path / saved.file
        try:
            with gzip.open(path, "rb") as packed:
                yield from packed
        except (OSError, EOFError, zlib.error) as error:
            raise ArchiveError(f"{path} cannot be read: {error}") from None


def _line(saved: Saved) -> bytes:
    wire: dict[str, Any] = dataclasses.asdict(saved)
    return orjson.dumps(wire, option=orjson.OPT_APPEND_NEWLINE)


def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_bytes(data)
    _settle(temporary, path)


def _settle(temporary: Path, path: Path) -> None:
    """Puts a whole file in place, on the disk before it has its name."""
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)
