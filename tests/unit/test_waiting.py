"""Commands that wait: in order, and no more of them than there may be."""

from __future__ import annotations

from gateway.protocol import Ping
from gateway.waiting import WaitingCommands


def test_in_the_order_in_which_they_came() -> None:
    waiting = WaitingCommands(10, 1000)
    assert not waiting
    for id_ in range(3):
        waiting.put(Ping(id_), 10)
    assert [waiting.next() for _ in range(3)] == [Ping(0), Ping(1), Ping(2)]
    assert not waiting


def test_no_more_than_the_number() -> None:
    waiting = WaitingCommands(2, 1000)
    for id_ in range(2):
        assert waiting.has_room(1)
        waiting.put(Ping(id_), 1)
    assert not waiting.has_room(1)
    waiting.next()
    assert waiting.has_room(1)


def test_no_more_than_the_bytes_but_one_alone() -> None:
    waiting = WaitingCommands(10, 100)
    assert waiting.has_room(500)
    waiting.put(Ping(0), 60)
    assert waiting.has_room(40)
    assert not waiting.has_room(41)
    waiting.next()
    assert waiting.has_room(500)
