"""A WebSocket server that plays the gateway's part, one script for each connection; and entries.

Only for tests of the client: it speaks the protocol exactly as the script says, mistakes too.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any, Self

from aiohttp import WSMsgType, web

from antiphon_client import Client, Entry, Session, SessionEvent, Settings

Frame = dict[str, Any]
Script = Callable[["Peer"], Awaitable[None]]

EPOCH = "mb1x9k"
START = {"type": "TEXT_MESSAGE_START", "messageId": "m1"}
END = {"type": "TEXT_MESSAGE_END", "messageId": "m1"}


class Hung(Exception):
    """The client closed the connection where the script expected a command."""


def entry(seq: int, prev: int, *events: Frame, session: str = "demo", **fields: Any) -> Frame:
    """An entry frame of the lane `main`, under the fence 1."""
    frame = {"op": "entry", "session": session, "seq": seq, "prev": prev, "id": f"1-{seq}", "lane": "main", "ts": seq}
    return {**frame, "events": list(events), **fields}


def sent(seq: int, prev: int, input_id: str, content: str = "hi", **fields: Any) -> Frame:
    """The entry of a participant's input."""
    frame = entry(seq, prev, {"type": "input.sent", "inputId": input_id, "content": content}, id=input_id, **fields)
    del frame["lane"]
    return frame


def delta(seq: int, prev: int, off: int, text: str, message_id: str = "m1", **fields: Any) -> Frame:
    """The entry of a delta."""
    event = {"type": "TEXT_MESSAGE_CONTENT", "messageId": message_id, "delta": text}
    return entry(seq, prev, event, off=off, **fields)


def snapshot(as_of: int = 0, session: str = "demo", fence: int | None = 1, **state: Any) -> Frame:
    """A snapshot whose lane `main` has an owner under `fence`."""
    lanes = {} if fence is None else {"main": {"owner": {"kind": "agent", "id": "w"}, "fence": fence, "run": None}}
    full = {"lanes": lanes, "runs": [], "inputs": [], **state}
    return {"op": "session.snapshot", "session": session, "asOf": as_of, "messagesBefore": 3, "state": full}


def caught_up(seq: int, session: str = "demo") -> Frame:
    """The end of the replay."""
    return {"op": "session.caught_up", "session": session, "seq": seq, "cursor": f"{EPOCH}:{seq}"}


def started(seq: int, prev: int, input_id: str = "i") -> Frame:
    """The start of the run of an input."""
    return entry(seq, prev, {"type": "RUN_STARTED", "threadId": "demo", "runId": f"run_{input_id}"})


def applied(seq: int, prev: int, input_id: str = "i") -> Frame:
    """An input enters the transcript."""
    event = {"type": "input.applied", "inputId": input_id, "runId": f"run_{input_id}", "messageId": f"msg_{input_id}"}
    return entry(seq, prev, event)


def finished(seq: int, prev: int, input_id: str = "i", kind: str = "success") -> Frame:
    """The end of the run of an input."""
    return entry(seq, prev, {"type": "RUN_FINISHED", "runId": f"run_{input_id}", "outcome": {"type": kind}})


def call_requested(seq: int, prev: int, call_id: str = "c", name: str = "count") -> Frame:
    """A run asks for a tool of clients."""
    asks = {"type": "tool.requested", "toolCallId": call_id, "name": name, "args": {"n": 2}, "executor": "client"}
    return entry(seq, prev, asks, run="run_i")


def approval_requested(seq: int, prev: int, approval_id: str = "a") -> Frame:
    """A run asks for an approval."""
    options = {"options": ["allow_once", "reject_once"], "default": "reject_once", "quorum": 1}
    asks = {"type": "approval.requested", "approvalId": approval_id, "kind": "approval", "message": "Delete 3 files?"}
    return entry(seq, prev, {**asks, **options}, run="run_i")


async def running(peer: Peer, *frames: Frame) -> None:
    """The session is open; the run `run_i` is running, and these frames follow."""
    run = {"runId": "run_i", "lane": "main", "inputId": "i", "attempt": 1}
    lanes = {"main": {"owner": None, "fence": 1, "run": "run_i"}}
    await peer.welcome()
    await peer.subscribed()
    await peer.send(snapshot(1, lanes=lanes, runs=[run]), *frames)


class Peer:
    """One connection, as its script sees it."""

    def __init__(self, socket: web.WebSocketResponse, request: web.Request) -> None:
        self.socket = socket
        self.request = request

    async def receive(self) -> Frame:
        """The client's next frame. Raises `Hung` if it closes instead."""
        message = await self.socket.receive()
        if message.type is not WSMsgType.TEXT:
            raise Hung(f"{message.type!r} {message.data!r}")
        frame: Frame = json.loads(message.data)
        return frame

    async def expect(self, op: str, **fields: Any) -> Frame:
        """The client's next frame, which must be this command with these fields."""
        frame = await self.receive()
        found = {name: frame.get(name) for name in ("op", *fields)}
        assert found == {"op": op, **fields}, frame
        return frame

    async def send(self, *frames: Frame) -> None:
        """Send frames."""
        for frame in frames:
            await self.socket.send_str(json.dumps(frame))

    async def ok(self, command: Frame, **fields: Any) -> None:
        """Answer a command."""
        await self.send({"op": "ok", "id": command["id"], **fields})

    async def error(self, command: Frame, code: str, *, retryable: bool = False, **fields: Any) -> None:
        """Refuse a command."""
        refused = {"op": "error", "id": command["id"], "code": code, "message": f"no: {code}", "retryable": retryable}
        await self.send({**refused, **fields})

    async def welcome(self, token: str = "t1", **fields: Any) -> Frame:
        """Take `hello` and answer it."""
        hello = await self.expect("hello", token=token)
        body = {"protocol": 1, "server": "test", "gateway": "gw", "connection": "c", "heartbeat_ms": 25_000}
        user = {"id": "user-1", "name": "A user"}
        limits = {"frame_bytes": 131_072, "commands_per_second": 100_000, "commands_burst": 100_000}
        await self.send({"op": "welcome", "id": hello["id"], **body, "user": user, "limits": limits, **fields})
        return hello

    async def subscribed(self, after: str | None = None, session: str = "demo", head: int = 0) -> Frame:
        """Take `subscribe` and answer it with `ok` alone."""
        command = await self.expect("subscribe", session=session, after=after)
        await self.ok(command, session=session, epoch=EPOCH, head=head)
        return command

    async def opened(self, as_of: int = 0, session: str = "demo", **state: Any) -> None:
        """Welcome the client, and let it read a session from a snapshot on."""
        await self.welcome()
        await self.subscribed(session=session)
        await self.send(snapshot(as_of, session, **state))

    async def take_input(self, at: int, **fields: Any) -> Frame:
        """Take `input.send` and answer that it is stored."""
        command = await self.expect("input.send")
        run = {"runId": "run_" + command["inputId"], "seq": at, "position": 1, "status": "queued", "duplicate": False}
        await self.ok(command, inputId=command["inputId"], **{**run, **fields})
        return command

    async def close(self, code: int, reason: Frame | None = None) -> None:
        """Close with a code and a JSON reason."""
        text = "" if reason is None else json.dumps(reason)
        await self.socket.close(code=code, message=text.encode())

    def abort(self) -> None:
        """End the TCP connection without a word."""
        if self.request.transport is not None:
            self.request.transport.abort()

    async def until_closed(self) -> int | None:
        """Wait until the client closes; returns its code."""
        while True:
            message = await self.socket.receive()
            if message.type in (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR):
                return self.socket.close_code


class ScriptedGateway:
    """Serves one script after the other. Leaving it raises what a script raised.

    A script that ends leaves its connection open. The body is cancelled when a script fails,
    and after `limit_s`. Leaving it ends open connections as a kill would. `exact`: all scripts
    must have been played to their end by then.
    """

    def __init__(
        self, *scripts: Script, limit_s: float = 20.0, autoping: bool = True, port: int = 0, exact: bool = True
    ) -> None:
        self._scripts: Sequence[Script] = scripts
        self._limit_s = limit_s
        self._autoping = autoping
        self._exact = exact
        self._errors: list[BaseException] = []
        self._peers: list[Peer] = []
        self.port = port
        self._ended = 0
        self._changed = asyncio.Event()
        self.connections = 0
        self.url = ""

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_get("/v1/connect", self._connect)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._scope = asyncio.timeout(self._limit_s)
        await self._scope.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await self._scope.__aexit__(kind, error, traceback)
        finally:
            for peer in self._peers:
                peer.abort()
            await self._runner.cleanup()
            if self._errors:
                raise self._errors[0]
        if error is None and self._exact:
            assert self._ended == len(self._scripts), "not every script was played to its end"

    async def played(self, count: int) -> None:
        """Wait until so many scripts have ended."""
        while self._ended < count:
            self._changed.clear()
            await self._changed.wait()

    async def _connect(self, request: web.Request) -> web.StreamResponse:
        index = self.connections
        self.connections += 1
        socket = web.WebSocketResponse(protocols=("antiphon.v1",), timeout=0.5, autoping=self._autoping)
        await socket.prepare(request)
        peer = Peer(socket, request)
        self._peers.append(peer)
        try:
            if index >= len(self._scripts):
                raise AssertionError(f"the client connected {index + 1} times")
            assert socket.ws_protocol == "antiphon.v1"
            await self._scripts[index](peer)
        except Exception as error:  # noqa: BLE001 - it is raised in the test
            self._errors.append(error)
            if len(self._errors) == 1:
                self._scope.reschedule(asyncio.get_running_loop().time())
            return socket
        self._ended += 1
        self._changed.set()
        if not socket.closed and request.transport is not None and not request.transport.is_closing():
            await peer.until_closed()
        return socket


def client(gateway: ScriptedGateway, **options: Any) -> Client:
    """A client of this gateway with these settings; it never waits before it comes back."""
    settings = Settings(**{"close_timeout_s": 0.2, "tool_release_timeout_s": 0.1, **options})
    return Client(gateway.url, "t1", rand=lambda: 0.0, settings=settings)


async def take(session: Session, count: int) -> list[SessionEvent]:
    """The next events; the iteration is left then."""
    found: list[SessionEvent] = []
    async for event in session.events():
        found.append(event)
        if len(found) == count:
            break
    return found


def seqs(events: list[SessionEvent]) -> list[int]:
    """Those of the entries among the events."""
    return [event.seq for event in events if isinstance(event, Entry)]


async def until(true: Callable[[], bool]) -> None:
    """Poll what the client does by itself; the gateway's limit bounds it."""
    while not true():  # noqa: ASYNC110 - what is polled has no event of its own
        await asyncio.sleep(0.001)
