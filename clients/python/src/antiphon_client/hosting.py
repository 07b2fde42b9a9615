"""What a client does for its sessions (see `_host.py`), and tells of its connection."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeAlias

from ._host import CommandBuilder
from ._json import JsonObject
from ._tasks import Beside
from .bell import Bell
from .commands import Commands
from .connection import Connection
from .errors import AntiphonError, ConnectionClosed
from .liveness import SOMEWHERE, Glance, Vigil, source_towards
from .reconnect import Backoff
from .settings import Settings

Status: TypeAlias = Literal["connecting", "connected", "waiting", "stopped"]
"""`waiting`: the connection is lost, and it is not yet time for the next try; `stopped`: there will be none."""


class Hosting:
    """The part of a `Client` that its sessions use. How the connection is kept up is up to `Client`."""

    def __init__(self, settings: Settings, rand: Callable[[], float]) -> None:
        self._settings = settings
        self._rand = rand
        self._backoff = Backoff(settings.backoff_base_s, settings.backoff_cap_s)
        self._commands = Commands(settings, rand)
        self._connection: Connection | None = None
        self._waiters = 0
        self._failure: AntiphonError | None = None
        self._beside = Beside(self._fault)
        self._status: Status = "connecting"
        self._changed = Bell()
        self._hurry = asyncio.Event()

    # ---- the connection, as it stands

    @property
    def status(self) -> Status:
        """What there is of a connection right now."""
        return self._status

    async def status_changes(self) -> AsyncIterator[Status]:
        """Iterate over `status`: as it is now, then whenever it changes. Ends after `stopped`.

        Who is slow gets the latest one. Any number of iterations may go on at once.
        """
        given: Status | None = None
        while given != "stopped":
            if self._status != given:
                given = self._status
                yield given
            else:
                await self._changed.wait()

    def check_connection(self) -> None:
        """Find out at once whether the connection is alive, and come back at once if there is none.

        It is done by itself when this machine has slept or changed its network
        (`Settings.liveness_check_s`); a program that learns of that otherwise may say so here.
        """
        if self._connection is not None:
            self._connection.doubt()
        else:
            self._hurry.set()

    def _is(self, status: Status) -> None:
        if self._status not in (status, "stopped"):
            self._status = status
            self._changed.ring()

    async def _keep_vigil(self) -> None:
        """Look now and then whether something has happened that a socket does not tell."""
        every_s = self._settings.liveness_check_s
        if every_s is None:
            return
        vigil = Vigil(every_s, self._settings.liveness_slack_s)
        loop = asyncio.get_running_loop()
        while True:
            peer = SOMEWHERE if self._connection is None else self._connection.peer
            if vigil.look(Glance(loop.time(), time.time(), peer, source_towards(peer))) is not None:
                self.check_connection()
            await asyncio.sleep(every_s)

    async def _stay_away(self, pause_s: float) -> None:
        """Wait before the next try; not longer than a first pause once there is a reason to hurry."""
        self._hurry.clear()
        try:
            async with asyncio.timeout(pause_s):
                await self._hurry.wait()
        except TimeoutError:
            return
        self._backoff.reset()
        await asyncio.sleep(min(pause_s, self._backoff.next_s(self._rand())))

    # ---- what its sessions use

    @property
    def settings(self) -> Settings:
        """The limits in force."""
        return self._settings

    @property
    def failure(self) -> AntiphonError | None:
        """Why the client has stopped; None while it has not."""
        return self._failure

    @property
    def someone_waits(self) -> bool:
        """Whether a reply or an entry is awaited, so that reading must not stop."""
        return self._waiters > 0

    def rand(self) -> float:
        """A random number in [0, 1)."""
        return self._rand()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """While inside, `someone_waits`."""
        self._waiters += 1
        self.wake_reader()
        try:
            yield
        finally:
            self._waiters -= 1

    async def pause_reading(self) -> None:
        """Leave the socket unread until `wake_reader`."""
        if self._connection is not None:
            await self._connection.pause()

    def wake_reader(self) -> None:
        """Something has changed that a paused reader may wait for."""
        if self._connection is not None:
            self._connection.resume()

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None] | None:
        """Have a task that is cancelled, and waited for, before the client closes; None if it is closing."""
        return self._beside.start(work)

    def progressed(self) -> None:
        """The connection has brought something new: the next loss begins a new back-off."""
        self._backoff.reset()

    def post(self, build: CommandBuilder, on_reply: Callable[[JsonObject], None]) -> None:
        """Send a command that ends with the present connection; nothing without one."""
        self._commands.post(build, on_reply)

    async def call(self, build: CommandBuilder) -> JsonObject:
        """Send a command until it is answered; returns the `ok`, raises the refusal."""
        with self.waiting():
            return await self._commands.call(build)

    # ---- its end

    def _fault(self, error: Exception) -> None:
        failure = ConnectionClosed("internal", f"a fault in the client: {error!r}")
        failure.__cause__ = error
        self._fail(failure)

    def _fail(self, error: AntiphonError) -> None:
        """Stop for good: all that waits, and all that comes later, raises `error`."""
        if self._failure is None:
            self._failure = error
            self._is("stopped")
            self._commands.fail(error)
