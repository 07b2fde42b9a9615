"""The events that wait for one endpoint, and which of them may be sent now. Pure: the clock is an argument.

Events of one session are sent one after another, in the order of its log; one that failed is sent again before those
behind it. Sessions do not wait for each other, unless the endpoint itself is down: then one request at a time tries
whether it is back, and all wait for that.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from webhooks.due import Due

DOWN_AFTER = 3
"""Failures in a row, of any events, after which an endpoint counts as down."""


@dataclass(slots=True)
class Waiting:
    """An event in memory; `place` is its sequence in NATS. `body` is what was sent, once it was."""

    due: Due
    place: int
    tries: int = 0
    not_before: float = 0.0
    body: bytes | None = None


class Backlog:
    """Of one endpoint. `take` gives out what may be sent; each must come back by `done` or `failed`."""

    def __init__(self, in_flight: int) -> None:
        self.in_flight = in_flight
        self.failures = 0
        """In a row; 0 after a success."""
        self._queues: dict[str, deque[Waiting]] = {}
        self._out: dict[str, Waiting] = {}
        self._pause_until = 0.0
        self._size = 0

    def __len__(self) -> int:
        return self._size

    @property
    def out(self) -> int:
        """Requests that are under way."""
        return len(self._out)

    @property
    def down(self) -> bool:
        return self.failures >= DOWN_AFTER

    @property
    def oldest_ts(self) -> int | None:
        """When the oldest event in memory happened, ms since 1970."""
        return min((queue[0].due.ts for queue in self._queues.values()), default=None)

    def __iter__(self) -> Iterator[Waiting]:
        for queue in self._queues.values():
            yield from queue

    def add(self, waiting: Waiting) -> None:
        """Events must come in the order of NATS."""
        self._queues.setdefault(waiting.due.session, deque()).append(waiting)
        self._size += 1

    def take(self, now: float) -> Waiting | None:
        """The next event to send, None if there is none now."""
        if self.out >= (1 if self.down else self.in_flight) or now < self._pause_until:
            return None
        for session, queue in self._queues.items():
            if session not in self._out and queue[0].not_before <= now:
                # Put at the end, so that sessions take turns.
                self._queues[session] = self._queues.pop(session)
                self._out[session] = queue[0]
                return queue[0]
        return None

    def due_at(self) -> float | None:
        """When `take` should be asked again if nothing else happens; None: only when something does."""
        heads = [queue[0].not_before for session, queue in self._queues.items() if session not in self._out]
        if not heads or self.out >= (1 if self.down else self.in_flight):
            return None
        return max(min(heads), self._pause_until)

    def done(self, waiting: Waiting, *, reached: bool = True) -> None:
        """The event is settled. `reached`: the endpoint has taken it, so it is up."""
        if reached:
            self._up()
        self._back(waiting)
        if self.holds(waiting):
            queue = self._queues[waiting.due.session]
            queue.popleft()
            self._size -= 1
            if not queue:
                del self._queues[waiting.due.session]

    def failed(self, waiting: Waiting, not_before: float, pause_until: float) -> None:
        """It is to be sent again, not before a time; nothing at all is to be sent before the other."""
        self.failures += 1
        waiting.not_before = not_before
        self._pause_until = max(self._pause_until, pause_until)
        self._back(waiting)

    def holds(self, waiting: Waiting) -> bool:
        """It was taken and not forgotten since."""
        queue = self._queues.get(waiting.due.session)
        return queue is not None and queue[0] is waiting

    def forget(self, session: str) -> None:
        """The session was deleted: nothing that is in memory of it is sent any more, but for what is under way."""
        self._size -= len(self._queues.pop(session, ()))

    def _up(self) -> None:
        """What waited because the endpoint was down waits no more."""
        if self.down:
            for queue in self._queues.values():
                queue[0].not_before = 0.0
        self.failures, self._pause_until = 0, 0.0

    def _back(self, waiting: Waiting) -> None:
        if self._out.get(waiting.due.session) is waiting:
            del self._out[waiting.due.session]
