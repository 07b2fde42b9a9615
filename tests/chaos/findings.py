"""What a checker finds, and a history in the order in which it looks at it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from broker.codec import entry_from_wire
from broker.transcript import Transcript
from tests.chaos.history import Answer, Copy, Logged, Record, Sent


class Kind(StrEnum):
    """What may be wrong. `group` says under which of the three sums of a report it counts."""

    LOST_INPUT = "an acknowledged input is not in the log"
    LOST_ENTRY = "a client has not got an entry"
    LOST_RESULT = "an acknowledged result of a tool is not in the log"
    LOST_DECISION = "an acknowledged decision is not in the log"
    LOST_BY_A_COPY = "a copy of a stream does not have what another has"
    DOUBLED_INPUT = "an input is in the log twice"
    DOUBLED_ENTRY = "a client has got an entry twice"
    APPLIED_TWICE = "an input was applied twice"
    STARTED_TWICE = "a run has begun twice"
    ENDED_TWICE = "a run has ended twice"
    RESULT_TWICE = "two results of a call were accepted"
    DECIDED_TWICE = "two decisions of an approval were accepted"
    STALE_FENCE = "an entry stands under an old fence after a newer claim"
    REWRITTEN = "two writes under one id differ"
    PHANTOM = "a client has got an entry that the log does not have, or has otherwise"
    WRONG_RECEIPT = "a receipt says what the log does not"
    CANCEL_UNDONE = "what was acknowledged as cancelled has run"
    OPEN_RUN = "a run has not ended"
    WAITING = "something waits for ever"
    WRONG_RESULT = "a run was given another result than the accepted one"
    TEXT_DIFFERS = "a text is not the same for everybody, or not what was said"
    CURSOR_REFUSED = "a client's cursor was refused"

    @property
    def group(self) -> str:
        """lost, duplicated, fence or other."""
        if self.name.startswith("LOST"):
            return "lost"
        if self.name.startswith("DOUBLED") or self.name.endswith("TWICE"):
            return "duplicated"
        return "fence" if self in (Kind.STALE_FENCE, Kind.REWRITTEN) else "other"


@dataclass(frozen=True, slots=True)
class Violation:
    """Something that must not be."""

    kind: Kind
    where: str
    """Who or what it is about: a client, an input, a run, a call."""
    said: str = ""

    def __str__(self) -> str:
        return f"{self.kind.value}: {self.where}{f' ({self.said})' if self.said else ''}"


@dataclass(slots=True)
class Indexed:
    """A history taken apart."""

    log: list[Logged] = field(default_factory=list)
    """By sequence."""
    copies: list[Copy] = field(default_factory=list)
    clients: dict[str, list[Record]] = field(default_factory=dict)
    """What happened to each client, in order."""
    accepted: list[tuple[Answer, dict[str, Any]]] = field(default_factory=list)
    """Commands that were acknowledged: the answer, and the fields of the command."""
    transcript: Transcript = field(default_factory=Transcript)
    """The whole log, by the broker's fold."""

    @classmethod
    def of(cls, history: Iterable[Record]) -> Indexed:
        indexed = cls()
        sent: dict[tuple[str, str], dict[str, Any]] = {}
        for record in history:
            if isinstance(record, Logged):
                indexed.log.append(record)
                continue
            if isinstance(record, Copy):
                indexed.copies.append(record)
                continue
            indexed.clients.setdefault(record.who, []).append(record)
            if isinstance(record, Sent):
                sent[record.who, record.key] = record.fields
            elif isinstance(record, Answer) and record.ok:
                indexed.accepted.append((record, sent[record.who, record.key]))
        indexed.log.sort(key=lambda logged: logged.seq)
        for logged in indexed.log:
            indexed.transcript.apply(logged.seq, entry_from_wire(logged.entry))
        return indexed

    def acknowledged(self, op: str) -> Iterator[tuple[Answer, dict[str, Any]]]:
        """The acknowledged commands of a kind."""
        return ((answer, fields) for answer, fields in self.accepted if answer.op == op)

    def events(self, *types: str) -> Iterator[tuple[Logged, Mapping[str, Any]]]:
        """Events in the log, in order, without those of writes that were stored again."""
        seen: set[str] = set()
        for logged in self.log:
            lane = logged.entry.get("lane")
            name = f"{lane} {logged.entry['id']}"
            if lane is not None and name in seen:
                continue
            seen.add(name)
            for event in logged.entry["events"]:
                if event["type"] in types:
                    yield logged, event


def is_delta(entry: Mapping[str, Any]) -> bool:
    """It is a piece of text, of which segments have a copy."""
    return "off" in entry
