"""What is due to the readers of a session: whatever happens to them, it is found again."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.dues import Dues, Tally

READERS = [f"r{i}" for i in range(4)]


def found_again(tally: Tally) -> int:
    return sum(
        (tally.live, tally.frames, tally.merged, tally.left_out, tally.superseded, tally.unread),
    )


class Session(RuleBasedStateMachine):
    """A feed, as far as it sees it. `had` is what each reader has been given, in entries."""

    def __init__(self) -> None:
        super().__init__()
        self.tally = Tally()
        self.dues = Dues(self.tally)
        self.unwritten = 0
        self.live: set[str] = set()
        self.joining: set[str] = set()
        self.behind: dict[str, int] = {}
        self.joined_gave = 0

    @property
    def elsewhere(self) -> list[str]:
        return [r for r in READERS if r not in self.live | self.joining | self.behind.keys()]

    @rule()
    def takes(self) -> None:
        self.dues.took()
        self.unwritten += 1
        for reader in self.behind:
            self.behind[reader] += 1

    @rule(slow=st.sets(st.sampled_from(READERS)))
    def writes(self, slow: set[str]) -> None:
        for reader in self.live & slow:
            if self.unwritten:
                self.live.discard(reader)
                self.behind[reader] = self.unwritten
                self.dues.held_back(reader, self.unwritten)
        self.dues.delivered(self.unwritten, len(self.live))
        self.unwritten = 0

    @rule(data=st.data())
    @precondition(lambda self: self.elsewhere)
    def joins(self, data: st.DataObject) -> None:
        self.joining.add(data.draw(st.sampled_from(self.elsewhere)))

    @rule(data=st.data(), entries=st.integers(1, 5), merged=st.booleans())
    @precondition(lambda self: self.joining)
    def replays(self, data: st.DataObject, entries: int, merged: bool) -> None:
        self.dues.gave(data.draw(st.sampled_from(sorted(self.joining))), entries, 1 if merged else entries)
        self.joined_gave += entries

    @rule(data=st.data(), merged=st.booleans())
    @precondition(lambda self: any(self.behind.values()))
    def catches_up(self, data: st.DataObject, merged: bool) -> None:
        reader = data.draw(st.sampled_from(sorted(r for r, owed in self.behind.items() if owed)))
        entries = data.draw(st.integers(1, self.behind[reader]))
        self.behind[reader] -= entries
        self.dues.gave(reader, entries, 1 if merged else entries)

    @rule(data=st.data())
    @precondition(lambda self: self.joining or self.behind)
    def goes_live(self, data: st.DataObject) -> None:
        reader = data.draw(st.sampled_from(sorted(self.joining | self.behind.keys())))
        self.writes(set())
        self.dues.went_live(reader)
        self.joining.discard(reader)
        self.behind.pop(reader, None)
        self.live.add(reader)

    @rule(data=st.data())
    @precondition(lambda self: len(self.elsewhere) < len(READERS))
    def leaves(self, data: st.DataObject) -> None:
        reader = data.draw(st.sampled_from(sorted(self.live | self.joining | self.behind.keys())))
        self.dues.left(reader, self.unwritten)
        self.live.discard(reader)
        self.joining.discard(reader)
        self.behind.pop(reader, None)

    @rule()
    def rewinds(self) -> None:
        self.dues.began_anew(self.unwritten)
        self.joining |= self.live | self.behind.keys()
        self.live.clear()
        self.behind.clear()
        self.unwritten = 0

    @invariant()
    def what_was_due_is_found_again(self) -> None:
        in_flight = self.dues.in_flight(self.live, self.unwritten)
        assert in_flight == self.unwritten * len(self.live) + sum(self.behind.values())
        assert self.tally.due == found_again(self.tally) + in_flight
        assert self.tally.left_out >= 0
        assert self.tally.replayed + self.tally.replayed_merged == self.joined_gave


TestSession = Session.TestCase


def test_a_sum_that_is_not_right_shows() -> None:
    """An entry that is taken and never written, merged or left out is missing from the sum."""
    tally = Tally()
    dues = Dues(tally)
    dues.went_live("reader")
    dues.took()
    assert dues.in_flight(["reader"], 1) == 1
    assert tally.due != found_again(tally) + dues.in_flight(["reader"], 0)


def test_who_joins_has_nothing_due_until_it_is_live() -> None:
    tally = Tally()
    dues = Dues(tally)
    dues.took()
    dues.gave("reader", 3, 1)
    dues.went_live("reader")
    assert (tally.taken, tally.due, tally.replayed, tally.replayed_merged) == (1, 0, 1, 2)


def test_a_reader_that_was_held_back_in_merged_frames() -> None:
    tally = Tally()
    dues = Dues(tally)
    dues.went_live("reader")
    for _ in range(10):
        dues.took()
    dues.held_back("reader", 10)
    dues.gave("reader", 6, 2)
    assert dues.in_flight([], 0) == 4
    dues.went_live("reader")
    assert (tally.due, tally.frames, tally.merged, tally.left_out) == (10, 2, 4, 4)
