"""A reader that counts what it gets, keeps nothing of it, and proves the chain (PROTOCOL, section 3)."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import Any

import orjson

from tests.support.rawclient import Wire, WireClosed

Frame = dict[str, Any]


@dataclass(slots=True)
class Follower:
    """One stay in a session, over one connection. `after` is where it goes on; None: it begins afresh."""

    session: str
    every: bool = False
    after: int | None = None
    epoch: str = ""
    began: int = 0
    """The place after which entries are to come."""
    last: int = 0
    frames: int = 0
    merged: int = 0
    twice: int = 0
    lost: int = 0
    gaps: int = 0
    caught_up: bool = False
    ended: set[str] = field(default_factory=set)
    """Runs whose end has come."""

    async def subscribe(self, wire: Wire) -> None:
        fields: dict[str, Any] = {"session": self.session}
        if self.every:
            fields["replay"] = "every"
        if self.after is not None:
            fields["after"] = f"{self.epoch}:{self.after}"
            self.began = self.last = self.after
        self.epoch = (await wire.command("subscribe", **fields))["epoch"]

    def take(self, frame: Frame) -> None:
        if frame.get("session") != self.session:
            return
        match frame["op"]:
            case "entry":
                self._entry(frame)
            case "session.snapshot":
                self.began = self.last = frame["asOf"]
            case "session.caught_up":
                self.caught_up = True
            case "session.gap":
                self.gaps += 1

    def _entry(self, frame: Frame) -> None:
        self.frames += 1
        self.merged += frame.get("merged", 1) - 1
        if frame["seq"] <= self.last:
            self.twice += 1
            return
        self.lost += frame["prev"] != self.last
        self.last = frame["seq"]
        for event in frame["events"]:
            if event["type"] in ("RUN_FINISHED", "RUN_ERROR"):
                self.ended.add(event.get("runId") or frame["run"])

    async def follow(self, wire: Wire, for_s: float) -> None:
        """Takes what comes for so long. Raises WireClosed."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(for_s):
                while True:
                    self.take(await wire.receive())

    async def until_ended(self, wire: Wire, run_id: str, within_s: float) -> None:
        """Takes what comes until the run has ended. Raises WireClosed, TimeoutError."""
        async with asyncio.timeout(within_s):
            while run_id not in self.ended:
                self.take(await wire.receive())

    async def leave(self, wire: Wire) -> None:
        """Unsubscribes, and takes what had been sent before the reply: so both ends have counted the same."""
        await wire.command("unsubscribe", session=self.session)
        self.rest(wire)
        await wire.close()

    async def cut(self, wire: Wire) -> None:
        """Ends the connection without a word, and takes what was on its way."""
        wire._writer.write_eof()
        with contextlib.suppress(WireClosed):
            while True:
                self.take(await wire.receive())

    def rest(self, wire: Wire) -> None:
        while wire._frames:
            self.take(wire._frames.popleft())


async def read_stream(follower: Follower, content: asyncio.StreamReader | Any) -> None:
    """Takes the frames of server-sent events until the server ends the stream."""
    while line := await content.readline():
        if line.startswith(b"data: {"):
            follower.take(orjson.loads(line[len(b"data: ") :]))
