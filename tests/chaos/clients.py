"""A client that records all it sends, is told and sees, and that never gives up what it has begun.

It speaks the wire protocol by `tests.support.rawclient.Wire` alone, and does as PROTOCOL says: it resumes with its cursor
at whatever gateway, sends again with the same ids what has no reply, and leaves a gateway that has gone silent.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from websockets.exceptions import InvalidHandshake, InvalidState

from tests.chaos import history
from tests.support.place import Frame
from tests.support.rawclient import Refusal, Wire, WireClosed

SILENT_S = 5.0
"""A gateway that says nothing for so long is left. It answers commands sooner, if only by `unavailable`, and pings who says
nothing each second."""
OPEN_S = 4.0
TICK_S = 0.05
AGAIN_S = 0.2
RESTS = 0.03
"""How often a slow client rests after a frame."""
_RETRY_MAX_S = 1.0
_GONE = (WireClosed, InvalidHandshake, InvalidState, OSError, TimeoutError, EOFError)
Key = str


@dataclass(slots=True)
class Command:
    """A command that has no final reply yet."""

    op: str
    fields: dict[str, Any]
    sent_as: int | None = None
    """Its id on this connection."""
    not_before: float = 0.0


@dataclass(slots=True)
class Manner:
    """How a client behaves."""

    every: bool = False
    """It takes every entry by itself, also on resuming."""
    slow_s: float = 0.0
    """It rests for up to so long now and then."""
    stays_s: float = 3.0
    """It goes to another gateway after up to so long."""


@dataclass(slots=True)
class RecordingClient:
    """One user in one session: `live` until `leave`. What it does there is up to `play`, and `answer` for what comes."""

    name: str
    session: str
    urls: list[str]
    token: str
    rng: random.Random
    manner: Manner
    record: Callable[[history.Record], None]
    since: float
    tools: list[dict[str, Any]]
    on_event: Callable[[RecordingClient, Frame, dict[str, Any]], None] = lambda *_: None
    on_reply: Callable[[RecordingClient, Command, Frame], None] = lambda *_: None
    on_turn: Callable[[RecordingClient], None] = lambda *_: None
    epoch: str | None = None
    last: int | None = None
    commands: dict[Key, Command] = field(default_factory=dict)
    connections: int = 0
    leaving: bool = False
    moving: bool = False
    _sub: int = 0
    _epoch: str = ""

    def at(self) -> int:
        """Milliseconds since the round began."""
        return int((time.monotonic() - self.since) * 1000)

    def begin(self, op: str, key: Key, **fields: Any) -> None:
        """Sends a command until it has a final reply. A key names one command for ever."""
        self.commands[key] = Command(op, {"session": self.session, **fields})

    def leave(self) -> None:
        self.leaving = True

    def move(self) -> None:
        """It leaves its connection now, and goes on with its cursor on another one."""
        self.moving = True

    def reached(self, seq: int) -> bool:
        """It has no command without a reply, and has seen this entry."""
        return not self.commands and self.last is not None and self.last >= seq

    async def live(self) -> None:
        """Connects again and again until it is told to leave."""
        while not self.leaving:
            why = "moved on"
            try:
                async with asyncio.timeout(OPEN_S):
                    wire = await Wire.open(self.rng.choice(self.urls), self.token)
            except (*_GONE, Refusal):
                await asyncio.sleep(self.rng.uniform(0.05, AGAIN_S))
                continue
            async with wire:
                try:
                    await self._stay(wire)
                except _GONE as error:
                    why = type(error).__name__
                except Refusal as refusal:
                    why = refusal.code
            self.record(history.Left(self.at(), self.name, self._sub, why))
            await asyncio.sleep(self.rng.uniform(0, AGAIN_S))

    async def _stay(self, wire: Wire) -> None:
        self.connections += 1
        for command in self.commands.values():
            command.sent_as = None
        await self._subscribe(wire)
        until = time.monotonic() + self.rng.uniform(0.5, 1.0) * self.manner.stays_s
        heard, heard_at = wire.received, time.monotonic()
        self.moving = False
        while not self.leaving and not self.moving and time.monotonic() < until:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TICK_S):
                    self._take(await wire.receive())
                heard_at = time.monotonic()
            self._answers(wire)
            self.on_turn(self)
            self._send(wire)
            if wire.received != heard:
                heard, heard_at = wire.received, time.monotonic()
            elif time.monotonic() - heard_at > SILENT_S:
                raise TimeoutError
            if self.manner.slow_s and self.rng.random() < RESTS:
                await asyncio.sleep(self.rng.uniform(0, self.manner.slow_s))

    async def _subscribe(self, wire: Wire) -> None:
        fields: dict[str, Any] = {"session": self.session, "tools": self.tools}
        after = None
        if self.epoch is not None and self.last is not None:
            after = self.last
            fields["after"] = f"{self.epoch}:{after}"
        if self.manner.every:
            fields["replay"] = "every"
        self._sub += 1
        try:
            async with asyncio.timeout(OPEN_S):
                reply = await wire.command("subscribe", **fields)
        except Refusal as refusal:
            self._told("subscribe", f"subscribe-{self._sub}", refusal.reply)
            raise
        self._epoch = reply["epoch"]
        self.record(history.Joined(self.at(), self.name, self._sub, after, self.manner.every))

    # --- what comes --------------------------------------------------------------------------------------------------

    def _take(self, frame: Frame) -> None:
        if frame.get("session") != self.session:
            return
        match frame["op"]:
            case "entry":
                body = {key: value for key, value in frame.items() if key not in ("op", "session")}
                self.record(history.EntrySeen(self.at(), self.name, self._sub, body))
                self.last = max(self.last or 0, frame["seq"])
                for event in frame["events"]:
                    self.on_event(self, frame, event)
            case "session.snapshot":
                self.record(history.Snapshot(self.at(), self.name, self._sub, frame["asOf"]))
                self.last, self.epoch = frame["asOf"], self._epoch
            case "session.caught_up":
                self.record(history.CaughtUp(self.at(), self.name, self._sub, frame["seq"]))
            case "session.gap":
                self.record(history.Gap(self.at(), self.name, self._sub, frame["from"], frame["to"]))
                self.last = None
            case _:
                pass

    def _answers(self, wire: Wire) -> None:
        for key, command in list(self.commands.items()):
            reply = None if command.sent_as is None else wire.answered(command.sent_as)
            if reply is None:
                continue
            self._told(command.op, key, reply)
            if reply["op"] == "error" and reply["retryable"] and reply["code"] != "queue_full":
                wait_s = min(_RETRY_MAX_S, reply.get("retry_after_ms", 100) / 1000)
                command.sent_as, command.not_before = None, time.monotonic() + wait_s
            else:
                del self.commands[key]
                self.on_reply(self, command, reply)

    def _told(self, op: str, key: Key, reply: Frame) -> None:
        body = {name: value for name, value in reply.items() if name not in ("op", "id")}
        self.record(history.Answer(self.at(), self.name, op, key, reply["op"] == "ok", body))

    def _send(self, wire: Wire) -> None:
        for key, command in self.commands.items():
            if command.sent_as is None and time.monotonic() >= command.not_before:
                command.sent_as = wire.send(command.op, **command.fields)
                self.record(history.Sent(self.at(), self.name, command.op, key, command.fields))
