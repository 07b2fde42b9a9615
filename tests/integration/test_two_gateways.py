"""Whoever folds a session comes to the same state: two gateways, the worker, and clients, however they joined."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from antiphon_client import CaughtUp, Client, Session
from broker.loading import load, read_messages
from broker.view import public_view
from tests.support.bare import Bare, bare
from tests.support.nats import NatsNode
from tests.support.stack import Process, Stack

pytestmark = pytest.mark.nats_roles

SESSIONS = 3
ACTORS = 4
ACTIONS = 24
HELLOS = 16
PAUSE_S = 0.06
LONG = "stream 9999 tokens at 50/s"
ANSWERS = [
    *("hello there", "stream 20 tokens at 200/s", "stream 60 tokens", "say 40000 bytes"),
    *("raise", "nothing", "hang", "ä😀 " * 50),
]
EVERYTHING = 1_000_000

View = tuple[Any, list[dict[str, Any]]]
"""A state, and messages."""


@dataclass(slots=True)
class Room:
    """A session that several people use at once; what they have sent is known to all of them."""

    name: str
    chance: random.Random
    long: bool
    """Something long is being said there, which nobody stops."""
    sent: list[str] = field(default_factory=list)

    async def act(self, client: Bare, actor: int) -> None:
        """One person does something; what it comes to, the log decides."""
        match self.chance.choice(["send", "send", "send", "again", "take back", "stop", "stop"]):
            case "send":
                self.sent.append(f"i{actor}-{len(self.sent)}")
                await self._send(client, self.sent[-1])
            case "again" if self.sent:
                await self._send(client, self.chance.choice(self.sent))
            case "take back" if self.sent:
                await self._ask(client, "input.cancel", inputId=self.chance.choice(self.sent))
            case "stop" if self.sent:
                await self._ask(client, "run.cancel", runId=f"run_{self.chance.choice(self.sent[-3:])}")
            case _:
                pass

    async def _send(self, client: Bare, input_id: str) -> None:
        # The content depends on the id alone: who sends an id again sends the same.
        await self._ask(client, "input.send", inputId=input_id, content=random.Random(input_id).choice(ANSWERS))

    async def _ask(self, client: Bare, op: str, **fields: str) -> None:
        reply = await client.ask(op, session=self.name, **fields)
        harmless = {"queue_full", "input_not_found", "input_already_applied", "run_not_found", "run_ended"}
        assert reply["op"] == "ok" or reply["code"] in harmless, reply


async def test_everybody_folds_to_the_same_state(tmp_path: Path, nats_server: NatsNode) -> None:
    async with Stack(tmp_path / "stack", nats_server.url, lease_s=1.0) as stack:
        async with asyncio.TaskGroup() as tasks:
            worker = tasks.create_task(stack.worker())
            gateways = [await stack.gateway(), await stack.gateway()]
        rooms = [Room(f"room-{seed}", random.Random(seed), long=seed == 0) for seed in range(SESSIONS)]
        async with contextlib.AsyncExitStack() as opened:
            client = await opened.enter_async_context(Client(gateways[0].url, stack.token("watcher")))
            watching = {room.name: client.session(room.name) for room in rooms}
            for session in watching.values():
                await caught_up(session)
            async with asyncio.TaskGroup() as tasks:
                for room in rooms:
                    tasks.create_task(talk(stack, gateways, room))
                tasks.create_task(change_workers(stack, worker.result(), watching[rooms[0].name]))
            for room in rooms:
                await come_to_a_standstill(stack, gateways[0], room)
            whole = [message for room in rooms for message in await compare(stack, gateways, room, watching[room.name])]
    happened = Counter(message["reason"] for message in whole)
    assert {"complete", "cancelled", "worker_lost"} <= happened.keys(), happened


async def change_workers(stack: Stack, worker: Process, session: Session) -> None:
    """The one that is at work everywhere dies in the middle of an answer; another comes and takes over."""

    async def said(status: str, reason: str | None = None) -> None:
        while not any((m.text[:3], m.status, m.reason) == ("t0 ", status, reason) for m in session.messages):
            await asyncio.sleep(0.005)

    async with asyncio.timeout(40):
        await said("streaming")
        await worker.kill()
        await stack.worker()
        await said("done", "worker_lost")


async def talk(stack: Stack, gateways: list[Process], room: Room) -> None:
    async def actor(number: int) -> None:
        async with bare(gateways[number % 2].url, stack.token(f"user-{number}")) as client:
            for _ in range(ACTIONS):
                await room.act(client, number)
                await asyncio.sleep(room.chance.expovariate(1 / PAUSE_S))  # people take their time

    async with Client(gateways[0].url, stack.token()) as client:
        # With pauses between them, so that there is a place for a checkpoint.
        for number in range(HELLOS):
            room.sent.append(f"hello{number}")
            await (await client.session(room.name).send("hello", input_id=room.sent[-1])).finished()
        if room.long:
            await client.session(room.name).send(LONG)
    async with asyncio.TaskGroup() as tasks:
        for number in range(ACTORS):
            tasks.create_task(actor(number))


async def come_to_a_standstill(stack: Stack, gateway: Process, room: Room) -> None:
    """Ends what runs and waits, and leaves one run that hangs and is to stay, with two inputs behind it."""
    async with Client(gateway.url, stack.token("janitor")) as client:
        session = client.session(room.name)
        async for event in session.events():
            if isinstance(event, CaughtUp):
                break
        async with asyncio.timeout(30):
            await stop_all(session)
        receipt = await session.send("hang")
        await receipt.applied()
        for text in ("and this", "and that"):
            await session.send(text)


async def stop_all(session: Session) -> None:
    """Stops run after run until nothing is left."""
    stopped: set[str] = set()
    events = session.events()
    while session.state.runs or session.state.inputs:
        for run in session.state.runs:
            if run.run_id not in stopped:
                stopped.add(run.run_id)
                with contextlib.suppress(Exception):
                    await session.cancel(run.run_id)
        await anext(events)


async def compare(stack: Stack, gateways: list[Process], room: Room, live: Session) -> list[dict[str, Any]]:
    """Checks that all views of a session are one. Returns its messages."""
    async with stack.log() as log:
        subjects = log.subjects(room.name)
        loaded = await load(log, subjects)
        head = await log.head(subjects)
        assert head is not None
        whole = [message.as_dict() for message in await read_messages(log, subjects, head.seq + 1, EVERYTHING)]
    state = public_view(loaded.state)
    assert len(state["runs"]) == 1
    assert len(state["inputs"]) == 2
    assert loaded.checkpoint.state.as_of > 0

    latest = [message.as_dict() for message in loaded.transcript.messages]
    assert latest == whole[len(whole) - len(latest) :], "the worker"
    async with asyncio.timeout(20):
        async for _ in live.events():
            if live.cursor is not None and live.cursor.endswith(f":{head.seq}"):
                break
    assert view(live) == (state, whole), "a client that was there all the time"
    for gateway in gateways:
        for every in (True, False):
            async with joined(stack, gateway, room.name, every=every) as session:
                folded, messages = view(session)
                assert folded == state, (gateway.name, every)
                assert messages == whole[len(whole) - len(messages) :], (gateway.name, every)
                assert len(messages) == len(whole) or not every
                assert [message.as_dict() for message in (await session.history(limit=200)).messages] == whole
    return whole


@contextlib.asynccontextmanager
async def joined(stack: Stack, gateway: Process, name: str, *, every: bool) -> AsyncIterator[Session]:
    async with Client(gateway.url, stack.token("newcomer")) as client:
        session = client.session(name, every=every)
        await caught_up(session)
        yield session


async def caught_up(session: Session) -> None:
    async for event in session.events():
        if isinstance(event, CaughtUp):
            return


def view(session: Session) -> View:
    assert session.error is None
    return session.state.as_dict(), [message.as_dict() for message in session.messages]
