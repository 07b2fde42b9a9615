"""Texts: every client's, the log's by its deltas, the log's by its segments, and what the agent was told to say."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.agent import said_of, without_marks
from tests.chaos.findings import Indexed, Kind, Violation
from tests.chaos.history import EntrySeen, Gap, Record, Snapshot

_STARTS = {"TEXT_MESSAGE_START": "messageId", "TOOL_CALL_START": "toolCallId"}
_DELTAS = {"TEXT_MESSAGE_CONTENT": "messageId", "TOOL_CALL_ARGS": "toolCallId"}


def check_texts(indexed: Indexed) -> Iterator[Violation]:
    """All texts that anybody has."""
    log = {message.id: message.text for message in indexed.transcript.messages}
    for name, texts in _folds(indexed):
        for id_, text in texts.items():
            if text != log.get(id_):
                yield Violation(Kind.TEXT_DIFFERS, f"{name}, {id_}", _difference(text, log.get(id_, "")))
    yield from _as_told(indexed, log)


def _folds(indexed: Indexed) -> Iterator[tuple[str, dict[str, str]]]:
    """Texts by id: of each client, and of the log's segments alone."""
    for who, records in indexed.clients.items():
        yield who, texts_of(records)
    segments = Texts()
    for logged in indexed.log:
        if "off" not in logged.entry:
            segments.take(logged.entry)
    yield "segments alone", segments.strings()


@dataclass(slots=True)
class Texts:
    """Texts as a client puts them together: PROTOCOL, section 6, and nothing else."""

    texts: dict[str, str] = field(default_factory=dict)

    def take(self, entry: Mapping[str, Any]) -> None:
        for event in entry["events"]:
            kind = event["type"]
            if kind in _STARTS:
                self.texts.setdefault(event[_STARTS[kind]], "")
            elif kind in _DELTAS:
                self._put(event[_DELTAS[kind]], entry["off"], event["delta"])
            elif kind == "message.segment" and "text" in event:
                self._put(event["messageId"], event["offset"], event["text"])

    def strings(self) -> dict[str, str]:
        return dict(self.texts)

    def _put(self, id_: str, offset: int, piece: str) -> None:
        text = self.texts.get(id_)
        if text is not None and offset <= len(text) < offset + len(piece):
            self.texts[id_] = text + piece[len(text) - offset :]


def texts_of(records: Iterable[Record]) -> dict[str, str]:
    """What a client has in the end."""
    texts, last = Texts(), 0
    for record in records:
        match record:
            case Snapshot(as_of=as_of):
                texts, last = Texts(), as_of
            case Gap():
                texts, last = Texts(), 0
            case EntrySeen(frame=frame) if frame["seq"] > last:
                last = frame["seq"]
                texts.take(frame)
            case _:
                pass
    return texts.strings()


def _as_told(indexed: Indexed, log: Mapping[str, str]) -> Iterator[Violation]:
    """Runs say what they were told to: all of it if they succeeded, the beginning of it if they were stopped."""
    told = {f"run_{event['inputId']}": said_of(event["content"]) for _, event in indexed.events("input.sent")}
    said: dict[str, str] = {}
    for logged, event in indexed.events("TEXT_MESSAGE_START"):
        run = logged.entry["run"]
        said[run] = said.get(run, "") + log[event["messageId"]]
    succeeded = {event["runId"] for _, event in indexed.events("RUN_FINISHED") if event["outcome"]["type"] == "success"}
    for run, whole in told.items():
        text = without_marks(said.get(run, ""))
        if whole is None or (run not in said and run not in succeeded):
            continue
        if text != whole if run in succeeded else not whole.startswith(text.rpartition("[")[0] or text):
            yield Violation(Kind.TEXT_DIFFERS, run, _difference(text, whole))


def _difference(text: str, wanted: str) -> str:
    at = next((i for i, (a, b) in enumerate(zip(text, wanted, strict=False)) if a != b), min(len(text), len(wanted)))
    return (
        f"{len(text)} characters, {len(wanted)} wanted, from {at}: {text[at : at + 20]!r}, not {wanted[at : at + 20]!r}"
    )
