"""Which live readers get segments with their text, and until when."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from gateway.doubtful import Doubtful
from gateway.framing import LINES, WEBSOCKET, Framing, framed


class Reader:
    def __init__(self, *doubts: str, framing: Framing = WEBSOCKET) -> None:
        self.framing = framing
        self.doubts = {*doubts}

    def settled(self, texts: AbstractSet[str]) -> None:
        self.doubts -= texts


BARE = [b"delta", b"segment of a", b"delta", b"segment of b"]


def turn(doubtful: Doubtful[Reader]) -> None:
    """Two segments are yet to be written."""
    doubtful.took(1, b"segment of a, whole", ("a",))
    doubtful.took(3, b"segment of b, whole", ("b",))


def test_who_lacks_text_gets_the_next_segment_whole() -> None:
    doubtful: Doubtful[Reader] = Doubtful()
    of_a, of_c, elsewhere = Reader("a"), Reader("c"), Reader("b", framing=LINES)
    for reader in (of_a, of_c, elsewhere):
        doubtful.add(reader)
    turn(doubtful)
    whole = [b"delta", b"segment of a, whole", b"delta", b"segment of b, whole"]
    assert doubtful.writes(WEBSOCKET, BARE) == {of_a: framed(WEBSOCKET, whole)}
    assert doubtful.writes(LINES, BARE) == {elsewhere: framed(LINES, whole)}
    doubtful.written()
    assert (of_a.doubts, of_c.doubts, elsewhere.doubts) == (set(), {"c"}, set())
    turn(doubtful)
    assert doubtful.writes(WEBSOCKET, BARE) == {}


def test_nothing_is_kept_for_those_who_lack_nothing_or_have_left() -> None:
    doubtful: Doubtful[Reader] = Doubtful()
    leaver = Reader("a")
    doubtful.add(Reader())
    assert not doubtful
    doubtful.add(leaver)
    assert doubtful
    doubtful.discard(leaver)
    assert not doubtful
    turn(doubtful)
    assert doubtful.writes(WEBSOCKET, BARE) == {}
    doubtful.clear()
    doubtful.add(again := Reader("a"))
    assert doubtful.writes(WEBSOCKET, BARE) == {}
    doubtful.written()
    assert again.doubts == {"a"}
