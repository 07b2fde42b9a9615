"""B13: an interrupt stops the model call itself, keeps the partial text, and runs the new input, all by itself."""

from __future__ import annotations

import asyncio
import contextlib
import random
import statistics
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import orjson
import pytest

from tests.behaviours.conftest import Figure
from tests.support.crew import Crew, owner_of
from tests.support.folding import Reader, agree, reading
from tests.support.nats import NatsNode
from tests.support.plane import refused
from tests.support.stack import Process, Stack

ROUNDS = 15
KILLED_ROUNDS = 3
CLOSED_S = 1.0
"""How long the model may go on after an interrupt, at most."""
CHUNK_S = 0.005
TOOLS = [{"name": name, "description": name, "parameters": {"type": "object"}} for name in ("pick", "sign")]
MODES = ("interrupt", "rollback")

pytestmark = pytest.mark.timeout(120)


@dataclass(slots=True)
class Call:
    """A call of the model: what it was asked, what it has sent so far, and when its caller hung up."""

    prompt: str
    sent: str = ""
    closed: float = 0.0
    over: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(slots=True)
class Model:
    """Streams over HTTP: answers a prompt with ``quick`` in it at once, goes on for ever with any other."""

    url: str = ""
    calls: list[Call] = field(default_factory=list)

    @property
    def going_on(self) -> list[Call]:
        return [call for call in self.calls if not call.over.is_set()]

    def call(self, prompt: str) -> Call:
        """The only call with that prompt."""
        (found,) = [call for call in self.calls if call.prompt == prompt]
        return found

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = (await reader.readuntil(b"\r\n\r\n")).split()[1].decode()
        call = Call(parse_qs(urlsplit(request).query)["prompt"][0])
        self.calls.append(call)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n")
        try:
            if "quick" in call.prompt:
                self._say(call, writer, f"an answer to {call.prompt}")
            else:
                await self._stream(call, reader, writer)
        finally:
            call.closed = time.monotonic()
            call.over.set()
            writer.close()

    async def _stream(self, call: Call, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.TaskGroup() as tasks:
            hung_up = tasks.create_task(_hung_up(reader))
            while not hung_up.done():
                self._say(call, writer, f"w{len(call.sent.split())} ")
                await asyncio.wait({hung_up}, timeout=CHUNK_S)

    def _say(self, call: Call, writer: asyncio.StreamWriter, text: str) -> None:
        call.sent += text
        writer.write(text.encode())


async def _hung_up(reader: asyncio.StreamReader) -> None:
    with contextlib.suppress(ConnectionError):
        await reader.read(1)


@asynccontextmanager
async def model_server() -> AsyncIterator[Model]:
    model = Model()
    server = await asyncio.start_server(model.serve, "127.0.0.1", 0)
    model.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    try:
        yield model
    finally:
        server.close()
        async with asyncio.timeout(10):
            for call in model.calls:
                await call.over.wait()


@dataclass(slots=True)
class World:
    """Two gateways, workers whose agent has a model, and the model."""

    stack: Stack
    gateways: list[Process]
    crew: Crew
    model: Model

    @property
    def token(self) -> str:
        return self.stack.token()


@pytest.fixture(params=[3.0])
async def world(request: pytest.FixtureRequest, tmp_path: Path, nats_server: NatsNode) -> AsyncIterator[World]:
    """With a lease of that many seconds."""
    async with model_server() as model:
        env = {"TEST_MODEL_URL": model.url}
        async with Stack(tmp_path / "stack", nats_server.url, lease_s=request.param, env=env) as stack:
            crew = Crew(stack, "tests.support.agents_steering:thinker")
            async with asyncio.TaskGroup() as tasks:
                gateways = [tasks.create_task(stack.gateway()) for _ in range(2)]
                tasks.create_task(crew.start(2))
            yield World(stack, [task.result() for task in gateways], crew, model)


async def test_the_model_call_is_stopped(world: World, figure: Figure) -> None:
    for mode in MODES:
        figure(f"{mode}: {await _stopped(world, mode)}")


async def _stopped(world: World, mode: str) -> str:
    near_url, far_url = (gateway.url for gateway in world.gateways)
    took_ms: list[float] = []
    async with reading(near_url, world.token, mode) as near, reading(far_url, world.token, mode) as far:
        for i in range(ROUNDS):
            call = await _begun(near, world.model, f"{mode}-{i}")
            begin = time.monotonic()
            await _interrupt((near, far)[i % 2], mode, i)
            async with asyncio.timeout(CLOSED_S):
                await call.over.wait()
            took_ms.append((call.closed - begin) * 1000)
            await _answered((near, far), i)
            assert world.model.going_on == []
        await agree((near, far), far_url, world.token)
    _check_rounds(near, world.model, mode, ROUNDS)
    assert max(took_ms) < CLOSED_S * 1000
    return (
        f"the model's connection closed {statistics.median(took_ms):.0f} ms (worst {max(took_ms):.0f}) after the command, "
        f"{ROUNDS} times; the partial kept, the new input run"
    )


@pytest.mark.parametrize("world", [1.0], indirect=True)
async def test_the_worker_is_killed_meanwhile(world: World, figure: Figure, seed: int) -> None:
    """Every other time before it can have noticed the interrupt; else some milliseconds after."""
    for mode in MODES:
        await _killed(world, mode, random.Random(f"{seed}-{mode}"))
    figure(f"{world.crew.killed} workers killed between the interrupt and the end: the same came of it, seed {seed}")


async def _killed(world: World, mode: str, rng: random.Random) -> None:
    near_url, far_url = (gateway.url for gateway in world.gateways)
    session = f"killed-{mode}"
    async with reading(near_url, world.token, session) as near, reading(far_url, world.token, session) as far:
        for i in range(KILLED_ROUNDS):
            call = await _begun(near, world.model, f"killed-{mode}-{i}")
            owner = owner_of(world.crew.workers, session)
            if i % 2 == 0:
                owner.pause()
            await _interrupt(far, mode, i)
            if i % 2 == 1:
                await asyncio.sleep(rng.uniform(0, 0.01))
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(world.crew.kill(owner))
                tasks.create_task(_answered((near, far), i))
            async with asyncio.timeout(CLOSED_S):
                await call.over.wait()
        await agree((near, far), far_url, world.token)
    _check_rounds(near, world.model, mode, KILLED_ROUNDS, killed=True)


@pytest.mark.parametrize("world", [1.5], indirect=True)
async def test_one_honest_result_for_each_call(world: World, figure: Figure) -> None:
    await _honest(world, "alive", killed=False)
    await _honest(world, "killed", killed=True)
    figure("three open calls, worker alive or killed: not_run, outcome_unknown twice, each once")


async def _honest(world: World, session: str, *, killed: bool) -> None:
    near_url, far_url = (gateway.url for gateway in world.gateways)
    async with reading(near_url, world.token, session) as near, reading(far_url, world.token, session) as far:
        await near.wire.command("unsubscribe", session=session)
        near.place.subscribed(await near.wire.command("subscribe", **near.place.subscription(), tools=TOOLS))
        await near.wire.input(session, "a", "use tools")
        await near.until(lambda state: len(state.calls) == 3)
        ids = {call.name: call.id for call in near.state.calls.values()}
        claim = {"session": session, "toolCallId": ids["sign"], "claimId": "c1"}
        await near.wire.command("tool.claim", **claim)
        await near.until(lambda _: len(near.place.answer("run_a")) > 20)
        owner = owner_of(world.crew.workers, session)
        if killed:
            owner.pause()
        await _interrupt(far, "interrupt", 0)
        if killed:
            await world.crew.kill(owner)
        await _answered((near, far), 0)
        late = await refused(near.wire, "already_resolved", "tool.result", **claim, result="signed")
        assert (late["status"], late["reason"]) == ("failed", "outcome_unknown")
        await refused(near.wire, "already_resolved", "tool.claim", **claim | {"toolCallId": ids["pick"]})
        await agree((near, far), far_url, world.token)
    results = {m["toolCallId"]: orjson.loads(m["text"]) for m in near.messages() if m["role"] == "tool"}
    assert results == {
        ids["pick"]: {"error": "not_run"},
        ids["sign"]: {"error": "outcome_unknown"},
        ids["send"]: {"error": "outcome_unknown"},
    }
    _check_no_dangling(near)
    assert _ends(near) == [("run_a", "cancelled", "interrupt"), ("run_quick-0", "success", None)]


async def _begun(near: Reader, model: Model, input_id: str) -> Call:
    """The model streams, and its words are before the people."""
    session = near.place.session
    await near.wire.input(session, input_id, input_id)
    await near.until(lambda _: len(near.place.answer(f"run_{input_id}")) > 20)
    return model.call(input_id)


async def _interrupt(reader: Reader, mode: str, i: int) -> None:
    session, content = reader.place.session, f"quick-{i}"
    reply = await reader.wire.command("input.send", session=session, inputId=content, content=content, mode=mode)
    assert reply["status"] in ("queued", "applied", "ended")
    assert reply["mode"] in (mode, None)


async def _answered(readers: Sequence[Reader], i: int) -> None:
    for reader in readers:
        await reader.settled([f"quick-{i}"])


def _check_rounds(reader: Reader, model: Model, mode: str, rounds: int, *, killed: bool = False) -> None:
    """In each, a run was cut short and its words kept, and the next one answered."""
    slow = f"killed-{mode}" if killed else mode
    both = [((f"run_{slow}-{i}", "cancelled", mode), (f"run_quick-{i}", "success", None)) for i in range(rounds)]
    assert _ends(reader) == [end for ends in both for end in ends]
    by_run: dict[str, list[dict[str, Any]]] = {}
    for message in reader.messages():
        by_run.setdefault(message["run"], []).append(message)
    for i in range(rounds):
        question, partial = by_run.pop(f"run_{slow}-{i}")
        assert (question["text"], partial["reason"], partial["status"]) == (f"{slow}-{i}", "cancelled", "done")
        assert len(partial["text"]) > 20
        assert model.call(f"{slow}-{i}").sent.startswith(partial["text"])
        assert [m.get("rolledBack", False) for m in (question, partial)] == [mode == "rollback"] * 2
        question, *answers = by_run.pop(f"run_quick-{i}")
        # A worker that is killed once the new run has begun leaves the answer to the next.
        assert len(answers) == 1 or killed
        assert (question["text"], answers[-1]["text"]) == (f"quick-{i}", f"an answer to quick-{i}")
        assert not any("rolledBack" in m for m in (question, *answers))
    assert by_run == {}
    _check_no_dangling(reader)


def _check_no_dangling(reader: Reader) -> None:
    """No text is open, and no call without its one result."""
    messages = reader.messages()
    assert all(message["status"] == "done" for message in messages)
    calls = sorted(message["id"] for message in messages if message["role"] == "tool_call")
    assert sorted(message["toolCallId"] for message in messages if message["role"] == "tool") == calls


def _ends(reader: Reader) -> list[tuple[str, str, str | None]]:
    """Runs, how they ended and why, in order."""
    finished = [e for frame in reader.place.frames or () for e in frame["events"] if e["type"] == "RUN_FINISHED"]
    return [(e["runId"], e["outcome"]["type"], e["outcome"].get("reason")) for e in finished]
