"""What a lane writes next: joins tokens while a write is in flight, and puts text into records in time. Pure.

The log allows one write of a lane in flight, so what the agent says meanwhile waits here, and the next write takes as
much of it as belongs together: neighbouring deltas of one text, or neighbouring records.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Literal, assert_never

from broker.events import (
    ApprovalRequested,
    Delta,
    Event,
    HandoffRequested,
    MessageSegment,
    OtherEvent,
    ReasoningMessageContent,
    RunRequested,
    StepRecorded,
    TextMessageContent,
    ToolCallArgs,
    ToolCallResult,
    ToolRequested,
    stream_end,
)

StreamKind = Literal["text", "reasoning", "tool_call"]
RECORD_EVENTS_MAX = 64
"""Events that one record may hold."""
RECORD_CHARS_MAX = 65_536
"""Characters of ended texts after which a record takes no more events; with escapes and events of `EVENT_BYTES_MAX`, it
stays below the 1 MiB that NATS takes."""
EVENT_BYTES_MAX = 262_144
"""Bytes that one event of an agent's own (a tool's result, a state, a custom event) may have."""


@dataclass(frozen=True, slots=True)
class Write:
    """One entry to be written: a delta at offset `off`, or a record. `chars` is the text it takes off the queue."""

    events: tuple[Event, ...]
    off: int | None
    chars: int


@dataclass(frozen=True, slots=True)
class _Text:
    id: str
    text: str


@dataclass(frozen=True, slots=True)
class _Close:
    id: str
    reason: str


@dataclass(slots=True)
class _Stream:
    """A text on its way: `sent` code points are in deltas, of which `unsettled` are not in a record yet."""

    id: str
    kind: StreamKind
    sent: int = 0
    settled: int = 0
    deltas: int = 0
    unsettled: list[str] = field(default_factory=list)


class LaneQueue:
    """What an agent has said and the log has not yet."""

    def __init__(self, *, delta_chars: int, segment_chars: int, segment_deltas: int) -> None:
        self._delta_chars = delta_chars
        self._segment_chars = segment_chars
        self._segment_deltas = segment_deltas
        self._waiting: deque[_Text | _Close | tuple[Event, ...]] = deque()
        self._streams: dict[str, _Stream] = {}
        self.pending_chars = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def record(self, *events: Event) -> None:
        """Events that belong together, as a record."""
        self._waiting.append(events)

    def open(self, start: Event, id_: str, kind: StreamKind) -> None:
        """Begins a text."""
        self._streams[id_] = _Stream(id_, kind)
        self._waiting.append((start,))

    def text(self, id_: str, text: str) -> None:
        """More of a text that is open."""
        self._waiting.append(_Text(id_, text))
        self.pending_chars += len(text)

    def close(self, id_: str, reason: str = "complete") -> None:
        """Ends a text: what of it is in no record yet goes into one."""
        self._waiting.append(_Close(id_, reason))

    def open_streams(self) -> list[str]:
        """The texts that have been begun and not ended, oldest first."""
        closing = {item.id for item in self._waiting if isinstance(item, _Close)}
        return [id_ for id_ in self._streams if id_ not in closing]

    def settle(self) -> None:
        """Puts all text that is in no record yet into one: the lane has fallen silent."""
        if not self._waiting:
            for stream in self._streams.values():
                if stream.unsettled:
                    self._waiting.append((self._segment(stream),))

    def next_write(self) -> Write | None:
        """Takes the next entry off the queue. Once taken, it must be stored before the next is taken."""
        if not self._waiting:
            return None
        match self._waiting[0]:
            case _Text():
                return self._next_delta()
            case _:
                return self._next_record()

    def _next_delta(self) -> Write:
        first = self._waiting[0]
        assert isinstance(first, _Text)
        parts: list[str] = []
        room = self._delta_chars
        while room and self._waiting:
            item = self._waiting[0]
            if not isinstance(item, _Text) or item.id != first.id:
                break
            self._waiting.popleft()
            parts.append(item.text[:room])
            if len(item.text) > room:
                self._waiting.appendleft(_Text(item.id, item.text[room:]))
            room -= len(parts[-1])
        text = "".join(parts)
        self.pending_chars -= len(text)
        return self._send(self._streams[first.id], text)

    def _send(self, stream: _Stream, text: str) -> Write:
        write = Write((_delta(stream, text),), stream.sent, len(text))
        stream.sent += len(text)
        stream.deltas += 1
        stream.unsettled.append(text)
        if stream.deltas >= self._segment_deltas or stream.sent - stream.settled >= self._segment_chars:
            self._waiting.appendleft((self._segment(stream),))
        return write

    def _next_record(self) -> Write:
        events: list[Event] = []
        chars = 0
        while self._waiting and len(events) < RECORD_EVENTS_MAX and chars < RECORD_CHARS_MAX:
            match self._waiting[0]:
                case _Text():
                    break
                case _Close(id_, reason):
                    ending = self._ending(self._streams.pop(id_), reason)
                    chars += ending[0].length
                    events += ending
                case group if events and _is_large(group):
                    break
                case group:
                    events += group
                    chars += RECORD_CHARS_MAX if _is_large(group) else 0
            self._waiting.popleft()
        return Write(tuple(events), None, 0)

    def _ending(self, stream: _Stream, reason: str) -> tuple[MessageSegment, Event]:
        return self._segment(stream, final=True, reason=reason), stream_end(stream.kind, stream.id)

    def _segment(self, stream: _Stream, *, final: bool = False, reason: str | None = None) -> MessageSegment:
        text = "".join(stream.unsettled)
        segment = MessageSegment(stream.id, stream.settled, len(text), text, final, reason)
        stream.settled += len(text)
        stream.unsettled.clear()
        stream.deltas = 0
        return segment


_WITH_PAYLOAD = (
    OtherEvent,
    ToolCallResult,
    ToolRequested,
    ApprovalRequested,
    RunRequested,
    HandoffRequested,
    StepRecorded,
)


def _is_large(group: tuple[Event, ...]) -> bool:
    """Whether the events may hold an author's payload, which gets a record of its own."""
    return any(isinstance(event, _WITH_PAYLOAD) for event in group)


def _delta(stream: _Stream, text: str) -> Delta:
    match stream.kind:
        case "text":
            return TextMessageContent(stream.id, text)
        case "reasoning":
            return ReasoningMessageContent(stream.id, text)
        case "tool_call":
            return ToolCallArgs(stream.id, text)
        case _:
            assert_never(stream.kind)
