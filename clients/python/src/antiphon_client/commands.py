"""Commands and their replies, across connections."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from itertools import count
from typing import Final

from ._host import CommandBuilder
from ._json import JsonObject, as_int, as_str
from .connection import Connection, Outgoing
from .errors import UNDELIVERABLE, AntiphonError, CommandQueueFull, ConnectionClosed, refusal
from .reconnect import full_jitter_s
from .settings import Settings

logger = logging.getLogger("antiphon_client")

_REPEATED: Final = frozenset({"rate_limited", "unavailable", "internal"})
"""Refusals after which the same command, with the same ids, is sent again without asking."""


class Commands:
    """Two kinds of commands: those of the program (`call`), which outlive a connection and are
    sent again on the next one, and those about a connection (`post`, `once`), which end with it.
    """

    def __init__(self, settings: Settings, rand: Callable[[], float]) -> None:
        self.connection: Connection | None = None
        self._settings = settings
        self._rand = rand
        self._ids = count(1)
        self._pending: dict[int, tuple[Outgoing, asyncio.Future[JsonObject]]] = {}
        self._passing: dict[int, Callable[[JsonObject], None]] = {}
        self._failure: AntiphonError | None = None

    def next_id(self) -> int:
        """A command id that was not used before."""
        return next(self._ids)

    # ---- commands of the program

    async def call(self, build: CommandBuilder) -> JsonObject:
        """Send a command until it is answered; returns the `ok`, raises the refusal."""
        attempt = 0
        while True:
            reply = await self._round_trip(build)
            if reply.get("op") != "error":
                return reply
            error = refusal(reply)
            if error.code not in _REPEATED or attempt >= self._settings.command_retries:
                raise error
            pause_s = error.retry_after_s
            await asyncio.sleep(full_jitter_s(attempt, self._rand()) if pause_s is None else pause_s)
            attempt += 1

    async def _round_trip(self, build: CommandBuilder) -> JsonObject:
        if self._failure is not None:
            raise self._failure
        if len(self._pending) >= self._settings.pending_commands:
            raise CommandQueueFull("command_queue_full", "too many commands wait", retryable=True)
        command_id = next(self._ids)
        frame = build(command_id)
        assert frame is not None, "only subscriptions may have nothing to send"
        reply: asyncio.Future[JsonObject] = asyncio.get_running_loop().create_future()
        outgoing = Outgoing(frame, lambda error: _reject(reply, error))
        self._pending[command_id] = (outgoing, reply)
        if self.connection is not None:
            self.connection.post(outgoing)
        try:
            return await reply
        finally:
            outgoing.dropped = True
            del self._pending[command_id]

    def send_again(self) -> None:
        """There is a new connection: send what has no reply yet, in order, with the same ids."""
        for outgoing, reply in self._pending.values():
            if outgoing.sends >= self._settings.command_sends:
                text = f"sent {outgoing.sends} times, and each time the connection died"
                _reject(reply, ConnectionClosed(UNDELIVERABLE, text))
            elif self.connection is not None:
                self.connection.post(outgoing)

    def reject(self, op: str, error: AntiphonError) -> None:
        """End the waiting commands of one kind."""
        for outgoing, reply in self._pending.values():
            if outgoing.frame.get("op") == op:
                _reject(reply, error)

    def fail(self, error: AntiphonError) -> None:
        """End all commands, those to come too."""
        self._failure = error
        for _, reply in self._pending.values():
            _reject(reply, error)

    # ---- commands about the connection

    def post(self, build: CommandBuilder, on_reply: Callable[[JsonObject], None]) -> None:
        """Send a command that ends with the connection; nothing without one."""
        if self.connection is None:
            return
        command_id = next(self._ids)
        frame = build(command_id)
        if frame is not None:
            self._passing[command_id] = on_reply
            self.connection.post(Outgoing(frame, lambda _error: None))

    async def once(self, build: CommandBuilder) -> JsonObject:
        """The same, and wait for the reply, whatever it is. Only inside the connection's life."""
        answered: asyncio.Future[JsonObject] = asyncio.get_running_loop().create_future()
        self.post(build, lambda frame: None if answered.done() else answered.set_result(frame))
        return await answered

    def lost(self) -> None:
        """The connection has ended."""
        self.connection = None
        self._passing.clear()

    # ---- replies

    def answered(self, frame: JsonObject) -> bool:
        """Take an `ok` or `error`; returns whether a command of the program was waiting for it."""
        command_id = as_int(frame.get("id"))
        if command_id is None:
            logger.warning("the gateway complains: %s", as_str(frame.get("code")))
            return False
        on_reply = self._passing.pop(command_id, None)
        if on_reply is not None:
            on_reply(frame)
            return False
        _, reply = self._pending.get(command_id, (None, None))
        if reply is None or reply.done():
            return False
        reply.set_result(frame)
        return True


def _reject(reply: asyncio.Future[JsonObject], error: AntiphonError) -> None:
    if not reply.done():
        reply.set_exception(error)
