"""Whoever may write to NATS writes what they like: a worker in wrong hands, one of another version, one with a fault.

Every reader of that session goes on, and comes to the same; other sessions on the same gateway and worker notice nothing.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any

import nats
import orjson
import psutil
import pytest
import pytest_asyncio
from nats.aio.client import Client as Nats

from antiphon_client import CaughtUp, Client
from broker.checkpoint import Checkpoint, encode_checkpoint
from broker.codec import entry_from_wire
from broker.state import SessionState
from broker.subjects import SessionSubjects
from broker.transcript import Transcript
from broker.view import public_view
from tests.conformance.test_hostile_logs import alike
from tests.conformance.test_readers_agree import BUILT, folding, python_client
from tests.fuzz.catalogue import drawn
from tests.support.folding import history
from tests.support.http import Http
from tests.support.nats import single_server
from tests.support.place import Place
from tests.support.rawclient import Wire
from tests.support.stack import Process, Stack

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240)]

SEED = os.environ.get("FUZZ_SEED", "1")
TRIALS = int(os.environ.get("FUZZ_TRIALS", "80"))
"""Entries that are written to a session."""
GROWTH_BYTES = 128 << 20
FOREIGN = "words of another session"


@dataclass(frozen=True, slots=True)
class World:
    """Two gateways, a worker, and a connection to NATS that may write whatever a worker and a gateway may."""

    stack: Stack
    gateways: tuple[Process, Process]
    worker: Process
    nats: Nats

    def subjects(self, session: str) -> SessionSubjects:
        return SessionSubjects.of(session, self.stack.partitions)

    async def write(self, session: str, where: str, body: bytes) -> int:
        """Returns the entry's sequence."""
        answer = orjson.loads(
            (await self.nats.request(f"{self.subjects(session).root}.{where}", body, timeout=20)).data
        )
        assert "error" not in answer, answer
        return int(answer["seq"])

    def no_fault(self) -> None:
        for process in (*self.gateways, self.worker):
            assert process.running
            assert "Traceback" not in process.output(), process.output()[-5_000:]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    directory = tmp_path_factory.mktemp("writers")
    async with single_server(directory / "nats") as server, Stack(directory / "stack", server.url) as stack:
        one, other = await stack.start(2, 1)
        connection = await nats.connect(server.url)
        try:
            worker = next(process for process in stack.processes if process.name.startswith("worker"))
            yield World(stack, (one, other), worker, connection)
        finally:
            await connection.close()


async def is_served(world: World, session: str) -> None:
    """Somebody else talks with the agent, by each gateway."""
    for number, gateway in enumerate(world.gateways):
        place = Place(f"{session}-{number}")
        async with await Wire.open(gateway.url, world.stack.token("bystander")) as wire:
            await wire.subscribe(place)
            run = (await wire.input(place.session, "hello", FOREIGN))["runId"]
            await wire.follow(place, lambda place, run=run: run in place.ended, wait_s=60)
        assert place.answer(run) == FOREIGN
        assert place.whole


@dataclass(slots=True)
class Listener:
    """A client that takes what comes for what it is: it checks the chain, and folds as gateways do."""

    session: str
    wire: Wire
    last: int = 0
    frames: list[dict[str, Any]] = field(default_factory=list)
    transcript: Transcript = field(default_factory=Transcript)

    async def reached(self, seq: int) -> None:
        async with asyncio.timeout(60):
            while self.last < seq:
                frame = await self.wire.receive()
                if frame["op"] != "entry":
                    continue
                assert frame["session"] == self.session
                assert frame["prev"] == self.last < frame["seq"], frame
                self.last = frame["seq"]
                self.frames.append(frame)
                self.transcript.apply(frame["seq"], entry_from_wire(frame))

    def folded(self) -> Any:
        messages = [message.as_dict() for message in self.transcript.messages]
        return orjson.loads(orjson.dumps({"state": public_view(self.transcript.state), "messages": messages}))


@asynccontextmanager
async def listening(url: str, token: str, session: str, **how: Any) -> AsyncIterator[Listener]:
    async with await Wire.open(url, token) as wire:
        await wire.command("subscribe", session=session, **how)
        yield Listener(session, wire)


async def heard_the_same(world: World, session: str) -> None:
    """Readers at both gateways, who replay or begin with a snapshot, and the clients come to the same."""
    url, other_url, token = world.gateways[0].url, world.gateways[1].url, world.stack.token()
    async with (
        listening(url, token, session, replay="every") as one,
        listening(other_url, token, session, replay="every") as other,
        listening(other_url, token, session) as merged,
    ):
        last = await world.write(session, "r.in", orjson.dumps({"id": "last", "ts": 1, "events": []}))
        for reader in (one, other, merged):
            await reader.reached(last)
        folded = one.folded()
        assert [f["seq"] for f in one.frames] == [f["seq"] for f in other.frames]
        assert other.folded() == merged.folded() == folded
        told = await history(one.wire, session)
        assert [m["id"] for m in told] == [m["id"] for m in folded["messages"] if m["status"] == "done"]
    assert python_client(None, one.frames) == folded
    if BUILT.exists():
        with folding("fold_logs_typescript.mjs") as read:
            assert alike(read(None, one.frames)) == alike(folded)
    async with Client(other_url, token) as client:
        opened = client.session(session)
        async with asyncio.timeout(60):
            async for event in opened.events():
                if isinstance(event, CaughtUp):
                    break
        assert [message.text for message in opened.messages] == [message["text"] for message in folded["messages"]]


def hostile_lines(chance: Random) -> list[tuple[str, bytes]]:
    found = []
    while len(found) < TRIALS:
        where, _, body = drawn("entries", chance).partition(b" ")
        fits = (
            where.isascii() and where.decode() in ("r.in", "r.ev.main", "r.own.main", "d.main") and len(body) < 900_000
        )
        # After a deletion the log begins anew, and who comes later has not read what was before it.
        if fits and b"session.deleted" not in body:
            found.append((where.decode(), body))
    return found


async def test_anything(world: World) -> None:
    session, chance = "anything", Random(f"writers-{SEED}")
    processes = [psutil.Process(process.pid) for process in (*world.gateways, world.worker)]
    before = [process.memory_info().rss for process in processes]
    async with listening(world.gateways[0].url, world.stack.token(), session, replay="every") as live:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(is_served(world, "meanwhile"))
            for where, body in hostile_lines(chance):
                last = await world.write(session, where, body)
        await live.reached(last)
    await heard_the_same(world, session)
    await is_served(world, "afterwards")
    assert all(process.memory_info().rss - was < GROWTH_BYTES for process, was in zip(processes, before, strict=True))
    world.no_fault()


def claim(**more: Any) -> bytes:
    event = {"type": "session.owner", "lane": "main", "kind": "agent", "id": "w"}
    return orjson.dumps({"id": "own", "lane": "main", "ts": 1, "events": [event], **more})


def lane(fence: int, n: int, *events: dict[str, Any], **more: Any) -> bytes:
    return orjson.dumps({"id": f"{fence}-{n}", "lane": "main", "ts": 1, "events": list(events), **more})


START = {"type": "TEXT_MESSAGE_START", "messageId": "m1", "role": "assistant"}
DELTA = {"type": "TEXT_MESSAGE_CONTENT", "messageId": "m1", "delta": "x"}


def nested(depth: int) -> bytes:
    return b'{"id":"deep-%d","ts":1,"events":[{"type":"CUSTOM","value":%b}]}' % (depth, b"[" * depth + b"]" * depth)


async def test_a_token_that_is_about_another_session_stays_where_it_is(world: World) -> None:
    """What stands in a frame twice counts as it stood last: a body must not bring a `session` of its own."""
    token = world.stack.token()
    mine, other = Place("spoofing", every=True, frames=[]), Place("spoofed", every=True, frames=[])
    async with await Wire.open(world.gateways[0].url, token) as wire:
        await wire.subscribe(mine)
        await wire.subscribe(other)
        fence = await world.write("spoofing", "r.own.main", claim())
        await world.write("spoofing", "r.ev.main", lane(fence, 1, START))
        for n, more in enumerate(({"session": "spoofed"}, {"op": "ok"}, {"seq": 1}, {"prev": -1}, {"merged": 9}), 2):
            last = await world.write("spoofing", "d.main", lane(fence, n, DELTA, off=n - 2, **more))
        await wire.follow(mine, lambda place: place.last >= last)
        # A reader who comes later is sent them joined.
        late = Place("spoofing")
        async with await Wire.open(world.gateways[1].url, token) as later:
            await later.subscribe(late)
            await later.follow(late, lambda place: place.last >= last)
    assert not other.entries
    assert mine.whole
    assert str(mine.texts["m1"]) == str(late.texts["m1"]) == "xxxxx"
    world.no_fault()


async def test_what_is_no_token_is_none_among_tokens(world: World) -> None:
    """Gateways fold records alone: a record that is put where tokens are must not count for clients either."""
    session = "no-tokens"
    fence = await world.write(session, "r.own.main", claim())
    finished = {"type": "RUN_STARTED", "threadId": session, "runId": "run_x"}
    bodies = [
        lane(fence, 1, finished),
        lane(fence, 2, finished, off=0),
        lane(fence, 3, DELTA),
        b"",
        b"}",
        b"\xff",
        b"[1]",
    ]
    bodies += [b'{"id":"x","ts":1,"events":[]}},{"op":"entry"', lane(fence, 4, DELTA, DELTA, off=0)]
    for body in bodies:
        await world.write(session, "d.main", body)
    await heard_the_same(world, session)
    world.no_fault()


async def test_what_is_nested_deeply_says_nothing(world: World) -> None:
    session = "deep"
    for depth in (100, 180, 200, 250, 300, 1_000, 1_025, 100_000):
        await world.write(session, "r.in", nested(depth))
        await world.write(session, "d.main", nested(depth))
    await heard_the_same(world, session)
    await is_served(world, "after-deep")
    world.no_fault()


async def test_names_that_mean_something_to_javascript(world: World) -> None:
    session = "names"
    for name in ("__proto__", "constructor", "toString", "hasOwnProperty"):
        own = {"type": "session.owner", "lane": name, "kind": "agent", "id": name}
        body = orjson.dumps({"id": "own", "lane": name, "ts": 1, "events": [own]})
        fence = await world.write(session, f"r.own.{name}", body)
        run = {"type": "RUN_STARTED", "threadId": session, "runId": f"run_{name}"}
        call = {"type": "tool.requested", "toolCallId": name, "name": name, "args": {name: 1}, "executor": "client"}
        start = {"type": "TEXT_MESSAGE_START", "messageId": name, "role": name}
        record = {"id": f"{fence}-1", "lane": name, "ts": 1, "events": [run, call, start]}
        await world.write(session, f"r.ev.{name}", orjson.dumps(record))
        config = {"type": "session.updated", "metadata": {name: {name: 1}}, "config": {"roles": {name: {}}}}
        await world.write(session, "r.in", orjson.dumps({"id": f"c-{name}", "ts": 1, "events": [config]}))
    await heard_the_same(world, session)
    world.no_fault()


async def test_a_very_large_entry_holds_nobody_up(world: World) -> None:
    """As large as NATS takes it, of as many events as fit: more than an entry may have, and as many as it may."""
    session = "large"
    fence = await world.write(session, "r.own.main", claim())
    for n, count in enumerate((4_096, 12_000), 1):
        events = [{"type": "TEXT_MESSAGE_START", "messageId": f"m{n}-{i}", "role": "x"} for i in range(count)]
        await world.write(session, "r.ev.main", lane(fence, n, *events))
    await world.write(session, "r.in", b'{"id":"zeros","ts":1,"events":[' + b"0," * 450_000 + b"0]}")
    await is_served(world, "beside-large")
    await heard_the_same(world, session)
    world.no_fault()


async def test_a_checkpoint_that_lies_about_its_place_is_none(world: World) -> None:
    session = "checkpoint"
    await world.write(
        session, "r.in", b'{"id":"i1","ts":1,"events":[{"type":"input.sent","inputId":"i1","content":"Hi"}]}'
    )
    subject = world.subjects(session).checkpoint
    for body in (
        encode_checkpoint(Checkpoint(SessionState(as_of=2**40))),
        encode_checkpoint(Checkpoint(SessionState())).replace(b'"metadata":{}', b'"metadata":7'),
        b"[" * 2_000,
        b"{}",
    ):
        answer = orjson.loads((await world.nats.request(subject, body, timeout=20)).data)
        assert "error" not in answer, answer
        for gateway in world.gateways:
            async with Http(gateway.url, world.stack.token()) as http:
                page = await http.ok("GET", f"/v1/sessions/{session}")
                assert page["session"] == session
    await heard_the_same(world, session)
    world.no_fault()


async def test_pages_that_use_the_ai_sdk_or_ag_ui_read_on(world: World) -> None:
    """Their streams are open while hostile entries come; how they end is up to what those say, if they end at all."""
    session, chance = "pages", Random(f"pages-{SEED}")
    url, token = world.gateways[0].url, world.stack.token()
    run_input = {"threadId": session, "runId": "r1", "messages": [{"id": "i1", "role": "user", "content": "Hi"}]}
    chat = {"id": session, "messages": [{"id": "i2", "role": "user", "parts": [{"type": "text", "text": "Hi"}]}]}
    async with Http(url, token) as http:
        asked = [
            asyncio.get_running_loop().create_task(http.ask("POST", path, body))
            for path, body in (("/v1/ag-ui", run_input), ("/v1/ai-sdk/6", chat))
        ]
        for where, body in hostile_lines(chance)[:80]:
            await world.write(session, where, body)
        ended, still_open = await asyncio.wait(asked, timeout=1)
        for task in still_open:
            task.cancel()
        assert all(task.result().status < 500 for task in ended)
        page = await http.ok("GET", f"/v1/ai-sdk/6/{session}/messages")
        assert all(message["role"] in ("system", "user", "assistant") for message in page["messages"])
    await is_served(world, "after-pages")
    world.no_fault()
