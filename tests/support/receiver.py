"""A receiver of webhooks: a real HTTP server on loopback that a test may have fail, wait, or be gone."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from antiphon_client.webhooks import verify
from tests.support.nats import free_ports

WAIT_S = 90.0


def new_secret() -> str:
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()


@dataclass(frozen=True, slots=True)
class Received:
    """A request that was signed as it must be, and what it said."""

    id: str
    type: str
    data: dict[str, Any]
    headers: Mapping[str, str]
    body: bytes

    @property
    def session(self) -> str:
        return str(self.data.get("session", ""))


@dataclass(slots=True)
class Receiver:
    """`answer` makes the response to each request; `taken` are those that were answered with 2xx, in order."""

    id: str
    secret: str = field(default_factory=new_secret)
    port: int = field(default_factory=lambda: free_ports(1)[0])
    answer: Callable[[Received], Awaitable[web.Response]] | None = None
    requests: list[Received] = field(default_factory=list)
    taken: list[Received] = field(default_factory=list)
    refused_signatures: int = 0
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hooks"

    def table(self, **more: Any) -> dict[str, Any]:
        """Its entry in a file of endpoints."""
        return {"id": self.id, "url": self.url, "secrets": [self.secret], **more}

    async def up(self) -> None:
        app = web.Application()
        app.router.add_post("/hooks", self._take)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True).start()

    async def down(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def until(self, reached: Callable[[Receiver], object], wait_s: float = WAIT_S) -> None:
        """Returns when it has received what is asked for."""
        try:
            async with asyncio.timeout(wait_s):
                while not reached(self):
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError([(r.type, r.session) for r in self.requests][-20:]) from None

    async def has(self, type_: str, session: str) -> Received:
        """The first event of a type in a session that it has taken."""
        found: list[Received] = []

        def there(_: Receiver) -> bool:
            found[:] = [r for r in self.taken if (r.type, r.session) == (type_, session)]
            return bool(found)

        await self.until(there)
        return found[0]

    @property
    def events(self) -> list[Received]:
        """What it has taken, each id once, as a receiver that knows repetitions has it."""
        return list({r.id: r for r in reversed(self.taken)}.values())[::-1]

    def types(self, session: str) -> list[str]:
        return [r.type for r in self.taken if r.session == session]

    async def _take(self, request: web.Request) -> web.Response:
        body = await request.read()
        verified = verify(request.headers, body, self.secret)
        received = Received(verified.id, verified.type, dict(verified.data), dict(request.headers), body)
        self.requests.append(received)
        self._news.set()
        response = web.Response(status=204) if self.answer is None else await self.answer(received)
        if 200 <= response.status < 300:
            self.taken.append(received)
            self._news.set()
        return response


def write_file(path: Path, *tables: Mapping[str, Any]) -> Path:
    """A file of endpoints, replaced at once as an editor or a mounted secret is."""
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps({"endpoint": list(tables)}))
    fresh.rename(path)
    return path


@contextlib.asynccontextmanager
async def receiving(*ids: str) -> AsyncIterator[list[Receiver]]:
    """Receivers that are up."""
    receivers = [Receiver(id_) for id_ in ids]
    async with contextlib.AsyncExitStack() as stack:
        for receiver in receivers:
            await receiver.up()
            stack.push_async_callback(receiver.down)
        yield receivers
