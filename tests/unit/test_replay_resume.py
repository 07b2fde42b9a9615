"""What the ring gives a reader whose cursor may lie behind deltas that it was never given."""

from __future__ import annotations

from gateway.replay import ReplayEntry, for_doubtful


def _delta(seq: int) -> ReplayEntry:
    return ReplayEntry(seq, seq - 1, b"delta", True)


def _segment(seq: int, *streams: str) -> ReplayEntry:
    return ReplayEntry(seq, seq - 1, b"bare", False, streams, b"with text")


def _bodies(entries: list[ReplayEntry]) -> list[bytes]:
    return [entry.body for entry in entries]


def test_the_first_segment_of_each_stream_keeps_its_text() -> None:
    had: set[str] = set()
    entries = [_delta(1), _segment(2, "a"), _segment(3, "b"), _segment(4, "a"), _segment(5, "a", "c")]
    assert _bodies(for_doubtful(entries, 0, had)) == [b"delta", b"with text", b"with text", b"bare", b"with text"]
    assert _bodies(for_doubtful([_segment(6, "a"), _segment(7, "b", "c")], 0, had)) == [b"bare", b"bare"]


def test_every_segment_up_to_where_deltas_are_left_out_keeps_its_text() -> None:
    had = {"a"}
    entries = [_segment(2, "a"), _segment(4, "a"), _delta(5), _segment(6, "a"), _segment(7, "a")]
    assert _bodies(for_doubtful(entries, 4, had)) == [b"with text", b"with text", b"delta", b"with text", b"bare"]


def test_other_records_are_as_they_are() -> None:
    record = ReplayEntry(1, 0, b"record", False)
    assert for_doubtful([record, record], 1, set()) == [record, record]
