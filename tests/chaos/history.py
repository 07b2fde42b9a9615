"""What was sent, answered and seen in one session, and what the log holds of it: JSON lines, one record each.

Every record has `kind`, and all but the last two `at` (ms since the round began) and `who` (the client). Records of a
client are in the order in which things happened to it.

| kind | fields | meaning |
|---|---|---|
| `sent` | `op, key, fields` | a command was sent (each time, also again); `key` names it among the client's own |
| `answer` | `op, key, ok, reply` | its reply came |
| `joined` | `sub, after, every` | a subscription, the client's `sub`-th, goes on after that `seq` (null: from a snapshot); `every`: no entry is merged or left out |
| `snapshot` | `sub, as_of` | `session.snapshot` |
| `entry` | `sub, frame` | an entry came; `frame` without `op` and `session` |
| `caught_up` | `sub, seq` | `session.caught_up` |
| `gap` | `sub, start, end` | `session.gap`: what was folded is forgotten |
| `left` | `sub, why` | the connection ended |
| `copy` | `server, stream, messages, last` | that server's copy of the session's stream has so many messages, up to that sequence |
| `log` | `seq, entry` | the log holds this entry (as on the wire), when all is over |
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar


@dataclass(frozen=True, slots=True)
class Sent:
    KIND: ClassVar = "sent"
    at: int
    who: str
    op: str
    key: str
    fields: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    KIND: ClassVar = "answer"
    at: int
    who: str
    op: str
    key: str
    ok: bool
    reply: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Joined:
    KIND: ClassVar = "joined"
    at: int
    who: str
    sub: int
    after: int | None
    every: bool


@dataclass(frozen=True, slots=True)
class Snapshot:
    KIND: ClassVar = "snapshot"
    at: int
    who: str
    sub: int
    as_of: int


@dataclass(frozen=True, slots=True)
class EntrySeen:
    KIND: ClassVar = "entry"
    at: int
    who: str
    sub: int
    frame: dict[str, Any]


@dataclass(frozen=True, slots=True)
class CaughtUp:
    KIND: ClassVar = "caught_up"
    at: int
    who: str
    sub: int
    seq: int


@dataclass(frozen=True, slots=True)
class Gap:
    KIND: ClassVar = "gap"
    at: int
    who: str
    sub: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Left:
    KIND: ClassVar = "left"
    at: int
    who: str
    sub: int
    why: str


@dataclass(frozen=True, slots=True)
class Logged:
    KIND: ClassVar = "log"
    seq: int
    entry: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Copy:
    KIND: ClassVar = "copy"
    server: str
    stream: str
    messages: int
    last: int


Record = Sent | Answer | Joined | Snapshot | EntrySeen | CaughtUp | Gap | Left | Copy | Logged

_KINDS: dict[str, type[Record]] = {
    kind.KIND: kind for kind in (Sent, Answer, Joined, Snapshot, EntrySeen, CaughtUp, Gap, Left, Copy, Logged)
}


def to_line(record: Record) -> str:
    """A record as a line, without its end."""
    return json.dumps({"kind": record.KIND} | {f.name: getattr(record, f.name) for f in fields(record)})


def from_line(line: str) -> Record:
    """Raises ValueError, KeyError or TypeError for a line that is none."""
    wire = json.loads(line)
    return _KINDS[wire.pop("kind")](**wire)


def write(path: Path, records: Iterable[Record]) -> None:
    path.write_text("".join(f"{to_line(record)}\n" for record in records), encoding="utf-8")


def read(path: Path) -> Iterator[Record]:
    """The records of a file, in order."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield from_line(line)
