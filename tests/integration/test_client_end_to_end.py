"""The Python client against real gateways: what it sends, reads, remembers, and proves to itself."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count, pairwise

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web

from antiphon_client import (
    CaughtUp,
    Client,
    ConnectFailed,
    ContentTooLarge,
    Entry,
    InputNotApplied,
    NotAllowed,
    NotFound,
    QueueFull,
    Session,
    Settings,
    Snapshot,
    TooLate,
    Unauthorized,
)
from tests.support.nats import single_server
from tests.support.stack import Process, Stack

pytestmark = pytest.mark.asyncio(loop_scope="module")

TOKENS = 150
ANSWER = "".join(f"t{n} " for n in range(TOKENS))
QUESTION = f"stream {TOKENS} tokens at 100/s"


@dataclass(frozen=True, slots=True)
class World:
    """A gateway and a worker; more gateways for tests that end some."""

    stack: Stack
    gateway: Process
    sessions: count[int]

    def session(self) -> str:
        return f"s{next(self.sessions)}"

    def client(self, user: str = "user-1") -> Client:
        return Client(self.gateway.url, self.stack.token(user))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    directory = tmp_path_factory.mktemp("client")
    async with (
        single_server(directory / "nats") as nats,
        Stack(directory / "stack", nats.url) as stack,
        asyncio.TaskGroup() as tasks,
    ):
        worker = tasks.create_task(stack.worker())
        gateway = await stack.gateway(jwt_leeway_s="0")
        await worker
        yield World(stack, gateway, count())


async def read(session: Session, until: Callable[[], bool]) -> list[Entry]:
    """Takes events until that holds; the entries among them, whose chain is checked."""
    entries: list[Entry] = []
    last: int | None = None
    async with asyncio.timeout(30):
        async for event in session.events():
            match event:
                case Snapshot():
                    last = event.as_of
                case Entry():
                    assert last in (None, event.prev), "an entry is missing"
                    last = event.seq
                    entries.append(event)
                case _:
                    pass
            if until():
                return entries
    raise AssertionError("the events ended")


def said(session: Session) -> str:
    return "".join(message.text for message in session.messages if message.role == "assistant")


def over(session: Session, runs: int) -> Callable[[], bool]:
    """Whether that many messages of users have been answered, and nothing runs or waits."""

    def check() -> bool:
        asked = sum(message.role == "user" for message in session.messages)
        return asked == runs and not session.state.runs and not session.state.inputs

    return check


# --- sending -------------------------------------------------------------------------------------------------------------


async def test_from_sending_to_the_end_of_the_run(world: World) -> None:
    async with world.client() as client:
        session = client.session(world.session())
        receipt = await session.send("hello there")
        assert (receipt.duplicate, receipt.run_id) == (False, f"run_{receipt.input_id}")
        assert receipt.position in (1, None), "it waits, or a worker was faster than the reply"
        applied = await receipt.applied()
        assert applied.message_id == f"msg_{receipt.input_id}"
        assert (await receipt.finished()).ok
        assert [(m.role, m.text, m.status) for m in session.messages] == [
            ("user", "hello there", "done"),
            ("assistant", "hello there", "done"),
        ]
        again = await session.send("hello there", input_id=receipt.input_id)
        assert (again.duplicate, again.seq) == (True, receipt.seq)
        assert (await (await session.send("raise")).finished()).code == "agent_error"


async def test_stopping_and_taking_back(world: World) -> None:
    async with world.client() as client:
        session = client.session(world.session())
        running, waiting, unwanted = [await session.send("hang") for _ in range(3)]
        await running.applied()
        await session.cancel_input(waiting.input_id)
        assert await session.cancel(unwanted.run_id) == "cancelled"
        # The worker may have stopped it before the reply is made.
        assert await session.cancel(running.run_id) in ("cancelling", "cancelled")
        assert (await running.finished()).kind == "cancelled"
        for never in (waiting, unwanted):
            assert (await never.finished()).kind == "cancelled"
            with pytest.raises(InputNotApplied):
                await never.applied()
        with pytest.raises(TooLate):
            await session.cancel_input(running.input_id)
        with pytest.raises(NotFound):
            await session.cancel("run_none")


async def test_refusals_are_typed(world: World) -> None:
    name = world.session()
    token = world.stack.token(sessions={name: ["read"]})
    async with Client(world.gateway.url, token) as client:
        with pytest.raises(NotAllowed) as refused:
            await client.session(name).send("hi")
        assert refused.value.data["right"] == "send"
    async with world.client() as client:
        session = client.session(name)
        with pytest.raises(ContentTooLarge):
            await session.send("x" * 65_537)
        hanging = await session.send("hang")
        await hanging.applied()
        for n in range(16):
            await session.send("hi", input_id=f"i{n}")
        with pytest.raises(QueueFull):
            await session.send("one more")
        await session.cancel(hanging.run_id)
    with pytest.raises(Unauthorized):
        async with Client(world.gateway.url, "nonsense"):
            pass
    with pytest.raises(ConnectFailed):
        async with Client("http://127.0.0.1:1", world.stack.token(), settings=Settings(first_connect_timeout_s=0.3)):
            pass


async def test_history(world: World) -> None:
    name = world.session()
    async with world.client() as client:
        session = client.session(name)
        for n in range(40):
            receipt = await session.send(f"hello {n}")
            if n % 10 == 9:
                await receipt.finished()
    async with world.client() as client:
        session = client.session(name)
        await read(session, lambda: session.cursor is not None)
        found, before = [], None
        while True:
            page = await session.history(before, limit=30)
            found[:0], before = page.messages, page.before
            if before is None:
                break
        assert [m.text for m in found] == [f"hello {n}" for n in range(40) for _ in ("user", "assistant")]
        await read(session, lambda: bool(session.messages) and session.messages[-1].id == found[-1].id)
        assert session.messages == found[-len(session.messages) :]


# --- coming back -----------------------------------------------------------------------------------------------------------


async def test_gateways_that_die_and_leave_in_the_middle_of_a_run(world: World) -> None:
    dying, leaving, staying = [await world.stack.gateway() for _ in range(3)]
    urls = [gateway.url for gateway in (dying, leaving, staying)]
    async with Client(urls, world.stack.token()) as client:
        session = client.session(world.session())
        receipt = await session.send(QUESTION)
        entries = await read(session, lambda: len(said(session)) > len(ANSWER) // 4)
        await dying.kill()
        entries += await read(session, lambda: len(said(session)) > len(ANSWER) // 2)
        leaving.terminate_soon()
        async with asyncio.TaskGroup() as tasks:
            meanwhile = tasks.create_task(session.send("hello"))
            entries += await read(session, over(session, 2))
        assert client.welcome is not None
        assert [e.seq for e in entries] == sorted({e.seq for e in entries})
        assert all(later.prev == earlier.seq for earlier, later in pairwise(entries))
        assert said(session) == ANSWER + "hello"
        assert (await receipt.finished()).ok
        assert (await meanwhile.result().finished()).ok


async def test_a_cursor_that_another_client_goes_on_from(world: World) -> None:
    """A program that stores its cursor, ends, and starts again, misses nothing and sees nothing twice."""
    name, text, cursor = world.session(), "", None
    async with world.client("asker") as asker:
        receipt = await asker.session(name).send(QUESTION)
        for part in range(1, 5):
            async with world.client() as client:
                session = client.session(name, cursor)
                async with asyncio.timeout(30):
                    async for event in session.events():
                        if isinstance(event, Entry):
                            text += "".join(e["delta"] for e in event.events if e["type"] == "TEXT_MESSAGE_CONTENT")
                            cursor = json.loads(json.dumps(event.cursor))
                        if len(text) >= len(ANSWER) * part // 4:
                            break
        assert text == ANSWER
        assert (await receipt.finished()).ok


async def test_a_token_that_is_renewed_in_time(world: World) -> None:
    asked: list[float] = []

    async def token() -> str:
        asked.append(time.monotonic())
        return world.stack.token(ttl_s=2.2)

    async with Client(world.gateway.url, token_provider=token) as client:
        assert client.welcome is not None
        connection = client.welcome.connection
        session = client.session(world.session())
        receipt = await session.send("stream 180 tokens at 60/s")
        assert (await receipt.finished()).ok
        assert client.welcome.connection == connection, "the connection was lost"
    assert len(asked) > 1
    assert "token_expired" not in world.gateway.output()


# --- proving -------------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def forgetful(url: str, forget: Callable[[dict[str, object]], bool]) -> AsyncIterator[str]:
    """A proxy in front of a gateway that loses the frames which `forget` says. Yields its address."""

    async def connect(request: web.Request) -> web.StreamResponse:
        here = web.WebSocketResponse(protocols=("antiphon.v1",))
        await here.prepare(request)
        async with (
            aiohttp.ClientSession() as http,
            http.ws_connect(f"{url}/v1/connect", protocols=("antiphon.v1",)) as there,
            asyncio.TaskGroup() as tasks,
        ):
            up = tasks.create_task(_up(here, there))
            async for msg in there:
                if not forget(json.loads(msg.data)):
                    await here.send_str(msg.data)
            up.cancel()
        return here

    async def _up(here: web.WebSocketResponse, there: aiohttp.ClientWebSocketResponse) -> None:
        async for msg in here:
            await there.send_str(msg.data)
        await there.close()

    app = web.Application()
    app.router.add_get("/v1/connect", connect)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()


async def test_entries_that_are_lost_on_the_way_are_noticed(world: World) -> None:
    """The chain shows it, the place is read again, and the program that iterates sees neither."""
    lost: list[object] = []

    def forget(frame: dict[str, object]) -> bool:
        if frame["op"] == "entry" and "off" in frame and len(lost) < 5 and int(str(frame["seq"])) % 3 == 0:
            lost.append(frame["seq"])
            return True
        return False

    async with (
        forgetful(world.gateway.url, forget) as url,
        Client(url, world.stack.token()) as client,
    ):
        session = client.session(world.session())
        await read(session, lambda: session.cursor is not None)
        await session.send(QUESTION)
        entries = await read(session, over(session, 1))
    assert len(lost) == 5
    assert all(later.prev == earlier.seq for earlier, later in pairwise(entries))
    assert said(session) == ANSWER


async def test_two_people_see_the_same(world: World) -> None:
    name = world.session()
    async with world.client("user-1") as one, world.client("user-2") as two:
        first, second = one.session(name), two.session(name)
        for session in (first, second):
            await caught_up(session)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(first.send("stream 30 tokens at 200/s"))
            tasks.create_task(second.send("hello"))
            left = tasks.create_task(read(first, over(first, 2)))
            right = tasks.create_task(read(second, over(second, 2)))
        both = [[(e.seq, e.prev, e.id, e.events) for e in task.result()] for task in (left, right)]
        shorter = min(len(both[0]), len(both[1]))
        assert both[0][:shorter] == both[1][:shorter]
        assert first.messages == second.messages


async def caught_up(session: Session) -> None:
    async for event in session.events():
        if isinstance(event, CaughtUp):
            return


async def test_the_trace_of_a_message(world: World) -> None:
    headers = {"traceparent": f"00-{'1' * 32}-{'2' * 16}-00", "tracestate": "vendor=abc"}
    async with world.client() as client:
        session = client.session(world.session())
        receipt = await session.send("hello", trace=headers)
        await receipt.finished()
        entries = []
        async for event in session.events():
            if isinstance(event, Entry):
                entries.append(event)
            if isinstance(event, Entry) and any(part["type"] == "RUN_FINISHED" for part in event.events):
                break
    stored = entries[0]
    assert stored.trace == receipt.trace
    assert stored.via is not None
    records = [entry for entry in entries if entry.run is not None]
    assert len(records) >= 2
    for entry in (stored, *records):
        _, trace_id, span_id, flags = entry.trace["traceparent"].split("-")
        assert (trace_id, flags) == ("1" * 32, "00"), "what the client does not want recorded stays so"
        assert span_id != "2" * 16
        assert entry.trace["tracestate"] == "vendor=abc"
