"""What has come from one socket, and is taken at its pace.

While something of it waits the socket is not read: then the kernel's buffer fills, and TCP holds up who sends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from antiphon.turnstile import TICK_S, Turnstile
from gateway.addresses import counted_as
from gateway.pacing import LINES, REQUEST, FrameHeads, Group, Held, Pace

_PIECE_BYTES = 16_384
"""Of a request that are parsed as one frame is; a file comes in many of these in one turn, if there is room."""
_CHUNKS_BYTES = 1024
"""The same of a body in chunks, of which there may be one in six bytes."""


class Socket(Protocol):
    """What it reads."""

    def feed(self, data: bytes) -> None:
        """Has it parsed."""
        ...

    def stop_reading(self) -> None: ...

    def read_on(self) -> None: ...

    def left(self) -> bool:
        """Its peer has closed it, and so it is ended."""
        ...


class Reading:
    """One for each socket. What has come is given to `came`, and comes back by `feed` when it is its turn."""

    __slots__ = (
        *("_address", "_at", "_by", "_ended", "_for_many", "_group", "_heads", "_on_flood", "_own", "_promised"),
        *("_rest", "_socket", "_timer", "_turnstile", "in_chunks", "is_held"),
    )

    def __init__(self, turnstile: Turnstile, socket: Socket, address: str, *, for_many: bool = False) -> None:
        """`address`: whose newcomer it is, and whose allowance it takes from, unless it speaks `for_many`."""
        self._turnstile = turnstile
        self._socket = socket
        self._address = address
        self._for_many = for_many
        self._group: Group | None = None if for_many else turnstile.addresses.join(address)
        self._own = Pace(turnstile.settings.burst_s)
        self._heads: FrameHeads | None = None
        self._rest = b""
        self._at = 0
        self._promised = 0, 0
        """Of what is paid for, and due when a timer says so: where it ends, and how many frames it has."""
        self._by: Held | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._on_flood: Callable[[], None] | None = None
        self._ended = False
        self.in_chunks = False
        """The request that is being read says that its body is."""
        self.is_held = False
        """Something waits, and nothing is read."""

    def begin_when_due(self) -> None:
        """A new socket is read at once, or when enough of those who came before have been begun."""
        if not self._turnstile.came(self._address, self):
            self._hold(Held.NEWCOMERS)

    def begin(self) -> None:
        if self._rest:
            self._by_now(None)
            self._turnstile.in_turn(self._go_on)
        else:
            self._release()

    def came(self, data: bytes) -> None:
        if self.is_held:
            # It was on its way.
            self._socket.stop_reading()
            end, frames = self._promised
            self._rest, self._promised = self._rest[self._at :] + data, (max(0, end - self._at), frames)
            self._at = 0
            return
        self._rest, self._at = data, 0
        self._go_on(self._turnstile.room())

    def is_websocket(self, came: bytes) -> None:
        """From now on it has frames. `came`: what has been fed of it already, and is no HTTP."""
        self._heads = FrameHeads()
        self._promised = 0, 0
        if self.is_held:
            self._rest, self._at = came + self._rest[self._at :], 0
        elif came:
            self.came(came)

    def is_users(self, caller: str, on_flood: Callable[[], None]) -> None:
        """It takes from the allowance of a user, no longer from the address's."""
        self._leave()
        self._group = self._turnstile.users.join(caller)
        self._on_flood = on_flood

    @property
    def speaks_for_many(self) -> bool:
        return self._for_many

    async def its_turn(self, client: str | None = None) -> None:
        """Before a request is answered. `client`: the address it comes from, if that is another than the socket's."""
        turnstile, now = self._turnstile, asyncio.get_running_loop().time()
        own_s = 0.0 if self._for_many else self._own.take(now, turnstile.settings.frame_s)
        shared_s = turnstile.request_s(self._address if client is None else counted_as(client), now)
        if own_s or shared_s:
            by = Held.CONNECTION if own_s >= shared_s else Held.SHARED
            turnstile.on_held(by, 1)
            try:
                await asyncio.sleep(max(own_s, shared_s, TICK_S))
            finally:
                turnstile.on_held(by, -1)
        await turnstile.turn(REQUEST)

    def end(self) -> None:
        """The socket is no more."""
        self._ended = True
        if self._by is Held.NEWCOMERS:
            self._turnstile.gone(self._address, self)
        self._by_now(None)
        if self._timer is not None:
            self._timer.cancel()
        end, frames = self._promised
        if end and self._group is not None and self._heads is not None:
            # What nobody takes any more keeps others of the group waiting no longer.
            self._group.pace.give_back(self._group.cost_s(frames, end - self._at))
        self._leave()
        self._rest = b""
        self._on_flood = None

    # --- at its pace ---------------------------------------------------------------------------------------------------

    def _go_on(self, room: int) -> None:
        """Takes what is due, of as many frames as there is room for; the rest later."""
        while room > 0 and not self._ended:
            end, frames = self._promised
            if end:
                self._promised = 0, 0
            else:
                end, frames = self._next(room)
                if wait_s := self._pay(end, frames):
                    self._promised = end, frames
                    self._timer = asyncio.get_running_loop().call_later(max(wait_s, TICK_S), self._due)
                    return
            data, self._at = self._rest[self._at : end], end
            frames = frames or 1
            room -= frames
            self._turnstile.took(frames)
            self._socket.feed(data)
            if self._at >= len(self._rest):
                self._release()
                return
        if not self._ended:
            self._hold(None)
            self._turnstile.in_turn(self._go_on)

    def _due(self) -> None:
        self._timer = None
        # What is left of what it has sent would be answered to nobody, and keep others who share with it waiting.
        if not self._socket.left():
            self._turnstile.in_turn(self._go_on)

    def _next(self, most: int) -> tuple[int, int]:
        """Where the next piece ends, and how many frames begin in it."""
        if self._heads is not None:
            frames, end = self._heads.take(self._rest, self._at, most)
            return end, frames
        end = min(len(self._rest), self._at + (_CHUNKS_BYTES if self.in_chunks else _PIECE_BYTES))
        return end, 1 + self._lines(end) // LINES

    def _lines(self, end: int) -> int:
        """Of a body in chunks, up to there."""
        return self._rest.count(b"\n", self._at, end) if self.in_chunks else 0

    def _pay(self, end: int, frames: int) -> float:
        """Takes what it costs from its own allowance, and from that which it shares; in how many seconds it is due."""
        now, size = asyncio.get_running_loop().time(), end - self._at
        own_s = shared_s = 0.0
        if self._heads is not None:
            may = self._turnstile.settings
            own_s = self._own.take(now, frames * may.frame_s + size * may.byte_s)
            if self._group is not None:
                shared_s = self._group.pace.take(now, self._group.cost_s(frames, size))
        elif self.in_chunks and self._group is not None:
            shared_s = self._group.pace.take(now, self._group.cost_s(self._lines(end) / LINES))
        if own_s or shared_s:
            self._hold(Held.CONNECTION if own_s >= shared_s else Held.SHARED)
            since = self._own.over_since
            if own_s and since is not None and now - since >= self._turnstile.settings.flood_s and self._on_flood:
                self._on_flood()
        return max(own_s, shared_s)

    def _hold(self, by: Held | None) -> None:
        """`by` None: it is only not its turn."""
        if not self.is_held:
            self.is_held = True
            self._socket.stop_reading()
        self._by_now(by)

    def _release(self) -> None:
        self._rest, self._at = b"", 0
        if self.is_held:
            self.is_held = False
            self._by_now(None)
            self._socket.read_on()

    def _by_now(self, by: Held | None) -> None:
        if by is self._by:
            return
        if self._by is not None:
            self._turnstile.on_held(self._by, -1)
        if by is not None:
            self._turnstile.on_held(by, 1)
        self._by = by

    def _leave(self) -> None:
        group, self._group = self._group, None
        if group is None:
            return
        groups = self._turnstile.addresses if self._on_flood is None else self._turnstile.users
        groups.leave(group, asyncio.get_running_loop().time())
