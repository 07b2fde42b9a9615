"""The model of the tests: an HTTP server that speaks the wires of providers, in chunks as they come, and sees who hangs up."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.support.adapted import wires
from tests.support.adapted.script import WORD_S, Asked, Script, answer

Json = dict[str, Any]


@dataclass(slots=True)
class Call:
    """A request: what was asked, how many pieces of the answer were sent, and how it ended: `whole` or `hung_up`."""

    wire: str
    asked: Asked
    body: Json
    headers: dict[str, str]
    sent: int = 0
    end: str = ""
    over: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(slots=True)
class Brain:
    """Made by `brain_server`. `calls` are all requests so far, in order."""

    url: str = ""
    calls: list[Call] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)

    def about(self, word: str) -> list[Call]:
        """Requests whose command has that word in it."""
        return [call for call in self.calls if word in call.asked.command]

    def handler(
        self, wire: str, read: Callable[[Json], Asked], write: Callable[[Script, int, Json], Iterator[bytes]]
    ) -> Callable[[web.Request], Any]:
        async def handle(request: web.Request) -> web.StreamResponse:
            body = await request.json()
            call = Call(wire, read(body), body, dict(request.headers))
            self.calls.append(call)
            script = answer(call.asked)
            if (failed := self._failure(script)) is not None:
                call.end = "failed"
                call.over.set()
                return failed
            response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
            try:
                await response.prepare(request)
                for piece in write(script, len(self.calls), body):
                    await response.write(piece)
                    call.sent += 1
                    await asyncio.sleep(WORD_S)
                await response.write_eof()
                call.end = "whole"
            finally:
                call.end = call.end or "hung_up"
                call.over.set()
            return response

        return handle

    def _failure(self, script: Script) -> web.Response | None:
        if script.fail is None:
            return None
        status, times, name = script.fail
        self.failures[name] += 1
        if self.failures[name] > times:
            return None
        error = {"type": "error", "error": {"type": "scripted_failure", "message": "what somebody said: secret"}}
        return web.json_response(error, status=status, headers={"retry-after-ms": "20", "Retry-After": "0.02"})


@asynccontextmanager
async def brain_server() -> AsyncIterator[Brain]:
    """On a free port of loopback. A request that is hung up on is cancelled."""
    brain = Brain()
    app = web.Application(client_max_size=64 << 20)
    for path, wire, read, write in (
        ("/v1/chat/completions", "chat", wires.chat_asked, wires.chat_written),
        ("/v1/responses", "responses", wires.responses_asked, wires.responses_written),
        ("/v1/messages", "messages", wires.anthropic_asked, wires.anthropic_written),
        ("/agui", "agui", wires.agui_asked, wires.agui_written),
    ):
        app.router.add_post(path, brain.handler(wire, read, write))
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        brain.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield brain
    finally:
        await runner.cleanup()
