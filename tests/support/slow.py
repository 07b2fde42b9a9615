"""Readers who take what they are sent slowly, or not at all, each from a real socket for which the kernel keeps little."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import orjson
from websockets.client import ClientProtocol
from websockets.frames import Frame as WsFrame
from websockets.frames import Opcode
from websockets.http11 import Response
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from tests.support.memory import own_memory
from tests.support.place import Frame, Place
from tests.support.rawclient import WAIT_S, connected

RECEIVE_BUFFER = 4096
"""Linux makes twice as much of it."""
_TICKS_PER_SECOND = 4


class SlowReader:
    """A subscription: `async with await SlowReader.open(url, token, place) as reader`. It takes only what it is told to.

    Pings are answered when they have been read, behind all that stands before them.
    """

    def __init__(self, sock: socket.socket, protocol: ClientProtocol, place: Place) -> None:
        self.place = place
        self.received = 0
        """Bytes that have been read."""
        self.closed: int | None = None
        """How the server has ended the connection: its close code, 1006 without one."""
        self._sock = sock
        self._protocol = protocol
        self._loop = asyncio.get_running_loop()
        self._upgraded = False
        self._replies: dict[int, Frame] = {}

    @classmethod
    async def open(
        cls, url: str, token: str, place: Place, *, receive_buffer: int = RECEIVE_BUFFER, until_live: bool = True
    ) -> Self:
        """Connects and subscribes; with `until_live` it reads, as fast as it can, until it has caught up."""
        at = urlsplit(url)
        assert at.hostname is not None
        assert at.port is not None
        protocol = ClientProtocol(
            parse_uri(f"ws://{at.netloc}/v1/connect"), subprotocols=[Subprotocol("antiphon.v1")], max_size=None
        )
        reader = cls(await connected(at.hostname, at.port, receive_buffer), protocol, place)
        try:
            protocol.send_request(protocol.connect())
            await reader._read_until(lambda: reader._upgraded)
            for id_, op, fields in ((1, "hello", {"token": token}), (2, "subscribe", place.subscription())):
                protocol.send_text(orjson.dumps({"op": op, "id": id_, **fields}))
                await reader._read_until(lambda id_=id_: id_ in reader._replies)  # type: ignore[misc]
                assert reader._replies[id_]["op"] in ("welcome", "ok"), reader._replies[id_]
            if until_live:
                await reader._read_until(lambda: place.caught_up)
        except BaseException:
            reader._sock.close()
            raise
        return reader

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._sock.close()

    async def read_slowly(self, bytes_per_second: int, until: Callable[[Place], bool], wait_s: float = WAIT_S) -> None:
        """Reads at that pace until `until` holds, or the server has ended the connection. Raises TimeoutError."""
        async with asyncio.timeout(wait_s):
            due = self._loop.time()
            while not until(self.place) and self.closed is None:
                await self._read(bytes_per_second // _TICKS_PER_SECOND)
                # A tick that came late is not made good by a faster one.
                due = max(due + 1 / _TICKS_PER_SECOND, self._loop.time())
                await asyncio.sleep(due - self._loop.time())

    async def _read_until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_S):
            await self._flush()
            while not holds():
                assert self.closed is None, self.closed
                await self._read(1 << 16)

    async def _read(self, count: int) -> None:
        try:
            data = await self._loop.sock_recv(self._sock, count)
        except ConnectionError:
            data = b""
        self.received += len(data)
        if data:
            self._protocol.receive_data(data)
        else:
            self._protocol.receive_eof()
            self.closed = self._protocol.close_code or 1006
        for event in self._protocol.events_received():
            self._take(event)
        await self._flush()

    async def _flush(self) -> None:
        with contextlib.suppress(ConnectionError):
            for data in self._protocol.data_to_send():
                if data:
                    await self._loop.sock_sendall(self._sock, data)

    def _take(self, event: Any) -> None:
        match event:
            case Response():
                assert self._protocol.handshake_exc is None, self._protocol.handshake_exc
                self._upgraded = True
            case WsFrame(opcode=Opcode.TEXT, data=data):
                frame = orjson.loads(data)
                if frame["op"] in ("ok", "error", "welcome"):
                    self._replies[frame["id"]] = frame
                    if "epoch" in frame:
                        self.place.subscribed(frame)
                else:
                    self.place.take(frame)
            case _:
                pass


@asynccontextmanager
async def slow_readers(
    urls: Sequence[str], token: str, places: Sequence[Place], *, until_live: bool = True, at_once: int = 16
) -> AsyncIterator[list[SlowReader]]:
    """One for each place, at the gateways in turn."""
    async with contextlib.AsyncExitStack() as stack:
        opening, opened = asyncio.Semaphore(at_once), []

        async def open_one(number: int, place: Place) -> None:
            async with opening:
                reader = await SlowReader.open(urls[number % len(urls)], token, place, until_live=until_live)
            opened.append(reader)
            stack.callback(reader._sock.close)

        async with asyncio.TaskGroup() as tasks:
            for number, place in enumerate(places):
                tasks.create_task(open_one(number, place))
        yield opened


def memory(pid: int) -> int:
    """See `own_memory`: growth of it is the process's own, whatever begins and ends beside it."""
    return own_memory(pid)
