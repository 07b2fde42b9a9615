"""The gateway's HTTP application: `/v1/connect`, health, metrics, and the page at `/`."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog
from aiohttp import hdrs, web
from structlog.contextvars import bound_contextvars

from broker.errors import CloseCode
from broker.interfaces import Health, Vitals
from broker.metrics import CONTENT_TYPE, exposition
from broker.versions import VERSION, formats
from gateway.draining import GOODBYE_S, RETRY_AFTER_MAX_MS, due
from gateway.http.api import HttpApi
from gateway.http.problems import HttpCode, Problem
from gateway.http.streams import Connected
from gateway.protocol import SUBPROTOCOL, log_status
from gateway.services import Services
from gateway.websocket import ClientConnection

_log = structlog.get_logger("antiphon.gateway")

_WEB = Path(__file__).parent / "web"
_SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self' ws: wss:; img-src 'self' data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    ),
    # The page's parts belong together: after an upgrade a browser must not mix old with new.
    "Cache-Control": "no-cache",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # Not which versions of what.
    "Server": "antiphon",
}


class Gateway:
    """Serves clients. `app` is the aiohttp application; `drain` sends its clients elsewhere."""

    def __init__(self, services: Services, health: Health, vitals: Vitals) -> None:
        self._services = services
        self._health = health
        self._vitals = vitals
        self._metrics = services.metrics
        self._metrics.connection_limit.set(services.settings.connections)
        self._connections: dict[Connected, None] = {}
        """In the order in which they came."""
        self._empty = asyncio.Event()
        self._empty.set()
        self._leaving = False
        self._draining = asyncio.Event()
        self._log_available = False
        health.on_change(self._on_log)
        self.app = web.Application()
        self.app.router.add_get("/v1/connect", self._connect)
        self.app.router.add_get("/healthz", self._healthz)
        self.app.router.add_get("/readyz", self._readyz)
        self.app.router.add_get("/metrics", self._expose)
        self.app.router.add_get("/", self._index)
        self.app.router.add_static("/web", _WEB)
        HttpApi(services, self._admitted_by_http).add_to(self.app)
        self.app.on_response_prepare.append(_headers)

    @property
    def connections(self) -> int:
        return len(self._connections)

    async def drain(self) -> None:
        """Says so in `/readyz`, and `drain_delay_s` later refuses new connections and closes the open ones, the oldest
        first, at the pace of `drain_per_second`, or as fast as `drain_s` asks for.

        So the gateways that take them over get them at that pace, too. Nobody is away for long: each client is told to
        come back at once, but for a little chance.
        """
        settings, loop = self._services.settings, asyncio.get_running_loop()
        self._leaving = True
        self._metrics.draining.set(1)
        # Until balancers have noticed they send clients here; to serve these is better than to refuse them.
        await asyncio.sleep(settings.drain_delay_s)
        self._draining.set()
        end = loop.time() + settings.drain_s
        leaving = deque(self._connections)
        while leaving:
            count, wait_s = due(len(leaving), end - loop.time(), settings.drain_per_second)
            for _ in range(count):
                leaving.popleft().drain(_retry_after_ms())
            await asyncio.sleep(wait_s if leaving else 0)
        try:
            async with asyncio.timeout(GOODBYE_S):
                await self._empty.wait()
        except TimeoutError:
            _log.warning("connections are left at the end of the drain", connections=len(self._connections))

    def _on_log(self, available: bool) -> None:
        """Tells the clients that the log is away, or back: until then nothing new can come, and nothing be stored."""
        self._log_available = available
        for connection in self._connections:
            connection.tell(log_status(available))

    async def _connect(self, request: web.Request) -> web.StreamResponse:
        settings = self._services.settings
        if (code := self._no_room()) is not None:
            self._metrics.upgrades.labels(code).inc()
            return web.json_response(
                {"code": code, "message": "try another gateway"}, status=503, headers={"Retry-After": "1"}
            )
        offered = request.headers.get("Sec-WebSocket-Protocol", "")
        ws = web.WebSocketResponse(
            protocols=(SUBPROTOCOL,),
            heartbeat=settings.heartbeat_s,
            max_msg_size=settings.frame_bytes + 1,  # aiohttp refuses a frame of the size that is given
            compress=False,
            timeout=2.0,
        )
        await ws.prepare(request)
        if SUBPROTOCOL not in [name.strip() for name in offered.split(",")]:
            self._metrics.upgrades.labels("unsupported_protocol").inc()
            await ws.close(code=CloseCode.UNSUPPORTED_PROTOCOL, message=b'{"code":"unsupported_protocol"}')
            return ws
        connection = ClientConnection(ws, request, self._services)
        self._metrics.upgrades.labels("accepted").inc()
        with self._admitted(connection) as log_available, bound_contextvars(connection=connection.id):
            await connection.serve(log_available=log_available)
        return ws

    def _no_room(self) -> str | None:
        """Why nobody more can be connected."""
        if self._draining.is_set():
            return HttpCode.DRAINING
        return HttpCode.OVERLOADED if len(self._connections) >= self._services.settings.connections else None

    @contextmanager
    def _admitted(self, connection: Connected) -> Iterator[bool]:
        """Counts it among the connected; gives whether the log is available."""
        self._connections[connection] = None
        self._empty.clear()
        self._metrics.connections.inc()
        if self._draining.is_set():
            # It came in the moment in which those that are here were told.
            connection.drain(_retry_after_ms())
        try:
            yield self._log_available
        finally:
            self._connections.pop(connection, None)
            if not self._connections:
                self._empty.set()
            self._metrics.connections.dec()

    @contextmanager
    def _admitted_by_http(self, connection: Connected) -> Iterator[bool]:
        """As `_admitted`. Raises Problem when nobody more can be."""
        if (code := self._no_room()) is not None:
            raise Problem(code, "try another gateway", {"retry_after_ms": 1000})
        with self._admitted(connection) as log_available:
            yield log_available

    async def _healthz(self, _request: web.Request) -> web.Response:
        return web.json_response({"status": "ok", "version": VERSION, "formats": formats()})

    async def _readyz(self, _request: web.Request) -> web.Response:
        problems = ["draining"] if self._leaving else await self._health.problems()
        status = "ready" if not problems else "not ready"
        return web.json_response({"status": status, "problems": problems}, status=503 if problems else 200)

    async def _expose(self, _request: web.Request) -> web.Response:
        unsent = [connection.unsent_bytes for connection in self._connections]
        self._metrics.outbox.set(sum(unsent))
        self._metrics.outbox_largest.set(max(unsent, default=0))
        await self._vitals.refresh()
        return web.Response(body=exposition(self._metrics.registry), headers={"Content-Type": CONTENT_TYPE})

    async def _index(self, _request: web.Request) -> web.FileResponse:
        return web.FileResponse(_WEB / "index.html")


def _retry_after_ms() -> int:
    return random.randint(0, RETRY_AFTER_MAX_MS)


async def _headers(_request: web.Request, response: web.StreamResponse) -> None:
    for name, value in _SECURITY_HEADERS.items():
        if name != hdrs.CACHE_CONTROL or name not in response.headers:
            response.headers[name] = value
