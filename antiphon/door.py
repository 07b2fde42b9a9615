"""The sockets of a web server: how many there may be, and how long each may do nothing.

The web server itself waits as long as its peers like: for the head of a request, for who takes an answer, and for the end
of what is unsent when it closes. Whoever opens sockets and leaves them so costs memory and open files, without a token. So
each is looked at from outside, whatever it carries.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, cast

from aiohttp import web
from aiohttp.http_websocket import WebSocketReader

from antiphon.reading import Reading
from antiphon.turnstile import Turnstile
from gateway.addresses import counted_as
from gateway.outlet import Drain
from gateway.pacing import Held, PacingSettings
from gateway.taking import Progress, has_left, progress

_PLAIN = {"Server": "antiphon", "X-Content-Type-Options": "nosniff"}


class Cut(StrEnum):
    """Why a socket is ended."""

    TOO_MANY = "too_many"
    NO_REQUEST = "no_request"
    STALLED = "stalled"


@dataclass(frozen=True, slots=True)
class DoorSettings:
    """What sockets may do."""

    sockets: int = 1000
    """Open ones; more are ended at once."""
    head_s: float = 10.0
    """Seconds until the first request of a socket must have come, with all of its headers."""
    idle_s: float = 75.0
    """The same for each further request, from the answer before it."""
    stalled_s: float = 60.0
    """Seconds in which a peer that has something to take must take some of it."""
    kernel_unsent_bytes: int = 0
    """What the kernel takes of a connection before it has sent it, on Linux; 0: as much as it likes."""
    kernel_unread_bytes: int = 0
    """What the kernel keeps of what has come and was not read; 0: as much as it likes."""
    pacing: PacingSettings = field(default_factory=PacingSettings)
    """How fast what comes is taken."""


class Door:
    """All sockets of one web server. `on_change` is told how many there are, `on_cut` of each that is ended, `on_held` of
    each that is held back, and that is not any more. Proxies that are trusted (`trusts`) speak for many: a request is that
    of the address that it comes from (`client_of`).
    """

    def __init__(
        self,
        settings: DoorSettings,
        on_change: Callable[[int], None] = lambda _: None,
        on_cut: Callable[[Cut], None] = lambda _: None,
        on_held: Callable[[Held, int], None] = lambda _by, _more: None,
        trusts: Callable[[str], bool] = lambda _: False,
        client_of: Callable[[web.BaseRequest], str] = lambda _: "",
    ) -> None:
        self.settings = settings
        self.on_cut = on_cut
        self.trusts = trusts
        self.client_of = client_of
        self._on_held = on_held
        self._on_change = on_change
        self._open = 0

    def factory(self, server: web.Server, **options: Any) -> Callable[[], web.RequestHandler]:
        """Makes the protocol of each socket. `options` are those of aiohttp's `RequestHandler`."""
        loop = asyncio.get_running_loop()
        turnstile = Turnstile(self.settings.pacing, self._on_held)
        make_request, handle = server.request_factory, server.request_handler

        def made(message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
            if isinstance(protocol, _Watched):
                protocol.asks(in_chunks=message.chunked)
            return make_request(message, payload, protocol, writer, task)

        async def handled(request: Any) -> web.StreamResponse:
            if isinstance(request.protocol, _Watched):
                await request.protocol.its_turn(request)
            return await handle(request)

        server.request_factory, server.request_handler = made, handled
        return lambda: _Watched(self, turnstile, server, loop=loop, keepalive_timeout=self.settings.idle_s, **options)

    def opened(self) -> bool:
        """One more; False if there is no room for it."""
        self._open += 1
        self._on_change(self._open)
        return self._open <= self.settings.sockets

    def closed(self) -> None:
        self._open -= 1
        self._on_change(self._open)


class _Watched(web.RequestHandler):
    """The web server's protocol of one socket, looked at from time to time."""

    __slots__ = ("_before", "_door", "_drain", "_looking", "_reading", "_socket", "_turnstile", "has_asked")

    def __init__(self, door: Door, turnstile: Turnstile, server: web.Server, **options: Any) -> None:
        super().__init__(server, **options)
        self.has_asked = False
        """A whole request has come, or something that is none and is answered so."""
        self._door = door
        # Not the web server's own reference, which it drops when it begins to close.
        self._socket: asyncio.Transport | None = None
        self._looking: asyncio.TimerHandle | None = None
        self._before: Progress | None = None
        self._turnstile = turnstile
        self._reading: Reading | None = None
        self._drain: Drain | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        # uvloop's is none by its class.
        self._socket = cast("asyncio.Transport", transport)
        if self._door.opened():
            peer = self._socket.get_extra_info("peername")
            address = str(peer[0]) if isinstance(peer, tuple) else ""
            for_many = self._door.trusts(address)
            self._reading = Reading(self._turnstile, self, counted_as(address), for_many=for_many)
            self._reading.begin_when_due()
            self._look_after(self._door.settings.head_s)
        else:
            self._cut(Cut.TOO_MANY)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._door.closed()
        if self._looking is not None:
            self._looking.cancel()
        if self._reading is not None:
            self._reading.end()
            # It knows this one, too: what has ended is freed at once.
            self._reading = None
        if self._drain is not None:
            self._drain.done()
        self._socket = None
        super().connection_lost(exc)

    @property
    def drain(self) -> Drain:
        """Most sockets take what they are sent: nobody waits for them ever."""
        if self._drain is None:
            self._drain = Drain()
        return self._drain

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._drain is not None:
            self._drain.done()

    # --- reading -------------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if not data:
            # The web server goes on with what it has been given before.
            super().data_received(data)
        elif self._reading is not None:
            self._reading.came(data)

    def set_parser(self, parser: WebSocketReader, data_received_cb: Callable[[], None] | None = None) -> None:
        # What came behind the request that opened it would be parsed at once.
        came, self._message_tail = self._message_tail, b""
        super().set_parser(parser, data_received_cb)
        if self._reading is not None:
            self._reading.is_websocket(came)

    def asks(self, *, in_chunks: bool) -> None:
        """A whole head of a request has come."""
        self.has_asked = True
        if self._reading is not None:
            self._reading.in_chunks = in_chunks

    async def its_turn(self, request: web.BaseRequest) -> None:
        """Returns when a request may be answered."""
        if self._reading is not None:
            await self._reading.its_turn(self._door.client_of(request) if self._reading.speaks_for_many else None)

    @property
    def is_held(self) -> bool:
        return self._reading is not None and self._reading.is_held

    def greeted(self, caller: str, on_flood: Callable[[], None]) -> None:
        if self._reading is not None:
            self._reading.is_users(caller, on_flood)

    def feed(self, data: bytes) -> None:
        try:
            super().data_received(data)
        except BaseException:
            # As a transport does whose protocol fails. It is not always the transport that calls.
            if self._socket is not None:
                self._socket.abort()
            raise

    def stop_reading(self) -> None:
        if self._socket is not None:
            self._socket.pause_reading()

    def left(self) -> bool:
        """Its peer has closed it; then it is ended. A socket that is not read is not told so."""
        if self._socket is not None and has_left(self._socket):
            self._socket.abort()
            return True
        return False

    def read_on(self) -> None:
        """If the web server has nothing against it."""
        if not self._reading_paused and not self._buffer_paused:
            super()._resume_transport_reading()

    def _resume_transport_reading(self) -> None:
        if not self.is_held:
            super()._resume_transport_reading()

    # --- looking -------------------------------------------------------------------------------------------------------

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        # What is no HTTP has its answer from here, before anything of ours sees it.
        response = super().handle_error(request, status, exc, message)
        response.headers.update(_PLAIN)
        return response

    def _look_after(self, seconds: float) -> None:
        self._looking = asyncio.get_running_loop().call_later(seconds, self._look)

    def _look(self) -> None:
        transport = self._socket
        if transport is None:
            return
        if not self.has_asked:
            self._cut(Cut.NO_REQUEST)
            return
        if not transport.get_write_buffer_size():
            self._before = None
        else:
            before, now = self._before, progress(transport)
            if before is not None and not now.took_since(before):
                self._cut(Cut.STALLED)
                return
            self._before = now
        self._look_after(self._door.settings.stalled_s)

    def _cut(self, why: Cut) -> None:
        self._door.on_cut(why)
        if self._socket is not None:
            self._socket.abort()
