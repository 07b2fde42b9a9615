"""Gateways without a worker: the test plays the lane's owner itself, and says what a run waits for."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jwt
import pytest

from broker.config import LogSettings
from broker.events import Entry, Event, InputApplied, Participant, RunFinished, RunStarted, TextMessageContent
from broker.jetstream.connection import Connection
from broker.jetstream.log import JetStreamLog
from broker.loading import load_state
from broker.state import SessionState
from broker.subjects import MAIN_LANE
from tests.support.nats import single_server
from tests.support.place import Frame
from tests.support.rawclient import Refusal, Wire
from tests.support.stack import Process, Stack, open_log, read_entries

AGENT = Participant("agent", "w-test")
EVERYTHING = ("admin",)


def now_ms() -> int:
    return int(time.time() * 1000)


@dataclass(slots=True)
class LaneOwner:
    """Writes a lane as a worker would."""

    log: JetStreamLog
    session: str
    lane: str = MAIN_LANE
    fence: int = 0
    n: int = 0
    run: str | None = None

    async def claim(self, *can: str) -> int:
        subjects = self.log.subjects(self.session)
        self.fence = await self.log.claim(subjects, self.lane, self.fence, AGENT, now_ms(), can)
        self.n = 0
        return self.fence

    async def write(self, *events: Event, off: int | None = None) -> int:
        self.n += 1
        by = AGENT if off is None else None
        entry = Entry(f"{self.fence}-{self.n}", now_ms(), events, self.lane, self.run if off is None else None, by, off)
        return await self.log.append(self.log.subjects(self.session), self.lane, self.fence, entry)

    async def start(self, input_id: str) -> str:
        """Begins the run of an input that waits."""
        self.run = f"run_{input_id}"
        await self.write(RunStarted(self.session, self.run, "1.0"), InputApplied(input_id, self.run, f"msg_{input_id}"))
        return self.run

    async def delta(self, message_id: str, off: int, text: str) -> int:
        return await self.write(TextMessageContent(message_id, text), off=off)

    async def finish(self) -> int:
        assert self.run is not None
        return await self.write(RunFinished(self.session, self.run, {"type": "success"}))


@dataclass(slots=True)
class PlaneWorld:
    """Two gateways, the log, and sessions that no other test has."""

    stack: Stack
    gateways: Sequence[Process]
    connection: Connection
    log: JetStreamLog
    _names: Iterator[int] = field(default_factory=itertools.count)

    def session(self) -> str:
        return f"plane-{next(self._names)}"

    def token(
        self, user: str, rights: Sequence[str] = EVERYTHING, roles: Sequence[str] = (), *, tenant: str = ""
    ) -> str:
        claims: dict[str, Any] = {"sub": user, "exp": time.time() + 3600, "sessions": {"*": list(rights)}}
        if tenant:
            claims["tenant"] = tenant
        secret = (self.stack.directory / "secret").read_text()
        return jwt.encode(claims | {"roles": list(roles)}, secret, "HS256")

    async def wire(
        self, user: str = "user-1", rights: Sequence[str] = EVERYTHING, roles: Sequence[str] = (), *, gateway: int = 0
    ) -> Wire:
        """A connection of a user: `async with await world.wire(...) as wire`."""
        return await Wire.open(self.gateways[gateway].url, self.token(user, rights, roles))

    async def running(self, session: str, *can: str) -> LaneOwner:
        """A session in which the run of input `first`, of user-1, is going on."""
        async with await self.wire() as wire:
            await wire.input(session, "first", "do something")
        owner = LaneOwner(self.log, session)
        await owner.claim(*can)
        await owner.start("first")
        return owner

    async def state(self, session: str) -> SessionState:
        return await load_state(self.log, self.log.subjects(session))

    async def entries(self, session: str) -> list[Entry]:
        return [entry for _, entry in await read_entries(self.log, session)]

    async def events(self, session: str, type_: str) -> list[Any]:
        """The events of a type that the log holds, in order."""
        entries = await self.entries(session)
        return [e for entry in entries for e in entry.events if getattr(e, "TYPE", getattr(e, "type", "")) == type_]


@contextlib.asynccontextmanager
async def plane_world(directory: Path, **env: str) -> AsyncIterator[PlaneWorld]:
    """`env` is for the gateways, without its prefix."""
    async with (
        single_server(directory / "nats") as nats,
        Stack(directory / "stack", nats.url) as stack,
        open_log(nats.url, LogSettings(lease_s=stack.lease_s)) as (connection, log),
    ):
        gateways = await stack.start(2, workers=0, **env)
        yield PlaneWorld(stack, gateways, connection, log)
        for gateway in gateways:
            assert "Traceback" not in gateway.output()


async def refused(wire: Wire, code: str, op: str, **fields: Any) -> Frame:
    """The reply to a command that must be refused with a code."""
    with pytest.raises(Refusal) as caught:
        await wire.command(op, **fields)
    assert caught.value.code == code, caught.value.reply
    return caught.value.reply


async def at_once(*commands: tuple[Wire, str, dict[str, Any]]) -> tuple[list[Frame], list[Frame]]:
    """Sends commands on several connections at the same time; the replies of those that won, and of the refused."""
    won: list[Frame] = []
    lost: list[Frame] = []

    async def one(wire: Wire, op: str, fields: dict[str, Any]) -> None:
        try:
            won.append(await wire.command(op, **fields))
        except Refusal as refusal:
            lost.append(refusal.reply)

    async with asyncio.TaskGroup() as tasks:
        for command in commands:
            tasks.create_task(one(*command))
    return won, lost
