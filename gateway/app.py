"""The gateway's HTTP application: `/v1/connect`, health, metrics, and the page at `/`."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog
from aiohttp import hdrs, web
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_1_0_0

from broker.errors import CloseCode
from broker.interfaces import Health
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

    def __init__(self, services: Services, health: Health) -> None:
        self._services = services
        self._health = health
        self._connections: set[Connected] = set()
        self._empty = asyncio.Event()
        self._empty.set()
        self._draining = False
        self._log_available = False
        health.on_change(self._on_log)
        self.app = web.Application()
        self.app.router.add_get("/v1/connect", self._connect)
        self.app.router.add_get("/healthz", self._healthz)
        self.app.router.add_get("/readyz", self._readyz)
        self.app.router.add_get("/metrics", self._metrics)
        self.app.router.add_get("/", self._index)
        self.app.router.add_static("/web", _WEB)
        HttpApi(services, self._admitted).add_to(self.app)
        self.app.on_response_prepare.append(_headers)

    @property
    def connections(self) -> int:
        return len(self._connections)

    async def drain(self) -> None:
        """Says so in `/readyz`, refuses new connections, and closes the open ones over `drain_s`, a few at a time.

        Each client is told to reconnect after a random part of that time, so that they do not come all at once.
        """
        self._draining = True
        over_s = self._services.settings.drain_s
        connections = list(self._connections)
        random.shuffle(connections)
        for connection in connections:
            connection.drain(retry_after_ms=int(random.uniform(0, over_s) * 1000))
            await asyncio.sleep(over_s / 2 / len(connections))
        try:
            async with asyncio.timeout(over_s / 2 + 1):
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
            await ws.close(code=CloseCode.UNSUPPORTED_PROTOCOL, message=b'{"code":"unsupported_protocol"}')
            return ws
        connection = ClientConnection(ws, request, self._services)
        with self._admitted(connection) as log_available:
            await connection.serve(log_available=log_available)
        return ws

    def _no_room(self) -> str | None:
        """Why nobody more can be connected."""
        if self._draining:
            return HttpCode.DRAINING
        return HttpCode.OVERLOADED if len(self._connections) >= self._services.settings.connections else None

    @contextmanager
    def _admitted(self, connection: Connected) -> Iterator[bool]:
        """Counts it among the connected; gives whether the log is available. Raises Problem."""
        if (code := self._no_room()) is not None:
            raise Problem(code, "try another gateway", {"retry_after_ms": 1000})
        self._connections.add(connection)
        self._empty.clear()
        self._services.metrics.connections.inc()
        try:
            yield self._log_available
        finally:
            self._connections.discard(connection)
            if not self._connections:
                self._empty.set()
            self._services.metrics.connections.dec()

    async def _healthz(self, _request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _readyz(self, _request: web.Request) -> web.Response:
        problems = ["draining"] if self._draining else await self._health.problems()
        status = "ready" if not problems else "not ready"
        return web.json_response({"status": status, "problems": problems}, status=503 if problems else 200)

    async def _metrics(self, _request: web.Request) -> web.Response:
        body = generate_latest(self._services.metrics.registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_PLAIN_1_0_0})

    async def _index(self, _request: web.Request) -> web.FileResponse:
        return web.FileResponse(_WEB / "index.html")


async def _headers(_request: web.Request, response: web.StreamResponse) -> None:
    for name, value in _SECURITY_HEADERS.items():
        if name != hdrs.CACHE_CONTROL or name not in response.headers:
            response.headers[name] = value
