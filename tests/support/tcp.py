"""A TCP proxy on loopback whose network a test may break: between a client of NATS and its server."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

_REFUSAL = re.compile(rb'"err_code":(?:10071|10164)')
_REFUSAL_BYTES = len(b'"err_code":10071')
_MESSAGE = re.compile(rb"H?MSG (\S+) [^\r\n]*?(\d+)\r\n")


class Proxy:
    """Passes bytes on to one target, until told otherwise. What is swallowed is gone: cut the connection afterwards."""

    def __init__(self, host: str, port: int) -> None:
        self._target = host, port
        self._writers: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self.port = 0
        self.up = True
        self.swallow_requests = False
        self.swallow_answers = False
        self.swallowed = asyncio.Event()
        """Set when something has been swallowed."""
        self.cut_at: bytes | None = None
        """Cuts a connection on which the client sends this."""
        self.refusals = 0
        """Writes that the server has refused because of what stands in the log by now."""
        self.lose: bytes | None = None
        """Messages to a client whose subject has this in it get lost; `losing` must have been set before it connected."""
        self.losing = False
        self.who = ""
        """User and password, with an @, as in the address of the server."""
        self.lost = 0
        self._held: dict[asyncio.StreamWriter, bytearray] | None = None
        self._more_held = asyncio.Event()

    @property
    def url(self) -> str:
        return f"nats://{self.who}127.0.0.1:{self.port}"

    def freeze(self) -> None:
        """Holds all bytes back, in both directions."""
        self._flowing.clear()

    def thaw(self) -> None:
        self._flowing.set()

    async def hold(self, parts: Collection[bytes]) -> None:
        """Keeps what clients send from the server from now on, and returns when each part has been sent."""
        self._held = {}
        while not all(any(part in sent for sent in self._held.values()) for part in parts):
            self._more_held.clear()
            await self._more_held.wait()

    def release(self) -> None:
        """Sends what has been held on to the server."""
        held, self._held = self._held or {}, None
        for writer, sent in held.items():
            writer.write(bytes(sent))

    def cut(self) -> None:
        """Resets every connection there is, and passes everything on from now on."""
        self.swallow_requests = self.swallow_answers = False
        for writer in self._writers:
            writer.transport.abort()

    def take_down(self) -> None:
        """Cuts, and refuses new connections until `bring_up`."""
        self.up = False
        self.cut()

    def bring_up(self) -> None:
        self.up = True

    async def close(self) -> None:
        """Ends every connection; returns when nothing of them is left."""
        self.thaw()
        self.take_down()
        if self._serving:
            await asyncio.wait(self._serving)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Passes one connection on, until it ends."""
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        if not self.up:
            writer.transport.abort()
            return
        try:
            back_reader, back_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        pair = {writer, back_writer}
        self._writers |= pair
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._pass(reader, back_writer, request=True))
                tasks.create_task(self._pass(back_reader, writer, request=False))
        finally:
            self._writers -= pair
            for each in pair:
                each.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, request: bool) -> None:
        end = rest = b""
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                await self._flowing.wait()
                if self.swallow_requests if request else self.swallow_answers:
                    self.swallowed.set()
                    continue
                if request and self.cut_at is not None and self.cut_at in data:
                    self.cut_at = None
                    self.cut()
                    break
                if request and self._held is not None:
                    self._held.setdefault(writer, bytearray()).extend(data)
                    self._more_held.set()
                    continue
                if not request:
                    self.refusals += len(_REFUSAL.findall(end + data))
                    end = data[-_REFUSAL_BYTES + 1 :]
                if not request and self.losing:
                    whole, rest = self._without_lost(rest + data)
                    writer.write(whole)
                else:
                    writer.write(data)
                await writer.drain()
        writer.transport.abort()

    def _without_lost(self, data: bytes) -> tuple[bytes, bytes]:
        """What of a server's bytes is passed on, and the beginning of a frame that is not whole yet."""
        kept: list[bytes] = []
        position = 0
        while (line_end := data.find(b"\r\n", position)) >= 0:
            end, match = line_end + 2, _MESSAGE.match(data, position)
            if match is not None:
                end += int(match[2]) + 2
                if end > len(data):
                    break
                if self.lose is not None and self.lose in match[1]:
                    self.lost += 1
                    position = end
                    continue
            kept.append(data[position:end])
            position = end
        return b"".join(kept), data[position:]


@asynccontextmanager
async def proxy_to(url: str) -> AsyncIterator[Proxy]:
    """A proxy before a server, with a port of its own."""
    target = urlsplit(url)
    assert target.hostname is not None
    assert target.port is not None
    proxy = Proxy(target.hostname, target.port)
    proxy.who = f"{target.netloc.rpartition('@')[0]}@" if target.username else ""
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        await proxy.close()


async def listening(port: int, timeout_s: float = 10.0) -> None:
    """Returns when somebody listens at a port of loopback."""
    async with asyncio.timeout(timeout_s):
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return
            await asyncio.sleep(0.02)
