"""A session as people read it, piece by piece as it streams: for `send`, `tail` and `chat`. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from antiphon_client import Entry, Snapshot


@dataclass(frozen=True, slots=True)
class Begin:
    """A message begins. `role` is user, assistant, reasoning, tool_call or tool."""

    id: str
    role: str
    author: str
    run: str | None
    name: str = ""


@dataclass(frozen=True, slots=True)
class Piece:
    """More of a message's text."""

    id: str
    text: str


@dataclass(frozen=True, slots=True)
class End:
    """A message ends; `reason` is complete, cancelled, worker_lost, error or handed_over."""

    id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Queued:
    """Somebody's message waits for its turn."""

    input_id: str
    author: str
    text: str


@dataclass(frozen=True, slots=True)
class Note:
    """Something to say about the session, in a line."""

    text: str


Show = Begin | Piece | End | Queued | Note

_STARTS = {"TEXT_MESSAGE_START": "assistant", "REASONING_MESSAGE_START": "reasoning"}
_DELTAS = {
    "TEXT_MESSAGE_CONTENT": "messageId",
    "REASONING_MESSAGE_CONTENT": "messageId",
    "TOOL_CALL_ARGS": "toolCallId",
}
_ENDS = {"TEXT_MESSAGE_END": "messageId", "REASONING_MESSAGE_END": "messageId", "TOOL_CALL_END": "toolCallId"}


_YEAR_10000_MS = 253_402_300_800_000
_ATTACHING = ("input.sent", "message.attached")


class Showing:
    """Turns entries into what to show. Text comes once, from deltas or segments, whichever brings it."""

    def __init__(self) -> None:
        self._inputs: dict[str, tuple[str, str]] = {}
        self._shown: dict[str, int] = {}
        self._reasons: dict[str, str] = {}
        self._human: str | None = None
        """The user who has the main lane."""

    def restart(self, snapshot: Snapshot) -> None:
        """A snapshot: what was known is forgotten, but for what waits."""
        self._shown.clear()
        self._human = _human(snapshot)
        self._inputs = {str(i.get("inputId")): (_author(i.get("by")), str(i.get("content"))) for i in _inputs(snapshot)}

    def entry(self, entry: Entry) -> Iterator[Show]:
        for body in entry.events:
            yield from self._event(entry, body)

    def _event(self, entry: Entry, body: Mapping[str, Any]) -> Iterator[Show]:
        kind = str(body.get("type"))
        if kind in _STARTS or kind == "TOOL_CALL_START":
            yield self._begin(entry, kind, body)
        elif kind in _DELTAS:
            yield from self._piece(str(body.get(_DELTAS[kind])), entry.off or 0, str(body.get("delta")))
        elif kind == "message.segment":
            if body.get("reason"):
                self._reasons[str(body.get("messageId"))] = str(body["reason"])
            yield from self._piece(str(body.get("messageId")), int(body.get("offset", 0)), str(body.get("text") or ""))
        elif kind in _ENDS:
            id_ = str(body.get(_ENDS[kind]))
            self._shown.pop(id_, None)
            yield End(id_, self._reasons.pop(id_, "complete"))
        else:
            yield from self._other(entry, kind, body)
        if kind in _ATTACHING and isinstance(attachments := body.get("attachments"), Sequence):
            yield from (Note(attached_note(_author(entry.by), each)) for each in attachments)

    def _begin(self, entry: Entry, kind: str, body: Mapping[str, Any]) -> Begin:
        tool = kind == "TOOL_CALL_START"
        id_ = str(body.get("toolCallId" if tool else "messageId"))
        self._shown[id_] = 0
        role = "tool_call" if tool else str(body.get("role") or _STARTS[kind])
        return Begin(id_, role, _author(entry.by), entry.run, str(body.get("toolCallName") or ""))

    def _piece(self, id_: str, offset: int, text: str) -> Iterator[Show]:
        shown = self._shown.get(id_)
        if shown is not None and offset <= shown < offset + len(text):
            self._shown[id_] = offset + len(text)
            yield Piece(id_, text[shown - offset :])

    def _other(self, entry: Entry, kind: str, body: Mapping[str, Any]) -> Iterator[Show]:
        match kind:
            case "input.sent" if self._human is not None:
                yield from self._said(str(body.get("inputId")), _author(entry.by), str(body.get("content")))
            case "input.sent" | "run.requested":
                author, text = _author(entry.by), str(body.get("content"))
                self._inputs[str(body.get("inputId"))] = author, text
                yield Queued(str(body.get("inputId")), author, text)
            case "session.owner" if body.get("lane") == "main" and body.get("kind") == "user":
                self._human = str(body.get("id"))
                yield Note(f"{_author(entry.by)} has taken over from the agent")
                for input_id, (author, text) in self._inputs.items():
                    yield from self._said(input_id, author, text)
                self._inputs.clear()
            case "session.owner" if body.get("lane") == "main":
                self._human = None
            case "handoff.returned":
                self._human = None
                if body.get("note"):
                    self._inputs[str(body.get("inputId"))] = _author(entry.by), str(body["note"])
                yield Note(f"{_author(entry.by)} gives back to the agent")
            case "input.applied":
                author, text = self._inputs.pop(str(body.get("inputId")), ("somebody", "(sent earlier)"))
                id_ = str(body.get("messageId"))
                yield from (Begin(id_, "user", author, entry.run), Piece(id_, text), End(id_, "complete"))
            case "TOOL_CALL_RESULT":
                id_ = str(body.get("messageId"))
                yield from (
                    Begin(id_, "tool", "tool", entry.run),
                    Piece(id_, str(body.get("content"))),
                    End(id_, "complete"),
                )
            case _:
                if (note := note_of(kind, body, _author(entry.by))) is not None:
                    yield Note(note)

    def _said(self, input_id: str, author: str, text: str) -> Iterator[Show]:
        """While a human has the session, what is sent is a message at once."""
        id_ = f"msg_{input_id}"
        yield from (Begin(id_, "user", author, None), Piece(id_, text), End(id_, "complete"))


def attached_note(author: str, attachment: Mapping[str, Any]) -> str:
    """What is attached, and by which id it can be had."""
    about = f"{attachment.get('mediaType')}, {attachment.get('size')} bytes, id {attachment.get('id')}"
    return f"{author} attaches {attachment.get('name')}: {about}"


def note_of(kind: str, body: Mapping[str, Any], author: str) -> str | None:
    """What an event says in a line; None if nothing need be said."""
    match kind:
        case "input.scheduled":
            return f"{author} sends later, at {_time(body.get('at'))}: {body.get('content')}"
        case "input.unscheduled":
            return f"{author} takes back what it was to send later"
        case "run.cancel.requested":
            return f"{author} stops the run"
        case "run.taken_over":
            return "the worker was lost; another one goes on"
        case "RUN_ERROR":
            return f"the run failed: {body.get('message')} ({body.get('code')})"
        case "approval.requested":
            options = ", ".join(map(str, body.get("options") or ()))
            return f"{author} asks: {body.get('message')} [{options}]"
        case "approval.responded":
            return f"{author}: {body.get('option')}"
        case "approval.resolved":
            return f"nobody decided: {body.get('status')}"
        case "tool.requested" if body.get("executor") == "client":
            return f"{author} waits for a client to run {body.get('name')}"
        case "tool.failed":
            return f"the tool gave no result: {body.get('code')}"
        case "handoff.requested":
            return f"{author} asks for somebody with the role {body.get('to')}: {body.get('reason')}"
        case "handoff.expired":
            return "nobody came"
        case "session.state":
            return "nobody watches: the run is held" if body.get("state") == "paused" else "the run goes on"
        case "session.closed" | "session.reopened" | "session.deleted":
            return f"{author} has {kind.removeprefix('session.')} the session"
        case _:
            return None


def _time(ms: Any) -> str:
    """A time in ms since 1970, for people here."""
    if not isinstance(ms, int) or not 0 <= ms < _YEAR_10000_MS:
        return "a time that is none"
    return datetime.fromtimestamp(ms / 1000).astimezone().isoformat(" ", "seconds")


def _human(snapshot: Snapshot) -> str | None:
    match snapshot.state:
        case {"lanes": {"main": {"owner": {"kind": "user", "id": str(human)}}}}:
            return human
        case _:
            return None


def _inputs(snapshot: Snapshot) -> list[Mapping[str, Any]]:
    inputs = snapshot.state.get("inputs")
    return inputs if isinstance(inputs, list) else []


def _author(by: Any) -> str:
    if not isinstance(by, Mapping):
        return "somebody"
    return str(by.get("name") or by.get("id") or "somebody")
