"""Plain functions as tools: threads, their bounds, and the schema that is read from a signature."""

from __future__ import annotations

import asyncio
import threading
from typing import Any, Literal

import pytest

from antiphon_client import Execution, ThreadExecution, Tool, threaded, tool
from antiphon_client.threads import Threads, called
from clients.python.tests.scripted_gateway import (
    Client,
    Peer,
    ScriptedGateway,
    call_requested,
    client,
    entry,
    running,
    until,
)


async def never(_value: object) -> None:
    raise AssertionError("nothing is to be reported")


def execution() -> Execution:
    return Execution("c", "run_i", None, never)


class TestThreads:
    async def test_no_more_than_there_are_places(self) -> None:
        # A thread that has given its place back may take a moment more to end: what counts is the work.
        threads, open_, lock = Threads(2), threading.Event(), threading.Lock()
        working, at_once = 0, []

        def work() -> bool:
            nonlocal working
            with lock:
                working += 1
                at_once.append(working)
            opened = open_.wait(5)
            with lock:
                working -= 1
            return opened

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(threads.run(work)) for _ in range(5)]
            await until(lambda: len(at_once) == 2)
            open_.set()
        assert all(task.result() for task in tasks)
        assert len(at_once) == 5
        assert max(at_once) == 2

    async def test_one_that_nobody_waits_for_keeps_its_place(self) -> None:
        """So that functions which do not end cannot fill a process with threads."""
        threads, begun, end = Threads(1), threading.Event(), threading.Event()

        def hangs() -> None:
            begun.set()
            end.wait(5)

        waiting = asyncio.ensure_future(threads.run(hangs))  # noqa: TID251 - to be cancelled alone
        await asyncio.to_thread(begun.wait, 5)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await threads.run(lambda: None)
        end.set()
        assert await threads.run(lambda: 7) == 7

    async def test_what_is_raised(self) -> None:
        def fails() -> None:
            raise KeyError("x")

        def stops() -> None:
            raise StopIteration

        with pytest.raises(KeyError):
            await Threads(1).run(fails)
        with pytest.raises(RuntimeError, match="StopIteration"):
            await Threads(1).run(stops)

    async def test_where_a_function_is_called(self) -> None:
        async def here() -> threading.Thread:
            return threading.current_thread()

        class Asynchronous:
            async def __call__(self) -> threading.Thread:
                return threading.current_thread()

        threads = Threads(1)
        assert await called(threads, here) is threading.current_thread()
        assert await called(threads, Asynchronous()) is threading.current_thread()
        assert await called(threads, threading.current_thread) is not threading.current_thread()
        assert await called(threads, lambda *_: here()) is threading.current_thread()  # what it returns is awaited here


class TestSchema:
    def test_of_a_signature(self) -> None:
        @tool
        def search(
            words: list[str],
            kind: Literal["file", "folder"],
            limit: int = 10,
            exact: bool = False,
            weight: float | None = None,
            options: dict[str, int] | None = None,
            anything: Any = None,
        ) -> list[str]:
            """Searches this machine."""
            return words[:limit]

        assert isinstance(search, Tool)
        assert (search.name, search.description) == ("search", "Searches this machine.")
        assert search.parameters == {
            "type": "object",
            "properties": {
                "words": {"type": "array", "items": {"type": "string"}},
                "kind": {"enum": ["file", "folder"]},
                "limit": {"type": "integer"},
                "exact": {"type": "boolean"},
                "weight": {"anyOf": [{"type": "number"}, {"type": "null"}]},
                "options": {
                    "anyOf": [{"type": "object", "additionalProperties": {"type": "integer"}}, {"type": "null"}]
                },
                "anything": {},
            },
            "required": ["words", "kind"],
            "additionalProperties": False,
        }

    def test_what_is_said_of_it(self) -> None:
        @tool(name="look", description="Looks", result={"type": "string"}, idempotent=True, needs_permission=True)
        def anything() -> str:
            return ""

        said = anything.as_dict()
        assert said["name"] == "look"
        assert (said["description"], said["idempotent"], said["needsPermission"]) == ("Looks", True, True)
        assert said["result"] == {"type": "string"}

    def test_what_has_no_schema(self) -> None:
        def bare(x) -> None: ...  # type: ignore[no-untyped-def]

        def many(*x: int) -> None: ...

        def odd(x: set[int]) -> None: ...

        def keys(x: dict[int, str]) -> None: ...

        for function in (bare, many, odd, keys):
            with pytest.raises(TypeError, match="parameter x"):
                tool(function)
        with pytest.raises(ValueError, match="not the name"):
            tool(lambda: None)

    async def test_it_is_called_with_the_arguments(self) -> None:
        @tool
        async def add(a: int, b: int = 2, *, call: Execution) -> str:
            return f"{a + b} {call.tool_call_id}"

        @tool
        def twice(a: int, call: ThreadExecution) -> str:
            return f"{2 * a} {call.tool_call_id} {call.run_id} {call.deadline} {call.cancelled}"

        assert "call" not in add.as_dict()["parameters"]["properties"]  # type: ignore[index]
        assert await add.execute({"a": 1}, execution()) == "3 c"
        assert await twice.execute({"a": 4}, execution()) == "8 c run_i None False"


class TestThroughAClient:
    async def test_a_plain_function_reports_and_returns(self) -> None:
        @tool
        def count(n: int, call: ThreadExecution) -> int:
            """Counts."""
            for done in range(n):
                call.progress({"done": done})
            return n

        async def script(peer: Peer) -> None:
            await running(peer, call_requested(2, 1))
            await peer.ok(await peer.expect("tool.claim"), expiresAt=9_000_000)
            for done in range(2):
                await peer.ok(await peer.expect("tool.progress", value={"done": done}))
            await peer.ok(await peer.expect("tool.result", result=2), status="resolved")

        async with ScriptedGateway(script) as gateway, client(gateway) as opened:
            opened.session("demo", tools=[count])
            await gateway.played(1)

    async def test_a_call_that_is_over_tells_its_thread(self) -> None:
        begun, ended, errors = threading.Event(), threading.Event(), []

        def work(args: Any, call: ThreadExecution) -> None:
            begun.set()
            while not call.cancelled:
                ended.wait(0.01)
            try:
                call.progress(1)
            except RuntimeError as error:
                errors.append(str(error))
            ended.set()

        async def script(peer: Peer) -> None:
            await running(peer, call_requested(2, 1))
            await peer.ok(await peer.expect("tool.claim"), expiresAt=9_000_000)
            await asyncio.to_thread(begun.wait, 5)
            failed = {"type": "tool.failed", "toolCallId": "c", "code": "not_run"}
            await peer.send(entry(3, 2, failed, run="run_i"))
            await asyncio.to_thread(ended.wait, 5)

        async with ScriptedGateway(script) as gateway, client(gateway) as opened:
            opened.session("demo", tools=[Tool("count", execute=threaded(work))])
            await gateway.played(1)
        assert errors == ["the call is over"]

    async def test_a_thread_that_hangs_does_not_hold_up_closing(self) -> None:
        begun, end = threading.Event(), threading.Event()

        @tool
        def count(n: int) -> None:
            begun.set()
            end.wait(30)

        async def script(peer: Peer) -> None:
            await running(peer, call_requested(2, 1))
            await peer.ok(await peer.expect("tool.claim"), expiresAt=9_000_000)
            command = await peer.expect("tool.result")
            assert "not known" in command["error"]
            await peer.ok(command, status="resolved")

        async with ScriptedGateway(script) as gateway:
            async with asyncio.timeout(10), client(gateway) as opened:
                opened.session("demo", tools=[count])
                await asyncio.to_thread(begun.wait, 5)
            await gateway.played(1)
        end.set()

    async def test_a_plain_token_provider(self) -> None:
        threads: list[threading.Thread] = []

        def provider() -> str:
            threads.append(threading.current_thread())
            return "t1"

        async def script(peer: Peer) -> None:
            await peer.welcome()

        async with ScriptedGateway(script) as gateway, Client(gateway.url, provider):
            await gateway.played(1)
        assert threads[0] is not threading.current_thread()
