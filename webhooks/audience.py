"""Who is in a session, asked ahead and kept for a moment.

A gateway where nobody is does not answer, and that is only known after half a second. So the question is asked as soon as an
event waits, and events of one session that follow each other ask once.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass, field

from broker.errors import LogError
from broker.interfaces import Presence, PresenceWatch, SessionLog
from broker.presence import Present

ROOMS_MAX = 1_000
"""Sessions that are looked at; for more, who was asked for longest ago is let go."""
_LINGER_S = 10.0
_WAIT_S = 2.0
"""Seconds to find out who is there; who is not known by then is not."""


@dataclass(slots=True)
class _Room:
    until: float
    watch: PresenceWatch | None = None
    known: asyncio.Event = field(default_factory=asyncio.Event)


class Audience:
    """For one term: `run` for as long as it is asked."""

    def __init__(self, presence: Presence, log: SessionLog) -> None:
        self._presence = presence
        self._log = log
        self._rooms: dict[str, tuple[_Room, asyncio.Task[None]]] = {}
        self._tasks = asyncio.TaskGroup()

    async def run(self) -> None:
        async with self._tasks:
            await asyncio.Event().wait()

    def expect(self, session: str) -> None:
        """Somebody will ask soon."""
        self._room(session)

    async def present(self, session: str) -> tuple[Present, ...]:
        """Who is there, as far as it can be found out in time."""
        room = self._room(session)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_WAIT_S):
                await room.known.wait()
        return () if room.watch is None else room.watch.participants

    def _room(self, session: str) -> _Room:
        known = self._rooms.pop(session, None)
        if known is None:
            room = _Room(0.0)
            known = room, self._tasks.create_task(self._keep(session, room))
        self._rooms[session] = known
        known[0].until = time.monotonic() + _LINGER_S
        if len(self._rooms) > ROOMS_MAX:
            _, task = self._rooms.pop(next(iter(self._rooms)))
            task.cancel()
        return known[0]

    async def _keep(self, session: str, room: _Room) -> None:
        try:
            async with self._presence.watch(self._log.subjects(session)) as watch:
                room.watch = watch
                await watch.ready()
                room.known.set()
                while (left_s := room.until - time.monotonic()) > 0:  # noqa: ASYNC110 (the end is put off meanwhile)
                    await asyncio.sleep(left_s)
        except LogError:
            room.known.set()
        finally:
            if (kept := self._rooms.get(session)) is not None and kept[0] is room:
                del self._rooms[session]
