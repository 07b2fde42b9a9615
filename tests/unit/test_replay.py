"""Frames of a reader: live ones as they are, replayed ones merged, segments without what was had as deltas."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from broker.codec import encode
from broker.events import (
    Entry,
    Event,
    MessageSegment,
    ReasoningMessageContent,
    StepRecorded,
    TextMessageContent,
    TextMessageEnd,
    ToolCallArgs,
)
from broker.subjects import Kind, Place
from gateway import replay
from gateway.replay import ReplayEntry, delta_body, for_clients, frames, sane_body, without_settled_text


def delta(seq: int, off: int, text: str, *, fence: int = 1, event: Event | None = None) -> ReplayEntry:
    body = Entry(f"{fence}-{seq}", seq, (event or TextMessageContent("m", text),), "main", off=off)
    return ReplayEntry(seq, 0, encode(body), True)


def record(seq: int, *events: Event) -> ReplayEntry:
    return ReplayEntry(seq, 0, encode(Entry(f"1-{seq}", seq, events or (TextMessageEnd("x"),), "main")), False)


def raw(seq: int, body: bytes) -> ReplayEntry:
    return ReplayEntry(seq, 0, body, True)


def sent(entries: list[ReplayEntry], last: int = 0, *, merge: bool = True) -> list[dict[str, Any]]:
    return [orjson.loads(frame) for frame in frames("s", entries, last, merge=merge)]


def chain(entries: list[dict[str, Any]]) -> list[tuple[int, int]]:
    return [(frame["prev"], frame["seq"]) for frame in entries]


def test_nothing_gives_nothing() -> None:
    assert sent([]) == []


def test_neighbouring_deltas_of_a_text_are_one_frame() -> None:
    (frame,) = sent([delta(3, 0, "Hel"), delta(5, 3, "lo "), delta(6, 6, "😀")], last=2)
    assert frame == {
        "op": "entry",
        "session": "s",
        "seq": 6,
        "prev": 2,
        "id": "1-6",
        "lane": "main",
        "ts": 3,
        "off": 0,
        "merged": 3,
        "events": [{"type": "TEXT_MESSAGE_CONTENT", "messageId": "m", "delta": "Hello 😀"}],
    }


def test_a_delta_alone_is_not_called_merged() -> None:
    (frame,) = sent([delta(3, 0, "Hello")])
    assert "merged" not in frame


def test_without_merging_every_entry_has_its_frame() -> None:
    assert chain(sent([delta(3, 0, "a"), delta(5, 1, "b")], last=2, merge=False)) == [(2, 3), (3, 5)]


def test_records_stand_between() -> None:
    entries = [delta(1, 0, "a"), delta(2, 1, "b"), record(4), delta(5, 2, "c"), record(6), record(7), delta(9, 3, "d")]
    assert chain(sent(entries)) == [(0, 2), (2, 4), (4, 5), (5, 6), (6, 7), (7, 9)]


@pytest.mark.parametrize(
    "second",
    [
        delta(2, 2, "x"),
        delta(2, 0, "x"),
        delta(2, 1, "x", fence=2),
        delta(2, 1, "x", event=TextMessageContent("other", "x")),
        delta(2, 1, "x", event=ReasoningMessageContent("m", "x")),
        delta(2, 1, "x", event=ToolCallArgs("m", "x")),
    ],
    ids=["gap", "overlap", "fence", "message", "kind", "arguments"],
)
def test_what_does_not_belong_together_stays_apart(second: ReplayEntry) -> None:
    assert chain(sent([delta(1, 0, "a"), second])) == [(0, 1), (1, 2)]


def test_a_merged_frame_has_a_bounded_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "MERGED_TEXT_MAX", 5)
    found = sent([delta(seq, 2 * (seq - 1), "ab") for seq in range(1, 6)])
    assert [frame["events"][0]["delta"] for frame in found] == ["abab", "abab", "ab"]
    assert [frame.get("merged") for frame in found] == [2, 2, None]


@pytest.mark.parametrize(
    "wire",
    [
        {},
        {"events": []},
        {"events": [{"type": "TEXT_MESSAGE_CONTENT"}], "off": 0},
        {
            "id": 1,
            "lane": "main",
            "off": 0,
            "events": [{"type": "TEXT_MESSAGE_CONTENT", "messageId": "m", "delta": "x"}],
        },
        {
            "id": "1-1",
            "lane": "main",
            "off": "0",
            "events": [{"type": "TOOL_CALL_ARGS", "toolCallId": "m", "delta": ""}],
        },
        {"id": "1-1", "lane": "main", "off": 0, "events": [{"type": "TOOL_CALL_ARGS", "toolCallId": "m", "delta": 1}]},
        {"id": "1-1", "lane": "main", "off": 0, "events": [{"type": ["x"], "messageId": "m", "delta": "x"}]},
        {"id": "1-1", "lane": "main", "off": 0, "events": [{"type": "CUSTOM", "messageId": "m", "delta": "x"}]},
    ],
)
def test_what_cannot_be_merged_goes_as_it_is(wire: dict[str, Any]) -> None:
    odd = raw(2, orjson.dumps({"id": "1-2"} | wire))
    found = sent([delta(1, 0, "a"), odd, delta(3, 1, "b")])
    assert chain(found) == [(0, 1), (1, 2), (2, 3)]
    assert found[1].items() >= wire.items()


def test_a_faithful_body_is_passed_on_byte_by_byte() -> None:
    entry = Entry("1-1", 1, (TextMessageEnd("m"),), "main")
    assert sane_body(entry, True, b"as it was") == b"as it was"
    assert sane_body(entry, False, b"forged") == encode(entry)


def test_who_has_had_the_deltas_gets_no_text_again() -> None:
    entry = Entry("1-1", 1, (MessageSegment("m", 0, 5, "Hello", True, "complete"), TextMessageEnd("m")), "main")
    assert orjson.loads(without_settled_text(entry, encode(entry)))["events"] == [
        {"type": "message.segment", "messageId": "m", "offset": 0, "length": 5, "final": True, "reason": "complete"},
        {"type": "TEXT_MESSAGE_END", "messageId": "m"},
    ]


@pytest.mark.parametrize(
    "events", [(TextMessageEnd("m"),), (MessageSegment("m", 0, 5),), (MessageSegment("m", 5, 0, ""),)]
)
def test_what_has_no_text_is_passed_on_as_it_is(events: tuple[Event, ...]) -> None:
    assert without_settled_text(Entry("1-1", 1, events, "main"), b"as it was") == b"as it was"


def test_what_a_step_came_to_is_for_no_client() -> None:
    plain = Entry("1-2", 1, (TextMessageEnd("m"), StepRecorded("step_1", "look", error="OSError")), "main")
    assert for_clients(plain) is plain
    segment, ended = MessageSegment("m", 0, 2, "Hi"), TextMessageEnd("m")
    entry = Entry("1-1", 1, (segment, ended, StepRecorded("step_1", "look", {"secret": 1}, asked="ab")), "main")
    shown = for_clients(entry)
    assert shown.events == (segment, ended, StepRecorded("step_1", "look", asked="ab"))
    full = sane_body(shown, shown is entry, encode(entry))
    assert b"secret" not in full + without_settled_text(shown, full)
    assert b"Hi" in full


def test_deltas_whose_ids_are_none_are_not_joined() -> None:
    """The joined frame has the last one's id, by which all of it would count, or none of it."""
    bodies = [
        orjson.dumps({"id": id_, "lane": "main", "ts": 1, "off": off, "events": [{**DELTA_EVENT, "delta": "x"}]})
        for off, id_ in enumerate(("5-1", "5-2", "5-3*", "5-4"))
    ]
    entries = [ReplayEntry(seq, 0, body, True) for seq, body in enumerate(bodies, 1)]
    found = [orjson.loads(frame) for frame in frames("s", entries, 0, merge=True)]
    assert [(frame["id"], frame.get("merged")) for frame in found] == [("5-2", 2), ("5-3*", None), ("5-4", None)]


def test_a_delta_that_is_something_else_is_written_anew() -> None:
    body = orjson.dumps({"id": "5-1", "lane": "other", "ts": 1, "session": "x", "off": 0, "events": [DELTA_EVENT]})
    assert orjson.loads(delta_body(Place(Kind.DELTA, "main"), body)) == {
        "id": "5-1",
        "lane": "main",
        "ts": 1,
        "off": 0,
        "events": [DELTA_EVENT],
    }
    assert orjson.loads(delta_body(Place(Kind.DELTA, "main"), b"}{")) == {"id": "", "ts": 0, "events": []}


DELTA_EVENT = {"type": "TEXT_MESSAGE_CONTENT", "messageId": "m", "delta": "x"}
