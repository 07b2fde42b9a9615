"""The sockets that readers of a connection write to, and how they end."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import orjson

from broker.errors import CloseCode, ErrorCode, Refused
from gateway.config import GatewaySettings
from gateway.framing import WEBSOCKET, Framing
from gateway.rights import Identity, Right
from gateway.taking import ALMOST, progress

_TAKEN_POLL_MIN_S, _TAKEN_POLL_MAX_S = 0.01, 0.5
WRITES_UNSENT = 128
"""Writes that may wait for a peer: besides what is written, which readers share, each takes 800 bytes of the event loop's
memory (measured with uvloop 0.23), however short it is.
"""
_LOOKS = 4
"""How often it is looked within the time that a peer has whether it takes something."""


class Closing(Exception):
    """Ends the connection with a close code."""

    def __init__(self, code: CloseCode, name: str, retry_after_ms: int | None = None) -> None:
        self.code = code
        self.name = name
        self.retry_after_ms = retry_after_ms
        super().__init__(name)

    def reason(self) -> bytes:
        wire: dict[str, object] = {"code": self.name}
        if self.retry_after_ms is not None:
            wire["retry_after_ms"] = self.retry_after_ms
        return orjson.dumps(wire)


def not_greeted(refusal: Refused) -> Closing:
    """Whether coming back makes sense: it does if the token could not be checked."""
    if refusal.code is ErrorCode.UNAVAILABLE:
        return Closing(CloseCode.UNAVAILABLE, "unavailable", refusal.data.get("retry_after_ms"))
    if refusal.code is ErrorCode.TOO_MANY_CONNECTIONS:
        return Closing(CloseCode.TOO_MANY_CONNECTIONS, "too_many_connections", refusal.data.get("retry_after_ms"))
    if refusal.data.get("reason") == "revoked":
        return Closing(CloseCode.TOKEN_REVOKED, "token_revoked")
    return Closing(CloseCode.UNAUTHORIZED, "unauthorized")


def first_of(group: BaseExceptionGroup[Closing]) -> Closing:
    """Of several reasons the first."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, Closing)
    return error


def revoked(who: Identity, session: str) -> Closing | None:
    """Why what is open in a session for a token must end, if it must: the token is revoked, or what it allows there."""
    if who.is_revoked:
        return Closing(CloseCode.TOKEN_REVOKED, "token_revoked")
    if not who.may(Right.READ, session):
        return Closing(CloseCode.NOT_ALLOWED, "not_allowed")
    return None


class Drain:
    """Who waits until a socket has taken what was written, but for its limit. All are woken: who then writes first may
    leave nothing for the next, who must look.
    """

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: dict[asyncio.Future[None], None] = {}

    @contextlib.contextmanager
    def waiter(self) -> Iterator[asyncio.Future[None]]:
        """What is done when it has."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[waiter] = None
        try:
            yield waiter
        finally:
            self._waiting.pop(waiter, None)

    def done(self) -> None:
        """The socket has, or is no more."""
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)
        self._waiting.clear()


@runtime_checkable
class Drains(Protocol):
    """A socket's protocol that tells so, as its transport tells it."""

    @property
    def drain(self) -> Drain: ...


class SocketOutlet:
    """Writes server frames to a socket, and says when it does not take them (`gateway.reader.Outlet`)."""

    def __init__(self, transport: asyncio.Transport, settings: GatewaySettings, framing: Framing = WEBSOCKET) -> None:
        self.framing = framing
        self._transport = transport
        self._limit = settings.outbox_bytes
        self._patience_s = settings.slow_reader_s
        self._writes = 0
        """Since nothing was unsent, as far as has been seen."""
        self._tell_at(self._limit)

    @property
    def congested(self) -> bool:
        return not self._has_room()

    @property
    def gone(self) -> bool:
        return self._transport.is_closing()

    @property
    def unsent_bytes(self) -> int:
        return self._transport.get_write_buffer_size()

    def write(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._writes += 1
            self._transport.write(data)

    def end(self) -> None:
        """Ends the socket at once if something is unsent: closing it would wait, for ever, for the peer to take that."""
        if self._transport.get_write_buffer_size():
            self._transport.abort()

    async def taken(self, within_s: float) -> None:
        """Returns when the peer has taken all that was written, or has not in time."""
        wait_s, until = _TAKEN_POLL_MIN_S, time.monotonic() + within_s
        while self._transport.get_write_buffer_size() and not self._transport.is_closing() and time.monotonic() < until:
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 1.5, _TAKEN_POLL_MAX_S)

    async def uncongested(self) -> None:
        """Raises Closing (slow_reader) when the peer takes nothing at all for too long.

        Nobody looks whether it does: the transport tells. What the peer takes meanwhile the kernel knows, which asks for
        more in large steps, a minute apart on a slow line.
        """
        if self._has_room():
            return
        seen, took_at = progress(self._transport), time.monotonic()
        while not (self._has_room() or self.gone):
            if await self._drained(self._patience_s / _LOOKS):
                continue
            now = progress(self._transport)
            if now.took_since(seen):
                seen, took_at = now, time.monotonic()
            elif time.monotonic() - took_at >= self._patience_s * ALMOST:
                raise Closing(CloseCode.SLOW_READER, "slow_reader")

    def _has_room(self) -> bool:
        unsent = self._transport.get_write_buffer_size()
        if not unsent:
            self._writes = 0
        return unsent <= self._limit and self._writes < WRITES_UNSENT

    async def _drained(self, within_s: float) -> bool:
        """The socket has come down to the limit, or is gone; False: not in time. Of too many writes all must have been
        sent: how many have been is not told.
        """
        protocol = self._transport.get_protocol()
        assert isinstance(protocol, Drains)
        self._tell_at(self._limit if self.unsent_bytes > self._limit else 0)
        try:
            with protocol.drain.waiter() as waiter, contextlib.suppress(TimeoutError):
                async with asyncio.timeout(within_s):
                    await waiter
                return True
            return False
        finally:
            self._tell_at(self._limit)

    def _tell_at(self, unsent: int) -> None:
        """Has the transport tell its protocol when it is down to so many bytes again."""
        self._transport.set_write_buffer_limits(high=unsent, low=unsent)


class ChunkedOutlet(SocketOutlet):
    """Writes to the body of an HTTP response, past the web server: a chunk of it at a time (RFC 9112, section 7.1).

    The head of the response must have been sent.
    """

    def write(self, data: bytes) -> None:
        # An empty chunk would end the body.
        if data:
            super().write(b"%x\r\n%b\r\n" % (len(data), data))
