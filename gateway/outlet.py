"""The sockets that readers of a connection write to, and how they end."""

from __future__ import annotations

import asyncio
import time

import orjson

from broker.errors import CloseCode
from gateway.config import GatewaySettings
from gateway.framing import WEBSOCKET, Framing

_CONGESTED_POLL_MIN_S, _CONGESTED_POLL_MAX_S = 0.01, 0.5


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


class SocketOutlet:
    """Writes server frames to a socket, and says when it does not take them (`gateway.reader.Outlet`)."""

    def __init__(self, transport: asyncio.Transport, settings: GatewaySettings, framing: Framing = WEBSOCKET) -> None:
        self.framing = framing
        self._transport = transport
        self._limit = settings.outbox_bytes
        self._patience_s = settings.slow_reader_s

    @property
    def congested(self) -> bool:
        return self.unsent_bytes > self._limit

    @property
    def unsent_bytes(self) -> int:
        return self._transport.get_write_buffer_size()

    def write(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)

    def end(self) -> None:
        """Ends the socket at once if something is unsent: closing it would wait, for ever, for the peer to take that."""
        if self._transport.get_write_buffer_size():
            self._transport.abort()

    async def taken(self, within_s: float) -> None:
        """Returns when the peer has taken all that was written, or has not in time."""
        wait_s, until = _CONGESTED_POLL_MIN_S, time.monotonic() + within_s
        while self._transport.get_write_buffer_size() and not self._transport.is_closing() and time.monotonic() < until:
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 1.5, _CONGESTED_POLL_MAX_S)

    async def uncongested(self) -> None:
        """Raises Closing (slow_reader) when the peer takes nothing at all for too long.

        The transport tells its protocol, which is the web server's, when it drains, so the buffer is looked at, ever
        more rarely.
        """
        wait_s, before = _CONGESTED_POLL_MIN_S, self._transport.get_write_buffer_size()
        stalled_since = time.monotonic()
        while self.congested and not self._transport.is_closing():
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 1.5, _CONGESTED_POLL_MAX_S)
            now = self._transport.get_write_buffer_size()
            if now < before:
                stalled_since = time.monotonic()
            elif time.monotonic() - stalled_since > self._patience_s:
                raise Closing(CloseCode.SLOW_READER, "slow_reader")
            before = now


class ChunkedOutlet(SocketOutlet):
    """Writes to the body of an HTTP response, past the web server: a chunk of it at a time (RFC 9112, section 7.1).

    The head of the response must have been sent.
    """

    def write(self, data: bytes) -> None:
        # An empty chunk would end the body.
        if data and not self._transport.is_closing():
            self._transport.write(b"%x\r\n%b\r\n" % (len(data), data))
