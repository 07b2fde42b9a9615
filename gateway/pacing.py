"""How fast what clients send is taken. Pure: the clock is an argument.

A limit refuses, and to refuse costs: the frame has been read and parsed, and an answer is written. So from who sends much
more than it may less is read. What it has sent then waits, in its own kernel at last (TCP holds it up), and nothing of it
is lost.

What something costs is said in seconds of the allowance that pays for it: of one of 100 frames a second, a frame takes
10 ms.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, Protocol, TypeVar, runtime_checkable

T = TypeVar("T")

GROUPS_KEPT = 50_000
"""Users and addresses without an open socket whose allowance is remembered; those longest gone are forgotten first."""
_FRAME_BYTES = 16_384
"""So many bytes of a large frame cost those who share an allowance as much as a further frame."""
REQUEST = 4
"""Frames that an HTTP request costs those who share an allowance: it has a head to parse, and is answered by a task."""
LINES = 16
"""Lines of a body in chunks that cost as much as a frame: each chunk has two, however small it is."""


class Held(StrEnum):
    """Whose allowance a socket waits for that is held back; the label of a metric."""

    CONNECTION = "connection"
    SHARED = "shared"
    NEWCOMERS = "newcomers"


@dataclass(frozen=True, slots=True)
class PacingSettings:
    """What is read how fast."""

    frames_per_second: float = 100.0
    """WebSocket frames of any kind, and HTTP requests, of a connection."""
    frames_burst: float = 200.0
    """Of these at once."""
    bytes_per_second: float = 4_194_304.0
    """Bytes of WebSocket frames of a connection."""
    bytes_burst: float = 8_388_608.0
    user_frames_per_second: float = 1000.0
    """Frames of all connections of a user."""
    address_frames_per_second: float = 2000.0
    """Frames of all sockets of an address that have not said who they are, and HTTP requests; 0: as many as come."""
    shared_burst_s: float = 2.0
    """Seconds of the rates of users and addresses that may come at once."""
    sockets_per_second: float = 500.0
    """New sockets that are begun to be read, of all addresses."""
    sockets_burst: float = 1000.0
    turn_frames: int = 16
    """Frames that are taken in one turn of the event loop, of all sockets."""
    turn_share: float = 0.6
    """Share of the time that these turns take at most while more comes than they hold."""
    flood_s: float = 60.0
    """Seconds without a pause in which a connection sends more than is read, until that is a flood."""

    @property
    def frame_s(self) -> float:
        """Seconds of its allowance that a frame takes of a connection."""
        return 1 / self.frames_per_second

    @property
    def byte_s(self) -> float:
        return 1 / self.bytes_per_second

    @property
    def burst_s(self) -> float:
        """Who is within the rate and the burst of frames, and of bytes, has this much at once of both together."""
        return self.frames_burst * self.frame_s + self.bytes_burst * self.byte_s


class Pace:
    """An allowance that comes evenly, and of which `burst_s` seconds are saved at most. Times are monotonic seconds.

    The generic cell rate algorithm (ITU-T I.371): all that is kept is the time until which what was taken is paid for.
    """

    __slots__ = ("_burst_s", "_paid_at", "over_since")

    def __init__(self, burst_s: float) -> None:
        self._burst_s = burst_s
        self._paid_at = float("-inf")
        self.over_since: float | None = None
        """Since when somebody has had to wait; None once half of what can be saved has been saved again."""

    def take(self, now: float, cost_s: float) -> float:
        """Takes `cost_s`, and returns in how many seconds it is due; 0 if it was there. What costs more than can be saved
        is due when all is saved. Who takes more in the meantime is due later, in the order in which they came.
        """
        owed_s = max(0.0, self._paid_at - now)
        wait_s = max(0.0, owed_s + cost_s - max(self._burst_s, cost_s))
        if wait_s:
            self.over_since = now if self.over_since is None else self.over_since
        elif owed_s <= self._burst_s / 2:
            self.over_since = None
        self._paid_at = now + owed_s + cost_s
        return wait_s

    def wait_s(self, now: float, cost_s: float) -> float:
        """What `take` would return; takes nothing."""
        return max(0.0, max(0.0, self._paid_at - now) + cost_s - max(self._burst_s, cost_s))

    def give_back(self, cost_s: float) -> None:
        """What was taken and is not needed."""
        self._paid_at -= cost_s

    def is_whole(self, now: float) -> bool:
        """All is saved that can be: as if nothing had been taken ever."""
        return self._paid_at <= now


class Group:
    """Sockets that share an allowance."""

    __slots__ = ("frame_s", "name", "pace", "sockets")

    def __init__(self, name: str, frame_s: float, burst_s: float) -> None:
        self.name = name
        self.frame_s = frame_s
        self.pace = Pace(burst_s)
        self.sockets = 0

    def cost_s(self, frames: float, size: int = 0) -> float:
        """What so many frames cost that have so many bytes together."""
        return (frames + size / _FRAME_BYTES) * self.frame_s


class Groups:
    """The groups that there are, by name. What one has taken is remembered for as long as it matters."""

    def __init__(self, frames_per_second: float, burst_s: float, kept: int = GROUPS_KEPT) -> None:
        """`frames_per_second` 0: there is no limit, and no group."""
        self._frame_s = 1 / frames_per_second if frames_per_second else 0.0
        self._burst_s = burst_s
        self._kept = kept
        self._open: dict[str, Group] = {}
        self._left: OrderedDict[str, Group] = OrderedDict()
        """Those without a socket."""

    def __len__(self) -> int:
        return len(self._open) + len(self._left)

    def join(self, name: str) -> Group | None:
        """The group of that name, with one socket more; None if it has no limit."""
        if not self._frame_s:
            return None
        group = self._open.get(name)
        if group is None:
            group = self._left.pop(name, None) or Group(name, self._frame_s, self._burst_s)
            self._open[name] = group
        group.sockets += 1
        return group

    def leave(self, group: Group, now: float) -> None:
        group.sockets -= 1
        if group.sockets:
            return
        del self._open[group.name]
        self._left[group.name] = group
        # In the order in which they were left, which is nearly that in which they are whole again.
        while self._left:
            oldest = next(iter(self._left.values()))
            if not oldest.pace.is_whole(now) and len(self._left) <= self._kept:
                break
            del self._left[oldest.name]


class Newcomers(Generic[T]):
    """New sockets, of which so many are begun each second: when more come, one of each address after another."""

    def __init__(self, per_second: float, burst: float) -> None:
        self._each_s = 1 / per_second
        self._pace = Pace(burst / per_second)
        self._waiting: OrderedDict[str, deque[T]] = OrderedDict()

    def __bool__(self) -> bool:
        """Some wait."""
        return bool(self._waiting)

    def came(self, now: float, address: str, socket: T) -> float:
        """0 if it may begin; else it waits, and this is in how many seconds the next one of those that wait is due."""
        if not self._waiting and not self._pace.wait_s(now, self._each_s):
            self._pace.take(now, self._each_s)
            return 0.0
        self._waiting.setdefault(address, deque()).append(socket)
        return max(self._pace.wait_s(now, self._each_s), self._each_s)

    def next(self, now: float) -> tuple[T | None, float]:
        """One that may begin now; and in how many seconds to ask again, 0: at once, or never if none waits."""
        if not self._waiting:
            return None, 0.0
        if wait_s := self._pace.wait_s(now, self._each_s):
            return None, wait_s
        self._pace.take(now, self._each_s)
        address, sockets = self._waiting.popitem(last=False)
        socket = sockets.popleft()
        if sockets:
            self._waiting[address] = sockets
        return socket, 0.0

    def gone(self, address: str, socket: T) -> None:
        """It does not wait any more."""
        sockets = self._waiting.get(address)
        if sockets is not None and socket in sockets:
            sockets.remove(socket)
            if not sockets:
                del self._waiting[address]


class FrameHeads:
    """Finds where the frames of a WebSocket begin (RFC 6455, section 5.2) in bytes that come in pieces, and no more."""

    __slots__ = ("_head", "_left")

    def __init__(self) -> None:
        self._head = b""
        """The beginning of a frame's head of which the rest has not come."""
        self._left = 0
        """Bytes of a payload that have not come."""

    def take(self, data: bytes, at: int, most: int) -> tuple[int, int]:
        """How many frames begin in `data` from `at` on, at most so many, and where the next one would begin after them."""
        size, count = len(data), 0
        if self._head:
            at = self._rest_of_head(data, at)
        at += self._left
        while at < size:
            if count == most:
                self._left = 0
                return count, at
            count += 1
            end = _end(data, at)
            if end is None:
                self._head, self._left = data[at:], 0
                return count, size
            at = end
        self._left = at - size
        return count, size

    def _rest_of_head(self, data: bytes, at: int) -> int:
        """Where the payload begins of the frame whose head lies across two pieces; it has been counted."""
        head = self._head + data[at : at + _HEAD_MAX]
        end = _end(head, 0)
        if end is None:
            self._head = head
            return len(data)
        before, self._head = len(self._head), b""
        return at + end - before


_HEAD_MAX = 14


def _end(data: bytes, at: int) -> int | None:
    """Where the frame ends that begins at `at`; None if its length has not come yet."""
    known = len(data) - at
    if known < 2:
        return None
    second = data[at + 1]
    length, masked = second & 0x7F, 4 if second & 0x80 else 0
    if length < 126:
        return at + 2 + masked + length
    wide = 2 if length == 126 else 8
    if known < 2 + wide:
        return None
    return at + 2 + wide + masked + int.from_bytes(data[at + 2 : at + 2 + wide], "big")


@runtime_checkable
class Paced(Protocol):
    """A socket that is read at a pace."""

    @property
    def is_held(self) -> bool:
        """Something has come from it that is not looked at yet, and so nothing more is read."""
        ...

    def greeted(self, caller: str, on_flood: Callable[[], None]) -> None:
        """It is that user's from now on. `on_flood` is called when it has sent more than is read for too long."""
        ...


def paced(socket: object) -> Paced | None:
    """As what a request's socket is to its connection; None where it is read as fast as it sends."""
    return socket if isinstance(socket, Paced) else None
