"""Listening for HTTP."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from antiphon.door import Door, DoorSettings
from broker.errors import ConfigError


class _NoHttp(logging.Filter):
    """Drops what the web server says of bytes that are no HTTP: anybody can send them, as often as they like."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


_NO_HTTP = _NoHttp()


@asynccontextmanager
async def serving(
    app: web.Application, host: str, port: int, door: Door | None = None, *, shared: bool = False
) -> AsyncIterator[str]:
    """Listens; yields the address. Raises ConfigError if it is taken. `door` says what sockets may do.

    `shared`: other processes of this user may listen there, too (`reserved`); the kernel spreads connections over them.
    """
    # What is done for a client ends when it has gone: a stream that nobody reads would go on.
    logging.getLogger("aiohttp.server").addFilter(_NO_HTTP)
    door = door or Door(DoorSettings())
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0, handler_cancellation=True)
    await runner.setup()
    assert runner.server is not None
    listener: asyncio.Server | None = None
    try:
        bound = _bound(host, port, shared=shared)
        if (unsent := door.settings.kernel_unsent_bytes) and sys.platform == "linux":
            # Connections have it from the socket that they were accepted at.
            bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, unsent)
        if unread := door.settings.kernel_unread_bytes:
            # Linux makes twice as much of it, for what it needs itself.
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, unread)
        # Nothing is unpacked: 64 KiB of a request, unread by anybody, would be 64 MiB.
        factory = door.factory(runner.server, access_log=None, auto_decompress=False)
        listener = await asyncio.get_running_loop().create_server(factory, sock=bound, backlog=1024)
        yield address(host, bound.getsockname()[1])
    finally:
        if listener is not None:
            listener.close()
        await runner.cleanup()


@contextmanager
def reserved(host: str, port: int) -> Iterator[int]:
    """Keeps a port for processes that share it, and gives its number; does not listen itself.

    Raises ConfigError if somebody else has it, or if this system cannot share one.
    """
    if not hasattr(socket, "SO_REUSEPORT"):
        raise ConfigError("processes cannot share a port on this system; use --processes 1")
    # Others that share theirs would be let in to it: so first as somebody who does not share.
    with _bound(host, port) as alone:
        port = alone.getsockname()[1]
    with _bound(host, port, shared=True) as kept:
        yield kept.getsockname()[1]


def address(host: str, port: int) -> str:
    """Where a server is reached from this machine."""
    shown = "127.0.0.1" if host in ("0.0.0.0", "") else host  # noqa: S104 (only compared)
    return f"http://{shown}:{port}"


def _bound(host: str, port: int, *, shared: bool = False) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((host, port))
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host}:{port}: {os.strerror(error.errno or 0)}; choose another --port"
        ) from None
    return listener
