"""A scripted peer: enough of docs/PROTOCOL.md, in memory, for the page to talk to.

It stands in for a gateway where a test needs a server that misbehaves on command (a gap, a hole in
the chain, a close code, a refusal). Its agent answers `stream N tokens at R/s` with N tokens at that
rate, and anything else with the same text.
"""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import WSMsgType, web

from tests.browser.proxy import Target

Json = dict[str, Any]

WEB = Path(__file__).parents[2] / "gateway" / "web"
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
USERS = {"token-user-a": {"id": "user-a", "name": "User A"}, "token-user-b": {"id": "user-b", "name": "User B"}}
TOKENS = ("One ", "word ", "after ", "another, ", "naïve ", "😀 ", "日本 ", "👩‍👩‍👧 ", "and\n", "so on.\n\n")
STREAM = re.compile(r"stream (\d+) tokens at (\d+)/s")
MAX_OUTBOX_FRAMES = 10_000
MAX_MERGED = 1_000


def answer_to(content: str) -> tuple[list[str], float]:
    """The tokens of the agent's answer, and the seconds between them."""
    asked = STREAM.search(content)
    if asked is None:
        return [content], 0.0
    count, rate = int(asked[1]), int(asked[2])
    return [TOKENS[n % len(TOKENS)] for n in range(count)], 1 / rate


@dataclass(slots=True)
class Log:
    """One session: its entries, its queue, and who listens."""

    name: str
    entries: list[Json] = field(default_factory=list)
    messages: list[Json] = field(default_factory=list)
    queue: list[Json] = field(default_factory=list)
    running: str | None = None
    cancelled: set[str] = field(default_factory=set)
    seen: dict[str, int] = field(default_factory=dict)
    listeners: set["Client"] = field(default_factory=set)
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    participants: list[Json] = field(default_factory=list)
    as_of: int = 0
    fence: int = 0
    writes: int = 0

    @property
    def head(self) -> int:
        return int(self.entries[-1]["seq"]) if self.entries else self.as_of

    def append(self, events: list[Json], **envelope: Any) -> int:
        """Stores an entry and sends it to every listener. Sequence numbers skip on purpose."""
        head = self.head
        seq = head + 1 + head % 3
        entry = {"op": "entry", "session": self.name, "seq": seq, "prev": head, "ts": int(time.time() * 1000)}
        entry |= envelope | {"events": events}
        entry.setdefault("id", f"{self.fence}-{self.writes}")
        self.entries.append(entry)
        for client in self.listeners:
            client.send(entry)
        return seq

    def agent(self, events: list[Json], **envelope: Any) -> int:
        self.writes += 1
        return self.append(events, lane="main", **envelope)

    def claim(self) -> None:
        """The lane is the agent's from here on."""
        event = {"type": "session.owner", "lane": "main", "kind": "agent", "id": "w"}
        self.fence = self.append([event], lane="main", id="0-0")

    def begin(self, run: str) -> None:
        """A run that a test plays itself, step by step, with `agent`."""
        if not self.fence:
            self.claim()
        self.running = run
        self.agent([{"type": "RUN_STARTED", "threadId": self.name, "runId": run}], run=run)

    def finish(self, run: str) -> None:
        self.running = None
        outcome = {"type": "success"}
        self.agent([{"type": "RUN_FINISHED", "threadId": self.name, "runId": run, "outcome": outcome}], run=run)

    def present(self, *participants: Json) -> None:
        """Who is there now."""
        self.participants = list(participants)
        for client in self.listeners:
            client.send(self.presence())

    def presence(self) -> Json:
        return {"op": "session.presence", "session": self.name, "participants": self.participants}

    def replay(self, after: int) -> list[Json]:
        """The entries after `after`, neighbouring deltas joined into one frame."""
        frames: list[Json] = []
        for entry in (entry for entry in self.entries if entry["seq"] > after):
            if frames and "off" in entry and "off" in frames[-1] and frames[-1].get("merged", 1) < MAX_MERGED:
                last = frames[-1]
                event = last["events"][0]
                joined = event | {"delta": event["delta"] + entry["events"][0]["delta"]}
                merged = last.get("merged", 1) + 1
                frames[-1] = last | {"seq": entry["seq"], "merged": merged, "events": [joined]}
            else:
                frames.append(entry)
        return frames

    def past(self, count: int) -> None:
        """Fills the session with `count` messages of long ago, known to `history` alone."""
        for number in range(count):
            text = f"Message {number} of long ago."
            self.messages.append(message(f"old-{number}", "user", text, number + 1, USERS["token-user-b"]))
        self.as_of = self.fence = count + 1


def message(ident: str, role: str, text: str, seq: int, by: Json | None) -> Json:
    kind = "user" if role == "user" else "agent"
    fields = {"id": ident, "role": role, "text": text, "seq": seq, "end": seq, "lane": "main", "run": None}
    return fields | {"by": {"kind": kind} | (by or {}), "status": "done", "reason": None}


class Client:
    """One WebSocket of the page."""

    def __init__(self, peer: "Peer", socket: web.WebSocketResponse) -> None:
        self.peer = peer
        self.socket = socket
        self.user: Json = {}
        self._outbox: asyncio.Queue[str] = asyncio.Queue(MAX_OUTBOX_FRAMES)

    @property
    def by(self) -> Json:
        return {"kind": "user"} | self.user

    def send(self, frame: Json) -> None:
        self._outbox.put_nowait(json.dumps(frame))

    async def serve(self) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                writer = tasks.create_task(self._write())
                async for received in self.socket:
                    if received.type is WSMsgType.TEXT:
                        self.handle(json.loads(received.data))
                writer.cancel()
        finally:
            for log in self.peer.logs.values():
                log.listeners.discard(self)

    async def _write(self) -> None:
        with suppress(ConnectionError):
            while True:
                await self.socket.send_str(await self._outbox.get())

    def handle(self, command: Json) -> None:
        self.peer.commands.append(command)
        handler = getattr(self, "on_" + command["op"].replace(".", "_"))
        if refusal := self.peer.refusals.pop(command["op"], None):
            reply: Json | None = {"op": "error", "message": refusal["code"]} | refusal
        else:
            reply = handler(command)
        if reply is not None:
            self.send({"op": "ok", "id": command["id"]} | reply)
        if command["op"] == "subscribe" and reply is not None and "epoch" in reply:
            self.join(self.peer.log(command["session"]), command.get("after"))

    def on_hello(self, command: Json) -> Json:
        if command["token"] not in USERS:
            closing = self.socket.close(code=4401, message=b'{"code":"unauthorized"}')
            self.peer.tasks.create_task(closing)
            return {"op": "error", "code": "unauthorized", "message": "no", "retryable": False}
        self.user = USERS[command["token"]]
        limits = {"frame_bytes": 131072, "input_bytes": 65536}
        return {"op": "welcome", "user": self.user, "limits": limits, "heartbeat_ms": self.peer.heartbeat_ms}

    def on_ping(self, command: Json) -> Json | None:
        return {"op": "pong", "ts": 0} if self.peer.answers_pings else None

    def on_subscribe(self, command: Json) -> Json:
        after = command.get("after")
        if after is not None and not after.startswith(self.peer.epoch + ":"):
            return {"op": "error", "code": "cursor_epoch", "message": "no", "retryable": False}
        return {"session": command["session"], "epoch": self.peer.epoch, "head": 0}

    def on_unsubscribe(self, command: Json) -> Json:
        self.peer.log(command["session"]).listeners.discard(self)
        return {}

    def join(self, log: Log, after: str | None) -> None:
        start = log.as_of if after is None else int(after.split(":")[1])
        if after is None:
            lanes = {"main": {"owner": {"kind": "agent", "id": "w"}, "fence": log.fence, "run": None}}
            state = {"lanes": lanes if log.as_of else {}, "runs": [], "inputs": []}
            old = sum(message["seq"] <= log.as_of for message in log.messages)
            snapshot = {"asOf": log.as_of, "messagesBefore": old, "state": state}
            self.send({"op": "session.snapshot", "session": log.name} | snapshot)
        for frame in log.replay(start):
            self.send(frame)
        cursor = f"{self.peer.epoch}:{log.head}"
        self.send({"op": "session.caught_up", "session": log.name, "seq": log.head, "cursor": cursor})
        self.send(log.presence())
        log.listeners.add(self)

    def on_ack(self, command: Json) -> Json:
        return {}

    def on_presence_set(self, command: Json) -> Json:
        return {}

    def on_session_list(self, command: Json) -> Json:
        """Every session that there is a log of."""
        sessions = [{"session": name, "title": None, "status": "idle", "updatedAt": 1} for name in self.peer.logs]
        return {"sessions": sessions, "after": None}

    def on_approval_respond(self, command: Json) -> Json:
        """Counts, unless it is refused on purpose (`Peer.refusals`)."""
        given = {name: command[name] for name in ("approvalId", "option", "payload") if name in command}
        log = self.peer.log(command["session"])
        log.append([{"type": "approval.responded"} | given], by=self.by, id=f"respond:{command['id']}")
        return {"approvalId": command["approvalId"], "status": "resolved", "decision": command["option"], "votes": 1}

    def on_input_send(self, command: Json) -> Json:
        log, ident = self.peer.log(command["session"]), command["inputId"]
        duplicate = ident in log.seen
        if not duplicate:
            given = {key: command[key] for key in ("inputId", "content", "mode") if key in command}
            log.seen[ident] = log.append([{"type": "input.sent"} | given], by=self.by, id=ident)
            log.queue.append(given | {"by": self.by})
            log.wake.set()
        queued = {"status": "queued", "position": 1, "duplicate": duplicate}
        return {"inputId": ident, "runId": "run_" + ident, "seq": log.seen[ident]} | queued

    def on_run_cancel(self, command: Json) -> Json:
        log, run = self.peer.log(command["session"]), command["runId"]
        log.cancelled.add(run)
        event = {"type": "run.cancel.requested", "runId": run, "mode": command["mode"]}
        log.append([event], by=self.by, id="x")
        return {"runId": run, "status": "cancelling"}

    def on_history(self, command: Json) -> Json:
        log = self.peer.log(command["session"])
        before, limit = command.get("before", log.head + 1), command.get("limit", 50)
        whole = [message for message in log.messages if message["end"] < before]
        page = whole[-limit:]
        return {"messages": page, "before": page[0]["seq"] if len(whole) > limit else None}


class Peer:
    """Serves the page, its files and `/v1/connect`; tests turn its knobs."""

    def __init__(self, tasks: asyncio.TaskGroup) -> None:
        self.tasks = tasks
        self.logs: dict[str, Log] = {}
        self.clients: set[Client] = set()
        self.commands: list[Json] = []
        self.refusals: dict[str, Json] = {}
        self.epoch = "e1"
        self.heartbeat_ms = 25_000
        self.answers_pings = True
        self.agents: list[asyncio.Task[None]] = []

    def log(self, name: str) -> Log:
        if name not in self.logs:
            log = self.logs[name] = Log(name)
            self.agents.append(self.tasks.create_task(self.work(log)))
        return self.logs[name]

    async def work(self, log: Log) -> None:
        """The agent: one input after the other."""
        while True:
            await log.wake.wait()
            log.wake.clear()
            while log.queue:
                await self.run(log, log.queue.pop(0))

    async def run(self, log: Log, given: Json) -> None:
        run = log.running = "run_" + given["inputId"]
        if not log.fence:
            log.claim()
        by = {"kind": "agent", "id": "w", "name": "Echo"}
        started = {"type": "RUN_STARTED", "threadId": log.name, "runId": run}
        applied = {"type": "input.applied", "inputId": given["inputId"], "runId": run, "messageId": "u" + run}
        seq = log.agent([started, applied], run=run, by=by)
        log.messages.append(message("u" + run, "user", given["content"], seq, given["by"]))
        text = await self.answer(log, run, "a" + run, given["content"], by)
        reason = "cancelled" if run in log.cancelled else "complete"
        final = {"messageId": "a" + run, "offset": 0, "length": len(text), "final": True, "reason": reason}
        log.agent([{"type": "message.segment"} | final], run=run, by=by)
        ended = {"type": "TEXT_MESSAGE_END", "messageId": "a" + run}
        outcome = {"type": "cancelled" if reason == "cancelled" else "success"}
        finished = {"type": "RUN_FINISHED", "threadId": log.name, "runId": run, "outcome": outcome}
        seq = log.agent([ended, finished], run=run, by=by)
        log.messages.append(message("a" + run, "assistant", text, seq, by))
        log.running = None

    async def answer(self, log: Log, run: str, ident: str, content: str, by: Json) -> str:
        log.agent([{"type": "TEXT_MESSAGE_START", "messageId": ident, "role": "assistant"}], run=run, by=by)
        tokens, pause_s = answer_to(content)
        text = ""
        for token in tokens:
            if run in log.cancelled:
                break
            log.agent([{"type": "TEXT_MESSAGE_CONTENT", "messageId": ident, "delta": token}], off=len(text))
            text += token
            await asyncio.sleep(pause_s)
        return text

    async def close_all(self, code: int, reason: Json) -> None:
        for client in list(self.clients):
            await client.socket.close(code=code, message=json.dumps(reason).encode())

    async def connect(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(protocols=("antiphon.v1",))
        await socket.prepare(request)
        client = Client(self, socket)
        self.clients.add(client)
        try:
            await client.serve()
        finally:
            self.clients.discard(client)
        return socket

    async def page(self, request: web.Request) -> web.StreamResponse:
        path = WEB / request.match_info.get("name", "index.html")
        return web.FileResponse(path, headers={"Content-Security-Policy": CSP, "Cache-Control": "no-cache"})


@asynccontextmanager
async def running_peer() -> AsyncIterator[tuple[Peer, Target]]:
    """A peer on loopback, and where it listens."""
    async with asyncio.TaskGroup() as tasks:
        peer = Peer(tasks)
        app = web.Application()
        routes = [
            web.get("/", peer.page),
            web.get(r"/web/{name:[\w./-]+}", peer.page),
            web.get("/v1/connect", peer.connect),
        ]
        app.add_routes(routes)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            yield peer, ("127.0.0.1", runner.addresses[0][1])
        finally:
            await runner.cleanup()
            for agent in peer.agents:
                agent.cancel()
