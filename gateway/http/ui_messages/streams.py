"""An answer as the stream that the AI SDK's default transport reads: server-sent events of chunks, then `[DONE]`."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass
from typing import Any, NoReturn

import orjson
import structlog
from aiohttp import web

from broker.errors import LogError
from broker.state import InputFate, SessionState
from gateway.feed import Feed
from gateway.http.carrying import subscription, within
from gateway.http.declarations import EVENT_STREAM
from gateway.http.requests import Call
from gateway.http.run_streams import Leaving, PatientResponse, QueueOutlet
from gateway.http.ui_messages.answer import Answer, Chunk
from gateway.services import Services
from gateway.subscribing import Opened, open_reader

_log = structlog.get_logger("antiphon.stream")

UI_STREAM_HEADERS = {
    "Content-Type": EVENT_STREAM,
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",
    "X-Vercel-AI-UI-Message-Stream": "v1",
}
"""As the AI SDK's own servers send them."""
_DONE = b"data: [DONE]\n\n"
_SETTLE_S = 0.1
"""Seconds of silence after which a stream ends whose viewer is waited for: what an agent asks at once comes in turn."""


def events(chunks: Iterable[Chunk]) -> bytes:
    return b"".join(b"data: %b\n\n" % orjson.dumps(chunk) for chunk in chunks)


def no_answer() -> web.Response:
    """There is nothing to read: a human has the lane, or the answer was given long ago."""
    body = events([{"type": "finish", "finishReason": "stop"}]) + _DONE
    return web.Response(body=body, headers=UI_STREAM_HEADERS)


@dataclass(frozen=True, slots=True)
class Shown:
    """What a page shows of an answer: all up to this entry; and the calls and approvals that it has just responded to."""

    seq: int = -1
    given: frozenset[str] = frozenset()


NOTHING_SHOWN = Shown()
_WHAT_TO_DO = {
    "draining": "the gateway is leaving; resume the stream",
    "token_expired": "resume the stream with a new token",
    "token_revoked": "the token has been revoked; resume the stream with a new one",
    "not_allowed": "the token does not allow the session any more",
}
"""By why a stream ends (`Leaving.code`)."""


async def stream_answer(
    services: Services, leaving: Leaving, call: Call, answer: Answer, since: int | None, shown: Shown = NOTHING_SHOWN
) -> web.StreamResponse:
    """Streams what is not shown of the answer, until it is over, or the viewer is waited for. Raises Refused.

    `since` is an entry before its input, None if that is not known any more.
    """
    async with services.hub.session(call.key) as feed:
        outlet = QueueOutlet()
        async with within(services, "Subscribe"):
            epoch = await services.log.epoch(feed.subjects)
            after = {} if since is None else {"after": f"{epoch}:{since}"}
            # What the page shows ends between two entries, which must not come as one.
            replay = "merged" if shown is NOTHING_SHOWN else "every"
            command = subscription({"session": call.session, "replay": replay, **after})
            opened = await open_reader(feed, services.log, outlet, services.metrics, command)
        response = web.StreamResponse(headers=UI_STREAM_HEADERS)
        await response.prepare(call.request)
        client = PatientResponse(response, call.request.transport, services.settings.slow_reader_s)
        telling = _Telling(client, outlet, answer, shown)
        await _follow(feed, opened, telling, leaving, services.settings.heartbeat_s)
    return response


class _Telling:
    """Writes an answer's chunks to the client, at its speed."""

    def __init__(self, client: PatientResponse, outlet: QueueOutlet, answer: Answer, shown: Shown) -> None:
        self._client = client
        self._outlet = outlet
        self.answer = answer
        self._shown = shown
        self._last = 0
        self._early: list[Chunk] | None = []
        """What there was before the reader had caught up."""
        self._moved = asyncio.Event()

    async def tell(self) -> list[Chunk] | None:
        """Returns when the stream is at its end; there is nothing to add. Raises ConnectionError."""
        while not self.answer.over:
            waits = self._early is None and any(id_ not in self._shown.given for id_ in self.answer.waits_for)
            try:
                async with asyncio.timeout(_SETTLE_S if waits else None):
                    line = await self._outlet.take()
            except TimeoutError:
                await self._write(self.answer.pause(self._last))
                break
            await self._take(line)
        await self._caught_up()
        await self._client.write(_DONE)
        return None

    async def _take(self, line: bytes) -> None:
        if line.startswith(b'{"op":"entry"'):
            entry = orjson.loads(line)
            chunks = self.answer.take(entry)
            self._last = entry["seq"]
            if self._last > self._shown.seq:
                await self._write(chunks)
            self._moved.set()
        elif line.startswith(b'{"op":"session.caught_up"'):
            await self._caught_up()
        elif line.startswith(b'{"op":"session.gap"'):
            await self._write(self.answer.fail("gap: entries had been missed; resume the stream"))

    async def end(self, chunks: list[Chunk]) -> None:
        """Ends it with these. Raises ConnectionError."""
        await self._caught_up()
        await self._client.write(events(chunks) + _DONE)

    async def _caught_up(self) -> None:
        early, self._early = self._early, None
        await self._write(self.answer.replayed(early or ()))

    async def _write(self, chunks: list[Chunk]) -> None:
        if self._early is not None:
            self._early += chunks
        elif chunks:
            await self._client.write(events(chunks))

    async def reached(self, seq: int) -> None:
        """Returns when the entry has been told."""
        while self._last < seq:
            self._moved.clear()
            await self._moved.wait()

    async def beat(self, every_s: float) -> NoReturn:
        while True:
            await asyncio.sleep(every_s)
            await self._client.write(b":\n\n")


async def _follow(feed: Feed, opened: Opened, telling: _Telling, leaving: Leaving, heartbeat_s: float) -> None:
    """Returns when the stream has ended, or the client has gone."""
    answer = telling.answer
    parts = (
        telling.tell(),
        _without_answer(feed, telling),
        _error_after(opened.reader.run(), answer, "internal: the stream has ended; resume it"),
        _left(leaving, answer),
        telling.beat(heartbeat_s),
    )
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(_guarded(part, answer)) for part in parts]
        done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        for task in running:
            task.cancel()
    last = next(task for task in running if task in done).result()
    if last is not None:
        try:
            await telling.end(last)
        except ConnectionError:
            return


async def _guarded(part: Coroutine[Any, Any, list[Chunk] | None], answer: Answer) -> list[Chunk] | None:
    """What the stream ends with, if the part that is over first does not end it by itself."""
    try:
        return await part
    except LogError as reason:
        _log.warning("a reader cannot go on", reason=str(reason))
        return answer.fail("internal: the log cannot be read; resume the stream")
    except ConnectionError:
        return None


async def _error_after(part: Coroutine[Any, Any, object], answer: Answer, error: str) -> list[Chunk]:
    await part
    return answer.fail(error)


async def _left(leaving: Leaving, answer: Answer) -> list[Chunk]:
    """Returns when the stream may not go on here, or with this token."""
    await leaving.event.wait()
    return answer.fail(f"{leaving.code}: {_WHAT_TO_DO[leaving.code]}")


async def _without_answer(feed: Feed, telling: _Telling) -> list[Chunk]:
    """Returns when it is known that the input will have no answer."""
    answer = telling.answer
    await feed.until(lambda state: _end_of(state, answer.input_id) is not None)
    fate = _end_of(feed.state, answer.input_id)
    await telling.reached(feed.state.as_of)
    code = "failed" if fate is None else fate.code or fate.status
    if fate is not None and fate.status == "cancelled":
        return answer.withdraw(code)
    return answer.fail(f"{code}: the message has no answer")


def _end_of(state: SessionState, input_id: str) -> InputFate | None:
    """How an input ended that was not applied."""
    fate = state.fate(input_id)
    return fate if fate is not None and fate.status != "applied" else None
