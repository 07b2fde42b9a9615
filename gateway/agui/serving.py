"""`POST /v1/ag-ui`: a run for a client of AG-UI, as server-sent events."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Sequence

import orjson
import structlog
from aiohttp import web

from broker.clock import now_ms
from broker.codec import entry_from_wire
from broker.errors import ErrorCode, LogError, Refused, Unavailable
from broker.interfaces import Of
from broker.loading import read_messages
from broker.state import Call as ToolCall
from gateway.agui.acting import Acting
from gateway.agui.content import Json
from gateway.agui.interrupts import Page, Waiting
from gateway.agui.projection import Projection
from gateway.agui.request import Asked, asked, check_history, fresh_messages
from gateway.auth import Right
from gateway.feed import Feed
from gateway.http.answering import Admit
from gateway.http.carrying import subscription, within
from gateway.http.problems import Problem
from gateway.http.requests import Call
from gateway.http.run_streams import QueueOutlet
from gateway.http.streams import STREAM_HEADERS
from gateway.outlet import revoked
from gateway.rights import Identity
from gateway.services import Services
from gateway.subscribing import Subscription, subscribe

_log = structlog.get_logger("antiphon.agui")

MESSAGES = 1000
"""The newest messages of a session that a client is shown."""
RECENT = 32
"""Those that its own are compared with: who has them has those before. A request reads no more of a long session."""
_RETRY_AFTER_MS = 1000
SETTLE_S = 0.1
"""How long a run must have waited for the page before its stream ends: agents ask for several things at once."""

_WHY = {
    "draining": "this gateway leaves; the run goes on: ask again to go on reading",
    "token_expired": "the token has expired; the run goes on: ask again with a new one",
    "token_revoked": "the token has been revoked; the run goes on: ask again with a new one",
    "not_allowed": "the token does not allow the session any more; the run goes on",
    "internal": "this gateway cannot go on reading; the run goes on: ask again to go on reading",
}
"""Why a stream ends before its run. Its client would take one that just ends for a whole answer."""


class AgUi:
    """Serves clients of AG-UI. One for a gateway."""

    def __init__(self, services: Services, admit: Admit) -> None:
        self._services = services
        self._admit = admit

    async def run(self, call: Call) -> web.StreamResponse:
        request = asked(call.fields)
        call.who.require(Right.READ, request.session)
        run = _Run(self._services, call, request)
        with self._admit(run):
            return await run.serve()


class _Gap(Exception):
    """Entries had been missed: what was folded is void."""


class _Run:
    """One stream. Whoever leaves it, and whatever ends it, leaves the log's run alone."""

    def __init__(self, services: Services, call: Call, request: Asked) -> None:
        self._services = services
        self._settings = services.settings
        self._call = call
        self._request = request
        self._id = f"a-{secrets.token_hex(5)}"
        who, session = call.who, request.session
        self._key = who.key(session)
        tools = frozenset(str(tool["name"]) for tool in request.tools)
        page = Page(who.id, who.roles, who.may(Right.APPROVE, session), tools)
        self._projection = Projection(session, request.run_id, page, modern=request.modern)
        self._acting = Acting(services, call, request)
        self._fresh: list[Json] = []
        self._outlet = QueueOutlet()
        self._subscription: Subscription | None = None
        self._reading: asyncio.Task[None] | None = None
        self._closing = ""
        self._begun_at = 0
        self._response = web.StreamResponse(headers=STREAM_HEADERS)
        self._waits_since: float | None = None

    # --- as one of the connected (`gateway.http.streams.Connected`) --------------------------------------------------

    @property
    def unsent_bytes(self) -> int:
        """Nothing: each piece waits until it has been taken."""
        return 0

    @property
    def who(self) -> Identity:
        return self._call.who

    def drain(self, retry_after_ms: int) -> None:  # noqa: ARG002 (AG-UI has no word for when to come back)
        self._close("draining")

    def tell(self, payload: bytes) -> None:
        """The stream goes on by itself."""

    def recheck(self) -> None:
        if (closing := revoked(self._call.who, self._request.session)) is not None:
            self._close(closing.name)

    def _close(self, code: str) -> None:
        self._closing = self._closing or code
        self._outlet.write(orjson.dumps({"op": "closing"}) + b"\n")

    # --- serving -----------------------------------------------------------------------------------------------------

    async def serve(self) -> web.StreamResponse:
        """Raises Refused, Problem, as long as nothing has been sent."""
        left_s = self._call.who.left_s(time.time(), self._settings.jwt_leeway_s)
        expiry = asyncio.get_running_loop().call_later(left_s, self._close, "token_expired")
        refused: Refused | Problem | None = None
        try:
            async with self._services.hub.session(self._key) as feed, asyncio.TaskGroup() as tasks:
                try:
                    await self._stream(feed, tasks)
                except (Refused, Problem) as refusal:
                    refused = refusal
                finally:
                    self._stop_reading()
        except Unavailable as error:
            refused = Refused(ErrorCode.UNAVAILABLE, str(error), retry_after_ms=_RETRY_AFTER_MS)
        finally:
            expiry.cancel()
        if refused is not None:
            raise refused
        return self._response

    async def _stream(self, feed: Feed, tasks: asyncio.TaskGroup) -> None:
        await self._read_from_the_log(feed, tasks)
        if self._projection.lacks(self._request.messages):
            await self._remember(feed, MESSAGES)
        check_history(self._request.messages, self._projection.shown(), self._request.session)
        events = self._projection.begin(self._request.messages, self._fresh)
        events += await self._acting.act(self._projection, self._fresh)
        await self._response.prepare(self._call.request)
        try:
            await self._write(events)
            await self._until_over(feed, tasks)
        except ConnectionError:
            # The client has gone: nothing is owed to it, and nothing is cancelled.
            return

    async def _until_over(self, feed: Feed, tasks: asyncio.TaskGroup) -> None:
        """Passes on what comes. Raises ConnectionError."""
        try:
            while not self._projection.over:
                try:
                    await self._go_on()
                except _Gap:
                    await self._read_from_the_log(feed, tasks)
                    await self._remember(feed, MESSAGES)
                    await self._write(self._projection.again())
        except Refused as refusal:
            # It has begun to answer: the client must be told in the stream, or would take it for a whole answer.
            await self._write(self._projection.fail(refusal.message, refusal.code.value))

    async def _read_from_the_log(self, feed: Feed, tasks: asyncio.TaskGroup) -> None:
        """Folds the session anew, up to the log's end, and reads on from there. Raises Refused, Problem."""
        self._stop_reading()
        outlet = self._outlet = QueueOutlet()
        async with within(self._services, "run"):
            await feed.ready()
            head = await self._services.log.head(feed.subjects, Of.RECORDS)
            await feed.reached(0 if head is None else head.seq)
            checkpoint = await feed.checkpoint()
            self._projection.load(checkpoint.state)
            self._begun_at = checkpoint.state.as_of
            epoch = await self._services.log.epoch(feed.subjects)
            command = subscription(
                {
                    "session": self._request.session,
                    "after": f"{epoch}:{checkpoint.state.as_of}",
                    "tools": list(self._request.tools) or None,
                }
            )
            self._subscription = await subscribe(self._services, outlet, command, self._call.who, self._id)
        self._reading = tasks.create_task(self._read(self._subscription))
        self._note_fresh(feed)
        if self._closing:
            self._close(self._closing)
        while not await self._fold():
            pass
        await self._remember(feed, RECENT)

    async def _remember(self, feed: Feed, count: int) -> None:
        """Reads messages from before what is folded. Raises Refused."""
        async with within(self._services, "run"):
            older = await read_messages(self._services.log, feed.subjects, self._begun_at + 1, count)
        self._projection.remember(older[-count:])

    def _note_fresh(self, feed: Feed) -> None:
        """What of the client's messages the log does not have, and is to be sent: once, whatever happens later."""
        if not self._response.prepared:
            self._fresh = fresh_messages(self._request.messages, feed.state.seen.__contains__, self._request.session)

    async def _read(self, subscription: Subscription) -> None:
        try:
            await subscription.reader.run()
        except LogError as error:
            _log.warning("a reader cannot go on", connection=self._id, reason=str(error))
            self._close("internal")

    def _stop_reading(self) -> None:
        if self._subscription is not None and self._reading is not None:
            self._reading.cancel()
            self._subscription.end()
            self._subscription = self._reading = None

    # --- frames --------------------------------------------------------------------------------------------------------

    async def _fold(self) -> bool:
        """Folds the next frame; True if that was all that the log held. Raises Refused if it cannot go on."""
        frame = orjson.loads(await self._outlet.take())
        match frame["op"]:
            case "entry":
                self._projection.take(frame["seq"], entry_from_wire(frame))
            case "closing" if not self._response.prepared:
                raise Refused(ErrorCode.UNAVAILABLE, _WHY[self._closing], retry_after_ms=_RETRY_AFTER_MS)
            case "closing":
                self._close(self._closing)
                return True
        return bool(frame["op"] == "session.caught_up")

    async def _go_on(self) -> None:
        """Passes on what comes next, or ends the stream because the run waits for its client. Raises _Gap."""
        waiting = self._waiting()
        frame = await self._next(self._wait_s(waiting))
        if frame is None:
            if waiting.approvals or waiting.calls:
                await self._pause(waiting)
            return
        await self._write(self._events_of(frame))

    def _events_of(self, frame: Json) -> list[Json]:
        match frame["op"]:
            case "entry":
                return self._projection.take(frame["seq"], entry_from_wire(frame))
            case "session.gap":
                raise _Gap
            case "closing":
                return self._projection.fail(_WHY[self._closing], self._closing)
            case _:
                return []

    def _waiting(self) -> Waiting:
        waiting = self._acting.still(self._projection.waiting(now_ms()))
        if not (waiting.approvals or waiting.calls):
            self._waits_since = None
        elif self._waits_since is None:
            self._waits_since = time.monotonic()
        return waiting

    def _wait_s(self, waiting: Waiting) -> float | None:
        if self._waits_since is not None:
            return max(0.0, self._waits_since + SETTLE_S - time.monotonic())
        return None if waiting.next_at is None else max(0.0, (waiting.next_at - now_ms()) / 1000)

    async def _next(self, wait_s: float | None) -> Json | None:
        """The next frame; None if there is none for `wait_s`, or for so long that a comment shows that the stream lives."""
        beat_s = self._settings.heartbeat_s
        limit_s = beat_s if wait_s is None else min(wait_s, beat_s)
        try:
            async with asyncio.timeout(limit_s):
                frame: Json = orjson.loads(await self._outlet.take())
                return frame
        except TimeoutError:
            if limit_s == beat_s:
                await self._send(b":\n\n")
            return None

    async def _pause(self, waiting: Waiting) -> None:
        if waiting.approvals:
            await self._write(self._projection.interrupt(waiting))
        elif claimed := await self._claimed(waiting.calls):
            await self._write(self._projection.hand_over(claimed))

    async def _claimed(self, calls: Sequence[ToolCall]) -> list[ToolCall]:
        return [call for call in calls if await self._acting.claim(call)]

    # --- writing -------------------------------------------------------------------------------------------------------

    async def _write(self, events: Sequence[Json]) -> None:
        if events:
            await self._send(b"".join(b"data: %b\n\n" % orjson.dumps(event) for event in events))

    async def _send(self, data: bytes) -> None:
        try:
            async with asyncio.timeout(self._settings.slow_reader_s):
                await self._response.write(data)
        except TimeoutError:
            # What is unsent would wait for ever.
            if self._call.request.transport is not None:
                self._call.request.transport.abort()
            raise ConnectionResetError from None
