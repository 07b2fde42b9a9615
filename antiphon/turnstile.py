"""When the bytes that have come from sockets are taken: what one turn of the event loop takes has a bound, and so has what
a second takes of a user, of an address and of new sockets.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from gateway.pacing import REQUEST, Groups, Held, Newcomers, PacingSettings

_TURN_MAX_S = 0.01
"""A turn that took longer was interrupted by something else on this machine."""
TICK_S = 0.02
"""Nobody waits for less: a timer for each frame would cost what not to read it saves."""


class Newcomer(Protocol):
    """A socket that has come and is not read yet."""

    def begin(self) -> None: ...


class Turnstile:
    """All sockets of one web server go through it. `on_held` is told of each that is held back, and that is not any more,
    and by what.
    """

    def __init__(
        self, settings: PacingSettings, on_held: Callable[[Held, int], None] = lambda _by, _more: None
    ) -> None:
        self.settings = settings
        self.on_held = on_held
        self.users = Groups(settings.user_frames_per_second, settings.shared_burst_s)
        self.addresses = Groups(settings.address_frames_per_second, settings.shared_burst_s)
        self._loop = asyncio.get_running_loop()
        self._left = settings.turn_frames
        self._at = 0.0
        self._waiting: deque[Callable[[int], None]] = deque()
        self._turning = False
        self._begun = 0.0
        self._newcomers = Newcomers[Newcomer](settings.sockets_per_second, settings.sockets_burst)
        self._next: asyncio.TimerHandle | None = None

    # --- turns ---------------------------------------------------------------------------------------------------------

    def room(self) -> int:
        """How many frames may be taken now: none while others wait, who came before."""
        if self._turning:
            return 0
        # The loop's clock stands still in a turn (libuv's); where it does not, this is what is taken in a millisecond.
        now = self._loop.time() // 0.001
        if now != self._at:
            self._at, self._left = now, self.settings.turn_frames
        return max(0, self._left)

    def took(self, frames: int) -> None:
        self._left -= frames

    def in_turn(self, act: Callable[[int], None]) -> None:
        """Calls `act` in the next turn that has room, after those who came before; it is told for how many frames."""
        self._waiting.append(act)
        if not self._turning:
            self._turning = True
            self._loop.call_soon(self._turn)

    async def turn(self, frames: int) -> None:
        """Returns when there is room, which is taken."""
        if not self.room():
            turn = self._loop.create_future()
            self.in_turn(lambda _: _wake(turn))
            await turn
        self.took(frames)

    def request_s(self, address: str, now: float) -> float:
        """Takes what a request of an address costs it; in how many seconds it is due."""
        group = self.addresses.join(address)
        if group is None:
            return 0.0
        try:
            return group.pace.take(now, group.cost_s(REQUEST))
        finally:
            self.addresses.leave(group, now)

    def _turn(self) -> None:
        self._left = self.settings.turn_frames
        self._begun = time.monotonic()
        try:
            for _ in range(len(self._waiting)):
                if self._left <= 0:
                    break
                # Who has more than there is room for comes again, at the end.
                self._waiting.popleft()(self._left)
        finally:
            self._turning = bool(self._waiting)
            if self._turning:
                # Once what came of it has been done.
                self._loop.call_soon(self._pause)

    def _pause(self) -> None:
        """More has come than a turn takes: the others get their share of the time, too."""
        took_s = min(time.monotonic() - self._begun, _TURN_MAX_S)
        self._loop.call_later(took_s * (1 / self.settings.turn_share - 1), self._turn)

    # --- new sockets ---------------------------------------------------------------------------------------------------

    def came(self, address: str, socket: Newcomer) -> bool:
        """False if it has to wait until its `begin` is called."""
        wait_s = self._newcomers.came(self._loop.time(), address, socket)
        if wait_s and self._next is None:
            self._next = self._loop.call_later(max(wait_s, TICK_S), self._begin)
        return not wait_s

    def gone(self, address: str, socket: Newcomer) -> None:
        self._newcomers.gone(address, socket)

    def _begin(self) -> None:
        self._next = None
        while True:
            socket, wait_s = self._newcomers.next(self._loop.time())
            if socket is None:
                break
            socket.begin()
        if self._newcomers:
            self._next = self._loop.call_later(max(wait_s, TICK_S), self._begin)


def _wake(turn: asyncio.Future[None]) -> None:
    if not turn.done():
        turn.set_result(None)
