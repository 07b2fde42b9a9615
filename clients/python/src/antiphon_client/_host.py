"""What a session needs of the client it belongs to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any, Protocol

import aiohttp

from ._json import JsonObject
from .errors import AntiphonError
from .protocol import Welcome
from .settings import Settings

CommandBuilder = Callable[[int], JsonObject | None]


class Host(Protocol):
    """What a session needs of its client."""

    @property
    def settings(self) -> Settings:
        """The limits in force."""

    @property
    def failure(self) -> AntiphonError | None:
        """Why the client has stopped, if it has."""

    @property
    def welcome(self) -> Welcome | None:
        """What the gateway said of itself last."""

    @property
    def connected(self) -> bool:
        """Whether there is a connection right now."""

    @property
    def someone_waits(self) -> bool:
        """Whether a reply or an entry is awaited, so that reading must not stop."""

    def rand(self) -> float:
        """A random number in [0, 1)."""

    async def call(self, build: CommandBuilder) -> JsonObject:
        """Send a command until it is answered; returns the `ok`, raises the refusal."""

    def post(self, build: CommandBuilder, on_reply: Callable[[JsonObject], None]) -> None:
        """Send a command that ends with the present connection; nothing without one."""

    def waiting(self) -> AbstractContextManager[None]:
        """While inside, `someone_waits`."""

    async def pause_reading(self) -> None:
        """Leave the socket unread until `wake_reader`."""

    def wake_reader(self) -> None:
        """Something has changed that a paused reader may wait for."""

    def progressed(self) -> None:
        """The connection has brought something new."""

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None] | None:
        """Have a task that is cancelled, and waited for, before the client closes; None if it is closing."""

    def request(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        data: object = None,
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """A request to the gateway that the client is connected to, with its token."""

    def forget(self, name: str) -> None:
        """The session was closed."""
