"""The gateway's HTTP application: `/v1/connect`, health, metrics, and the console at `/`."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import orjson
import structlog
from aiohttp import hdrs, web
from structlog.contextvars import bound_contextvars

from broker.errors import CloseCode, Refused
from broker.interfaces import Health, Vitals
from broker.metrics import CONTENT_TYPE, exposition
from broker.revocations import Revocation
from broker.versions import VERSION, formats
from gateway.console import SECURITY_HEADERS, Console
from gateway.draining import GOODBYE_S, RETRY_AFTER_MAX_MS, due
from gateway.http.api import HttpApi
from gateway.http.problems import HttpCode, Problem
from gateway.http.streams import Connected
from gateway.limits import Limit, Place
from gateway.origins import Origins
from gateway.protocol import SUBPROTOCOL, log_status
from gateway.services import Services
from gateway.websocket import ClientConnection

_log = structlog.get_logger("antiphon.gateway")

_RECHECKED_AT_ONCE = 500
"""Connections that are looked at in one turn of the event loop when something is revoked: about a millisecond."""
_RETRY_AFTER_MS = 1000
_HEADERS = {
    **SECURITY_HEADERS,
    # What is here is true now; files that never change say so themselves.
    "Cache-Control": "no-cache",
    # Not which versions of what.
    "Server": "antiphon",
}

_OF_ANSWERS = frozenset({hdrs.CACHE_CONTROL, "Content-Security-Policy"})
"""What an answer may say otherwise."""


class Gateway:
    """Serves clients. `app` is the aiohttp application; `drain` sends its clients elsewhere."""

    def __init__(self, services: Services, health: Health, vitals: Vitals) -> None:
        self._services = services
        self._health = health
        self._vitals = vitals
        self._metrics = services.metrics
        self._metrics.connection_limit.set(services.settings.connections)
        self._origins = Origins(services.settings.cors_origins)
        self._connections: dict[Connected, None] = {}
        """In the order in which they came."""
        self._empty = asyncio.Event()
        self._empty.set()
        self._leaving = False
        self._draining = asyncio.Event()
        self._log_available = False
        health.on_change(self._on_log)
        services.revocations.follow(self._on_revoked)
        self.app = web.Application()
        self.app.router.add_get("/v1/connect", self._connect)
        self.app.router.add_get("/healthz", self._healthz)
        self.app.router.add_get("/readyz", self._readyz)
        self.app.router.add_get("/metrics", self._expose if services.settings.processes == 1 else self._elsewhere)
        self.own_app = web.Application()
        """What one of several processes that share the port says of itself, on a port of its own."""
        self.own_app.router.add_get("/healthz", self._healthz)
        self.own_app.router.add_get("/readyz", self._readyz)
        self.own_app.router.add_get("/metrics", self._expose)
        Console().add_to(self.app)
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

    def _on_revoked(self, revocations: list[Revocation]) -> None:
        """Ends, or narrows, what those have open whose tokens are revoked."""
        revoked = self._services.revoked
        news = revoked.take(revocations, time.time())
        self._metrics.revocations.set(len(revoked))
        if news:
            self._recheck(deque(self._connections))

    def _recheck(self, connections: deque[Connected]) -> None:
        """Some at a time, so that those who read are not held up."""
        for _ in range(min(_RECHECKED_AT_ONCE, len(connections))):
            connections.popleft().recheck()
        if connections:
            asyncio.get_running_loop().call_soon(self._recheck, connections)

    async def _connect(self, request: web.Request) -> web.StreamResponse:
        admission = self._services.admission
        address = admission.address_of(request)
        if (code := self._no_room()) is not None:
            return self._turn_away(code, "try another gateway", 503, _RETRY_AFTER_MS)
        places: list[Place] = []
        try:
            places.append(admission.connect_from(address))
            places.append(admission.greet())
            return await self._upgrade(request, address, places[-1])
        except Refused as refusal:
            # Before the upgrade, when all that can be said is said by HTTP.
            self._metrics.refused(refusal)
            return self._turn_away(refusal.code, refusal.message, 429, refusal.data["retry_after_ms"])
        finally:
            for place in places:
                place.leave()

    def _turn_away(self, code: str, message: str, status: int, retry_after_ms: int) -> web.Response:
        self._metrics.upgrades.labels(code).inc()
        wire = {"code": code, "message": message, "retryable": True, "retry_after_ms": retry_after_ms}
        headers = {"Retry-After": str(math.ceil(retry_after_ms / 1000)), "Cache-Control": "no-store"}
        return web.json_response(wire, status=status, headers=headers)

    async def _upgrade(self, request: web.Request, address: str, greeting: Place) -> web.StreamResponse:
        settings = self._services.settings
        offered = request.headers.get("Sec-WebSocket-Protocol", "")
        ws = web.WebSocketResponse(
            protocols=(SUBPROTOCOL,),
            # Who is there is found out by `gateway.heartbeat`, and pings are answered in their turn.
            autoping=False,
            max_msg_size=settings.frame_bytes + 1,  # aiohttp refuses a frame of the size that is given
            compress=False,
            timeout=2.0,
        )
        await ws.prepare(request)
        # They have been sent, and would be kept for as long as the connection: 2.3 KB of some 30.
        ws.headers.clear()
        if SUBPROTOCOL not in [name.strip() for name in offered.split(",")]:
            return await self._close(ws, CloseCode.UNSUPPORTED_PROTOCOL, "unsupported_protocol")
        if not self._origins.allows(request.headers.get(hdrs.ORIGIN), self._hosts(request)):
            # By a close code, which a page can read, and not by HTTP's 403, which it cannot: it would come back for ever.
            return await self._close(ws, CloseCode.NOT_ALLOWED, "origin_not_allowed")
        connection = ClientConnection(ws, request, self._services, address, greeting)
        self._metrics.upgrades.labels("accepted").inc()
        with self._admitted(connection) as log_available, bound_contextvars(connection=connection.id):
            await connection.serve(log_available=log_available)
        # As the web server would. It keeps what went wrong, whose traceback leads back to it: nothing of the connection would
        # be freed until the collector comes by.
        await ws.close()
        if (error := ws.exception()) is not None:
            error.__traceback__ = None
        return ws

    async def _close(self, ws: web.WebSocketResponse, code: CloseCode, why: str) -> web.WebSocketResponse:
        self._metrics.upgrades.labels(why).inc()
        await ws.close(code=code, message=orjson.dumps({"code": why}))
        return ws

    def _hosts(self, request: web.Request) -> tuple[str, ...]:
        """The names by which this gateway was reached: where a proxy that is trusted was, that is told by it."""
        told = request.headers.get("X-Forwarded-Host")
        if told is None or not self._services.admission.addresses.is_trusted(request.remote):
            return (request.host,)
        return (request.host, told.rpartition(",")[2])

    def _no_room(self) -> str | None:
        """Why nobody more can be connected."""
        if self._draining.is_set():
            return HttpCode.DRAINING
        if len(self._connections) < self._services.settings.connections:
            return None
        self._metrics.limited.labels(Limit.CONNECTIONS).inc()
        return HttpCode.OVERLOADED

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
        """As `_admitted`. Raises Problem when nobody more can be, Refused when the user or the address has too many."""
        if (code := self._no_room()) is not None:
            raise Problem(code, "try another gateway", {"retry_after_ms": _RETRY_AFTER_MS})
        admission, who = self._services.admission, connection.who
        assert who is not None
        places: list[Place] = []
        try:
            places.append(admission.connect_from(who.address))
            places.append(admission.connect(who))
            with self._admitted(connection) as log_available:
                yield log_available
        finally:
            for place in places:
                place.leave()

    async def _healthz(self, _request: web.Request) -> web.Response:
        return web.json_response({"status": "ok", "version": VERSION, "formats": formats()})

    async def _readyz(self, _request: web.Request) -> web.Response:
        problems = ["draining"] if self._leaving else await self._health.problems()
        problems += [] if self._leaving else self._services.authenticator.problems()
        status = "ready" if not problems else "not ready"
        return web.json_response({"status": status, "problems": problems}, status=503 if problems else 200)

    async def _expose(self, _request: web.Request) -> web.Response:
        unsent = [connection.unsent_bytes for connection in self._connections]
        self._metrics.outbox.set(sum(unsent))
        self._metrics.outbox_largest.set(max(unsent, default=0))
        await self._vitals.refresh()
        # Nothing is awaited between these: sums of them are right.
        self._metrics.sample(self._services.hub.in_flight())
        return web.Response(body=exposition(self._metrics.registry), headers={"Content-Type": CONTENT_TYPE})

    async def _elsewhere(self, _request: web.Request) -> web.Response:
        text = "several processes share this port: scrape the ports of each, which process_port names\n"
        return web.Response(status=404, text=text)


def _retry_after_ms() -> int:
    return random.randint(0, RETRY_AFTER_MAX_MS)


async def _headers(_request: web.Request, response: web.StreamResponse) -> None:
    for name, value in _HEADERS.items():
        if name not in _OF_ANSWERS or name not in response.headers:
            response.headers[name] = value
