"""What a lane writes next: tokens joined, records grouped, text in records in time. See test_transcript_properties.py."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_worker import lane
from agent_worker.lane import EVENT_BYTES_MAX, LaneQueue, StreamKind, Write
from broker.codec import encode
from broker.events import (
    Event,
    MessageSegment,
    OtherEvent,
    ReasoningMessageContent,
    ReasoningMessageEnd,
    StepStarted,
    TextMessageContent,
    TextMessageEnd,
    TextMessageStart,
    ToolCallArgs,
    ToolCallEnd,
    ToolCallResult,
    stream_end,
)
from tests.unit.strategies import entry_of, kinds, said, start_event

NATS_PAYLOAD_BYTES = 1 << 20


def queue(delta_chars: int = 10, segment_chars: int = 1000, segment_deltas: int = 1000) -> LaneQueue:
    return LaneQueue(delta_chars=delta_chars, segment_chars=segment_chars, segment_deltas=segment_deltas)


def opened(kind: StreamKind = "text", **limits: int) -> LaneQueue:
    """A queue with text `m`, whose beginning has been written."""
    lane_queue = queue(**limits)
    lane_queue.open(start_event(kind, "m"), "m", kind)
    lane_queue.next_write()
    return lane_queue


def writes(lane_queue: LaneQueue) -> list[Write]:
    return list(iter(lane_queue.next_write, None))


def test_an_empty_queue_writes_nothing() -> None:
    assert not queue()
    assert queue().next_write() is None


def test_tokens_that_wait_are_one_delta() -> None:
    lane_queue = opened()
    for token in ("Hel", "lo", " ", "😀"):
        lane_queue.text("m", token)
    assert lane_queue.pending_chars == 7
    assert writes(lane_queue) == [Write((TextMessageContent("m", "Hello 😀"),), 0, 7)]
    assert lane_queue.pending_chars == 0
    lane_queue.text("m", "!")
    assert writes(lane_queue) == [Write((TextMessageContent("m", "!"),), 7, 1)]


@pytest.mark.parametrize(
    ("kind", "delta", "end"),
    [
        ("text", TextMessageContent("m", "x"), TextMessageEnd("m")),
        ("reasoning", ReasoningMessageContent("m", "x"), ReasoningMessageEnd("m")),
        ("tool_call", ToolCallArgs("m", "x"), ToolCallEnd("m")),
    ],
)
def test_each_kind_of_text_has_its_events(kind: StreamKind, delta: Event, end: Event) -> None:
    lane_queue = opened(kind)
    lane_queue.text("m", "x")
    lane_queue.close("m")
    segment = MessageSegment("m", 0, 1, "x", True, "complete")
    assert writes(lane_queue) == [Write((delta,), 0, 1), Write((segment, end), None, 0)]
    assert stream_end(kind, "m") == end


def test_a_delta_holds_no_more_than_it_may() -> None:
    lane_queue = opened(delta_chars=3)
    lane_queue.text("m", "abcdefg")
    lane_queue.text("m", "h")
    assert [(w.off, w.events[0]) for w in writes(lane_queue)] == [
        (0, TextMessageContent("m", "abc")),
        (3, TextMessageContent("m", "def")),
        (6, TextMessageContent("m", "gh")),
    ]


def test_texts_that_alternate_are_not_mixed() -> None:
    lane_queue = opened()
    lane_queue.open(TextMessageStart("n"), "n", "text")
    lane_queue.next_write()
    for id_ in ("m", "n", "m"):
        lane_queue.text(id_, id_)
    assert [w.events[0] for w in writes(lane_queue)] == [TextMessageContent(id_, id_) for id_ in ("m", "n", "m")]


@pytest.mark.parametrize("limits", [{"segment_chars": 4}, {"segment_deltas": 2}])
def test_text_gets_into_a_record_in_time(limits: dict[str, int]) -> None:
    lane_queue = opened(delta_chars=2, **limits)
    lane_queue.text("m", "abcdef")
    lane_queue.close("m")
    found = [event for write in writes(lane_queue) for event in write.events]
    assert found == [
        TextMessageContent("m", "ab"),
        TextMessageContent("m", "cd"),
        MessageSegment("m", 0, 4, "abcd"),
        TextMessageContent("m", "ef"),
        MessageSegment("m", 4, 2, "ef", True, "complete"),
        TextMessageEnd("m"),
    ]


def test_records_that_wait_are_one_record() -> None:
    lane_queue = opened()
    lane_queue.close("m", "cancelled")
    lane_queue.record(StepStarted("a"), StepStarted("b"))
    lane_queue.open(TextMessageStart("n"), "n", "text")
    (write,) = writes(lane_queue)
    final = MessageSegment("m", 0, 0, "", True, "cancelled")
    assert write == Write(
        (final, TextMessageEnd("m"), StepStarted("a"), StepStarted("b"), TextMessageStart("n")), None, 0
    )


def test_a_record_has_a_bounded_number_of_events() -> None:
    lane_queue = queue()
    for number in range(lane.RECORD_EVENTS_MAX + 1):
        lane_queue.record(StepStarted(str(number)))
    assert [len(write.events) for write in writes(lane_queue)] == [lane.RECORD_EVENTS_MAX, 1]


@pytest.mark.parametrize("large", [OtherEvent("CUSTOM", {"type": "CUSTOM"}), ToolCallResult("r", "t", "x")])
def test_an_authors_payload_has_a_record_of_its_own(large: Event) -> None:
    lane_queue = queue()
    for event in (StepStarted("a"), large, large, StepStarted("b")):
        lane_queue.record(event)
    assert [w.events for w in writes(lane_queue)] == [(StepStarted("a"),), (large,), (large,), (StepStarted("b"),)]


def test_the_largest_record_fits_into_a_message_of_nats() -> None:
    """Text that is six times as long in JSON, from texts that end all at once, and the largest of payloads."""
    limits = {"delta_chars": 16_384, "segment_chars": 16_384, "segment_deltas": 256}
    lane_queue = LaneQueue(**limits)
    for number in range(20):
        lane_queue.open(TextMessageStart(f"m{number}"), f"m{number}", "text")
        lane_queue.text(f"m{number}", "\x00" * (limits["segment_chars"] - 1))
    for id_ in lane_queue.open_streams():
        lane_queue.close(id_)
    lane_queue.record(ToolCallResult("r", "t", "x" * EVENT_BYTES_MAX))
    sizes = [len(encode(entry_of(write, 1, n))) for n, write in enumerate(writes(lane_queue), 1)]
    assert max(sizes) < NATS_PAYLOAD_BYTES


def test_silence_settles_what_is_in_no_record() -> None:
    lane_queue = opened()
    lane_queue.settle()
    assert not lane_queue, "nothing was said"
    lane_queue.text("m", "abc")
    lane_queue.settle()
    assert writes(lane_queue) == [Write((TextMessageContent("m", "abc"),), 0, 3)], "it was not silent yet"
    lane_queue.settle()
    assert writes(lane_queue) == [Write((MessageSegment("m", 0, 3, "abc"),), None, 0)]
    lane_queue.settle()
    assert not lane_queue


def test_open_texts_are_those_not_told_to_end() -> None:
    lane_queue = opened()
    lane_queue.open(TextMessageStart("n"), "n", "text")
    assert lane_queue.open_streams() == ["m", "n"]
    lane_queue.close("m")
    assert lane_queue.open_streams() == ["n"]
    writes(lane_queue)
    assert lane_queue.open_streams() == ["n"]


@given(kinds, st.lists(said, max_size=20), st.integers(1, 5), st.integers(1, 9), st.integers(1, 4))
def test_offsets_and_limits_hold(kind: StreamKind, tokens: list[str], chars: int, segment: int, deltas: int) -> None:
    lane_queue = opened(kind, delta_chars=chars, segment_chars=segment, segment_deltas=deltas)
    for token in tokens:
        lane_queue.text("m", token)
    sent = settled = unsettled = 0
    for write in writes(lane_queue):
        if write.off is not None:
            assert write.off == sent
            assert 1 <= write.chars <= chars
            sent, unsettled = sent + write.chars, unsettled + 1
            assert unsettled <= deltas
        for event in write.events:
            if isinstance(event, MessageSegment):
                assert (event.offset, event.length) == (settled, sent - settled)
                settled, unsettled = sent, 0
        assert sent - settled < segment + chars
    assert sent == sum(map(len, tokens))
