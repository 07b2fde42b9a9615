"""Whether the peer of a WebSocket is still there.

When nothing has come from it for a while it is pinged, and must answer. On a slow line the ping stands behind all that was
sent before it, for minutes, and in the peer's own kernel behind what it has not read yet: there, to take something is a
sign of life.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from gateway.pacing import Paced
from gateway.protocol import PING
from gateway.taking import ALMOST, Progress, progress


class Heartbeat:
    """Pings by `write` when nothing has come for `every_s`; and ends the connection when then nothing comes, and the peer
    takes nothing more than the ping, for half as long, or, if the ping stands behind something else, takes nothing at all
    for `patience_s`. While we do not read what it sends (`paced`), nothing can be heard from it, and nothing is missed.
    """

    __slots__ = (
        *("_asked_at", "_every_s", "_limit_s", "_paced", "_patience_s", "_seen", "_timer", "_took_at", "_transport"),
        "_write",
    )

    def __init__(
        self,
        transport: asyncio.Transport,
        every_s: float,
        patience_s: float,
        write: Callable[[bytes], None],
        paced: Paced | None = None,
    ) -> None:
        self._transport = transport
        self._every_s = every_s
        self._patience_s = patience_s
        self._write = write
        self._paced = paced
        self._asked_at: int | None = None
        """The place in the stream at which the ping ends that is not answered yet; 0 if it stands behind something."""
        self._limit_s = 0.0
        self._took_at = 0.0
        """When it was seen that the peer had taken something."""
        self._seen: Progress | None = None
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self._seen = progress(self._transport)
        self._again(self._every_s)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def heard(self) -> None:
        """A message has come. For where the kernel does not say."""
        self._seen = None

    def _look(self) -> None:
        if self._transport.is_closing():
            return
        before, now, at = self._seen, progress(self._transport), time.monotonic()
        self._seen = now
        if before is None or now.sent_since(before) or (self._paced is not None and self._paced.is_held):
            self._asked_at = None
            self._again(self._every_s)
            return
        if self._asked_at is None:
            waits = bool(now.queued or now.unsent)
            self._asked_at = 0 if waits else now.written + len(PING)
            self._limit_s = self._patience_s if waits else self._every_s / 2
            self._took_at = at
            self._write(PING)
        elif now.took_since(before) and now.acked >= self._asked_at + bool(self._asked_at):
            self._took_at = at
        elif at - self._took_at >= self._limit_s * ALMOST:
            self._transport.abort()
            return
        self._again(self._every_s / 2)

    def _again(self, after_s: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(after_s, self._look)
