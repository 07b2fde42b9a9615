"""One session's subscription: the state machine, and the proof that nothing is lost or seen twice."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon_client import ChainBroken, Entry, Gap, NotAllowed, Presence, Reset, Snapshot
from antiphon_client.buffer import EventBuffer
from antiphon_client.protocol import CaughtUp, Cursor
from antiphon_client.subscription import Pause, Phase, Refused, Subscription

Frame = dict[str, Any]


def entry(seq: int, prev: int) -> Frame:
    return {"op": "entry", "session": "demo", "seq": seq, "prev": prev, "events": []}


def snapshot(as_of: int) -> Frame:
    return {"op": "session.snapshot", "session": "demo", "asOf": as_of}


def refused(code: str, **fields: Any) -> Frame:
    return {"op": "error", "id": 1, "code": code, **fields}


def begun(after: Cursor | None = None, **options: Any) -> Subscription:
    """A subscription whose `subscribe` was sent."""
    sub = Subscription("demo", after, **options)
    sub.wanted = True
    assert sub.command(1) is not None
    return sub


def live(after: Cursor | None = None, as_of: int = 0, **options: Any) -> Subscription:
    """A subscription that was accepted and, without a cursor, has its snapshot."""
    sub = begun(after, **options)
    assert list(sub.on_reply({"op": "ok", "id": 1, "epoch": "e", "head": 0})) == []
    if after is None:
        assert [type(output) for output in sub.on_frame(snapshot(as_of))] == [Snapshot]
    return sub


def test_subscribes_only_when_wanted() -> None:
    sub = Subscription("demo", None)
    assert sub.command(1) is None
    sub.wanted = True
    assert sub.command(1) == {"op": "subscribe", "id": 1, "session": "demo"}
    assert sub.command(2) is None


def test_asks_for_what_comes_after_the_cursor() -> None:
    sub = Subscription("demo", Cursor("e", 7), declared={"replay": "every"})
    sub.wanted = True
    assert sub.command(1) == {"op": "subscribe", "id": 1, "session": "demo", "after": "e:7", "replay": "every"}


def test_gives_out_what_follows() -> None:
    sub = live(as_of=5)
    (first,) = sub.on_frame(entry(9, 5))
    assert isinstance(first, Entry)
    assert first.cursor == "e:9"
    assert list(sub.on_frame(entry(9, 5))) == []
    assert list(sub.on_frame({"op": "session.caught_up", "session": "demo", "seq": 9})) == [CaughtUp("demo", 9, "e:9")]
    assert list(sub.on_frame({"op": "session.presence", "session": "demo"})) == [Presence("demo", ())]
    assert list(sub.on_frame({"op": "session.presence"})) == []
    assert list(sub.on_frame({"op": "session.something_new", "session": "demo"})) == []
    assert sub.after == Cursor("e", 9)


def test_goes_on_from_connection_to_connection() -> None:
    sub = live(as_of=5)
    sub.on_frame(entry(9, 5))
    sub.lost()
    assert list(sub.on_frame(entry(10, 9))) == []
    assert sub.command(2) == {"op": "subscribe", "id": 2, "session": "demo", "after": "e:9"}


def test_a_connection_lost_before_the_snapshot_begins_anew() -> None:
    sub = begun()
    sub.on_reply({"op": "ok", "id": 1, "epoch": "e", "head": 0})
    sub.lost()
    assert sub.command(2) == {"op": "subscribe", "id": 2, "session": "demo"}


def test_a_broken_chain_reads_the_place_again() -> None:
    sub = live(as_of=5)
    assert list(sub.on_frame(entry(9, 7))) == [Pause(None)]
    assert list(sub.on_frame(entry(10, 9))) == []
    assert sub.command(2) == {"op": "unsubscribe", "id": 2, "session": "demo"}
    assert list(sub.on_frame(entry(6, 5))) == []
    assert sub.command(3) is None
    assert list(sub.on_reply({"op": "ok", "id": 2})) == []
    assert sub.command(3) == {"op": "subscribe", "id": 3, "session": "demo", "after": "e:5"}


def test_an_unsubscribe_that_was_not_needed_is_fine() -> None:
    sub = live()
    sub.on_frame(entry(9, 7))
    sub.command(2)
    assert list(sub.on_reply(refused("not_subscribed"))) == []
    assert sub.phase is Phase.OFF


@pytest.mark.parametrize("frame", [entry(6, 5) | {"seq": "six"}, entry(6, 5) | {"prev": None}])
def test_an_entry_without_a_place_breaks_the_chain(frame: Frame) -> None:
    assert list(live(as_of=5).on_frame(frame)) == [Pause(None)]


def test_an_entry_before_the_snapshot_breaks_the_chain() -> None:
    sub = begun()
    sub.on_reply({"op": "ok", "id": 1, "epoch": "e", "head": 0})
    assert list(sub.on_frame(entry(1, 0))) == [Pause(None)]


def test_a_chain_that_stays_broken_is_given_up() -> None:
    sub = live(as_of=5, chain_retries=2)
    for _ in range(2):
        assert list(sub.on_frame(entry(9, 7))) == [Pause(None)]
        sub.command(2)
        sub.on_reply({"op": "ok", "id": 2})
        sub.command(3)
        sub.on_reply({"op": "ok", "id": 3, "epoch": "e", "head": 9})
    (output,) = sub.on_frame(entry(9, 7))
    assert isinstance(output, Refused)
    assert isinstance(output.error, ChainBroken)
    assert not sub.wanted


def test_progress_forgives_earlier_breaks() -> None:
    sub = live(as_of=5, chain_retries=1)
    for seq in (6, 7, 8):
        assert list(sub.on_frame(entry(99, 98))) == [Pause(None)]
        sub.command(2)
        sub.on_reply({"op": "ok", "id": 2})
        sub.command(3)
        sub.on_reply({"op": "ok", "id": 3, "epoch": "e", "head": 9})
        assert [type(output) for output in sub.on_frame(entry(seq, seq - 1))] == [Entry]


@pytest.mark.parametrize("code", ["cursor_bad", "cursor_epoch", "cursor_future"])
def test_a_refused_cursor_begins_anew(code: str) -> None:
    sub = begun(Cursor("old", 7))
    assert list(sub.on_reply(refused(code))) == [Reset("demo", code)]
    assert sub.command(2) == {"op": "subscribe", "id": 2, "session": "demo"}


def test_a_refused_cursor_where_none_was_given_is_final() -> None:
    sub = begun()
    (output,) = sub.on_reply(refused("cursor_epoch"))
    assert isinstance(output, Refused)


def test_another_epoch_than_that_of_the_cursor_begins_anew() -> None:
    sub = begun(Cursor("old", 7))
    outputs = sub.on_reply({"op": "ok", "id": 1, "epoch": "new", "head": 9})
    assert list(outputs) == [Reset("demo", "cursor_epoch"), Pause(None)]
    assert sub.command(2) == {"op": "unsubscribe", "id": 2, "session": "demo"}
    assert sub.after is None


def test_a_refusal_that_passes_waits() -> None:
    sub = begun()
    assert list(sub.on_reply(refused("unavailable", retryable=True, retry_after_ms=100))) == [Pause(0.1)]
    assert sub.command(2) is not None


def test_a_refusal_that_stays_ends_it() -> None:
    sub = begun()
    (output,) = sub.on_reply(refused("not_allowed"))
    assert isinstance(output, Refused)
    assert isinstance(output.error, NotAllowed)
    assert sub.command(2) is None
    sub.wanted = True
    assert sub.command(2) is not None


def test_a_token_that_allows_it_no_more_ends_it() -> None:
    sub = live(as_of=5)
    told = {"op": "session.unsubscribed", "session": "demo", "code": "not_allowed", "message": "no", "right": "read"}
    (output,) = sub.on_frame(told)
    assert isinstance(output, Refused)
    assert isinstance(output.error, NotAllowed)
    assert sub.on_frame(entry(6, 5)) == []
    assert sub.command(2) is None
    sub.wanted = True
    assert sub.command(2) == {"op": "subscribe", "id": 2, "session": "demo", "after": "e:5"}


def test_subscribed_already_means_to_leave_first() -> None:
    sub = begun()
    assert list(sub.on_reply(refused("already_subscribed"))) == [Pause(None)]
    assert sub.command(2) == {"op": "unsubscribe", "id": 2, "session": "demo"}


def test_a_gap_waits_for_its_snapshot() -> None:
    sub = live(as_of=5)
    assert list(sub.on_frame({"op": "session.gap", "session": "demo", "from": 5, "to": 8})) == [Gap("demo", 5, 8)]
    assert sub.after is None
    assert [type(output) for output in sub.on_frame(snapshot(3))] == [Snapshot]
    assert [type(output) for output in sub.on_frame(entry(4, 3))] == [Entry]


def test_a_connection_lost_after_a_gap_begins_anew() -> None:
    sub = live(as_of=5)
    sub.on_frame({"op": "session.gap", "session": "demo", "from": 5, "to": 8})
    sub.lost()
    assert sub.command(2) == {"op": "subscribe", "id": 2, "session": "demo"}


def test_rewinding_drops_what_still_comes() -> None:
    sub = live(as_of=5)
    sub.rewind(Cursor("e", 2))
    assert list(sub.on_frame(entry(6, 5))) == []
    assert sub.command(2) == {"op": "unsubscribe", "id": 2, "session": "demo"}
    sub.on_reply({"op": "ok", "id": 2})
    assert sub.command(3) == {"op": "subscribe", "id": 3, "session": "demo", "after": "e:2"}


def test_rewinding_while_subscribing() -> None:
    sub = begun(Cursor("e", 7))
    sub.rewind(Cursor("e", 2))
    sub.on_reply({"op": "ok", "id": 1, "epoch": "e", "head": 9})
    assert list(sub.on_frame(entry(8, 7))) == []
    assert sub.command(2) == {"op": "unsubscribe", "id": 2, "session": "demo"}


def test_rewinding_while_a_cursor_is_refused() -> None:
    sub = begun(Cursor("e", 7))
    sub.rewind(None)
    assert list(sub.on_reply(refused("cursor_future"))) == []
    assert sub.command(2) == {"op": "subscribe", "id": 2, "session": "demo"}


def test_not_wanted_any_more() -> None:
    sub = live()
    sub.wanted = False
    assert sub.command(2) == {"op": "unsubscribe", "id": 2, "session": "demo"}
    sub.on_reply({"op": "ok", "id": 2})
    assert sub.command(3) is None


class Gateway:
    """A log, and a way to its reader that loses, repeats and swaps frames."""

    def __init__(self, log: list[int], data: st.DataObject) -> None:
        self.log = log
        self.data = data
        self.disturbances = 40

    def replay(self, after: int) -> list[Frame]:
        frames = [
            entry(seq, prev) for prev, seq in zip([0, *self.log], self.log, strict=False) if seq > after
        ]  # `prev` of the first is `after` only if the reader holds a place of this log
        if self.disturbances <= 0 or not frames:
            return frames
        self.disturbances -= 1
        action = self.data.draw(st.sampled_from(["whole", "lose", "repeat", "swap", "cut"]))
        where = self.data.draw(st.integers(0, len(frames) - 1))
        if action == "lose":
            del frames[where]
        elif action == "repeat":
            frames.insert(self.data.draw(st.integers(0, len(frames))), frames[where])
        elif action == "swap":
            frames[where], frames[-1] = frames[-1], frames[where]
        elif action == "cut":
            del frames[where:]
        return frames


@given(st.lists(st.integers(1, 5), min_size=1, max_size=20), st.data())
def test_whatever_happens_on_the_way_each_entry_is_given_once_and_in_order(
    steps: list[int], data: st.DataObject
) -> None:
    log = [sum(steps[: index + 1]) for index in range(len(steps))]
    gateway, sub, given_out = Gateway(log, data), Subscription("demo", Cursor("e", 0), chain_retries=1000), []
    sub.wanted = True
    for _ in range(400):
        command = sub.command(1)
        if command is None:
            sub.lost()  # the replay was cut: the next connection goes on
            continue
        if command["op"] == "unsubscribe":
            sub.on_reply({"op": "ok", "id": 1})
            continue
        sub.on_reply({"op": "ok", "id": 1, "epoch": "e", "head": log[-1]})
        for frame in gateway.replay(int(str(command["after"]).split(":")[1])):
            given_out += [output.seq for output in sub.on_frame(frame) if isinstance(output, Entry)]
        if given_out and given_out[-1] == log[-1]:
            break
    assert given_out == log


class TestBuffer:
    def entry(self, seq: int) -> Entry:
        return Entry("demo", seq, seq - 1, epoch="e")

    def test_is_bounded_by_number(self) -> None:
        buffer = EventBuffer(4, 1000, None)
        for seq in range(1, 5):
            assert not buffer.full
            buffer.put(self.entry(seq), 1)
        assert buffer.full
        assert buffer.tail == Cursor("e", 4)
        assert [buffer.take() for _ in range(3)] == [self.entry(seq) for seq in (1, 2, 3)]
        assert buffer.low
        assert (buffer.take(), buffer.take(), len(buffer)) == (self.entry(4), None, 0)

    def test_is_bounded_by_size(self) -> None:
        buffer = EventBuffer(100, 1000, None)
        buffer.put(self.entry(1), 999)
        before = buffer.full
        buffer.put(self.entry(2), 500)
        assert (before, buffer.full) == (False, True)
        buffer.take()
        assert (buffer.full, buffer.low) == (False, False)

    def test_restarts_empty(self) -> None:
        buffer = EventBuffer(1, 1, Cursor("e", 1))
        buffer.put(self.entry(2), 5)
        buffer.restart()
        assert (buffer.take(), buffer.tail, buffer.full) == (None, None, False)
        buffer.put(Snapshot("demo", 9, 0, {}, "e"), 1)
        assert buffer.tail == Cursor("e", 9)
