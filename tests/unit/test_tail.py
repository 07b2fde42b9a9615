"""`Tail`, step by step. What holds for any order of steps is in test_tail_properties.py."""

from __future__ import annotations

import pytest

from broker.tail import MAX_BUFFERED, RECENT, STALE_READS_MAX, LiveEntry, Need, Rewound, StoredEntry, Tail


def stored(seq: int, subject: str = "in") -> StoredEntry:
    return StoredEntry(seq, subject, b"%d" % seq)


def live(seq: int, prev: int, subject: str = "in") -> LiveEntry:
    return LiveEntry(stored(seq, subject), prev)


def caught_up(after: int = 0, head: int = 0) -> Tail:
    tail = Tail(after)
    tail.on_head(stored(head) if head else None)
    if tail.need is Need.FETCH:
        tail.on_batch([stored(seq) for seq in range(after + 1, head + 1)], end=True)
    assert tail.live
    return tail


def test_an_empty_session_is_live_at_once() -> None:
    tail = Tail(0)
    assert (tail.need, tail.live) == (Need.HEAD, False)
    assert tail.on_head(None) == []
    assert tail.live


def test_a_reader_at_the_end_fetches_nothing() -> None:
    tail = Tail(9)
    assert tail.on_head(stored(9)) == []
    assert tail.live


def test_a_join_reads_up_to_the_head_and_goes_on_with_what_came_meanwhile() -> None:
    tail = Tail(1)
    assert tail.on_live(live(4, 3)) == []
    tail.on_head(stored(3))
    assert (tail.need, tail.fetch_after) == (Need.FETCH, 1)
    assert tail.on_batch([stored(2)], end=False) == [stored(2)]
    assert tail.fetch_after == 2
    assert tail.on_batch([stored(3)], end=True) == [stored(3), stored(4)]
    assert tail.live
    assert (tail.seen, tail.gaps, tail.duplicates) == (4, 0, 0)


def test_what_the_log_gave_already_is_not_delivered_again() -> None:
    tail = Tail(0)
    tail.on_live(live(1, 0))
    tail.on_live(live(2, 1))
    tail.on_head(stored(2))
    assert tail.on_batch([stored(1), stored(2)], end=True) == [stored(1), stored(2)]
    assert tail.on_live(live(2, 1)) == []
    assert tail.duplicates == 3


def test_a_stale_replica_is_asked_again() -> None:
    tail = Tail(0)
    tail.on_head(stored(2))
    assert tail.on_batch([stored(1)], end=True) == [stored(1)]
    assert tail.need is Need.FETCH
    assert tail.on_batch([], end=True) == []
    assert tail.on_batch([stored(2)], end=True) == [stored(2)]
    assert tail.live


def test_what_aged_out_meanwhile_is_not_waited_for_for_ever() -> None:
    """The leader is asked again, and knows better."""
    tail = Tail(0)
    tail.on_head(stored(2))
    for _ in range(STALE_READS_MAX):
        assert tail.need is Need.FETCH
        tail.on_batch([], end=True)
    assert tail.need is Need.HEAD
    tail.on_head(None)
    assert tail.live


def test_a_live_message_that_the_log_has_no_more_ends_in_no_loop() -> None:
    tail = caught_up()
    tail.on_live(live(5, 4))
    tail.on_head(stored(3))
    tail.on_batch([stored(3)], end=True)
    for _ in range(STALE_READS_MAX):
        assert tail.need is Need.FETCH, "a leader that is new may not know yet what came live"
        tail.on_batch([], end=True)
    tail.on_head(stored(3))
    assert tail.live
    assert tail.seen == 3


def test_a_gap_is_read_from_the_log() -> None:
    tail = caught_up(head=1)
    assert tail.on_live(live(3, 2)) == []
    assert (tail.need, tail.gaps) == (Need.HEAD, 1)
    tail.on_head(stored(3))
    assert tail.on_batch([stored(1), stored(2), stored(3)], end=True) == [stored(2), stored(3)]
    assert tail.live


def test_sequences_of_other_sessions_are_no_gap() -> None:
    tail = caught_up(head=1)
    assert tail.on_live(live(90, 1)) == [stored(90)]
    assert tail.on_live(live(95, 0, "ev")) == [stored(95, "ev")]
    assert tail.live


def test_a_loss_that_was_passed_takes_the_reader_back() -> None:
    tail = caught_up(head=1)
    assert tail.on_live(live(3, 0, "ev")) == [stored(3, "ev")]
    tail.on_live(live(4, 2))
    tail.on_head(stored(4))
    log = [stored(1), stored(2), stored(3, "ev"), stored(4)]
    assert tail.on_batch(log, end=True) == [Rewound(1), stored(2), stored(3, "ev"), stored(4)]
    assert tail.live


def test_a_message_that_comes_late_takes_the_reader_back() -> None:
    tail = caught_up(head=1)
    tail.on_live(live(3, 0, "ev"))
    assert tail.on_live(live(2, 1)) == []
    tail.on_head(stored(3, "ev"))
    assert tail.on_batch([stored(1), stored(2), stored(3, "ev")], end=True) == [Rewound(1), stored(2), stored(3, "ev")]


def test_a_lost_last_message_is_found_after_a_disturbance() -> None:
    tail = caught_up(head=1)
    tail.disturbed()
    assert (tail.need, tail.fetch_after) == (Need.HEAD, 0)
    tail.on_head(stored(2))
    assert tail.on_batch([stored(1), stored(2)], end=True) == [stored(2)]


def test_a_head_that_was_asked_for_before_a_disturbance_does_not_count() -> None:
    """It may be older than what was lost."""
    tail = caught_up(head=1)
    tail.disturbed()
    tail.disturbed()
    assert tail.on_head(stored(1)) == []
    assert tail.need is Need.HEAD
    tail.on_head(stored(2))
    assert tail.need is Need.FETCH


def test_a_disturbance_during_a_read_keeps_the_place_of_the_read() -> None:
    tail = Tail(0)
    tail.on_head(stored(9))
    tail.on_batch([stored(1), stored(2)], end=False)
    tail.disturbed()
    assert (tail.need, tail.fetch_after) == (Need.HEAD, 0)
    assert tail.on_batch([stored(3)], end=False) == [], "an answer to a question that is no longer asked"


def test_a_loss_that_others_hide_is_found_by_any_check_within_the_window() -> None:
    """The gap on "ev" leads to a read that also brings the message lost before it on "in"."""
    tail = caught_up(head=1)
    tail.on_live(live(3, 0, "ev"))
    tail.on_live(live(5, 4, "ev"))
    assert tail.fetch_after == 0
    tail.on_head(stored(5, "ev"))
    log = [stored(1), stored(2), stored(3, "ev"), stored(4, "ev"), stored(5, "ev")]
    assert tail.on_batch(log, end=True) == [Rewound(1), *log[1:]]


def test_a_loss_of_any_age_is_found_by_the_next_message_of_its_subject() -> None:
    tail = caught_up(head=1)
    others = [stored(seq, "ev") for seq in range(3, RECENT * 2)]
    for number, entry in enumerate(others):
        assert tail.on_live(LiveEntry(entry, entry.seq - 1 if number else 0)) == [entry]
    tail.on_live(live(1000, 2))
    assert tail.fetch_after == 1
    tail.on_head(stored(1000))
    log = [stored(2), *others, stored(1000)]
    assert tail.on_batch(log, end=True) == [Rewound(1), *log]
    assert tail.live


def test_a_check_under_way_is_extended_to_a_loss_before_it() -> None:
    """Else it would read the message that tells of the loss, and hide it."""
    tail = caught_up(head=1)
    others = [stored(seq, "ev") for seq in range(3, RECENT * 2)]
    for number, entry in enumerate(others):
        tail.on_live(LiveEntry(entry, entry.seq - 1 if number else 0))
    tail.disturbed()
    tail.on_head(stored(1000))
    assert tail.fetch_after == others[-RECENT - 1].seq
    tail.on_live(live(1000, 2))
    assert (tail.need, tail.fetch_after) == (Need.HEAD, 1)
    tail.disturbed()
    assert tail.fetch_after == 1
    for _ in range(2):
        tail.on_head(stored(1000))
    log = [stored(2), *others, stored(1000)]
    assert tail.on_batch(log, end=True) == [Rewound(1), *log]


def test_what_does_not_fit_the_buffer_is_read_from_the_log() -> None:
    tail = Tail(0)
    for seq in range(1, MAX_BUFFERED + 3):
        tail.on_live(live(seq, seq - 1))
    tail.on_head(stored(1))
    assert len(tail.on_batch([stored(1)], end=True)) == MAX_BUFFERED
    assert tail.need is Need.HEAD
    tail.on_head(stored(MAX_BUFFERED + 2))
    newest = [stored(MAX_BUFFERED + 1), stored(MAX_BUFFERED + 2)]
    assert tail.on_batch([stored(MAX_BUFFERED), *newest], end=True) == newest
    assert tail.live


@pytest.mark.parametrize("answer", ["head", "batch"])
def test_answers_that_nobody_waits_for_are_ignored(answer: str) -> None:
    tail = caught_up(head=1)
    given = tail.on_head(stored(9)) if answer == "head" else tail.on_batch([stored(9)], end=True)
    assert (given, tail.live, tail.seen) == ([], True, 1)


def test_what_was_taken_back_and_did_not_come_again_is_missed() -> None:
    """A leader that was deposed a moment ago does not know the last entry, which was delivered before the rewind."""
    tail = caught_up(head=1)
    tail.on_live(live(5, 0, "ev"))
    tail.disturbed()
    tail.on_head(stored(2))
    assert tail.on_batch([stored(1), stored(2)], end=True) == [Rewound(1), stored(2)]
    assert tail.on_live(live(7, 5, "ev")) == []
    tail.on_head(stored(7, "ev"))
    assert tail.on_batch([stored(5, "ev"), stored(7, "ev")], end=True) == [stored(5, "ev"), stored(7, "ev")]


def test_while_no_leader_answers_what_a_replica_has_is_delivered_and_the_head_still_wanted() -> None:
    tail = Tail(1)
    assert tail.on_early([stored(2), stored(3)]) == [stored(2), stored(3)]
    assert (tail.need, tail.fetch_after, tail.live) == (Need.HEAD, 3, False)
    assert tail.on_live(live(5, 4)) == []
    tail.on_head(stored(4))
    assert tail.need is Need.FETCH
    assert tail.on_batch([stored(4)], end=True) == [stored(4), stored(5)]
    assert tail.live


def test_what_a_replica_had_before_a_leader_answered_need_not_be_read_again() -> None:
    tail = Tail(0)
    tail.on_early([stored(1), stored(2)])
    assert tail.on_head(stored(2)) == []
    assert tail.live


def test_a_loss_on_another_subject_is_found_by_the_last_sequences() -> None:
    tail = caught_up(head=1)
    assert tail.on_live(live(3, 1)) == [stored(3)]
    assert not tail.lacks({"in": 3})
    assert tail.live
    assert tail.lacks({"in": 3, "ev": 2})
    assert (tail.need, tail.gaps) == (Need.HEAD, 1)
    tail.on_head(stored(3))
    assert tail.on_batch([stored(1), stored(2, "ev"), stored(3)], end=True) == [
        Rewound(1),
        stored(2, "ev"),
        stored(3),
    ]
    assert not tail.lacks({"in": 3, "ev": 2})
