"""The fold of messages (PROTOCOL, section 6): text that knows its place, and messages that begin and end."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.events import (
    Entry,
    Event,
    InputApplied,
    InputCancelRequested,
    InputSent,
    MessageSegment,
    Participant,
    ReasoningMessageContent,
    ReasoningMessageEnd,
    ReasoningMessageStart,
    RunError,
    RunFinished,
    RunStarted,
    SessionOwner,
    TextMessageContent,
    TextMessageEnd,
    TextMessageStart,
    ToolCallArgs,
    ToolCallEnd,
    ToolCallResult,
    ToolCallStart,
)
from broker.transcript import Message, Transcript
from tests.unit.strategies import texts

USER, AGENT = Participant("user", "user-1", "A user"), Participant("agent", "echo")


class Told:
    """A transcript whose lane is owned under fence 1 and runs `run_i1`."""

    def __init__(self) -> None:
        self.transcript = Transcript()
        self.seq, self.n = 0, 0
        self.entry(Entry("own", 1, (SessionOwner("main", "agent", "w1"),), "main"))
        self.entry(Entry("i1", 1, (InputSent("i1", "Hello"),), by=USER))
        self.record(RunStarted("s", "run_i1"), InputApplied("i1", "run_i1", "msg_i1"))

    def entry(self, entry: Entry) -> None:
        self.seq += 1
        self.transcript.apply(self.seq, entry)

    def record(self, *events: Event, fence: int = 1) -> None:
        self.n += 1
        self.entry(Entry(f"{fence}-{self.n}", 1, events, "main", "run_i1", AGENT))

    def delta(self, event: Event, off: int, fence: int = 1) -> None:
        self.n += 1
        self.entry(Entry(f"{fence}-{self.n}", 1, (event,), "main", off=off))

    def message(self, id_: str) -> Message:
        found = self.transcript.message(id_)
        assert found is not None
        return found


@pytest.fixture
def told() -> Told:
    return Told()


def test_an_applied_input_is_a_message_of_its_sender(told: Told) -> None:
    assert told.message("msg_i1").as_dict() == {
        "id": "msg_i1",
        "role": "user",
        "seq": 3,
        "text": "Hello",
        "status": "done",
        "reason": "complete",
        "lane": "main",
        "run": "run_i1",
        "by": {"kind": "user", "id": "user-1", "name": "A user"},
    }


def test_an_input_that_was_not_queued_is_no_message(told: Told) -> None:
    told.entry(Entry("i2", 1, (InputSent("i2", "x"),), by=USER))
    told.entry(Entry("c", 1, (InputCancelRequested("i2"),), by=USER))
    told.record(InputApplied("i2", "run_i2", "msg_i2"), InputApplied("i9", "run_i9", "msg_i9"))
    assert [m.id for m in told.transcript.messages] == ["msg_i1"]


STREAMS: list[tuple[Event, Event, Event, dict[str, Any]]] = [
    (TextMessageStart("m"), TextMessageContent("m", "42"), TextMessageEnd("m"), {"role": "assistant"}),
    (TextMessageStart("m", "system"), TextMessageContent("m", "42"), TextMessageEnd("m"), {"role": "system"}),
    (ReasoningMessageStart("m"), ReasoningMessageContent("m", "42"), ReasoningMessageEnd("m"), {"role": "reasoning"}),
    (ToolCallStart("m", "f"), ToolCallArgs("m", "42"), ToolCallEnd("m"), {"role": "tool_call", "name": "f"}),
]


@pytest.mark.parametrize(("start", "delta", "end", "expected"), STREAMS)
def test_a_streamed_message(told: Told, start: Event, delta: Event, end: Event, expected: dict[str, Any]) -> None:
    told.record(start)
    told.delta(delta, 0)
    by = {"by": {"kind": "agent", "id": "echo"}, "lane": "main", "run": "run_i1", "seq": 4, "id": "m"}
    assert told.message("m").as_dict() == by | expected | {"text": "42", "status": "streaming", "reason": None}
    told.record(end)
    assert told.message("m").as_dict() == by | expected | {"text": "42", "status": "done", "reason": "complete"}
    assert told.message("m").end_seq == 6


@pytest.mark.parametrize(("content", "text"), [("42", "42"), (None, ""), ([{"type": "text", "text": "x"}], "")])
def test_a_tools_result(told: Told, content: Any, text: str) -> None:
    told.record(ToolCallResult("m", "t1", content))
    view = told.message("m").as_dict()
    assert (view["role"], view["text"], view["toolCallId"], view["status"]) == ("tool", text, "t1", "done")


@pytest.mark.parametrize("reason", ["complete", "cancelled", "worker_lost", "error"])
def test_the_final_segment_says_how_a_text_ended(told: Told, reason: str) -> None:
    told.record(TextMessageStart("m"))
    told.record(MessageSegment("m", 0, 2, "Hi", True, reason), TextMessageEnd("m"))
    assert (told.message("m").text, told.message("m").reason) == ("Hi", reason)


@pytest.mark.parametrize("ending", [RunFinished("s", "run_i1"), RunError("it broke")])
def test_a_run_that_ends_ends_what_its_lane_left_open(told: Told, ending: Event) -> None:
    told.record(TextMessageStart("m"), ToolCallStart("t", "f"))
    told.record(MessageSegment("t", 0, 0, "", True, "cancelled"), ending)
    assert [(m.id, m.status, m.reason) for m in told.transcript.messages[1:]] == [
        ("m", "done", "complete"),
        ("t", "done", "cancelled"),
    ]
    assert told.message("m").end_seq == told.seq


def test_another_lanes_texts_stay_open(told: Told) -> None:
    told.entry(Entry("own", 1, (SessionOwner("other", "agent", "w2"),), "other"))
    told.entry(Entry(f"{told.seq}-1", 1, (TextMessageStart("m"),), "other"))
    told.record(RunFinished("s", "run_i1"))
    assert told.message("m").status == "streaming"


def test_a_zombie_says_nothing(told: Told) -> None:
    told.record(TextMessageStart("m"))
    told.delta(TextMessageContent("m", "said"), 0)
    told.entry(Entry("own", 1, (SessionOwner("main", "agent", "w2"),), "main"))
    told.delta(TextMessageContent("m", " too late"), 4)
    told.record(TextMessageStart("zombie"), TextMessageEnd("m"))
    assert [(m.id, m.text, m.status) for m in told.transcript.messages[1:]] == [("m", "said", "streaming")]


def test_a_repeated_record_adds_no_message(told: Told) -> None:
    told.record(ToolCallResult("r1", "t", "x"))
    told.n -= 1
    told.record(ToolCallResult("r2", "t", "x"))
    assert [m.id for m in told.transcript.messages] == ["msg_i1", "r1"]


def test_text_of_a_message_that_nobody_began_goes_nowhere(told: Told) -> None:
    told.delta(TextMessageContent("m", "x"), 0)
    told.record(MessageSegment("m", 0, 1, "x"), TextMessageEnd("m"))
    assert len(told.transcript.messages) == 1


def test_a_delta_that_is_a_record_is_no_delta(told: Told) -> None:
    told.record(TextMessageStart("m"), TextMessageContent("m", "x"))
    assert told.message("m").text == ""


# --- where text belongs ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offset", "text", "expected"),
    [
        (3, "def", "abcdef"),
        (0, "abc", "abc"),
        (1, "b", "abc"),
        (1, "bcde", "abcde"),
        (0, "abcd", "abcd"),
        (4, "e", "abc"),
        (3, "", "abc"),
    ],
)
def test_text_goes_where_it_belongs(offset: int, text: str, expected: str) -> None:
    message = Message("m", "assistant", 1)
    message.put(0, "abc")
    message.put(offset, text)
    assert (message.text, message.length) == (expected, len(expected))


@given(texts, st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), max_size=20))
def test_pieces_in_any_order_give_a_prefix_and_never_anything_else(text: str, pieces: list[tuple[int, int]]) -> None:
    message = Message("m", "assistant", 1)
    for offset, length in pieces:
        message.put(offset, text[offset : offset + length] if offset <= len(text) else "")
        assert text.startswith(message.text)
        assert message.length == len(message.text)
    message.put(0, text)
    assert message.text == text
