"""What an agent may say at once: an event that the log holds and all readers can read, or the author is told."""

from __future__ import annotations

from typing import Any

import pytest

from agent_worker.errors import ContentTooLarge
from agent_worker.lane import EVENT_BYTES_MAX
from agent_worker.sizes import check_size
from broker.codec import decode_at, encode
from broker.depth import SENT_DEPTH_MAX
from broker.events import Entry, OtherEvent
from broker.subjects import Kind, Place


def custom(value: Any) -> OtherEvent:
    return OtherEvent("CUSTOM", {"type": "CUSTOM", "name": "n", "value": value})


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def test_what_is_taken_can_be_read() -> None:
    for value in ("x" * (EVENT_BYTES_MAX - 100), nested(SENT_DEPTH_MAX - 1)):
        event = custom(value)
        check_size(event)
        entry = Entry("5-1", 1, (event,), lane="main")
        assert decode_at(Place(Kind.EVENT, "main"), encode(entry)) == (entry, True)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("x" * EVENT_BYTES_MAX, "bytes"),
        (nested(SENT_DEPTH_MAX), "levels"),
        (nested(300), "no JSON"),
        ({1, 2}, "no JSON"),
        ("\ud800", "no JSON"),
        (2**64, "no JSON"),
    ],
)
def test_what_nobody_could_read_is_refused(value: Any, said: str) -> None:
    with pytest.raises(ContentTooLarge, match=said):
        check_size(custom(value))
