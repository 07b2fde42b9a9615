"""What a reader of a session remembers, and what it can prove to itself: PROTOCOL, sections 3 and 6, once more."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Frame = dict[str, Any]

_START = {
    "TEXT_MESSAGE_START": "messageId",
    "REASONING_MESSAGE_START": "messageId",
    "TOOL_CALL_START": "toolCallId",
}
_CONTENT = {
    "TEXT_MESSAGE_CONTENT": "messageId",
    "REASONING_MESSAGE_CONTENT": "messageId",
    "TOOL_CALL_ARGS": "toolCallId",
}
_END = {"TEXT_MESSAGE_END": "messageId", "REASONING_MESSAGE_END": "messageId", "TOOL_CALL_END": "toolCallId"}


@dataclass(slots=True)
class Text:
    """The text of one message. `holes` counts pieces that began beyond its end, which must never happen."""

    length: int = 0
    holes: int = 0
    done: bool = False
    reason: str | None = None
    _parts: list[str] = field(default_factory=list)

    def put(self, offset: int, text: str) -> None:
        if offset > self.length:
            self.holes += 1
        if offset == self.length:
            self._parts.append(text)
            self.length += len(text)
        else:
            whole = str(self)
            whole = whole[:offset] + text + whole[offset + len(text) :]
            self._parts, self.length = [whole], len(whole)

    def __str__(self) -> str:
        self._parts = ["".join(self._parts)]
        return self._parts[0]


@dataclass(slots=True)
class Place:
    """One reader's place in a session, over all its connections.

    `lost` counts breaks of the `prev` chain, `twice` entries that had come before; both must stay 0 for ever.
    """

    session: str
    every: bool = False
    epoch: str | None = None
    last: int = 0
    caught_up: bool = False
    lost: int = 0
    twice: int = 0
    gaps: int = 0
    merged: int = 0
    snapshots: int = 0
    as_of: int = 0
    entries: list[tuple[int, str]] = field(default_factory=list)
    """Sequence and id of each entry that came."""
    frames: list[Frame] | None = None
    """Every entry as it came, if a list was put here."""
    texts: dict[str, Text] = field(default_factory=dict)
    applied: list[str] = field(default_factory=list)
    """inputIds in the order in which they entered the transcript."""
    started: list[str] = field(default_factory=list)
    """runIds in the order of their RUN_STARTED."""
    ended: dict[str, str] = field(default_factory=dict)
    """How runs ended: success, cancelled or error."""
    said_in: dict[str, str] = field(default_factory=dict)
    """The run of each message."""
    _epoch_of_reply: str = ""

    def __str__(self) -> str:
        return (
            f"{self.session} at {self.last}, {len(self.entries)} entries, lost {self.lost}, twice {self.twice}, "
            f"texts {[text.length for text in self.texts.values()]}, ended {self.ended}"
        )

    @property
    def whole(self) -> bool:
        """Nothing was lost, doubled or left with a hole."""
        no_holes = not any(text.holes for text in self.texts.values())
        return self.lost == self.twice == self.gaps == 0 and no_holes

    def copy(self) -> Place:
        return copy.deepcopy(self)

    @property
    def cursor(self) -> str:
        return f"{self.epoch}:{self.last}"

    def subscription(self) -> dict[str, Any]:
        """The fields of the `subscribe` that goes on from here."""
        fields: dict[str, Any] = {"session": self.session}
        if self.epoch is not None:
            fields["after"] = self.cursor
        if self.every:
            fields["replay"] = "every"
        return fields

    def subscribed(self, reply: Frame) -> None:
        """The epoch comes with the reply; the cursor is good once there is a place: at the latest with the snapshot."""
        assert self.epoch in (None, reply["epoch"]), reply
        self._epoch_of_reply = reply["epoch"]

    def take(self, frame: Frame) -> None:
        """Takes a frame that is no reply. Frames of other sessions are none of ours."""
        if frame.get("session") != self.session:
            return
        match frame["op"]:
            case "entry":
                self._entry(frame)
            case "session.snapshot":
                self.snapshots += 1
                self.last = self.as_of = frame["asOf"]
                self.epoch = self._epoch_of_reply
            case "session.caught_up":
                assert frame["cursor"] == self.cursor, (frame, self.cursor)
                self.caught_up = True
            case "session.gap":
                self.gaps += 1

    def text(self, message_id: str) -> str:
        return str(self.texts[message_id])

    def answer(self, run_id: str) -> str:
        """All that was said in a run."""
        return "".join(str(self.texts[id_]) for id_, run in self.said_in.items() if run == run_id)

    def digest(self) -> str:
        """A hash of the order: sequence and id of all entries."""
        return hashlib.sha256("\n".join(f"{seq} {id_}" for seq, id_ in self.entries).encode()).hexdigest()

    def _entry(self, frame: Frame) -> None:
        if frame["seq"] <= self.last:
            self.twice += 1
            return
        if frame["prev"] != self.last:
            self.lost += 1
        self.last = frame["seq"]
        self.entries.append((frame["seq"], frame["id"]))
        self.merged += frame.get("merged", 0)
        if self.frames is not None:
            self.frames.append(frame)
        for event in frame["events"]:
            self._event(frame, event)

    def _event(self, frame: Frame, event: Mapping[str, Any]) -> None:
        kind = event["type"]
        if kind in _START:
            self.texts[event[_START[kind]]] = Text()
            self.said_in[event[_START[kind]]] = frame.get("run", "")
        elif kind in _CONTENT:
            self.texts[event[_CONTENT[kind]]].put(frame["off"], event["delta"])
        elif kind in _END:
            self.texts[event[_END[kind]]].done = True
        elif kind == "message.segment":
            self._segment(event)
        elif kind == "input.applied":
            self.applied.append(event["inputId"])
        elif kind == "RUN_STARTED":
            self.started.append(event["runId"])
        elif kind == "RUN_FINISHED":
            self.ended[event["runId"]] = event["outcome"]["type"]
        elif kind == "RUN_ERROR":
            self.ended[frame["run"]] = "error"

    def _segment(self, event: Mapping[str, Any]) -> None:
        text = self.texts[event["messageId"]]
        if "text" in event:
            assert len(event["text"]) == event["length"], "a segment says another length than it has"
            text.put(event["offset"], event["text"])
        elif text.length < event["offset"] + event["length"]:
            # Without its text a segment says what a reader must have had already.
            text.holes += 1
        if event.get("final"):
            text.reason = event["reason"]
