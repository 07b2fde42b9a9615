"""Fold of deltas = fold of segments = fold of any mix of them, doubled and merged as they may come."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from broker.codec import decode, encode, entry_from_wire
from broker.events import MessageSegment
from broker.transcript import Transcript
from gateway.replay import ReplayEntry, frames, without_settled_text
from tests.unit.strategies import Log, Speech, speeches


def fold(log: Log) -> list[dict[str, Any]]:
    transcript = Transcript()
    for seq, entry in log:
        transcript.apply(seq, entry)
    return [message.as_dict() for message in transcript.messages]


def texts_of(messages: list[dict[str, Any]]) -> dict[str, str]:
    return {message["id"]: message["text"] for message in messages}


@given(speeches())
def test_all_entries_give_what_was_said(speech: Speech) -> None:
    messages = fold(speech.entries)
    assert texts_of(messages) == speech.texts
    assert {message["status"] for message in messages} <= {"done"}
    assert {message["reason"] for message in messages} <= {"complete", "cancelled"}


@given(speeches())
def test_records_alone_give_the_same(speech: Speech) -> None:
    assert fold(speech.records) == fold(speech.entries)


@given(speeches())
def test_deltas_alone_give_the_same(speech: Speech) -> None:
    live = [(seq, decode(without_settled_text(entry, encode(entry)))) for seq, entry in speech.entries]
    assert not any(isinstance(event, MessageSegment) and event.text for _, entry in live for event in entry.events)
    assert fold(live) == fold(speech.entries)


@given(speeches(), st.data())
def test_any_mix_even_twice_gives_the_same(speech: Speech, data: st.DataObject) -> None:
    """Deltas may be left out, and come again at any later place; records come in order, and perhaps again at once."""
    mix: Log = []
    for seq, entry in speech.entries:
        if entry.off is None or data.draw(st.booleans()):
            mix.append((seq, entry))
        if mix and data.draw(st.booleans()):
            mix.append(data.draw(st.sampled_from([mix[-1], *_deltas(mix)])))
    assert fold(mix) == fold(speech.entries)


def _deltas(log: Log) -> Log:
    return [(seq, entry) for seq, entry in log if entry.off is not None]


@given(speeches(), st.integers(0, 30))
def test_a_repeated_write_says_nothing_new(speech: Speech, which: int) -> None:
    """A write whose outcome was not known is in the log twice."""
    claim, *writes = speech.entries
    writes[which + 1 :] = [(seq + 1, entry) for seq, entry in writes[which:]]
    repeated = [{**message, "seq": 0} for message in fold([claim, *writes])]
    assert repeated == [{**message, "seq": 0} for message in fold(speech.entries)]


@given(speeches(), st.integers(0, 20), st.booleans())
def test_merged_frames_give_the_same(speech: Speech, skip: int, merge: bool) -> None:
    """Also for a reader who has had the first entries already."""
    had = speech.entries[:skip]
    rest = [ReplayEntry(seq, 0, encode(entry), entry.off is not None) for seq, entry in speech.entries[skip:]]
    last = had[-1][0] if had else 0
    sent = [orjson.loads(frame) for frame in frames("s", rest, last, merge=merge)]
    assert [frame["prev"] for frame in sent] == [last, *(frame["seq"] for frame in sent[:-1])][: len(sent)]
    assert sum(frame.get("merged", 1) for frame in sent) == len(rest)
    assert fold([*had, *((frame["seq"], entry_from_wire(frame)) for frame in sent)]) == fold(speech.entries)


@given(speeches(), st.integers(0, 60))
def test_a_reader_who_stops_anywhere_has_a_prefix(speech: Speech, count: int) -> None:
    for id_, text in texts_of(fold(speech.entries[:count])).items():
        assert speech.texts[id_].startswith(text)


@given(speeches())
def test_nothing_counts_under_another_fence(speech: Speech) -> None:
    others = [(seq, replace(entry, id=f"2-{entry.id.partition('-')[2]}")) for seq, entry in speech.entries[1:]]
    assert fold([speech.entries[0], *others]) == []
