"""A TCP proxy that the nemesis has a hand in: between clients and a gateway, and between parts and NATS."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from enum import StrEnum

_READ_BYTES = 1 << 16


class Mode(StrEnum):
    """What it does with bytes."""

    PASS = "pass"
    DELAY = "delay"
    """Each piece comes up to `DELAY_S` late; their order stays."""
    HOLE = "hole"
    """Nothing comes through, and nobody is told."""
    TRUNCATE = "truncate"
    """Of the next piece only a part comes through, then the connection is reset."""


DELAY_S = 0.3


class Proxy:
    """Passes connections to one target on, at `url` (`host:port`)."""

    def __init__(self, host: str, port: int, rng: random.Random) -> None:
        self._target = host, port
        self._rng = rng
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.mode = Mode.PASS
        self.address = ""

    def cut(self) -> None:
        """Resets every connection there is."""
        for writer in list(self._writers):
            writer.transport.abort()

    def heal(self) -> None:
        """Passes everything on from now on. What a hole has swallowed is gone, so that its connections are too."""
        if self.mode is Mode.HOLE:
            self.cut()
        self.mode = Mode.PASS

    async def close(self) -> None:
        """Ends every connection."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Passes one connection on, until it ends."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        pair = {writer}
        try:
            back_reader, back_writer = await asyncio.open_connection(*self._target)
            pair.add(back_writer)
            self._writers |= pair
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._pass(reader, back_writer))
                tasks.create_task(self._pass(back_reader, writer))
        except OSError:
            pass
        except asyncio.CancelledError:
            pass  # we are closing; a handler of streams that was cancelled would be told of as an error
        finally:
            self._writers -= pair
            for each in pair:
                each.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(_READ_BYTES):
                match self.mode:
                    case Mode.HOLE:
                        continue
                    case Mode.TRUNCATE:
                        writer.write(data[: self._rng.randrange(len(data))])
                        with contextlib.suppress(TimeoutError):
                            async with asyncio.timeout(0.2):
                                await writer.drain()
                        await asyncio.sleep(0.01)
                        break
                    case Mode.DELAY:
                        await asyncio.sleep(self._rng.uniform(0, DELAY_S))
                    case Mode.PASS:
                        pass
                writer.write(data)
                await writer.drain()
        # So the other direction ends as well.
        writer.transport.abort()


@contextlib.asynccontextmanager
async def proxy_to(host: str, port: int, at: str, rng: random.Random) -> AsyncIterator[Proxy]:
    """A proxy before `host:port`, listening at a free port of the address `at`."""
    proxy = Proxy(host, port, rng)
    server = await asyncio.start_server(proxy.serve, at, 0)
    proxy.address = f"{at}:{server.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        server.close()
        await proxy.close()
