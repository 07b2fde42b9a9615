"""A TCP proxy that a test can cut: the network between the page and the gateway."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


class Proxy:
    """Passes bytes on to one target until told not to."""

    def __init__(self, host: str, port: int) -> None:
        self.host = host
        self.port = port
        self.is_up = True
        self.accepted = 0
        self._writers: set[asyncio.StreamWriter] = set()

    def cut(self) -> None:
        """Resets every connection there is, in the middle of whatever it carries."""
        for writer in self._writers:
            writer.transport.abort()

    def take_down(self) -> None:
        """Cuts, and refuses new connections until `bring_up`."""
        self.is_up = False
        self.cut()

    def bring_up(self) -> None:
        self.is_up = True

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.is_up:
            writer.transport.abort()
            return
        self.accepted += 1
        back_reader, back_writer = await asyncio.open_connection(self.host, self.port)
        pair = {writer, back_writer}
        self._writers |= pair
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_pipe(reader, back_writer))
                tasks.create_task(_pipe(back_reader, writer))
        finally:
            self._writers -= pair
            for each in pair:
                each.transport.abort()


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


@asynccontextmanager
async def running_proxy(host: str, port: int) -> AsyncIterator[tuple[Proxy, int]]:
    """A proxy on loopback before `host:port`, with its own port."""
    proxy = Proxy(host, port)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    try:
        yield proxy, server.sockets[0].getsockname()[1]
    finally:
        server.close()
        proxy.take_down()
