"""A session as server-sent events: the same feed, ring and readers as a WebSocket's, in another framing."""

from __future__ import annotations

import asyncio
import secrets
import time
from typing import Protocol

import orjson
import structlog
from aiohttp import HttpVersion11, web

from broker.errors import CloseCode, LogError
from gateway import protocol
from gateway.auth import Identity
from gateway.execution import refusing
from gateway.framing import event_stream, framed
from gateway.http.declarations import EVENT_STREAM
from gateway.outlet import ChunkedOutlet, Closing, SocketOutlet, first_of, revoked
from gateway.protocol import Subscribe
from gateway.reader import SessionReader
from gateway.services import Services
from gateway.subscribing import subscribe

_log = structlog.get_logger("antiphon.stream")

_GOODBYE_S = 5.0
"""How long a peer has to take what is unsent before its stream ends."""
_RETRY_MS = 1000
"""What clients are told to wait before they come back, unless they are told something else when the stream ends."""

STREAM_HEADERS = {
    "Content-Type": f"{EVENT_STREAM}; charset=utf-8",
    "Cache-Control": "no-store",
    # Proxies that keep answers until they are complete would keep this one for ever.
    "X-Accel-Buffering": "no",
}


class Connected(Protocol):
    """Somebody who is connected to this gateway, on whatever wire."""

    @property
    def unsent_bytes(self) -> int:
        """What waits for the client to take it."""
        ...

    @property
    def who(self) -> Identity | None:
        """None as long as it has not said so."""
        ...

    def drain(self, retry_after_ms: int) -> None:
        """Sends the client elsewhere."""
        ...

    def tell(self, payload: bytes) -> None:
        """Sends a frame that is no reply."""
        ...

    def recheck(self) -> None:
        """Something has been revoked: ends what the client's token does not allow any more."""
        ...


class EventStream:
    """Serves one stream. `serve` returns when it has ended, from either side."""

    def __init__(self, request: web.Request, services: Services, who: Identity, device: str | None) -> None:
        self.id = f"e-{secrets.token_hex(5)}"
        self._request = request
        self._services = services
        self._settings = services.settings
        self._who = who
        self._device = device or self.id
        self._session = ""
        self._outlet: SocketOutlet | None = None
        self._closing: asyncio.Future[Closing] = asyncio.get_running_loop().create_future()

    @property
    def unsent_bytes(self) -> int:
        return 0 if self._outlet is None else self._outlet.unsent_bytes

    @property
    def who(self) -> Identity:
        return self._who

    def drain(self, retry_after_ms: int) -> None:
        self._close(Closing(CloseCode.DRAINING, "draining", retry_after_ms))

    def tell(self, payload: bytes) -> None:
        if self._outlet is not None:
            self._outlet.write(framed(self._outlet.framing, [payload]))

    def recheck(self) -> None:
        if (closing := revoked(self._who, self._session)) is not None:
            self._close(closing)

    async def serve(self, command: Subscribe, *, log_available: bool) -> web.StreamResponse:
        """Raises Refused, as long as nothing has been sent."""
        self._session = command.session
        async with refusing(self._settings.command_timeout_s, self.id, "Subscribe"):
            subjects = self._services.log.subjects(self._who.key(command.session))
            outlet = self._make_outlet(await self._services.log.epoch(subjects))
            subscription = await subscribe(self._services, outlet, command, self._who, self._device)
        expiry = self._expire()
        # Something may have been revoked while the session was opened.
        self.recheck()
        try:
            response = await self._begin()
            self._outlet = outlet
            if not log_available:
                self.tell(protocol.log_status(False))
            await self._run(subscription.reader, outlet)
            return response
        finally:
            expiry.cancel()
            subscription.end()

    def _make_outlet(self, epoch: str) -> SocketOutlet:
        if self._request.transport is None:
            raise ConnectionResetError
        # The body of an answer to HTTP/1.0 has no chunks, and ends with the connection.
        kind = ChunkedOutlet if self._request.version >= HttpVersion11 else SocketOutlet
        return kind(self._request.transport, self._settings, event_stream(epoch))

    async def _begin(self) -> web.StreamResponse:
        """Sends the head, so that the outlet may write past the web server from here on."""
        response = web.StreamResponse(headers=STREAM_HEADERS)
        await response.prepare(self._request)
        await response.write(b"retry: %d\n\n" % _RETRY_MS)
        return response

    async def _run(self, reader: SessionReader, outlet: SocketOutlet) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._read(reader))
                tasks.create_task(self._beat(outlet))
                raise await self._closing
        except* Closing as group:
            await self._say_goodbye(first_of(group), outlet)
        finally:
            outlet.end()

    async def _read(self, reader: SessionReader) -> None:
        try:
            await reader.run()
        except LogError as error:
            _log.warning("a reader cannot go on", connection=self.id, reason=str(error))
            raise Closing(CloseCode.INTERNAL, "internal") from None

    async def _beat(self, outlet: SocketOutlet) -> None:
        """Comments, which clients drop: they show to both ends, and to what is between, that the stream lives."""
        while True:
            await asyncio.sleep(self._settings.heartbeat_s)
            if not outlet.congested:
                outlet.write(b":\n\n")

    def _expire(self) -> asyncio.TimerHandle:
        left_s = self._who.left_s(time.time(), self._settings.jwt_leeway_s)
        expired = Closing(CloseCode.TOKEN_EXPIRED, "token_expired")
        return asyncio.get_running_loop().call_later(left_s, self._close, expired)

    def _close(self, closing: Closing) -> None:
        if not self._closing.done():
            self._closing.set_result(closing)

    async def _say_goodbye(self, closing: Closing, outlet: SocketOutlet) -> None:
        """Says why the stream ends, and when to come back."""
        self._services.metrics.closes.labels(str(int(closing.code))).inc()
        wait = b"" if closing.retry_after_ms is None else b"retry: %d\n" % closing.retry_after_ms
        payload = orjson.dumps({"op": "closing", **orjson.loads(closing.reason())})
        outlet.write(wait + framed(outlet.framing, [payload]))
        if closing.code is not CloseCode.SLOW_READER:
            await outlet.taken(_GOODBYE_S)
