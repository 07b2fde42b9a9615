"""The bounded queue between the socket's reader and the consumer of one session, and its iterator. Pure."""

from __future__ import annotations

from collections import deque
from typing import Protocol

from .protocol import Cursor, Entry, SessionEvent, Snapshot


class EventBuffer:
    """Events that wait, bounded by number and by size; `tail` is the place after the newest."""

    def __init__(self, max_events: int, max_bytes: int, tail: Cursor | None) -> None:
        self.tail = tail
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._events: deque[tuple[SessionEvent, int]] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._events)

    @property
    def full(self) -> bool:
        """Whether one more event has to wait."""
        return len(self._events) >= self._max_events or self._bytes >= self._max_bytes

    @property
    def low(self) -> bool:
        """Whether there is room enough to fetch more: three quarters are free."""
        return len(self._events) * 4 <= self._max_events and self._bytes * 4 <= self._max_bytes

    def put(self, event: SessionEvent, size_bytes: int) -> None:
        """Add an event; the caller has looked at `full`."""
        self._events.append((event, size_bytes))
        self._bytes += size_bytes
        if isinstance(event, Entry):
            self.tail = Cursor(event.epoch, event.seq)
        elif isinstance(event, Snapshot):
            self.tail = Cursor(event.epoch, event.as_of)

    def restart(self) -> None:
        """Forget everything: what follows begins with a snapshot."""
        self._events.clear()
        self._bytes = 0
        self.tail = None

    def take(self) -> SessionEvent | None:
        """The oldest event, None if there is none."""
        if not self._events:
            return None
        event, size_bytes = self._events.popleft()
        self._bytes -= size_bytes
        return event


class EventSource(Protocol):
    """What an iteration needs of its session."""

    async def next_event(self, stream: EventStream) -> SessionEvent | None:
        """The next event; None at the end."""

    def leave(self, stream: EventStream) -> None:
        """This iteration is over."""

    @property
    def has_event(self) -> bool:
        """Whether an event is there to be given out."""


class EventStream:
    """The iterator that `Session.events()` returns. While it lives, the socket waits for it."""

    __slots__ = ("__weakref__", "_source")

    def __init__(self, source: EventSource) -> None:
        self._source = source

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> SessionEvent:
        """The next event. Cancelling the wait is safe: no event is lost."""
        event = await self._source.next_event(self)
        if event is None:
            raise StopAsyncIteration
        return event

    @property
    def ready(self) -> bool:
        """Whether the next event is there, so that there is nothing to wait for."""
        return self._source.has_event

    def close(self) -> None:
        """End the iteration, so that another one may begin. It ends by itself when nobody holds it any more."""
        self._source.leave(self)
