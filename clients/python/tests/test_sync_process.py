"""The facade in processes of its own: Ctrl-C, the interpreter's exit, forks."""

from __future__ import annotations

import asyncio
import signal
import sys
import textwrap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from clients.python.tests.scripted_gateway import Peer, ScriptedGateway, call_requested, running

START = """
import os, sys, threading, time, warnings
from antiphon_client import Settings
from antiphon_client.sync import Client, tool

settings = Settings(close_timeout_s=0.5, tool_release_timeout_s=0.5)
client = Client(sys.argv[1], "t1", settings=settings, rand=lambda: 0.0)
"""


@asynccontextmanager
async def program(url: str, text: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A program that has made a `client`; it is gone at the end."""
    command = [sys.executable, "-u", "-W", "error", "-c", START + textwrap.dedent(text), url]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def ended(process: asyncio.subprocess.Process) -> str:
    """What it printed; it must have ended well."""
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    return output.decode()


WAITS = [
    pytest.param("session.answer('hi')", id="an answer"),
    pytest.param("session.send('hi')", id="a command"),
    pytest.param("session.send('hi', timeout_s=60)", id="a command with a time-out"),
    pytest.param("session.submit('hi').stored()", id="the outbox"),
    pytest.param("session.submit('hi'), list(session.events())", id="events"),
    pytest.param("session.submit('hi'), list(session.changes())", id="changes"),
    pytest.param("list(session.ask('hi'))", id="a text that streams"),
]


@pytest.mark.parametrize("wait", WAITS)
async def test_ctrl_c_ends_a_wait_at_once(wait: str) -> None:
    """And the client is as good as before: the next command is answered, closing is clean."""
    asked = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.opened()
        await peer.expect("input.send")  # which gets no reply
        asked.set()
        command = await peer.receive()
        assert command["op"] == "run.cancel", command
        await peer.ok(command, status="cancelled")
        assert await peer.until_closed() == 1000

    text = f"""
        with client:
            session = client.session("demo")
            try:
                {wait}
            except KeyboardInterrupt:
                print("interrupted")
            print(session.cancel_run("run_x"))
        assert not [t for t in threading.enumerate() if t.name == "antiphon-client"]
    """
    async with ScriptedGateway(script) as gateway, program(gateway.url, text) as process:
        await asked.wait()
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(5):
            assert (await ended(process)).split() == ["interrupted", "cancelled"]
        await gateway.played(1)


async def test_ctrl_c_while_it_connects() -> None:
    asked = asyncio.Event()

    async def silent(peer: Peer) -> None:
        await peer.expect("hello")
        asked.set()
        await peer.until_closed()

    text = """
        try:
            client.open()
        except KeyboardInterrupt:
            print("interrupted")
        assert not [t for t in threading.enumerate() if t.name == "antiphon-client"]
    """
    async with ScriptedGateway(silent) as gateway, program(gateway.url, text) as process:
        await asked.wait()
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(5):
            assert await ended(process) == "interrupted\n"
        await gateway.played(1)


async def test_ctrl_c_that_nobody_catches() -> None:
    """The program ends as any other does, and the connection is closed, not cut."""
    asked = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.opened()
        await peer.expect("input.send")
        asked.set()
        assert await peer.until_closed() == 1000

    text = "client.open().session('demo').answer('hi')"
    async with ScriptedGateway(script) as gateway, program(gateway.url, text) as process:
        await asked.wait()
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(5):
            output, _ = await process.communicate()
        assert process.returncode == -signal.SIGINT
        assert output.decode().rstrip().endswith("KeyboardInterrupt")
        await gateway.played(1)


async def test_the_end_of_a_program_closes_it() -> None:
    """Nobody called `close`: the interpreter's exit does."""

    async def script(peer: Peer) -> None:
        await peer.opened()
        assert await peer.until_closed() == 1000

    text = """
        session = client.open().session("demo")
        next(view for view in session.changes() if view.cursor is not None)
        print("done")
    """
    async with ScriptedGateway(script) as gateway, program(gateway.url, text) as process:
        async with asyncio.timeout(5):
            assert await ended(process) == "done\n"
        await gateway.played(1)


async def test_a_tool_that_hangs_does_not_hold_up_the_end() -> None:
    """The call is let go of; the thread dies with the process."""

    async def script(peer: Peer) -> None:
        await running(peer, call_requested(2, 1))
        await peer.ok(await peer.expect("tool.claim"), expiresAt=9_000_000)
        command = await peer.expect("tool.result")
        assert "not known" in command["error"]
        await peer.ok(command, status="resolved")
        assert await peer.until_closed() == 1000

    text = """
        begun = threading.Event()

        @tool
        def count(n: int) -> None:
            begun.set()
            time.sleep(600)

        client.open().session("demo", tools=[count])
        begun.wait()
    """
    async with ScriptedGateway(script) as gateway, program(gateway.url, text) as process:
        async with asyncio.timeout(10):
            await ended(process)
        await gateway.played(1)


async def test_a_fork_is_told() -> None:
    """Its child cannot use the client, and does no harm to the parent's."""

    async def script(peer: Peer) -> None:
        await peer.opened()
        await peer.ok(await peer.expect("run.cancel", runId="run_parent"), status="cancelled")
        assert await peer.until_closed() == 1000

    text = """
        client.open()
        session = client.session("demo")
        iteration = session.changes()
        next(iteration)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # from Python 3.12 on, a fork beside threads is one
            child = os.fork()
        if child == 0:
            told = 0
            for use in (lambda: session.send("hi"), lambda: session.state, lambda: next(iteration), client.open):
                try:
                    use()
                except RuntimeError:
                    told += 1
            client.close()
            del iteration
            sys.exit(told)  # by way of all that an exit does
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), session.cancel_run("run_parent"))
    """
    async with ScriptedGateway(script) as gateway, program(gateway.url, text) as process:
        async with asyncio.timeout(10):
            assert await ended(process) == "4 cancelled\n"
        await gateway.played(1)
