"""What can be watched of a session besides its events: views, pages of history, an iteration that is left."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from antiphon_client import ClientClosed, NotAllowed, Session, View
from antiphon_client._tasks import Beside
from clients.python.tests.scripted_gateway import (
    END,
    EPOCH,
    START,
    Peer,
    ScriptedGateway,
    applied,
    client,
    delta,
    entry,
    finished,
    sent,
    snapshot,
    started,
    take,
    until,
)


class TestViews:
    async def test_each_stands_still(self) -> None:
        """A view that was given keeps its state and its text, whatever comes after it."""
        seen = asyncio.Event()

        async def script(peer: Peer) -> None:
            await peer.opened()
            await peer.send(sent(1, 0, "i"), started(2, 1), applied(3, 2), entry(4, 3, START, run="run_i"))
            await peer.send(delta(5, 4, 0, "Hel"))
            await seen.wait()
            await peer.send(delta(6, 5, 3, "lo"), entry(7, 6, END), finished(8, 7))

        views: list[View] = []
        async with ScriptedGateway(script) as gateway, client(gateway) as opened:
            session = opened.session("demo")
            async for view in session.changes():
                views.append(view)
                if view.cursor == f"{EPOCH}:5":
                    seen.set()
                if view.cursor == f"{EPOCH}:8":
                    break
            assert session.view == session.view
        first, half, last = views[0], next(v for v in views if v.cursor == f"{EPOCH}:5"), views[-1]
        assert (first.cursor, first.messages, first.state.status) == (None, (), "idle")
        assert (half.state.status, [m.text for m in half.messages], len(half.state.runs)) == (
            "running",
            ["hi", "Hel"],
            1,
        )
        assert (last.state.status, [m.text for m in last.messages]) == ("idle", ["hi", "Hello"])

    async def test_who_is_slow_gets_the_latest(self) -> None:
        async def script(peer: Peer) -> None:
            await peer.opened()
            await peer.send(*(entry(n, n - 1, {"type": "CUSTOM"}) for n in range(1, 101)))

        async with ScriptedGateway(script) as gateway, client(gateway) as opened:
            session = opened.session("demo")
            views = session.changes()
            assert (await anext(views)).cursor is None
            await until(lambda: session.view.cursor == f"{EPOCH}:100")
            assert (await anext(views)).cursor == f"{EPOCH}:100"

    async def test_a_gap_shows(self) -> None:
        async def script(peer: Peer) -> None:
            await peer.opened()
            await peer.send(sent(1, 0, "i"), {"op": "session.gap", "session": "demo", "from": 0, "to": 1})
            await peer.send(snapshot(7))

        async with ScriptedGateway(script) as gateway, client(gateway) as opened:
            async for view in opened.session("demo").changes():
                if view.cursor == f"{EPOCH}:7":
                    break
            assert view.state.inputs == ()

    async def test_their_ends(self) -> None:
        async def script(peer: Peer) -> None:
            await peer.opened()
            await peer.expect("unsubscribe")
            await peer.error(await peer.expect("subscribe", session="other"), "not_allowed", right="read")

        async with ScriptedGateway(script) as gateway, client(gateway) as opened, asyncio.TaskGroup() as group:
            session = opened.session("demo")
            watching = group.create_task(_all(session))
            await until(lambda: session.view.cursor is not None)
            await session.close()
            assert [view.cursor for view in await watching] == [None, f"{EPOCH}:0"]
            with pytest.raises(NotAllowed):
                await _all(opened.session("other"))


async def _all(session: object) -> list[View]:
    return [view async for view in session.changes()]  # type: ignore[attr-defined]


class TestIterations:
    async def test_one_that_is_closed_makes_room_for_another(self) -> None:
        """Also while it is waiting: that ends, and loses nothing."""

        async def script(peer: Peer) -> None:
            await peer.opened()
            await peer.expect("run.cancel")
            await peer.send(entry(1, 0, {"type": "CUSTOM"}))

        async with ScriptedGateway(script) as gateway, client(gateway) as opened, asyncio.TaskGroup() as group:
            session = opened.session("demo")
            first = session.events()
            await anext(first)
            assert not first.ready
            waiting = group.create_task(anext(first, None))  # type: ignore[arg-type]
            await asyncio.sleep(0)
            first.close()
            assert await waiting is None
            second = session.events()
            first.close()  # is over already, and does nothing to the second
            cancelling = group.create_task(session.cancel_run("run_x"))
            assert getattr(await anext(second), "seq", None) == 1
            with pytest.raises(RuntimeError, match="over"):
                await anext(first)
            cancelling.cancel()

    async def test_ready_says_whether_there_is_a_wait(self) -> None:
        async def script(peer: Peer) -> None:
            await peer.opened()
            await peer.send(entry(1, 0, {"type": "CUSTOM"}))

        async with ScriptedGateway(script) as gateway, client(gateway) as opened:
            session = opened.session("demo")
            session.follow()
            await until(lambda: session.view.cursor == f"{EPOCH}:1")
            stream = session.events()
            assert stream.ready
            await anext(stream)
            await anext(stream)
            assert not stream.ready


WAITS: dict[str, Callable[[Session], Awaitable[object]]] = {
    "answer": lambda session: session.answer("hi"),
    "an answer's next piece": lambda session: anext(aiter(session.ask("hi"))),
    "stored": lambda session: session.submit("hi").stored(),
    "send": lambda session: session.send("hi"),
    "events": lambda session: _drained(session.events()),
    "changes": lambda session: _drained(session.changes()),
    "presence": lambda session: _drained(session.presence_changes()),
    "pages": lambda session: anext(session.history_pages()),
    "a command": lambda session: session.cancel_run("run_x"),
}


@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS)
async def test_any_wait_may_be_cancelled(wait: Callable[[Session], Awaitable[object]]) -> None:
    """At once; afterwards the session is as good as before, and nobody is left waiting."""

    async def script(peer: Peer) -> None:
        await peer.opened()
        while (command := await peer.receive())["op"] != "approval.revoke":
            pass  # none of them gets a reply
        await peer.ok(command, key="k")

    async with ScriptedGateway(script) as gateway, client(gateway) as opened:
        session = opened.session("demo")
        session.follow()
        await until(lambda: session.view.cursor is not None)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await wait(session)
        await session.revoke("k")
        assert opened._waiters == 0 or session.outbox
        assert session.events() is not None


async def _drained(source: AsyncIterator[object]) -> None:
    async for _ in source:
        pass


class TestHistory:
    async def test_page_after_page(self) -> None:
        async def script(peer: Peer) -> None:
            await peer.welcome()
            for before, next_before in ((None, 9), (9, 4), (4, None)):
                command = await peer.expect("history", limit=20)
                assert command.get("before") == before
                await peer.ok(command, messages=[{"id": f"m{next_before}"}], before=next_before)

        async with ScriptedGateway(script) as gateway, client(gateway) as opened:
            pages = [page async for page in opened.session("demo").history_pages(limit=20)]
            assert [page.messages[0].id for page in pages] == ["m9", "m4", "mNone"]

    async def test_a_page_that_leads_to_itself(self) -> None:
        async def script(peer: Peer) -> None:
            await peer.welcome()
            for _ in range(2):
                await peer.ok(await peer.expect("history"), messages=[], before=5)

        async with ScriptedGateway(script) as gateway, client(gateway) as opened:
            assert len([page async for page in opened.session("demo").history_pages()]) == 2


async def test_a_task_that_is_cancelled_before_it_began_warns_nobody() -> None:
    """A warning would be an error here."""

    async def work() -> None:
        raise AssertionError("it is not begun")

    async with Beside(lambda error: pytest.fail(str(error))) as beside:
        task = beside.start(work())
        assert task is not None
        task.cancel()
    gc.collect()
    assert task.cancelled()


async def test_the_client_is_closed_while_events_are_taken() -> None:
    async def script(peer: Peer) -> None:
        await peer.opened()

    async with ScriptedGateway(script) as gateway:
        async with client(gateway) as opened:
            session = opened.session("demo")
            await take(session, 1)
        with pytest.raises(ClientClosed):
            await take(session, 1)
