"""The routes of the HTTP API: one for each operation that is declared."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import hdrs, web

from gateway.http.declarations import Operation
from gateway.http.operations import OPERATIONS

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def routes(app: web.Application, handler: Callable[[Operation], Handler]) -> None:
    """Adds them; what can be got can be asked for by HEAD, too."""
    for operation in OPERATIONS:
        if operation.method == hdrs.METH_GET:
            app.router.add_get(operation.path, handler(operation))
        else:
            app.router.add_route(operation.method, operation.path, handler(operation))
