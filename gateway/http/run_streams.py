"""A one-shot run as server-sent events: the session's entries from its input to its end, or its text alone."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Coroutine, Mapping
from typing import Any, Self

import orjson
from aiohttp import web

from broker.errors import LogError, Refused
from gateway.commands.answers import is_over
from gateway.feed import Feed
from gateway.framing import LINES, Framing, event_stream
from gateway.http.carrying import subscription, within
from gateway.http.problems import problem_of
from gateway.http.requests import Call
from gateway.http.streams import STREAM_HEADERS
from gateway.outlet import revoked
from gateway.reader import SessionReader
from gateway.rights import Identity
from gateway.services import Services
from gateway.subscribing import open_reader

QUEUE_BYTES = 262_144
"""Bytes of entries that wait for the client; beyond, its reader is held back."""


class QueueOutlet:
    """Keeps what a reader sends until it is taken (`gateway.reader.Outlet`)."""

    framing: Framing = LINES

    def __init__(self) -> None:
        self._lines: deque[bytes] = deque()
        self._bytes = 0
        self._changed = asyncio.Event()

    gone = False

    @property
    def congested(self) -> bool:
        return self._bytes > QUEUE_BYTES

    def write(self, data: bytes) -> None:
        for line in data.splitlines():
            self._lines.append(line)
            self._bytes += len(line)
        self._changed.set()

    async def uncongested(self) -> None:
        while self.congested:
            self._changed.clear()
            await self._changed.wait()

    async def take(self) -> bytes:
        """The next frame. Safe to cancel."""
        while not self._lines:
            self._changed.clear()
            await self._changed.wait()
        line = self._lines.popleft()
        self._bytes -= len(line)
        self._changed.set()
        return line


class RunText:
    """The text of a run's answer, of the session's entries: what each of them adds to it."""

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self._lengths: dict[str, int] = {}

    def added(self, entry: Mapping[str, Any]) -> list[dict[str, str]]:
        """Pieces of text, in order, that have not been there before."""
        found = []
        for event in entry["events"]:
            message_id = event.get("messageId")
            match event["type"]:
                case "TEXT_MESSAGE_START" if entry.get("run") == self._run_id and _is_answer(event):
                    self._lengths.setdefault(message_id, 0)
                case "TEXT_MESSAGE_CONTENT" if message_id in self._lengths:
                    found.append(self._put(message_id, entry.get("off", 0), event["delta"]))
                case "message.segment" if message_id in self._lengths and event.get("text"):
                    found.append(self._put(message_id, event["offset"], event["text"]))
        return [piece for piece in found if piece["delta"]]

    def _put(self, message_id: str, offset: int, text: str) -> dict[str, str]:
        """As the fold puts texts together: what is known already adds nothing, what lies beyond the end waits."""
        length = self._lengths[message_id]
        delta = text[length - offset :] if offset <= length else ""
        self._lengths[message_id] = length + len(delta)
        return {"messageId": message_id, "delta": delta}


def _is_answer(event: Mapping[str, Any]) -> bool:
    return bool(event.get("role", "assistant") == "assistant")


class Leaving:
    """Ends the stream when the gateway leaves, or the token is not good for it any more. A context."""

    def __init__(self, who: Identity, session: str, leeway_s: float) -> None:
        self.event = asyncio.Event()
        self.code = "draining"
        """Why."""
        self._who = who
        self._session = session
        self._leeway_s = leeway_s
        self._expiry: asyncio.TimerHandle | None = None

    def __enter__(self) -> Self:
        left_s = self._who.left_s(time.time(), self._leeway_s)
        self._expiry = asyncio.get_running_loop().call_later(left_s, self._leave, "token_expired")
        self.recheck()
        return self

    def __exit__(self, *_: object) -> None:
        if self._expiry is not None:
            self._expiry.cancel()

    @property
    def unsent_bytes(self) -> int:
        """Nothing: each piece waits until it has been taken."""
        return 0

    @property
    def who(self) -> Identity:
        return self._who

    def drain(self, retry_after_ms: int) -> None:  # noqa: ARG002 (the client is told where to go on, at once)
        self._leave("draining")

    def recheck(self) -> None:
        if (closing := revoked(self._who, self._session)) is not None:
            self._leave(closing.name)

    def _leave(self, code: str) -> None:
        if not self.event.is_set():
            self.code = code
            self.event.set()

    def tell(self, payload: bytes) -> None:
        """The stream goes on by itself."""


async def stream_run(
    services: Services, leaving: Leaving, call: Call, session: str, receipt: Mapping[str, Any], *, text: bool
) -> web.StreamResponse:
    """Streams from the input on until the run is over, then says what it has come to. Raises Refused."""
    run_id = receipt["runId"]
    async with services.hub.session(call.who.key(session)) as feed:
        outlet = QueueOutlet()
        async with within(services, "Subscribe"):
            epoch = await services.log.epoch(feed.subjects)
            after = f"{epoch}:{receipt['seq'] - 1}"
            command = subscription({"session": session, "after": after})
            opened = await open_reader(feed, services.log, outlet, services.metrics, command)
        response = web.StreamResponse(headers=STREAM_HEADERS)
        await response.prepare(call.request)
        said = RunText(run_id) if text else None
        client = PatientResponse(response, call.request.transport, services.settings.slow_reader_s)
        writing = _Writing(client, outlet, epoch, said)
        over = await _follow(feed, opened.reader, writing, run_id, leaving, services.settings.heartbeat_s)
    try:
        await _conclude(services, call, session, run_id, writing, left=None if over else leaving.code)
    except ConnectionError:
        # The client has gone: nothing is owed to it.
        return response
    return response


async def _conclude(
    services: Services, call: Call, session: str, run_id: str, writing: _Writing, *, left: str | None
) -> None:
    """Says what the run has come to, or where that will be told."""
    if left is not None:
        place = f"/v1/sessions/{session}/runs/{run_id}"
        await writing.say("closing", orjson.dumps({"op": "closing", "code": left, "location": place}))
        return
    try:
        async with within(services, "answer"):
            answer = await services.commands.answer(session, run_id, call.who)
    except Refused as refusal:
        await writing.say("problem", problem_of(refusal).body())
    else:
        await writing.say("run", orjson.dumps(answer.wire))


class PatientResponse:
    """Writes to the client, at its speed. Raises ConnectionError once it has gone, or takes nothing for `patience_s`."""

    def __init__(self, response: web.StreamResponse, transport: asyncio.Transport | None, patience_s: float) -> None:
        self._response = response
        self._transport = transport
        self._patience_s = patience_s

    async def write(self, data: bytes) -> None:
        try:
            async with asyncio.timeout(self._patience_s):
                await self._response.write(data)
        except TimeoutError:
            # What is unsent would wait for ever.
            if self._transport is not None:
                self._transport.abort()
            raise ConnectionResetError from None


class _Writing:
    """Writes events to the client, as `PatientResponse` does."""

    def __init__(self, client: PatientResponse, outlet: QueueOutlet, epoch: str, text: RunText | None) -> None:
        self._client = client
        self._outlet = outlet
        self._framing = event_stream(epoch)
        self._text = text
        self._last = 0
        self._moved = asyncio.Event()

    async def say(self, name: str, data: bytes) -> None:
        await self._client.write(b"event: %b\ndata: %b\n\n" % (name.encode(), data))

    async def pass_on(self) -> None:
        """Passes entries on, without end."""
        while True:
            line = await self._outlet.take()
            if not line.startswith(b'{"op":"entry"'):
                continue
            entry = orjson.loads(line)
            if self._text is None:
                await self._client.write(self._framing.message(line))
            else:
                for piece in self._text.added(entry):
                    await self.say("text", orjson.dumps(piece))
            self._last = entry["seq"]
            self._moved.set()

    async def reached(self, seq: int) -> None:
        """Returns when the entry has been passed on."""
        while self._last < seq:
            self._moved.clear()
            await self._moved.wait()

    async def beat(self, every_s: float) -> None:
        while True:
            await asyncio.sleep(every_s)
            await self._client.write(b":\n\n")


async def _follow(
    feed: Feed, reader: SessionReader, writing: _Writing, run_id: str, leaving: Leaving, heartbeat_s: float
) -> bool:
    """Returns when the client has had the run's end (True), or the gateway leaves, or cannot go on."""

    async def to_the_end() -> None:
        await feed.until(lambda state: is_over(state, run_id))
        # What ended it is a record, which no reader is spared.
        await writing.reached(feed.state.as_of)

    async def or_leave(part: Coroutine[Any, Any, None]) -> None:
        try:
            await part
        except (LogError, ConnectionError):
            leaving.event.set()

    async with asyncio.TaskGroup() as tasks:
        ending, left = tasks.create_task(to_the_end()), tasks.create_task(leaving.event.wait())
        parts = (reader.run(), writing.pass_on(), writing.beat(heartbeat_s))
        going_on = [tasks.create_task(or_leave(part)) for part in parts]
        await asyncio.wait({ending, left}, return_when=asyncio.FIRST_COMPLETED)
        done = ending.done()
        for task in (ending, left, *going_on):
            task.cancel()
    return done
