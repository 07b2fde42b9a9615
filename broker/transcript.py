"""The transcript: a session's messages, folded from its entries (PROTOCOL, section 6).

Deltas, segments, or any mix of them give the same text, in any order and even twice, because each says where in its
message it belongs. Offsets count Unicode code points.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from broker.attachments import references_of
from broker.codec import by_to_wire, participant_from_wire
from broker.events import (
    Entry,
    Event,
    InputApplied,
    InputFailed,
    InputSent,
    MessageAttached,
    MessageSegment,
    MessagesImported,
    Participant,
    ReasoningMessageContent,
    ReasoningMessageEnd,
    ReasoningMessageStart,
    SessionDeleted,
    SessionOwner,
    TextMessageContent,
    TextMessageEnd,
    TextMessageStart,
    ToolCallArgs,
    ToolCallEnd,
    ToolCallResult,
    ToolCallStart,
)
from broker.fold import inputs
from broker.session import counts, fold
from broker.state import QueuedInput, SessionState
from broker.subjects import MAIN_LANE


def message_id_of(input_id: str) -> str:
    """The id of the message that an input becomes."""
    return f"msg_{input_id}"


@dataclass(slots=True)
class Message:
    """One message. `seq` is the entry that added it, `end_seq` the one that ended it (0 while it streams).

    `reason` says how its text ended: complete, cancelled, worker_lost, error or handed_over. `rolled_back`: its run was
    undone by somebody's input; it is no part of the conversation any more. `attachments` are references, as the log has
    them.
    """

    id: str
    role: str
    seq: int
    by: Participant | None = None
    lane: str | None = None
    run: str | None = None
    status: str = "streaming"
    reason: str | None = None
    name: str | None = None
    tool_call_id: str | None = None
    end_seq: int = 0
    rolled_back: bool = False
    attachments: tuple[Mapping[str, Any], ...] = ()
    streams: bool = False
    """Its text comes by deltas and segments; any other message has all of it from the start."""
    _parts: list[str] = field(default_factory=list)
    _length: int = 0

    @property
    def text(self) -> str:
        if len(self._parts) > 1:
            self._parts = ["".join(self._parts)]
        return self._parts[0] if self._parts else ""

    @property
    def length(self) -> int:
        """Code points so far."""
        return self._length

    def put(self, offset: int, text: str) -> None:
        """Puts `text` at `offset`. A piece beyond the end waits for nothing: it is dropped, a segment will bring it."""
        if offset == self._length:
            self._parts.append(text)
            self._length += len(text)
        elif offset < self._length and offset + len(text) > self._length:
            self._parts.append(text[self._length - offset :])
            self._length = offset + len(text)

    def end(self, seq: int, reason: str | None = None) -> None:
        self.status = "done"
        self.reason = reason or self.reason or "complete"
        self.end_seq = seq

    def as_dict(self) -> dict[str, Any]:
        """The message as clients see it."""
        view: dict[str, Any] = {"id": self.id, "role": self.role, "seq": self.seq, "text": self.text}
        # The last segment of a text that is still open has a reason, which is its own when it ends.
        reason = self.reason if self.status == "done" else None
        view |= {"status": self.status, "reason": reason, "lane": self.lane, "run": self.run}
        view["by"] = by_to_wire(self.by)
        if self.name is not None:
            view["name"] = self.name
        if self.tool_call_id is not None:
            view["toolCallId"] = self.tool_call_id
        if self.rolled_back:
            view["rolledBack"] = True
        if self.attachments:
            view["attachments"] = [dict(reference) for reference in self.attachments]
        return view


def imported(seq: int, position: int, wire: Mapping[str, Any]) -> Message:
    """A message of another session (as `Message.as_dict` gives it), which entry `seq` holds; what is odd is left out."""

    def text(name: str) -> str | None:
        value = wire.get(name)
        return value if isinstance(value, str) else None

    message = Message(text("id") or f"imported_{seq}_{position}", text("role") or "user", seq)
    message.by, message.lane, message.run = (
        participant_from_wire(wire.get("by")),
        text("lane") or MAIN_LANE,
        text("run"),
    )
    message.name, message.tool_call_id = text("name"), text("toolCallId")
    message.rolled_back = wire.get("rolledBack") is True
    message.attachments = references_of(wire.get("attachments"))
    message.put(0, text("text") or "")
    message.end(seq, text("reason"))
    return message


class Transcript:
    """Folds entries to messages, and keeps the state beside them. Not pure in place, pure in what it computes."""

    def __init__(self, state: SessionState | None = None) -> None:
        self.state = state or SessionState()
        self.messages: list[Message] = []
        self._by_id: dict[str, Message] = {}
        self._open: dict[str, Message] = {}
        self._settled_here: set[str] = set()
        """Inputs that the entry at hand has taken off the queue."""

    def message(self, id_: str) -> Message | None:
        return self._by_id.get(id_)

    def apply(self, seq: int, entry: Entry) -> None:
        """Takes the next entry; entries must come in the order of the log. Deltas may be left out."""
        if entry.off is not None:
            self._apply_delta(entry)
            return
        before, self.state = self.state, fold(self.state, seq, entry)
        if self.state is before or not counts(before, entry) or self._repeats(before, entry):
            return
        self._settled_here.clear()
        for event in entry.events:
            self._apply_record(seq, entry, event, before)
        if entry.lane is not None:
            self._end_left_open(seq, entry)
            self._roll_back(entry.lane, before)

    def _repeats(self, before: SessionState, entry: Entry) -> bool:
        """A lane's write that was there before (after an unknown outcome) left its lane as it was."""
        lane = entry.lane
        return lane is not None and before.lanes.get(lane) is self.state.lanes.get(lane)

    def _apply_delta(self, entry: Entry) -> None:
        if not counts(self.state, entry) or entry.off is None:
            return
        for event in entry.events:
            match event:
                case TextMessageContent() | ReasoningMessageContent():
                    id_ = event.message_id
                case ToolCallArgs():
                    id_ = event.tool_call_id
                case _:
                    continue
            message = self._streamed(id_)
            if message is not None:
                message.put(entry.off, event.delta)

    def _apply_record(self, seq: int, entry: Entry, event: Event, before: SessionState) -> None:
        if entry.lane is None:
            self._apply_participant(seq, entry, event, before)
            return
        match event:
            case SessionOwner(kind="user"):
                for queued in before.queue(event.lane):
                    self._say(seq, queued, event.lane)
            case InputApplied():
                self._add_applied(seq, entry, event, before)
            case InputFailed():
                self._settled_here.add(event.input_id)
            case TextMessageStart():
                self._add(Message(event.message_id, event.role or "assistant", seq, streams=True), entry)
            case ReasoningMessageStart():
                self._add(Message(event.message_id, "reasoning", seq, streams=True), entry)
            case ToolCallStart():
                call = Message(event.tool_call_id, "tool_call", seq, name=event.tool_call_name, streams=True)
                self._add(call, entry)
            case MessageSegment():
                self._segment(event)
            case MessageAttached():
                self._attach(entry, event)
            case TextMessageEnd() | ReasoningMessageEnd():
                self._end(event.message_id, seq)
            case ToolCallEnd():
                self._end(event.tool_call_id, seq)
            case ToolCallResult():
                self._add_result(seq, entry, event)
            case _:
                pass

    def _apply_participant(self, seq: int, entry: Entry, event: Event, before: SessionState) -> None:
        match event:
            case InputSent():
                self._add_spoken(seq, entry, event, before)
            case SessionDeleted():
                self._forget()
            case MessagesImported() if before.untouched:
                self._import(seq, event)
            case _:
                pass

    def _add(self, message: Message, entry: Entry) -> Message:
        message.lane, message.run, message.by = entry.lane, entry.run, entry.by
        if self._keep(message):
            self._open[message.id] = message
        return message

    def _keep(self, message: Message) -> bool:
        """Whether it is new: one with an id that is there already is none."""
        if message.id in self._by_id:
            return False
        self.messages.append(message)
        self._by_id[message.id] = message
        return True

    def _streamed(self, id_: str) -> Message | None:
        message = self._by_id.get(id_)
        return message if message is not None and message.streams else None

    def _forget(self) -> None:
        self.messages.clear()
        self._by_id.clear()
        self._open.clear()

    def _import(self, seq: int, event: MessagesImported) -> None:
        for position, wire in enumerate(event.messages):
            if wire.get("continued") is True:
                begun, text = self._by_id.get(str(wire.get("id"))), wire.get("text")
                if begun is not None and isinstance(text, str):
                    begun.put(begun.length, text)
                continue
            self._keep(imported(seq, position, wire))

    def _add_applied(self, seq: int, entry: Entry, event: InputApplied, before: SessionState) -> None:
        queued = before.queued(event.input_id)
        if queued is None or event.input_id in self._settled_here:
            return
        self._settled_here.add(event.input_id)
        message = Message(event.message_id, "user", seq, queued.by, entry.lane, entry.run)
        message.attachments = queued.attachments
        message.put(0, queued.content)
        message.end(seq)
        self._keep(message)

    def _add_spoken(self, seq: int, entry: Entry, event: InputSent, before: SessionState) -> None:
        """An input to a lane that a human has is a message at once, if it was taken."""
        known = event.input_id in before.seen and before.planned(event.input_id) is None
        if before.lane(MAIN_LANE).human is None or known:
            return
        fate = self.state.fate(event.input_id)
        if fate is not None and fate.status == "applied" and fate.seq == seq:
            self._say(seq, inputs.as_sent(seq, entry, event), MAIN_LANE)

    def _say(self, seq: int, queued: QueuedInput, lane: str) -> None:
        """What the human who has the lane says stands where the agent's words would."""
        human = self.state.lane(lane).human
        by = queued.by
        is_owner = human is not None and by is not None and (by.kind, by.id) == ("user", human.id)
        message = Message(message_id_of(queued.input_id), "assistant" if is_owner else "user", seq)
        message.lane, message.by, message.attachments = lane, queued.by, queued.attachments
        message.put(0, queued.content)
        message.end(seq)
        self._keep(message)

    def _add_result(self, seq: int, entry: Entry, event: ToolCallResult) -> None:
        message = Message(event.message_id, "tool", seq, entry.by, entry.lane, entry.run)
        message.tool_call_id = event.tool_call_id
        message.put(0, event.content if isinstance(event.content, str) else "")
        message.end(seq)
        self._keep(message)

    def _segment(self, event: MessageSegment) -> None:
        message = self._streamed(event.message_id)
        if message is None:
            return
        if event.text is not None:
            message.put(event.offset, event.text)
        if event.final and event.reason is not None:
            message.reason = event.reason

    def _attach(self, entry: Entry, event: MessageAttached) -> None:
        message = self._by_id.get(event.message_id)
        if message is not None and message.lane == entry.lane:
            message.attachments = (*message.attachments, *event.attachments)

    def _end(self, id_: str, seq: int) -> None:
        message = self._streamed(id_)
        if message is not None:
            message.end(seq)
            self._open.pop(id_, None)

    def _end_left_open(self, seq: int, entry: Entry) -> None:
        """A run that ends, ends what its lane has left open."""
        streams = self.state.lane(entry.lane or "").streams
        for id_ in [id_ for id_, message in self._open.items() if message.lane == entry.lane and id_ not in streams]:
            self._end(id_, seq)

    def _roll_back(self, lane: str, before: SessionState) -> None:
        """A run that was rolled back leaves the conversation when it ends."""
        run = before.lane_run(lane)
        if run is None or run.run_id in self.state.runs or run.cancel is None or run.cancel.reason != "rollback":
            return
        for message in self.messages:
            if message.run == run.run_id:
                message.rolled_back = True
