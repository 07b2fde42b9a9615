"""Listening for HTTP."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from broker.errors import ConfigError


class _NoHttp(logging.Filter):
    """Drops what the web server says of bytes that are no HTTP: anybody can send them, as often as they like."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


_NO_HTTP = _NoHttp()


@asynccontextmanager
async def serving(app: web.Application, host: str, port: int) -> AsyncIterator[str]:
    """Listens; yields the address. Raises ConfigError if it is taken."""
    # What is done for a client ends when it has gone: a stream that nobody reads would go on.
    logging.getLogger("aiohttp.server").addFilter(_NO_HTTP)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0, handler_cancellation=True)
    await runner.setup()
    try:
        listener = _listen(host, port)
        await web.SockSite(runner, listener, backlog=1024).start()
        shown = "127.0.0.1" if host in ("0.0.0.0", "") else host  # noqa: S104 (only compared)
        yield f"http://{shown}:{listener.getsockname()[1]}"
    finally:
        await runner.cleanup()


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host}:{port}: {os.strerror(error.errno or 0)}; choose another --port"
        ) from None
    return listener
