"""The transcript of a session: the fold of its entries (PROTOCOL, section 6, Transcript).

Pure and deterministic. Deltas and segments carry the place of their text, so that any mix of
them, even applied twice, gives the same text. Unknown and malformed events count as nothing.
Offsets count Unicode code points, which is what Python's strings do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Final, TypeAlias

from ._json import JsonObject, as_count, as_object, as_objects, as_str
from .model import Input
from .protocol import Entry

STREAMING: Final = "streaming"
DONE: Final = "done"
COMPLETE: Final = "complete"


@dataclass(frozen=True, slots=True)
class Message:
    """A message as it stands.

    `role` is `user`, `assistant`, `reasoning`, `tool_call` (its `text` is the arguments so far)
    or `tool`; `status` is `streaming` or `done`; `reason` says how a text ended: `complete`,
    `cancelled`, `worker_lost`, `error` or `handed_over`. `name` belongs to a tool call,
    `tool_call_id` to a tool's result. `seq` is the entry that added it. One that is `rolled_back`
    is no part of the conversation any more. `attachments` are as the log has them:
    `Attachment.from_dict` reads them.
    """

    id: str
    role: str
    by: JsonObject | None
    lane: str | None
    run: str | None
    text: str
    status: str
    reason: str | None = None
    name: str | None = None
    tool_call_id: str | None = None
    seq: int | None = None
    rolled_back: bool = False
    attachments: tuple[JsonObject, ...] = ()

    @classmethod
    def from_dict(cls, raw: JsonObject) -> Message | None:
        """Read a message of `history`; None if it has no id."""
        message_id = as_str(raw.get("id"))
        if message_id is None:
            return None
        return cls(
            id=message_id,
            role=as_str(raw.get("role")) or "assistant",
            by=as_object(raw.get("by")),
            lane=as_str(raw.get("lane")),
            run=as_str(raw.get("run")),
            text=as_str(raw.get("text")) or "",
            status=as_str(raw.get("status")) or DONE,
            reason=as_str(raw.get("reason")),
            name=as_str(raw.get("name")),
            tool_call_id=as_str(raw.get("toolCallId")),
            seq=as_count(raw.get("seq")),
            rolled_back=raw.get("rolledBack") is True,
            attachments=as_objects(raw.get("attachments")),
        )

    def as_dict(self) -> dict[str, object]:
        """As in a page of history: the fields from `name` on only where there is one."""
        found: dict[str, object] = {
            "id": self.id,
            "role": self.role,
            "by": None if self.by is None else dict(self.by),
            "lane": self.lane,
            "run": self.run,
            "text": self.text,
            "status": self.status,
            "reason": self.reason,
        }
        extra: dict[str, object] = {"name": self.name, "toolCallId": self.tool_call_id, "seq": self.seq}
        extra["rolledBack"] = self.rolled_back or None
        extra["attachments"] = [dict(each) for each in self.attachments] or None
        return found | {key: value for key, value in extra.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Spoken:
    """A piece of what an agent says: of one message, which is whole now or not (`done`)."""

    message_id: str
    text: str
    done: bool


class _Text:
    """A text that mostly grows at its end: pieces are joined only when somebody looks."""

    __slots__ = ("_length", "_pieces")

    def __init__(self, text: str = "") -> None:
        self._pieces = [text] if text else []
        self._length = len(text)

    def value(self) -> str:
        if len(self._pieces) > 1:
            self._pieces = ["".join(self._pieces)]
        return self._pieces[0] if self._pieces else ""

    def append(self, piece: str) -> None:
        """Add to its end."""
        self.put(self._length, piece)

    def since(self, offset: int) -> str:
        """What comes after `offset`; costs no more than that is long."""
        found, left = [], self._length - offset
        for piece in reversed(self._pieces):
            if left <= 0:
                break
            found.append(piece[-left:])
            left -= len(piece)
        return "".join(reversed(found))

    def put(self, offset: int, piece: str) -> bool:
        """Take over what reaches beyond the end; returns whether the text changed.

        What lies within is known already. A piece that begins beyond the end is dropped: a
        segment will bring it.
        """
        known = self._length - offset
        if known < 0 or known >= len(piece):
            return False
        self._pieces.append(piece[known:] if known else piece)
        self._length = offset + len(piece)
        return True


@dataclass(slots=True)
class _Draft:
    """A message while it is folded, with the last `Message` made of it."""

    base: Message
    text: _Text
    status: str
    final_reason: str | None = None
    view: Message | None = None

    def message(self) -> Message:
        if self.view is None:
            reason = (self.final_reason or COMPLETE) if self.status == DONE else None
            self.view = replace(self.base, text=self.text.value(), status=self.status, reason=reason)
        return self.view


class Transcript:
    """The messages, in order of appearance; `apply_event` moves it on.

    `limit` bounds how many are kept, None keeps all: the oldest go first, `history` has them.
    """

    def __init__(self, limit: int | None = None) -> None:
        self._limit = limit
        self._drafts: dict[str, _Draft] = {}
        self._open: dict[str, _Draft] = {}

    @property
    def messages(self) -> list[Message]:
        """The messages as they stand. A message that has not changed is the same object."""
        return [draft.message() for draft in self._drafts.values()]

    def get(self, message_id: str) -> Message | None:
        """One message by its id."""
        draft = self._drafts.get(message_id)
        return None if draft is None else draft.message()

    def spoken(self, run_id: str, after: str, given: Mapping[str, int]) -> list[Spoken]:
        """What the agent has said in a run after the message `after`, in order.

        Of each message, the text from the offset on that `given` has for it.
        """
        found = []
        for message_id, draft in reversed(self._drafts.items()):
            if message_id == after:
                break
            if draft.base.run == run_id and draft.base.role == "assistant":
                piece = draft.text.since(given.get(message_id, 0))
                found.append(Spoken(message_id, piece, draft.status == DONE))
        return found[::-1]

    # ---- to be stored

    def dump(self) -> list[object]:
        """The messages, and what else it takes to go on folding, ready for JSON."""
        return [
            {**draft.message().as_dict(), "streamed": draft.base.status == STREAMING, "final": draft.final_reason}
            for draft in self._drafts.values()
        ]

    def load(self, messages: Iterable[JsonObject]) -> None:
        """Begin with what `dump` has written; what is malformed is left out."""
        for raw in messages:
            message = Message.from_dict(raw)
            if message is not None:
                status = STREAMING if raw.get("streamed") is True else DONE
                self._keep(replace(message, text="", status=status, reason=None), message.text)
                draft = self._drafts[message.id]
                draft.final_reason = as_str(raw.get("final"))
                if message.status == DONE:
                    self._end(message.id)

    def as_dict(self) -> dict[str, object]:
        """`{"messages": [...]}`, ready for JSON."""
        return {"messages": [message.as_dict() for message in self.messages]}

    def apply_event(self, entry: Entry, event: JsonObject) -> None:
        """Fold one event that counts. Messages of participants come by `add_input`."""
        kind = event.get("type")
        rules = self._OF_RECORDS if entry.off is None else self._OF_DELTAS
        rule = rules.get(kind) if isinstance(kind, str) else None
        if rule is not None and entry.lane is not None:
            rule(self, entry, event)

    def end_lane(self, lane: str | None) -> None:
        """A run has ended in this lane, and with it every text that is still open there."""
        for message_id, draft in list(self._open.items()):
            if draft.base.lane == lane:
                self._end(message_id)

    def roll_back(self, run_id: str) -> None:
        """The messages of this run are no part of the conversation any more."""
        for draft in self._drafts.values():
            if draft.base.run == run_id:
                draft.base, draft.view = replace(draft.base, rolled_back=True), None

    def clear(self) -> None:
        """There are no messages any more."""
        self._drafts.clear()
        self._open.clear()

    def import_messages(self, seq: int, messages: Iterable[JsonObject]) -> None:
        """The entry `seq` brings messages of another session; one may continue another's text."""
        for position, raw in enumerate(messages):
            text, message_id = as_str(raw.get("text")) or "", as_str(raw.get("id"))
            draft = self._drafts.get(message_id or "")
            if raw.get("continued") is not True:
                self._import(seq, message_id or f"imported_{seq}_{position}", raw, text)
            elif draft is not None:
                draft.text.append(text)
                draft.view = None

    def _import(self, seq: int, message_id: str, raw: JsonObject, text: str) -> None:
        message = Message.from_dict({**raw, "id": message_id})
        assert message is not None, "it has an id"
        role, lane = as_str(raw.get("role")) or "user", message.lane or "main"
        self._keep(replace(message, role=role, lane=lane, text="", status=DONE, seq=seq), text)
        if (draft := self._drafts.get(message_id)) is not None:
            draft.final_reason = draft.final_reason or message.reason

    # ---- what begins a message

    def add_input(
        self, entry: Entry, message_id: str, source: Input, *, lane: str | None, run: str | None, role: str = "user"
    ) -> None:
        """An input enters the transcript, by its sender."""
        base = Message(message_id, role, source.by, lane, run, "", DONE, seq=entry.seq, attachments=source.attachments)
        self._keep(base, source.content)

    def _text_start(self, entry: Entry, event: JsonObject) -> None:
        role = as_str(event.get("role")) or "assistant"
        self._add(entry, event.get("messageId"), role)

    def _reasoning_start(self, entry: Entry, event: JsonObject) -> None:
        self._add(entry, event.get("messageId"), "reasoning")

    def _call_start(self, entry: Entry, event: JsonObject) -> None:
        name = as_str(event.get("toolCallName"))
        call = event.get("toolCallId")
        self._add(entry, call, "tool_call", name=name)

    def _result(self, entry: Entry, event: JsonObject) -> None:
        self._add(
            entry,
            event.get("messageId"),
            "tool",
            text=as_str(event.get("content")) or "",
            tool_call_id=as_str(event.get("toolCallId")),
        )

    def _add(
        self,
        entry: Entry,
        message_id: object,
        role: str,
        *,
        text: str | None = None,
        name: str | None = None,
        tool_call_id: str | None = None,
    ) -> None:
        """The lane's owner adds a message; without a `text` it will stream."""
        if isinstance(message_id, str):
            status = STREAMING if text is None else DONE
            base = Message(message_id, role, entry.by, entry.lane, entry.run, "", status, None, name, tool_call_id)
            self._keep(replace(base, seq=entry.seq), text or "")

    def _keep(self, base: Message, text: str) -> None:
        """Add a message. An id that is there stays as it is."""
        if base.id in self._drafts:
            return
        draft = self._drafts[base.id] = _Draft(base, _Text(text), base.status)
        if base.status == STREAMING:
            self._open[base.id] = draft
        if self._limit is not None and len(self._drafts) > self._limit:
            oldest = next(iter(self._drafts))
            del self._drafts[oldest]
            self._open.pop(oldest, None)

    # ---- what changes one

    def _message_delta(self, entry: Entry, event: JsonObject) -> None:
        self._put(event.get("messageId"), entry.off, event.get("delta"))

    def _call_delta(self, entry: Entry, event: JsonObject) -> None:
        self._put(event.get("toolCallId"), entry.off, event.get("delta"))

    def _segment(self, _entry: Entry, event: JsonObject) -> None:
        self._put(event.get("messageId"), as_count(event.get("offset")), event.get("text"))
        draft = self._draft(event.get("messageId"))
        if draft is not None and event.get("final") is True:
            draft.final_reason = as_str(event.get("reason")) or COMPLETE
            draft.view = None

    def _attached(self, entry: Entry, event: JsonObject) -> None:
        message_id, more = event.get("messageId"), as_objects(event.get("attachments"))
        draft = self._drafts.get(message_id) if isinstance(message_id, str) else None
        if draft is not None and draft.base.lane == entry.lane and more:
            draft.base = replace(draft.base, attachments=(*draft.base.attachments, *more))
            draft.view = None

    def _message_end(self, _entry: Entry, event: JsonObject) -> None:
        self._end(event.get("messageId"))

    def _call_end(self, _entry: Entry, event: JsonObject) -> None:
        self._end(event.get("toolCallId"))

    def _draft(self, message_id: object) -> _Draft | None:
        """A streamed message, by its id: the others have their whole text from the start."""
        draft = self._drafts.get(message_id) if isinstance(message_id, str) else None
        return draft if draft is not None and draft.base.status == STREAMING else None

    def _put(self, message_id: object, offset: int | None, piece: object) -> None:
        draft = self._draft(message_id)
        if draft is None or offset is None or not isinstance(piece, str):
            return
        if draft.text.put(offset, piece):
            draft.view = None

    def _end(self, message_id: object) -> None:
        draft = self._draft(message_id)
        if draft is not None:
            draft.status, draft.view = DONE, None
            self._open.pop(draft.base.id, None)

    _OF_DELTAS: ClassVar[Mapping[str, _Rule]] = {
        "TEXT_MESSAGE_CONTENT": _message_delta,
        "REASONING_MESSAGE_CONTENT": _message_delta,
        "TOOL_CALL_ARGS": _call_delta,
    }
    _OF_RECORDS: ClassVar[Mapping[str, _Rule]] = {
        "message.segment": _segment,
        "message.attached": _attached,
        "TEXT_MESSAGE_START": _text_start,
        "TEXT_MESSAGE_END": _message_end,
        "REASONING_MESSAGE_START": _reasoning_start,
        "REASONING_MESSAGE_END": _message_end,
        "TOOL_CALL_START": _call_start,
        "TOOL_CALL_END": _call_end,
        "TOOL_CALL_RESULT": _result,
    }


_Rule: TypeAlias = Callable[[Transcript, Entry, JsonObject], None]
