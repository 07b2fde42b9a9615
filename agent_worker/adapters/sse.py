"""Server-sent events, parsed piece by piece (WHATWG HTML, section 9.2). Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

EVENT_BYTES_MAX = 8 << 20
"""Of one event; AG-UI servers send whole states in one."""


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """`event` is "message" where the stream does not say it."""

    event: str
    data: str


class EventTooLarge(ValueError):
    """An event that does not end."""


class EventParser:
    """Takes bytes as they come, cut anywhere, and gives whole events."""

    def __init__(self) -> None:
        self._rest = b""
        self._event = ""
        self._data: list[str] = []
        self._size = 0
        self._cr = False

    def feed(self, piece: bytes) -> Iterator[ServerEvent]:
        """Raises EventTooLarge."""
        if not piece:
            return
        if self._cr and piece.startswith(b"\n"):
            piece = piece[1:]
        self._cr = piece.endswith(b"\r")
        buffer = self._rest + piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *lines, self._rest = buffer.split(b"\n")
        if len(self._rest) + self._size > EVENT_BYTES_MAX:
            raise EventTooLarge(f"an event has more than {EVENT_BYTES_MAX} bytes")
        for line in lines:
            found = self._line(line.decode("utf-8", "replace"))
            if found is not None:
                yield found

    def _line(self, line: str) -> ServerEvent | None:
        if not line:
            found = ServerEvent(self._event or "message", "\n".join(self._data)) if self._data else None
            self._event, self._data, self._size = "", [], 0
            return found
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
            self._size += len(value)
            if self._size > EVENT_BYTES_MAX:
                raise EventTooLarge(f"an event has more than {EVENT_BYTES_MAX} bytes")
        elif name == "event":
            self._event = value
        return None
