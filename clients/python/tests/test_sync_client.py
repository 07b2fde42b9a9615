"""The facade against a scripted gateway: waits, time-outs, iterations, threads, functions, ends."""

from __future__ import annotations

import asyncio
import copy
import gc
import json
import math
import pickle
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from antiphon_client import CaughtUp, ClientClosed, Entry, NotFound, Settings, Unauthorized
from antiphon_client.sync import Client, Session, tool
from antiphon_client.sync import _portal as portal
from clients.python.tests.scripted_gateway import (
    END,
    EPOCH,
    START,
    Peer,
    ScriptedGateway,
    applied,
    approval_requested,
    call_requested,
    caught_up,
    delta,
    entry,
    finished,
    running,
    sent,
    started,
    until,
)

QUICK = Settings(close_timeout_s=0.2, tool_release_timeout_s=0.2, reconnect_attempts=20)
"""A client whose gateway has gone stops, so that no thread outlives its test."""


def client(url: str, **options: Any) -> Client:
    return Client(url, "t1", **{"settings": QUICK, "rand": lambda: 0.0, "timeout_s": 15.0, **options})


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "antiphon-client"]


async def played(work: Callable[[str], Any], *scripts: Callable[[Peer], Awaitable[None]], exact: bool = True) -> Any:
    """What a program in another thread makes of a gateway with these scripts."""
    async with ScriptedGateway(*scripts, exact=exact) as gateway:
        return await asyncio.to_thread(work, gateway.url)


def patiently(items: Iterator[Any]) -> Any:
    """The next item, however many time-outs that takes."""
    while True:
        try:
            return next(items)
        except TimeoutError:
            continue


async def hello(peer: Peer) -> None:
    await peer.welcome()


async def answers(peer: Peer) -> None:
    """Opens the session, and answers one input with two tokens."""
    await peer.opened()
    await peer.take_input(1)
    await peer.send(sent(1, 0, "i"), started(2, 1), applied(3, 2), entry(4, 3, START, run="run_i"))
    await peer.send(delta(5, 4, 0, "Hel"), delta(6, 5, 3, "lo"), entry(7, 6, END), finished(8, 7))


class TestUse:
    async def test_an_answer(self) -> None:
        def work(url: str) -> None:
            with client(url) as opened:
                session = opened.session("demo")
                assert session.answer("hi", input_id="i") == "Hello"
                assert [message.text for message in session.messages] == ["hi", "Hello"]
                assert (session.state.status, session.view.cursor) == ("idle", f"{EPOCH}:8")
                assert (opened.status, opened.connected, opened.log_away, opened.failure) == (
                    "connected",
                    True,
                    False,
                    None,
                )
                assert opened.welcome is not None
                assert opened.session("demo") is session
            assert (opened.status, opened.connected) == ("stopped", False)

        await played(work, answers)
        assert not threads()

    async def test_a_receipt(self) -> None:
        def work(url: str) -> None:
            with client(url) as opened:
                receipt = opened.session("demo").send("hi", input_id="i")
                assert receipt.finished().ok
                assert receipt.applied().message_id == receipt.message_id == "msg_i"
                assert (receipt.status, receipt.run_id, receipt.seq, receipt.duplicate) == ("ended", "run_i", 1, False)
                assert (receipt.outcome and receipt.outcome.kind, receipt.position, receipt.mode) == (
                    "success",
                    1,
                    None,
                )
                assert "run_i" in repr(receipt)

        await played(work, answers)

    async def test_text_as_it_streams(self) -> None:
        went_on = threading.Event()

        async def script(peer: Peer) -> None:
            await peer.opened()
            await peer.take_input(1)
            await peer.send(sent(1, 0, "i"), started(2, 1), applied(3, 2), entry(4, 3, START, run="run_i"))
            await peer.send(delta(5, 4, 0, "Hel"))
            await asyncio.to_thread(went_on.wait, 5)
            await peer.send(delta(6, 5, 3, "lo"), entry(7, 6, END), finished(8, 7))

        def work(url: str) -> None:
            with client(url) as opened:
                pieces = iter(opened.session("demo").ask("hi", input_id="i"))
                assert next(pieces) == "Hel"
                went_on.set()
                assert list(pieces) == ["lo"]
                assert next(pieces, None) is None

        await played(work, script)

    async def test_events_and_the_cursor(self) -> None:
        """The cursor is that of the event given out last, however many have crossed over from the other thread."""

        async def script(peer: Peer) -> None:
            await peer.opened()
            await peer.send(*(entry(n, n - 1, {"type": "CUSTOM"}) for n in range(1, 201)), caught_up(200))

        def work(url: str) -> None:
            with client(url) as opened:
                session = opened.session("demo")
                for event in session.events():
                    if isinstance(event, Entry):
                        assert session.cursor == event.cursor
                        if event.seq == 50:
                            break
                assert session.save()["handled"] == f"{EPOCH}:50"
                seen = []
                for event in session.events():  # goes on where the other was left
                    if isinstance(event, CaughtUp):
                        break
                    seen.append(getattr(event, "seq", 0))
                assert seen == list(range(51, 201))

        await played(work, script)

    async def test_one_iteration_at_a_time(self) -> None:
        def work(url: str) -> None:
            with client(url) as opened:
                session = opened.session("demo")
                events = session.events()
                with pytest.raises(RuntimeError, match="iterated already"):
                    session.events()
                del events
                assert session.events(timeout_s=5)

        await played(work, hello)

    async def test_changes_and_pages(self) -> None:
        async def script(peer: Peer) -> None:
            await peer.opened()
            await peer.send({"op": "session.presence", "session": "demo", "participants": []})
            for before in (5, None):
                await peer.ok(await peer.expect("history", limit=2), messages=[{"id": f"m{before}"}], before=before)
            await peer.ok(await peer.expect("session.list"), sessions=[{"session": "s1"}, {"session": "s2"}])

        def work(url: str) -> None:
            with client(url) as opened:
                session = opened.session("demo")
                views = session.changes(timeout_s=5)
                while (view := next(views)).cursor is None:
                    pass
                assert view.state.status == "idle"
                assert next(session.presence_changes(timeout_s=5)).participants == ()
                assert [page.messages[0].id for page in session.history_pages(limit=2)] == ["m5", "mNone"]
                assert [info.session for info in opened.sessions()] == ["s1", "s2"]
                assert next(opened.status_changes()) == "connected"

        await played(work, script)

    async def test_refusals_are_those_of_the_asyncio_client(self) -> None:
        async def script(peer: Peer) -> None:
            await peer.welcome()
            await peer.error(await peer.expect("run.cancel"), "run_not_found")

        def work(url: str) -> None:
            with client(url) as opened, pytest.raises(NotFound):
                opened.session("demo").cancel("run_x")

        await played(work, script)

    async def test_what_is_saved_and_submitted(self) -> None:
        async def first(peer: Peer) -> None:
            await answers(peer)
            await peer.expect("input.send", inputId="j")

        async def second(peer: Peer) -> None:
            await peer.welcome()
            await peer.subscribed(after=f"{EPOCH}:8")
            await peer.take_input(9)  # by itself
            await peer.take_input(9, duplicate=True)  # because the program says it again

        def work(url: str) -> None:
            with client(url) as opened:
                session = opened.session("demo")
                session.answer("hi", input_id="i")
                submission = session.submit("and?", input_id="j")
                assert [unsent.input_id for unsent in session.outbox] == ["j"]
                assert (submission.receipt, submission.run_id) == (None, "run_j")
                with pytest.raises(TimeoutError):
                    submission.stored(timeout_s=0.1)
                stored = json.loads(json.dumps(session.save()))
            with client(url) as opened:
                session = opened.session("demo", saved=stored)
                assert [message.text for message in session.messages] == ["hi", "Hello"]
                while session.outbox:
                    time.sleep(0.001)
                assert session.submit("and?", input_id="j").stored().duplicate

        await played(work, first, second)


class TestFunctions:
    async def test_tools_decisions_and_tokens(self) -> None:
        called: list[str] = []

        @tool
        def count(n: int) -> int:
            called.append(threading.current_thread().name)
            return n

        def decide(_approval: object) -> str:
            called.append(threading.current_thread().name)
            return "allow_once"

        def token() -> str:
            called.append(threading.current_thread().name)
            return "t1"

        async def script(peer: Peer) -> None:
            await running(peer, call_requested(2, 1), approval_requested(3, 2))
            done = 0
            while done < 2:
                command = await peer.receive()
                await peer.ok(command, expiresAt=9_000_000, status="resolved")
                done += command["op"] in ("tool.result", "approval.respond")

        def work(url: str) -> None:
            with Client(url, token, settings=QUICK) as opened:
                opened.session("demo", tools=[count], decide=decide)
                while len(called) < 3:
                    time.sleep(0.001)

        await played(work, script)
        assert set(called) == {"antiphon-client-function"}

    async def test_a_tool_may_use_the_client(self) -> None:
        """Functions run beside the loop, so waiting in one is no deadlock."""
        heard: list[str] = []

        async def script(peer: Peer) -> None:
            await running(peer, call_requested(2, 1))
            await peer.ok(await peer.expect("tool.claim"), expiresAt=9_000_000)
            await peer.ok(await peer.expect("history"), messages=[], before=None)
            await peer.ok(await peer.expect("tool.result", result=0), status="resolved")
            heard.append("result")

        def work(url: str) -> None:
            with client(url) as opened:

                @tool
                def count(n: int) -> int:
                    return len(opened.session("demo").history().messages)

                opened.session("demo", tools=[count])
                while not heard:
                    time.sleep(0.001)

        await played(work, script)


class TestTimeouts:
    async def test_of_a_call(self) -> None:
        """It is cancelled: when the next command comes, nobody waits for the first any more."""

        async def script(peer: Peer) -> None:
            await peer.welcome()
            first = await peer.expect("run.cancel", runId="run_a")
            second = await peer.expect("run.cancel", runId="run_b")
            await peer.ok(second, status="cancelled")
            await peer.ok(first, status="cancelled")

        def work(url: str) -> None:
            with client(url) as opened:
                session = opened.session("demo")
                with pytest.raises(TimeoutError, match=r"0\.1 s"):
                    session.cancel_run("run_a", timeout_s=0.1)
                assert session.cancel_run("run_b", timeout_s=math.inf) == "cancelled"

        await played(work, script)

    async def test_the_client_s_own(self) -> None:
        async def script(peer: Peer) -> None:
            await peer.welcome()
            await peer.expect("run.cancel")

        def work(url: str) -> None:
            with client(url, timeout_s=0.1) as opened, pytest.raises(TimeoutError):
                opened.session("demo").cancel_run("run_a")

        await played(work, script)

    async def test_of_opening(self) -> None:
        async def silent(peer: Peer) -> None:
            await peer.expect("hello")
            await peer.until_closed()

        def work(url: str) -> None:
            with pytest.raises(TimeoutError):
                client(url).open(timeout_s=0.2)
            assert not threads()

        await played(work, silent)

    async def test_an_iteration_goes_on_after_one(self) -> None:
        """Nothing is lost between: what comes after the time-out is the next item."""
        waited = threading.Event()

        async def script(peer: Peer) -> None:
            await peer.opened()
            await asyncio.to_thread(waited.wait, 5)
            await peer.send(*(entry(n, n - 1, {"type": "CUSTOM"}) for n in range(1, 4)))

        def work(url: str) -> None:
            with client(url) as opened:
                session = opened.session("demo")
                events, views = session.events(timeout_s=0.2), session.changes(timeout_s=0.2)
                next(events)
                with pytest.raises(TimeoutError):
                    next(events)
                with pytest.raises(TimeoutError):
                    list(views)
                waited.set()
                assert [patiently(events).seq for _ in range(3)] == [1, 2, 3]
                assert patiently(views).cursor is not None

        await played(work, script)

    async def test_in_slices(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """As it is done where Ctrl-C does not end a wait for a lock."""
        monkeypatch.setattr(portal, "SLICE_S", 0.01)

        async def script(peer: Peer) -> None:
            await peer.welcome()
            command = await peer.expect("run.cancel")
            await asyncio.sleep(0.1)
            await peer.ok(command, status="cancelled")
            await peer.expect("run.cancel")

        def work(url: str) -> None:
            with client(url) as opened:
                assert opened.session("demo").cancel_run("run_a") == "cancelled"
                with pytest.raises(TimeoutError):
                    opened.session("demo").cancel_run("run_b", timeout_s=0.05)

        await played(work, script)


class TestThreads:
    async def test_all_may_use_one_client(self) -> None:
        async def script(peer: Peer) -> None:
            await peer.opened()
            for seq in range(1, 41):
                await peer.take_input(seq)
            await peer.send(*(entry(n, n - 1, {"type": "CUSTOM"}) for n in range(1, 301)), caught_up(300))

        def work(url: str) -> None:
            got: list[Any] = []
            with client(url) as opened:
                session = opened.session("demo")

                def send() -> None:
                    got.extend(session.send("x").input_id for _ in range(10))

                senders = [threading.Thread(target=send) for _ in range(4)]
                for thread in senders:
                    thread.start()
                for thread in senders:
                    thread.join()
                assert len(set(got)) == 40
                events = session.events(timeout_s=5)  # shared: each event goes to one of them
                seen: list[int] = []

                def take() -> None:
                    for event in events:
                        if isinstance(event, CaughtUp):
                            return
                        seen.append(getattr(event, "seq", 0))

                takers = [threading.Thread(target=take, daemon=True) for _ in range(3)]
                for thread in takers:
                    thread.start()
                while len(seen) < 301:
                    time.sleep(0.001)
                session.close()
                for thread in takers:
                    thread.join(5)
            assert sorted(seen) == list(range(301))

        await played(work, script, exact=False)

    async def test_closing_ends_the_waits_of_others(self) -> None:
        ends: list[BaseException] = []

        async def script(peer: Peer) -> None:
            await peer.welcome()
            await peer.expect("run.cancel")

        def work(url: str) -> None:
            opened = client(url).open()
            session = opened.session("demo")

            def cancel() -> None:
                try:
                    session.cancel_run("run_x")
                except ClientClosed as error:
                    ends.append(error)

            def iterate() -> None:
                try:
                    list(session.events())
                except ClientClosed as error:
                    ends.append(error)

            waiting = [threading.Thread(target=target) for target in (cancel, iterate)]
            for thread in waiting:
                thread.start()
            time.sleep(0.1)
            opened.close()
            for thread in waiting:
                thread.join(5)
            with pytest.raises(ClientClosed):
                session.send("too late")
            with pytest.raises(ClientClosed):
                next(session.changes())

        await played(work, script, exact=False)
        assert len(ends) == 2

    async def test_where_a_loop_is_running(self) -> None:
        """As in a notebook: the thread that waits has a running loop of its own."""

        async def cell(url: str) -> str:
            with client(url) as opened:
                return opened.session("demo").answer("hi", input_id="i")

        assert await played(lambda url: asyncio.run(cell(url)), answers) == "Hello"

    async def test_not_in_its_own_loop(self) -> None:
        """A wait there could never end."""
        refused: list[str] = []

        async def script(peer: Peer) -> None:
            await running(peer, approval_requested(2, 1))
            await until(lambda: bool(refused))

        def work(url: str) -> None:
            with client(url) as opened:

                async def decide(_approval: object) -> None:
                    try:
                        opened.session("demo").history()
                    except RuntimeError as error:
                        refused.append(str(error))

                opened.session("demo", decide=decide)
                while not refused:
                    time.sleep(0.001)

        await played(work, script)
        assert "use the asyncio client there" in refused[0]


class TestLifetime:
    async def test_what_opening_raises(self) -> None:
        async def script(peer: Peer) -> None:
            await peer.error(await peer.expect("hello"), "unauthorized")
            await peer.close(4401, {"code": "unauthorized"})

        def work(url: str) -> None:
            with pytest.raises(Unauthorized):
                client(url).open()
            assert not threads()

        await played(work, script)

    async def test_opened_once_closed_often(self) -> None:
        def work(url: str) -> None:
            made = client(url)
            with pytest.raises(RuntimeError, match="not open"):
                made.session("demo").send("x")
            assert made.open() is made
            with pytest.raises(RuntimeError, match="opened once"):
                made.open()
            made.close()
            made.close()

        await played(work, hello)

    async def test_one_that_is_forgotten_ends_its_thread(self) -> None:
        def work(url: str) -> None:
            opened = client(url).open()
            session = opened.session("demo")
            gone = weakref.ref(opened)
            del opened
            gc.collect()
            assert gone() is not None, "a session keeps its client"
            del session
            gc.collect()
            assert gone() is None
            for thread in threads():
                thread.join(5)
            assert not threads()

        await played(work, hello, exact=False)

    async def test_it_is_no_data(self) -> None:
        def work(url: str) -> None:
            with client(url) as opened:
                session = opened.session("demo")
                for value in (opened, session, session.events(), session.ask("x"), session.submit("x")):
                    for copied in (pickle.dumps, copy.copy, copy.deepcopy):
                        with pytest.raises(TypeError, match="not pickled or copied"):
                            copied(value)

        await played(work, hello, exact=False)

    async def test_objects_are_let_go_of_in_the_loop(self) -> None:
        """An iteration that nobody holds stops holding up the socket; a receipt is forgotten."""

        def work(url: str) -> None:
            with client(url) as opened:
                session: Session = opened.session("demo")
                receipt = session.send("hi", input_id="i")
                receipt.finished()
                events = session.events()
                inner = session._inner
                assert inner._stream() is not None
                assert len(inner._following.book._open) == 1
                del events, receipt
                gc.collect()
                session.view  # noqa: B018 - a trip to the loop and back: what was posted before is done
                assert inner._stream() is None
                assert len(inner._following.book._open) == 0

        await played(work, answers)
