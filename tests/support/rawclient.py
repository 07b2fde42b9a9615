"""A small client of the wire protocol whose socket a test can cut at any byte.

It knows nothing of our client library and verifies for itself what `docs/PROTOCOL.md` promises: `Wire` is one
connection, `tests.support.place.Place` what a reader remembers over any number of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import aiohttp
import orjson
from websockets.client import ClientProtocol
from websockets.frames import Frame as WsFrame
from websockets.frames import Opcode
from websockets.http11 import Response
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from tests.support.place import Frame, Place

WAIT_S = 30.0
"""How long a reply, or what a test waits for, may take."""
_READ_BYTES = 1 << 16


class WireClosed(Exception):
    """The connection has ended. `code` is the server's close code, 1006 without one."""

    def __init__(self, code: int, reason: str) -> None:
        self.code = code
        self.reason = reason
        super().__init__(f"{code} {reason}")


class Cut(WireClosed):
    """The test has cut the connection itself."""

    def __init__(self) -> None:
        super().__init__(1006, "cut")


class Refusal(Exception):
    """A command was refused; `reply` is the whole frame."""

    def __init__(self, reply: Frame) -> None:
        self.code = str(reply["code"])
        self.reply = reply
        super().__init__(f"{self.code}: {reply.get('message')}")


class Wire:
    """One connection: `async with await Wire.open(url, token) as wire`. Leaving the context cuts it."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        protocol: ClientProtocol,
        cut_after: int | None,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._protocol = protocol
        self._cut_after = cut_after
        self._frames: deque[Frame] = deque()
        self._replies: dict[int | None, Frame] = {}
        self._id = 0
        self._open = False
        self._over: WireClosed | None = None
        self.received = 0
        """Bytes that have come, all headers included."""

    @classmethod
    async def open(cls, url: str, token: str, *, cut_after: int | None = None, receive_buffer: int = 0) -> Wire:
        """Connects and says hello. With `cut_after` the socket is cut at that byte of what the server sends.

        `receive_buffer`: as much as the kernel keeps that is not read, about; 0: as it likes.

        Raises WireClosed (Cut), Refusal, OSError.
        """
        uri = parse_uri(url.replace("http", "ws", 1) + "/v1/connect")
        protocol = ClientProtocol(uri, subprotocols=[Subprotocol("antiphon.v1")], max_size=None)
        sock = await connected(uri.host, uri.port, receive_buffer)
        reader, writer = await asyncio.open_connection(sock=sock)
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        wire = cls(reader, writer, protocol, cut_after)
        try:
            protocol.send_request(protocol.connect())
            wire._flush()
            async with asyncio.timeout(WAIT_S):
                while not wire._open:
                    await wire._pump()
            await wire.command("hello", token=token, client="raw")
        except BaseException:
            wire.cut()
            raise
        return wire

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.cut()

    # --- the protocol ------------------------------------------------------------------------------------------------

    async def command(self, op: str, **fields: Any) -> Frame:
        """Sends a command; returns its reply when it is there. Raises Refusal, WireClosed, TimeoutError."""
        id_ = self.send(op, **fields)
        async with asyncio.timeout(WAIT_S):
            while id_ not in self._replies:
                await self._pump()
        reply = self._replies.pop(id_)
        if reply["op"] == "error":
            raise Refusal(reply)
        return reply

    def send(self, op: str, **fields: Any) -> int:
        """Sends a command and does not wait. Returns its id."""
        self._id += 1
        self._protocol.send_text(orjson.dumps({"op": op, "id": self._id, **fields}))
        self._flush()
        return self._id

    def answered(self, id_: int) -> Frame | None:
        """The reply to a command that was sent, an error too; None if it has not come. Gives it once."""
        return self._replies.pop(id_, None)

    async def subscribe(self, place: Place) -> Frame:
        """Subscribes where `place` is."""
        reply = await self.command("subscribe", **place.subscription())
        place.subscribed(reply)
        return reply

    async def input(self, session: str, input_id: str, content: str) -> Frame:
        return await self.command("input.send", session=session, inputId=input_id, content=content)

    async def follow(self, place: Place, until: Callable[[Place], bool], wait_s: float = WAIT_S) -> None:
        """Takes what comes to `place` until that holds. Raises WireClosed, TimeoutError."""
        try:
            async with asyncio.timeout(wait_s):
                while not until(place):
                    place.take(await self.receive())
        except TimeoutError:
            raise TimeoutError(f"waited {wait_s:g} s: {place}") from None

    async def receive(self) -> Frame:
        """The next frame that is no reply. Raises WireClosed once all that came before the end has been returned."""
        while not self._frames:
            await self._pump()
        return self._frames.popleft()

    async def complaint(self) -> Frame:
        """The refusal of a frame whose id could not be read. Raises WireClosed."""
        while None not in self._replies:
            await self._pump()
        return self._replies.pop(None)

    # --- the socket --------------------------------------------------------------------------------------------------

    def cut(self) -> None:
        """Ends the TCP connection at once, without a goodbye. What had come may still be received."""
        if self._over is None:
            self._over = Cut()
        self._writer.transport.abort()

    async def close(self) -> None:
        """Says goodbye, and waits until the server has."""
        self._protocol.send_close(1000)
        self._flush()
        async with asyncio.timeout(WAIT_S):
            with contextlib.suppress(WireClosed):
                while True:
                    await self._pump()

    async def _pump(self) -> None:
        if self._over is not None:
            raise self._over
        data = await self._read()
        self.received += len(data)
        if data:
            self._protocol.receive_data(data)
        elif self._over is None:
            self._protocol.receive_eof()
            self._over = WireClosed(self._protocol.close_code or 1006, self._protocol.close_reason or "")
        for event in self._protocol.events_received():
            self._take(event)
        if self._cut_after is not None and self.received >= self._cut_after:
            self.cut()
        self._flush()

    async def _read(self) -> bytes:
        try:
            data = await self._reader.read(_READ_BYTES)
        except ConnectionError:
            return b""
        return data if self._cut_after is None else data[: self._cut_after - self.received]

    def _take(self, event: object) -> None:
        match event:
            case Response():
                if self._protocol.handshake_exc is not None:
                    raise self._protocol.handshake_exc
                self._open = True
            case WsFrame(opcode=Opcode.TEXT, data=data):
                frame = orjson.loads(data)
                if frame["op"] in ("ok", "error", "welcome", "pong"):
                    self._replies[frame["id"]] = frame
                else:
                    self._frames.append(frame)
            case _:
                pass

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if data and not self._writer.transport.is_closing():
                self._writer.write(data)


async def connected(host: str, port: int, receive_buffer: int) -> socket.socket:
    """A socket, for which the kernel keeps little that is not read, if it is so wished.

    With the segments of loopback, which have 64 KB, a small window opens once in minutes: they are as on a network.
    """
    sock = socket.socket()
    sock.setblocking(False)
    if receive_buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1460)
    try:
        await asyncio.get_running_loop().sock_connect(sock, (host, port))
    except BaseException:
        sock.close()
        raise
    return sock


async def join(url: str, token: str, place: Place, wait_s: float = WAIT_S) -> int:
    """Brings `place` up to date on a connection of its own. Returns the bytes that came after the subscription."""
    async with await Wire.open(url, token) as wire:
        place.caught_up = False
        before = wire.received
        await wire.subscribe(place)
        await wire.follow(place, lambda p: p.caught_up, wait_s)
        return wire.received - before


async def send_input(url: str, token: str, session: str, input_id: str, content: str) -> Frame:
    """Sends one input on a connection of its own."""
    async with await Wire.open(url, token) as wire:
        return await wire.input(session, input_id, content)


async def http_get(url: str) -> tuple[int, str]:
    """Status and body."""
    async with aiohttp.ClientSession() as http, http.get(url) as response:
        return response.status, await response.text()
