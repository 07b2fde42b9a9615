"""Who is at this gateway, session by session: the seats of subscriptions, announced to the others, and what there is of
people everywhere, sent to the subscribers.

Presence of a session is worked out at most five times a second, and less often where there are so many people that it
would take more than a twentieth of the time. A subscriber who cannot take a frame gets, later, only the newest.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from types import TracebackType
from typing import Self

import structlog

from broker.interfaces import Attendance, GatewayPresence
from broker.presence import Member, Present, Roster
from broker.subjects import SessionSubjects
from broker.telemetry import bind_only
from broker.tools import ToolDeclaration
from gateway import protocol
from gateway.framing import Framing
from gateway.metrics import GatewayMetrics
from gateway.reader import Outlet

_log = structlog.get_logger("antiphon.presence")

_EVERY_S = 0.2
_SHARE = 20
"""At least as many times the CPU time that it took last is waited until presence of a session is worked out again."""
_BEHIND_S = 0.5
"""How often it is tried to send to those who could not take it."""


class Seat:
    """A subscription of a connection, as presence sees it. Made by `Rooms.sit`; `leave` must be called at its end."""

    def __init__(self, room: _Room, outlet: Outlet, member: Member) -> None:
        self.outlet = outlet
        self.live = False
        """The subscriber has been told that it has caught up: from then on it gets presence."""
        self.sent = b""
        self._room = room
        self._member = member

    @property
    def member(self) -> Member:
        """Who sits here, with the tools that were declared for this session."""
        return self._member

    def update(
        self,
        *,
        state: str | None = None,
        name: str | None = None,
        roles: tuple[str, ...] | None = None,
        tools: tuple[ToolDeclaration, ...] | None = None,
    ) -> None:
        """Says what is new; the name is that of a new token, which comes with its roles."""
        member = self._member
        if state is not None:
            member = dataclasses.replace(member, state=state)
        if roles is not None:
            member = dataclasses.replace(member, name=name, roles=roles)
        if tools is not None:
            member = dataclasses.replace(member, tools=tools)
        if member != self._member:
            self._member = member
            self._room.put(self, member)

    def went_live(self) -> None:
        """The subscriber has caught up. May be said again."""
        if not self.live:
            self.live = True
            self._room.wake.set()

    def leave(self) -> None:
        """May be called again."""
        self._room.leave(self)


class Rooms:
    """A context, within that of the presence it is given."""

    def __init__(self, presence: GatewayPresence, grace_s: float, metrics: GatewayMetrics) -> None:
        self._presence = presence
        self._grace_s = grace_s
        self._metrics = metrics
        self._rooms: dict[str, tuple[_Room, asyncio.Task[None]]] = {}
        self._tasks = asyncio.TaskGroup()

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        for _, task in self._rooms.values():
            task.cancel()
        await self._tasks.__aexit__(exc_type, exc, tb)

    def sit(self, subjects: SessionSubjects, outlet: Outlet, member: Member) -> Seat:
        """Somebody has subscribed to a session."""
        if subjects.key not in self._rooms:
            room = _Room(subjects, self._grace_s, self._metrics)
            task = self._tasks.create_task(self._keep(room), name=f"presence-{subjects.key}")
            self._rooms[subjects.key] = room, task
        room = self._rooms[subjects.key][0]
        seat = Seat(room, outlet, member)
        room.put(seat, member)
        return seat

    async def _keep(self, room: _Room) -> None:
        """For as long as there is anybody, or was a moment ago."""
        bind_only(session=room.subjects.key)
        while not room.empty:
            try:
                async with self._presence.attend(room.subjects, room.wake.set) as attendance:
                    await room.keep(attendance)
            except Exception:  # noqa: BLE001 (a fault in one session must not end the others)
                _log.exception("presence failed")
                await asyncio.sleep(1.0)
        # Nothing is awaited since nobody was found there: whoever comes now gets a new room.
        del self._rooms[room.subjects.key]


class _Room:
    """One session at this gateway."""

    def __init__(self, subjects: SessionSubjects, grace_s: float, metrics: GatewayMetrics) -> None:
        self.subjects = subjects
        self.wake = asyncio.Event()
        self._metrics = metrics
        self._seats: set[Seat] = set()
        self._roster = Roster(grace_s)
        self._announced: tuple[tuple[Member, ...], int] = (), 0
        self._shown: tuple[tuple[Present, ...], int] | None = None
        self._frame = b""
        self._users = 0
        self._behind = False

    @property
    def empty(self) -> bool:
        return self._roster.empty

    def put(self, seat: Seat, member: Member) -> None:
        self._seats.add(seat)
        self._roster.put(seat, member)
        self.wake.set()

    def leave(self, seat: Seat) -> None:
        self._seats.discard(seat)
        self._roster.leave(seat, time.monotonic())
        self.wake.set()

    async def keep(self, attendance: Attendance) -> None:
        """Announces and tells until nobody is there, and that has been announced."""
        self._announced = (), 0
        while True:
            self.wake.clear()
            # Of this process alone: a machine that stands still in between must not keep people waiting for long after.
            began_cpu = time.thread_time()
            self._announce(attendance, time.monotonic())
            if self.empty:
                return
            if attendance.is_ready:
                self._tell(attendance)
            await asyncio.sleep(max(_EVERY_S, _SHARE * (time.thread_time() - began_cpu)))
            await self._woken()

    async def _woken(self) -> None:
        """Returns when there may be something to do."""
        due = self._roster.due
        wait_s = None if due is None else max(0.0, due - time.monotonic())
        if self._behind:
            wait_s = _BEHIND_S if wait_s is None else min(wait_s, _BEHIND_S)
        try:
            async with asyncio.timeout(wait_s):
                await self.wake.wait()
        except TimeoutError:
            return

    def _announce(self, attendance: Attendance, now: float) -> None:
        here = self._roster.members(now)
        if here != self._announced:
            self._announced = here
            attendance.announce(*here)
            users = len({member.user for member in here[0] if member.watching})
            self._metrics.participants.inc(users - self._users)
            self._users = users

    def _tell(self, attendance: Attendance) -> None:
        shown = attendance.participants, attendance.more
        if shown != self._shown:
            self._shown = shown
            frame = protocol.presence(self.subjects.session, *shown)
            # What has changed may be nothing that is shown.
            if frame != self._frame:
                self._frame = frame
        ready: dict[Framing, bytes] = {}
        self._behind = False
        for seat in self._seats:
            if not seat.live or seat.sent is self._frame:
                continue
            if seat.outlet.congested:
                self._behind = True
            else:
                seat.sent = self._frame
                framing = seat.outlet.framing
                if framing not in ready:
                    ready[framing] = framing.message(self._frame)
                seat.outlet.write(ready[framing])
