"""How frames are put on a wire: as WebSocket messages, as server-sent events, as lines of JSON. Pure.

A frame is the same bytes of JSON for every reader; a framing is what stands around it. Framings are compared by
identity, so that readers of one framing share what was framed once.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Protocol

from gateway.protocol import text_message

_OP = b'{"op":"'
_SEQ = b'"seq":'
_AS_OF = b'"asOf":'
_HEAD_BYTES = 256
"""Within so many bytes a frame says its `op`, its session and its place."""
_EPOCHS_KEPT = 256


class Framing(Protocol):
    """What stands around a frame on some wire."""

    def message(self, payload: bytes) -> bytes:
        """The frame as it is sent."""
        ...


class WebSocketFraming:
    """Text messages of a WebSocket."""

    __slots__ = ()

    def message(self, payload: bytes) -> bytes:
        return text_message(payload)


class EventStreamFraming:
    """Server-sent events: named by their `op`; entries, snapshots and `session.caught_up` have their cursor as `id`."""

    __slots__ = ("_epoch",)

    def __init__(self, epoch: str) -> None:
        self._epoch = epoch.encode()

    def message(self, payload: bytes) -> bytes:
        op = payload[len(_OP) : payload.index(b'"', len(_OP))]
        return b"%bevent: %b\ndata: %b\n\n" % (self._id(op, payload), op, in_one_line(payload))

    def _id(self, op: bytes, payload: bytes) -> bytes:
        match op:
            case b"entry" | b"session.caught_up":
                return b"id: %b:%b\n" % (self._epoch, _number_at(payload, _SEQ))
            case b"session.snapshot":
                return b"id: %b:%b\n" % (self._epoch, _number_at(payload, _AS_OF))
            case b"session.gap":
                # What was read so far is to be forgotten: who is cut here starts afresh.
                return b"id\n"
            case _:
                return b""


class LineFraming:
    """One frame a line, for who takes them apart again in this process."""

    __slots__ = ()

    def message(self, payload: bytes) -> bytes:
        return in_one_line(payload) + b"\n"


WEBSOCKET = WebSocketFraming()
LINES = LineFraming()


@lru_cache(_EPOCHS_KEPT)
def event_stream(epoch: str) -> EventStreamFraming:
    """The framing of server-sent events whose ids are cursors of this epoch."""
    return EventStreamFraming(epoch)


def framed(framing: Framing, payloads: Iterable[bytes]) -> bytes:
    """The frames, ready to be sent in one write."""
    return b"".join(map(framing.message, payloads))


def in_one_line(payload: bytes) -> bytes:
    """JSON without line breaks, which can only be space between its parts. Ours has none; a foreign worker's might."""
    if b"\n" in payload or b"\r" in payload:
        return payload.replace(b"\n", b" ").replace(b"\r", b" ")
    return payload


def _number_at(payload: bytes, name: bytes) -> bytes:
    """The digits of a field that is one of the first."""
    start = payload.index(name, 0, _HEAD_BYTES) + len(name)
    end = start
    while payload[end : end + 1].isdigit():
        end += 1
    return payload[start:end]
