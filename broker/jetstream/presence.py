"""Presence over core NATS: gateways announce who is connected to them, and whoever looks merges it (`broker.presence`).

Nothing is stored. On ``pres.<pp>.<sid>.here`` a gateway announces all of its devices in a session, at each change; an
announcement replaces the one before, so that a lost or repeated one does no lasting harm. Who begins to look subscribes
and then asks on ``….ask``; gateways that have somebody there announce them again, to all: so answers keep their order
with changes, and a hundred questions at once are one answer.

A gateway that is alive says so with one heartbeat for all its sessions, every 2 s on ``gw.<gateway>``, and is lost after
6 s without (its goodbye makes that at once). Heartbeats, and not keys with a time to live in a KV bucket: presence must
not go with JetStream's leader elections, needs no stream, no consumer in each process and no quorum write for what is
true for seconds only, and a heartbeat on the same connection as the announcements tells more than a key does. It is
numbered: a jump says that announcements may have been lost as well, and they are asked for again.

Who could not hear (NATS was away, or the process stood still) blames nobody: it counts from anew, asks again, and what
does not answer then is gone from the session.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from types import TracebackType
from typing import Any, Final, Self

import orjson
import structlog
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from broker.errors import LogError, Unavailable
from broker.jetstream.connection import Connection
from broker.jetstream.presence_room import PresenceRoom
from broker.presence import Peers
from broker.subjects import HEARTBEATS, SessionSubjects, heartbeat
from broker.versions import VERSION

_log = structlog.get_logger("antiphon.presence")

BEATS_OF_LIFE: Final = 3
"""A gateway is lost after as many heartbeats that did not come."""
_AWAY_WAIT_S: Final = 0.25
_GOODBYE_S: Final = 1.0


class NatsPresence:
    """`broker.interfaces.Presence`; and, with the name of a `gateway`, `GatewayPresence`. A context, within that of its
    connection.
    """

    def __init__(
        self, connection: Connection, gateway: str = "", *, heartbeat_s: float = 2.0, grace_s: float = 10.0
    ) -> None:
        self.connection = connection
        self.gateway = gateway
        self.life_s = BEATS_OF_LIFE * heartbeat_s
        self.grace_s = grace_s
        self._heartbeat_s = heartbeat_s
        self._rooms: set[PresenceRoom] = set()
        self._due: dict[PresenceRoom, None] = {}
        self._wake = asyncio.Event()
        self._peers = Peers()
        self._heartbeats: Subscription | None = None
        self._listening_since: float | None = None
        self._tasks = asyncio.TaskGroup()
        self._running: list[asyncio.Task[None]] = []
        self._forget_disturbances: Callable[[], None] = lambda: None

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        self._forget_disturbances = self.connection.on_disturbed(self._disturbed)
        self._running = [self._tasks.create_task(self._speak()), self._tasks.create_task(self._judge())]
        if self.gateway:
            self._running.append(self._tasks.create_task(self._beat()))
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._forget_disturbances()
        for task in self._running:
            task.cancel()
        await self._tasks.__aexit__(exc_type, exc, tb)
        if self.gateway:
            # Who left with this gateway is kept by the others for the grace.
            with suppress(LogError, TimeoutError):
                async with asyncio.timeout(_GOODBYE_S):
                    await self.connection.send(heartbeat(self.gateway), orjson.dumps({"gone": True}))
                    await self.connection.flush()
        if self._heartbeats is not None:
            await self.connection.unsubscribe(self._heartbeats)

    @asynccontextmanager
    async def watch(self, subjects: SessionSubjects) -> AsyncIterator[PresenceRoom]:
        """See `broker.interfaces.Presence`."""
        async with self._room(PresenceRoom(self, subjects, lambda: None)) as room:
            yield room

    @asynccontextmanager
    async def attend(self, subjects: SessionSubjects, on_change: Callable[[], None]) -> AsyncIterator[PresenceRoom]:
        """See `broker.interfaces.GatewayPresence`."""
        assert self.gateway
        async with self._room(PresenceRoom(self, subjects, on_change)) as room:
            yield room

    @asynccontextmanager
    async def _room(self, room: PresenceRoom) -> AsyncIterator[PresenceRoom]:
        self._rooms.add(room)
        self.say(room)
        try:
            yield room
        finally:
            self._rooms.discard(room)
            self._due.pop(room, None)
            await room.close()

    # --- for rooms -----------------------------------------------------------------------------------------------------

    def say(self, room: PresenceRoom) -> None:
        """The room has something to send."""
        self._due[room] = None
        self._wake.set()

    def heard(self, gateway: str, life_s: float, n: int | None = None) -> None:
        """A sign of life of another gateway."""
        if self._peers.heard(gateway, life_s, time.monotonic(), n):
            self._ask_again()

    def all_among(self, answered: set[str]) -> bool:
        """Whether no gateway that is alive is missing. False as long as not all have had the time for a heartbeat."""
        since = self._listening_since
        if since is None or time.monotonic() - since < self.life_s:
            return False
        return self._peers.alive <= answered

    # --- tasks -----------------------------------------------------------------------------------------------------------

    async def _speak(self) -> None:
        """Sends what rooms have to say; while NATS is away it waits."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._due:
                room = next(iter(self._due))
                del self._due[room]
                try:
                    await room.speak()
                except LogError:
                    if room in self._rooms:
                        self._due[room] = None
                    await asyncio.sleep(_AWAY_WAIT_S)
                except Exception:  # noqa: BLE001 (a fault in one session must not end the others)
                    _log.exception("presence cannot be announced", session=room.session)

    async def _beat(self) -> None:
        n = 0
        while True:
            n += 1
            with suppress(Unavailable):
                body = orjson.dumps({"n": n, "life_ms": round(self.life_s * 1000), "version": VERSION})
                await self.connection.send(heartbeat(self.gateway), body)
            await asyncio.sleep(self._heartbeat_s)

    async def _judge(self) -> None:
        """Finds out who is lost; blames nobody for what happened while this process could not hear."""
        tick_s = self._heartbeat_s / 2
        while True:
            if self._heartbeats is None:
                await self._listen()
            due = time.monotonic() + tick_s
            await asyncio.sleep(tick_s)
            now = time.monotonic()
            if not self.connection.connected:
                self._peers.restart(now)
            elif now - due > self._heartbeat_s:
                self._disturbed(None)
            if self._peers.silent(now) and await self._hears():
                for gateway in self._peers.silent(time.monotonic()):
                    self._peers.lose(gateway)
                    self._lose(gateway)

    async def _hears(self) -> bool:
        """Whether NATS answers: a connection may be dead long before it is found to be."""
        try:
            await self.connection.flush()
        except LogError:
            self._peers.restart(time.monotonic())
            return False
        return True

    async def _listen(self) -> None:
        with suppress(LogError):
            self._heartbeats = await self.connection.subscribe(HEARTBEATS, self._on_heartbeat)
            self._listening_since = time.monotonic()

    async def _on_heartbeat(self, msg: Msg) -> None:
        gateway = msg.subject.rpartition(".")[2]
        if gateway == self.gateway:
            return
        try:
            wire: dict[str, Any] = orjson.loads(msg.data)
            if wire.get("gone"):
                self._peers.gone(gateway)
                self._lose(gateway)
            else:
                self.heard(gateway, wire["life_ms"] / 1000, int(wire["n"]))
        except (ValueError, KeyError, TypeError, AttributeError):
            _log.warning("a heartbeat that is none was ignored", gateway=gateway)

    def _lose(self, gateway: str) -> None:
        _log.info("a gateway is gone", gateway=gateway)
        for room in tuple(self._rooms):
            room.lose(gateway)

    def _disturbed(self, sub: Subscription | None) -> None:
        """Messages may have been lost: all of them, or those of one subscription."""
        rooms = [room for room in self._rooms if sub is None or room.follows(sub)]
        if sub is None or sub is self._heartbeats:
            self._peers.restart(time.monotonic())
            self._listening_since = None if self._heartbeats is None else time.monotonic()
        for room in rooms:
            room.start_again()

    def _ask_again(self) -> None:
        for room in self._rooms:
            room.ask()
