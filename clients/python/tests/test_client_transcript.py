"""The fold of messages: deltas, segments, and any mix of the two."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon_client import Entry, Fold, Message, Transcript
from antiphon_client.transcript import _Text

Event = dict[str, Any]
AGENT = {"kind": "agent", "id": "w-1"}
USER = {"kind": "user", "id": "user-1", "name": "A user"}


class Log:
    """Builds entries of the lane `main` under its first fence, and folds them."""

    def __init__(self) -> None:
        self.fold = Fold()
        self.seq = 1
        owner = {"type": "session.owner", "lane": "main", "kind": "agent", "id": "w-1"}
        self.fold.apply(Entry("demo", 1, 0, id="0-0", lane="main", by=AGENT, events=(owner,)))

    def lane(self, *events: Event, fence: int = 1, **fields: Any) -> None:
        self.seq += 1
        values = {"id": f"{fence}-{self.seq}", "lane": "main", "by": AGENT, **fields}
        self.fold.apply(Entry("demo", self.seq, self.seq - 1, events=events, **values))

    def person(self, event: Event, by: Event = USER) -> None:
        self.seq += 1
        self.fold.apply(Entry("demo", self.seq, self.seq - 1, id="command", by=by, events=(event,)))

    def delta(self, off: int | None, text: Any, message_id: str = "m", kind: str = "TEXT_MESSAGE_CONTENT") -> None:
        key = "toolCallId" if kind == "TOOL_CALL_ARGS" else "messageId"
        self.lane({"type": kind, key: message_id, "delta": text}, off=off, by=None)

    def segment(self, offset: int, text: str | None, message_id: str = "m", **fields: Any) -> None:
        length = 0 if text is None else len(text)
        event = {"type": "message.segment", "messageId": message_id, "offset": offset, "length": length, **fields}
        self.lane(event if text is None else {**event, "text": text})

    def start(self, message_id: str = "m", **fields: Any) -> None:
        self.lane({"type": "TEXT_MESSAGE_START", "messageId": message_id, **fields}, run="run_i")

    def end(self, message_id: str = "m") -> None:
        self.lane({"type": "TEXT_MESSAGE_END", "messageId": message_id})

    @property
    def messages(self) -> list[Message]:
        return self.fold.messages

    @property
    def only(self) -> Message:
        (message,) = self.fold.messages
        return message


def test_a_streamed_message() -> None:
    log = Log()
    log.start()
    assert log.only == Message("m", "assistant", AGENT, "main", "run_i", "", "streaming", seq=2)
    log.delta(0, "Hel")
    log.delta(3, "lo")
    assert (log.only.text, log.only.status, log.only.reason) == ("Hello", "streaming", None)
    log.segment(0, None, final=True, reason="complete")
    log.end()
    assert log.only == Message("m", "assistant", AGENT, "main", "run_i", "Hello", "done", "complete", seq=2)


def test_a_message_without_a_final_segment_is_complete() -> None:
    log = Log()
    log.start(role="developer")
    log.end()
    assert (log.only.role, log.only.status, log.only.reason) == ("developer", "done", "complete")


@pytest.mark.parametrize("order", ["before", "after"])
def test_the_final_segment_says_how_it_ended(order: str) -> None:
    log = Log()
    log.start()
    log.delta(0, "Hel")
    if order == "after":
        log.end()
    log.segment(0, "Hel", final=True, reason="worker_lost")
    if order == "before":
        assert log.only.reason is None
        log.end()
    assert (log.only.text, log.only.status, log.only.reason) == ("Hel", "done", "worker_lost")


def test_a_segment_that_is_not_final_says_nothing() -> None:
    log = Log()
    log.start()
    log.segment(0, "Hel", reason="cancelled")
    log.end()
    assert log.only.reason == "complete"


def test_segments_without_text_leave_the_text() -> None:
    log = Log()
    log.start()
    log.delta(0, "Hello")
    log.segment(0, None)
    assert log.only.text == "Hello"


def test_a_piece_beyond_the_end_waits_for_its_segment() -> None:
    log = Log()
    log.start()
    log.delta(0, "He")
    log.delta(3, "o")
    assert log.only.text == "He"
    log.segment(0, "Hello")
    assert log.only.text == "Hello"
    log.delta(0, "Jello")
    assert log.only.text == "Hello"


def test_offsets_are_code_points() -> None:
    log = Log()
    log.start()
    log.delta(0, "a😀")
    log.delta(2, "é")
    log.segment(1, "😀é")
    assert log.only.text == "a😀é"


def test_a_reasoning_and_a_tool_call() -> None:
    log = Log()
    log.lane({"type": "REASONING_START", "messageId": "r"}, {"type": "REASONING_MESSAGE_START", "messageId": "r"})
    log.delta(0, "hm", "r", "REASONING_MESSAGE_CONTENT")
    log.lane({"type": "REASONING_MESSAGE_END", "messageId": "r"}, {"type": "REASONING_END", "messageId": "r"})
    log.lane({"type": "TOOL_CALL_START", "toolCallId": "c", "toolCallName": "find", "parentMessageId": "r"})
    log.delta(0, '{"a"', "c", "TOOL_CALL_ARGS")
    log.segment(4, ":1}", "c", final=True, reason="complete")
    log.lane({"type": "TOOL_CALL_END", "toolCallId": "c"})
    log.lane({"type": "TOOL_CALL_RESULT", "messageId": "t", "toolCallId": "c", "content": "42"})
    assert log.messages == [
        Message("r", "reasoning", AGENT, "main", None, "hm", "done", "complete", seq=2),
        Message("c", "tool_call", AGENT, "main", None, '{"a":1}', "done", "complete", name="find", seq=5),
        Message("t", "tool", AGENT, "main", None, "42", "done", "complete", tool_call_id="c", seq=9),
    ]


def test_an_input_appears_when_it_is_applied() -> None:
    log = Log()
    log.person({"type": "input.sent", "inputId": "i", "content": "And then?"})
    assert log.messages == []
    log.lane({"type": "input.applied", "inputId": "i", "runId": "run_i", "messageId": "msg_i"}, run="run_i")
    assert log.only == Message("msg_i", "user", USER, "main", "run_i", "And then?", "done", "complete", seq=3)


def test_a_message_sent_twice_is_the_first_one() -> None:
    log = Log()
    log.person({"type": "input.sent", "inputId": "i", "content": "one"})
    log.person({"type": "input.sent", "inputId": "i", "content": "two"})
    for message_id in ("a", "a"):
        log.lane({"type": "input.applied", "inputId": "i", "runId": "run_i", "messageId": message_id})
    assert log.only.text == "one"


def test_an_input_that_does_not_wait_is_not_applied() -> None:
    log = Log()
    log.person({"type": "input.sent", "inputId": "i", "content": "one"})
    log.person({"type": "input.cancel.requested", "inputId": "i"})
    log.lane({"type": "input.applied", "inputId": "i", "runId": "run_i", "messageId": "a"})
    log.lane({"type": "input.applied", "inputId": "never", "runId": "run_i", "messageId": "b"})
    assert log.messages == []


@pytest.mark.parametrize(
    "event",
    [
        {"type": "RUN_FINISHED", "runId": "run_i", "outcome": {"type": "cancelled"}},
        {"type": "RUN_ERROR", "code": "agent_error"},
    ],
)
def test_a_run_ends_the_texts_that_are_open_in_its_lane(event: Event) -> None:
    log = Log()
    log.lane({"type": "RUN_STARTED", "runId": "run_i"})
    log.start("closed")
    log.end("closed")
    log.start("partial")
    log.segment(0, "Hel", "partial", final=True, reason="cancelled")
    log.start("open")
    log.fold.apply(Entry("demo", 90, 89, id="0-0", lane="side", events=({"type": "session.owner", "kind": "agent"},)))
    elsewhere = {"type": "TEXT_MESSAGE_START", "messageId": "elsewhere"}
    log.fold.apply(Entry("demo", 91, 90, id="90-1", lane="side", events=(elsewhere,)))
    log.lane(event)
    assert [(message.id, message.status, message.reason) for message in log.messages] == [
        ("closed", "done", "complete"),
        ("partial", "done", "cancelled"),
        ("open", "done", "complete"),
        ("elsewhere", "streaming", None),
    ]


def test_a_run_that_does_not_run_ends_no_text() -> None:
    log = Log()
    log.start()
    log.lane({"type": "RUN_FINISHED", "runId": "run_other", "outcome": {"type": "success"}})
    assert log.only.status == "streaming"


def test_an_old_fence_writes_nothing() -> None:
    log = Log()
    log.start()
    log.lane({"type": "session.owner", "lane": "main", "kind": "agent", "id": "w-2"}, fence=0)
    log.delta(0, "zombie")
    assert log.only.text == ""
    log.lane({"type": "TEXT_MESSAGE_CONTENT", "messageId": "m", "delta": "new"}, off=0, fence=3)
    assert log.only.text == "new"


def test_a_start_that_comes_twice_changes_nothing() -> None:
    log = Log()
    log.start()
    log.delta(0, "Hello")
    log.start(role="user")
    assert (log.only.role, log.only.text) == ("assistant", "Hello")


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"type": 7},
        {"type": []},
        {"type": "NEW_THING", "messageId": "m"},
        {"type": "TEXT_MESSAGE_START"},
        {"type": "TEXT_MESSAGE_START", "messageId": 1},
        {"type": "TEXT_MESSAGE_CONTENT", "messageId": "m", "delta": 1},
        {"type": "TEXT_MESSAGE_CONTENT", "messageId": "other", "delta": "x"},
        {"type": "TEXT_MESSAGE_CONTENT", "delta": "x"},
        {"type": "message.segment", "messageId": "m", "offset": -1, "text": "x"},
        {"type": "message.segment", "messageId": "m", "offset": "0", "text": "x"},
        {"type": "message.segment", "messageId": "m", "text": "x"},
        {"type": "message.segment", "messageId": ["m"], "offset": 0, "text": "x", "final": True},
        {"type": "TEXT_MESSAGE_END", "messageId": "other"},
        {"type": "TOOL_CALL_END", "toolCallId": None},
        {"type": "input.applied", "inputId": "i"},
    ],
)
def test_what_is_unknown_or_malformed_counts_as_nothing(event: Event) -> None:
    log = Log()
    log.start()
    log.delta(0, "Hello")
    before = log.fold.as_dict()
    log.lane(event, off=0)
    assert log.fold.as_dict() == before


def test_a_delta_without_an_offset_counts_as_nothing() -> None:
    log = Log()
    log.start()
    log.delta(None, "Hello")
    assert log.only.text == ""


def test_the_text_of_a_finished_kind_is_not_changed() -> None:
    log = Log()
    log.lane({"type": "TOOL_CALL_RESULT", "messageId": "t", "toolCallId": "c", "content": "42"})
    log.delta(0, "xx", "t")
    log.end("t")
    assert (log.only.text, log.only.reason) == ("42", "complete")


def test_messages_are_new_objects_only_when_they_change() -> None:
    log = Log()
    log.start("a")
    log.start("b")
    first, second = log.messages
    log.delta(0, "x", "b")
    assert log.messages[0] is first
    assert log.messages[1] is not second
    assert second.text == ""


def test_a_limit_forgets_the_oldest() -> None:
    transcript = Transcript(limit=2)
    for seq, name in enumerate("abc"):
        event = {"type": "TEXT_MESSAGE_START", "messageId": name}
        transcript.apply_event(Entry("demo", seq + 1, seq, lane="main"), event)
    assert [message.id for message in transcript.messages] == ["b", "c"]
    assert transcript.get("a") is None
    assert transcript.get("c") == transcript.messages[1]


def test_as_dict_is_json_of_the_protocol() -> None:
    log = Log()
    log.start()
    log.lane({"type": "TOOL_CALL_START", "toolCallId": "c", "toolCallName": "find"})
    common = {"by": AGENT, "lane": "main", "text": "", "status": "streaming", "reason": None}
    assert json.loads(json.dumps(log.fold.transcript.as_dict())) == {
        "messages": [
            {"id": "m", "role": "assistant", "run": "run_i", "seq": 2, **common},
            {"id": "c", "role": "tool_call", "run": None, "name": "find", "seq": 3, **common},
        ]
    }


def test_a_message_of_history_reads_what_as_dict_writes() -> None:
    message = Message("m", "tool", USER, "main", "run_i", "x", "done", None, None, "c", 7)
    assert Message.from_dict(json.loads(json.dumps(message.as_dict()))) == message
    assert Message.from_dict({"role": "user"}) is None
    assert Message.from_dict({"id": "m"}) == Message("m", "assistant", None, None, None, "", "done")


texts = st.text(alphabet="ab é\n😀\U0001d54f\u0301", max_size=40)


def rule(text: str, offset: int, piece: str) -> str:
    """What the protocol says of a piece, character by character."""
    for index, character in enumerate(piece, offset):
        if index == len(text):
            text += character
    return text


@given(st.lists(st.tuples(st.integers(0, 60), texts), max_size=20))
def test_put_is_the_rule(pieces: list[tuple[int, str]]) -> None:
    text, expected = _Text(), ""
    for offset, piece in pieces:
        changed = text.put(offset, piece)
        before, expected = expected, rule(expected, offset, piece)
        assert text.value() == expected
        assert changed == (before != expected)


@st.composite
def coverings(draw: st.DrawFn) -> tuple[str, list[tuple[str, int, str]]]:
    """A text, and its deltas and segments, mixed, some of them twice, some lost to the other kind."""
    text = draw(texts)
    streams = []
    for kind in draw(st.sampled_from([("delta",), ("segment",), ("delta", "segment")])):
        cuts = sorted({0, len(text), *draw(st.lists(st.integers(0, len(text)), max_size=8))})
        streams.append([(kind, start, text[start:end]) for start, end in pairwise(cuts)])
    pieces: list[tuple[str, int, str]] = []
    while any(streams):
        pieces.append(draw(st.sampled_from([stream for stream in streams if stream])).pop(0))
        if draw(st.booleans()):
            pieces.append(draw(st.sampled_from(pieces)))
    return text, pieces


@given(coverings())
def test_any_mix_of_deltas_and_segments_gives_the_same_text(case: tuple[str, list[tuple[str, int, str]]]) -> None:
    text, pieces = case
    log = Log()
    log.start()
    for kind, offset, piece in pieces:
        if kind == "delta":
            log.delta(offset, piece)
        else:
            log.segment(offset, piece)
    log.end()
    assert log.only.text == text


def test_a_long_text_grows_in_linear_time() -> None:
    text = _Text()
    for index in range(200_000):
        text.put(index * 25, "x" * 25)
    # five megabytes; copying the text for each piece would move 500 GB and hit the time-out
    assert len(text.value()) == 5_000_000
