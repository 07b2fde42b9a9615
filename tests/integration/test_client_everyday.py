"""What happens to a client in a day: gateways die, there is no network, laptops sleep, programs are stopped and started."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest
import pytest_asyncio

from antiphon_client import Client, Settings, sync
from tests.support.nats import single_server
from tests.support.stack import Process, Stack

pytestmark = pytest.mark.asyncio(loop_scope="module")

TOKENS = 150
ANSWER = "".join(f"t{n} " for n in range(TOKENS))
QUESTION = f"stream {TOKENS} tokens at 100/s"
SLOW = f"stream {TOKENS} tokens at 50/s"


@dataclass(frozen=True, slots=True)
class World:
    """A gateway and a worker; more gateways for tests that end some."""

    stack: Stack
    gateway: Process
    sessions: count[int]

    def session(self) -> str:
        return f"s{next(self.sessions)}"

    async def contents(self, session: str) -> list[str]:
        """What users have sent, as the log has it."""
        events = [event for _, entry in await self.stack.entries(session) for event in entry.events]
        return [event.content for event in events if event.TYPE == "input.sent"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    directory = tmp_path_factory.mktemp("everyday")
    async with single_server(directory / "nats") as nats, Stack(directory / "stack", nats.url) as stack:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(stack.worker())
            gateway = tasks.create_task(stack.gateway())
        yield World(stack, gateway.result(), count())


@asynccontextmanager
async def program(directory: Path, text: str, *args: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A program of its own; it is gone at the end."""
    script = directory / "program.py"
    script.write_text(text, encoding="utf-8")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-u", "-W", "error", str(script), *args),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(50):
            yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def said(process: asyncio.subprocess.Process, line: str) -> None:
    """Returns when it has printed that line."""
    assert process.stdout is not None
    output = b""
    while (read := await process.stdout.readline()) != f"{line}\n".encode():
        assert read, f"it ended without {line!r}: {output.decode()}"
        output += read


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


# --- answers -------------------------------------------------------------------------------------------------------------


async def test_an_answer_through_two_dying_gateways(world: World) -> None:
    gateways = [await world.stack.gateway() for _ in range(2)] + [world.gateway]
    async with Client([gateway.url for gateway in gateways], world.stack.token()) as client:
        text = ""
        async for piece in client.session(world.session()).ask(QUESTION):
            text += piece
            for part, gateway in enumerate(gateways[:2], 1):
                if gateway.running and len(text) > len(ANSWER) * part // 3:
                    await gateway.kill()
        assert text == ANSWER
        assert not any(gateway.running for gateway in gateways[:2])


async def test_the_facade_through_a_dying_gateway(world: World) -> None:
    dying = await world.stack.gateway()
    loop = asyncio.get_running_loop()
    urls, token, name = [dying.url, world.gateway.url], world.stack.token(), world.session()

    def script() -> str:
        text = ""
        with sync.Client(urls, token, timeout_s=30) as client:
            for piece in client.session(name).ask(QUESTION):
                text += piece
                if dying.running and len(text) > len(ANSWER) // 2:
                    asyncio.run_coroutine_threadsafe(dying.kill(), loop).result()
        return text

    assert await asyncio.to_thread(script) == ANSWER
    assert not dying.running


async def test_a_question_that_was_asked_before(world: World) -> None:
    """By another client, a while ago: its answer, whole, and the question is in the log once."""
    name = world.session()
    async with Client(world.gateway.url, world.stack.token()) as client:
        assert await client.session(name).answer("the first", input_id="q1") == "the first"
        assert await client.session(name).answer("the second", input_id="q2") == "the second"
    async with Client(world.gateway.url, world.stack.token()) as client:
        assert await client.session(name).answer("the first", input_id="q1") == "the first"
    assert await world.contents(name) == ["the first", "the second"]


# --- offline -------------------------------------------------------------------------------------------------------------


async def test_messages_wait_for_a_gateway(world: World) -> None:
    """Before the first connection, and through an outage: all are in the log, in order, once."""
    port, name = free_port(), world.session()
    settings = Settings(first_connect_timeout_s=None, backoff_base_s=0.05, backoff_cap_s=0.2)
    async with Client(f"http://127.0.0.1:{port}", world.stack.token(), settings=settings) as client:
        session = client.session(name)
        before = [session.submit(f"before {n}") for n in range(5)]
        assert len(session.outbox) == 5
        gateway = await world.stack.gateway(str(port))
        async with asyncio.timeout(20):
            await before[-1].stored()
            await gateway.kill()
            during = [session.submit(f"during {n}") for n in range(5)]
            async for status in client.status_changes():
                if status == "waiting":
                    break
            await world.stack.gateway(str(port))
            receipt = await during[-1].stored()
            assert (await receipt.finished()).ok
        assert session.outbox == ()
    assert await world.contents(name) == [f"{when} {n}" for when in ("before", "during") for n in range(5)]


# --- from process to process ---------------------------------------------------------------------------------------------

SAVES = """
import json, os, sys
from pathlib import Path
from antiphon_client.sync import Client

client = Client(sys.argv[1], sys.argv[2]).open()
session = client.session(sys.argv[3])
session.submit(sys.argv[5], input_id="q1")
for view in session.changes():
    text = "".join(message.text for message in view.messages if message.role == "assistant")
    if len(text) > 100:
        break
session.submit("and then?", input_id="q2")
Path(sys.argv[4]).write_text(json.dumps(session.save()), encoding="utf-8")
os._exit(7)  # as a process that is killed: nothing is closed
"""

RESUMES = """
import json, sys
from pathlib import Path
from antiphon_client.sync import Client

with Client(sys.argv[1], sys.argv[2], timeout_s=30) as client:
    session = client.session(sys.argv[3], saved=json.loads(Path(sys.argv[4]).read_text(encoding="utf-8")))
    half = [message.text for message in session.messages]
    assert session.state.status == "running"
    assert session.answer("and then?", input_id="q2") == "and then?"
    print(json.dumps([half, [message.text for message in session.messages], session.state.status]))
"""


async def test_a_session_goes_on_in_another_process(world: World, tmp_path: Path) -> None:
    """In mid-answer, after a death: the text goes on where it was, what had not been sent is sent."""
    name, stored = world.session(), tmp_path / "saved.json"
    args = (world.gateway.url, world.stack.token(), name, str(stored))
    async with program(tmp_path, SAVES, *args, SLOW) as process:
        output, _ = await process.communicate()
        assert process.returncode == 7, output.decode()
    async with program(tmp_path, RESUMES, *args) as process:
        output, _ = await process.communicate()
        assert process.returncode == 0, output.decode()
    half, whole, status = json.loads(output)
    assert half[0] == SLOW
    assert ANSWER.startswith(half[1])
    assert 100 < len(half[1]) < len(ANSWER)
    assert (whole, status) == ([SLOW, ANSWER, "and then?", "and then?"], "idle")
    assert await world.contents(name) == [SLOW, "and then?"]


ASKS = """
import sys
from antiphon_client.sync import Client

client = Client(sys.argv[1], sys.argv[2]).open()
pieces = iter(client.session(sys.argv[3]).ask(sys.argv[4], input_id="q1"))
next(pieces)
print("it streams")
"".join(pieces)
"""


async def test_ctrl_c_stops_the_program_and_not_the_agent(world: World, tmp_path: Path) -> None:
    name = world.session()
    async with program(tmp_path, ASKS, world.gateway.url, world.stack.token(), name, SLOW) as process:
        await said(process, "it streams")
        begun = time.monotonic()
        process.send_signal(signal.SIGINT)
        await process.wait()
        assert process.returncode == -signal.SIGINT
        assert time.monotonic() - begun < 3
    async with Client(world.gateway.url, world.stack.token()) as client, asyncio.timeout(20):
        assert await client.session(name).answer(SLOW, input_id="q1") == ANSWER


# --- sleep ---------------------------------------------------------------------------------------------------------------


async def test_a_gateway_that_falls_silent_is_left_at_once(world: World) -> None:
    """It is not dead, its socket is open, its heartbeat is 25 s: who asks for a sign of life knows within a second."""
    silent = await world.stack.gateway()
    settings = Settings(liveness_timeout_s=0.5, close_timeout_s=0.1)
    async with Client([silent.url, world.gateway.url], world.stack.token(), settings=settings) as client:
        session = client.session(world.session())
        await session.answer("hello")
        silent.pause()
        client.check_connection()
        async with asyncio.timeout(10):
            assert await session.answer("are you there?") == "are you there?"
    silent.resume()


SLEEPS = """
import sys
from antiphon_client import Settings
from antiphon_client.sync import Client

settings = Settings(liveness_check_s=0.25, liveness_slack_s=0.75, liveness_timeout_s=0.5, close_timeout_s=0.1)
with Client(sys.argv[1:3], sys.argv[3], settings=settings, timeout_s=30) as client:
    session = client.session(sys.argv[4])
    session.answer("hello")
    print("falls asleep")
    sys.stdin.readline()
    print(session.answer("good morning"))
"""


async def test_a_client_that_slept(world: World, tmp_path: Path) -> None:
    """While it sleeps its connection dies without a word; awake, it notices by its clock, and goes elsewhere."""
    silent = await world.stack.gateway()
    script = tmp_path / "program.py"
    script.write_text(SLEEPS, encoding="utf-8")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-u", str(script), silent.url, world.gateway.url, world.stack.token(), world.session()),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(40):
            await said(process, "falls asleep")
            process.send_signal(signal.SIGSTOP)
            silent.pause()
            await asyncio.sleep(2)  # it sleeps
            process.send_signal(signal.SIGCONT)
            begun = time.monotonic()
            output, _ = await process.communicate(b"\n")
    finally:
        silent.resume()
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert output.decode().endswith("good morning\n"), output.decode()
    assert time.monotonic() - begun < 15  # the heartbeats would have told after 50 s
