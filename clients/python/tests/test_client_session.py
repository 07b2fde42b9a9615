"""What `Session.events()` gives out, and what is folded, against a scripted gateway."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from antiphon_client import (
    CaughtUp,
    ChainBroken,
    ClientClosed,
    CursorInvalid,
    Entry,
    Gap,
    Message,
    NotAllowed,
    Reset,
    Snapshot,
)
from clients.python.tests.scripted_gateway import (
    END,
    EPOCH,
    START,
    Peer,
    ScriptedGateway,
    applied,
    caught_up,
    client,
    delta,
    entry,
    sent,
    seqs,
    snapshot,
    started,
    take,
)


class TestReading:
    async def test_events_state_messages_and_cursor(self) -> None:
        async def script(peer: Peer) -> None:
            await peer.opened(as_of=5)
            await peer.send(sent(6, 5, "i", "Hi"), started(7, 6), applied(8, 7), entry(9, 8, START))
            await peer.send(delta(10, 9, 0, "Hel"), delta(12, 10, 3, "lo", merged=2), entry(13, 12, END), caught_up(13))

        async with ScriptedGateway(script) as gateway, client(gateway) as opened:
            session = opened.session("demo")
            assert session.cursor is None
            cursors: list[str | None] = []
            async for event in session.events():
                cursors.append(session.cursor)
                if isinstance(event, Snapshot):
                    assert (event.as_of, event.messages_before) == (5, 3)
                if isinstance(event, Entry):
                    assert event.cursor == session.cursor
                if isinstance(event, CaughtUp):
                    assert event.cursor == f"{EPOCH}:13"
                    break
            assert cursors == [f"{EPOCH}:{seq}" for seq in (5, 6, 7, 8, 9, 10, 12, 13, 13)]
            assert session.messages == [
                Message("msg_i", "user", None, "main", None, "Hi", "done", "complete", seq=8),
                Message("m1", "assistant", None, "main", None, "Hello", "done", "complete", seq=9),
            ]
            assert [run.run_id for run in session.state.runs] == ["run_i"]
            assert session.state.lanes["main"].run == "run_i"

    async def test_a_stored_cursor(self) -> None:
        async def script(peer: Peer) -> None:
            await peer.welcome()
            await peer.subscribed(after=f"{EPOCH}:8")
            await peer.send(entry(9, 8, START), delta(10, 9, 0, "Hello"), caught_up(10))

        async with ScriptedGateway(script) as gateway, client(gateway) as opened:
            session = opened.session("demo", cursor=f"{EPOCH}:8")
            assert session.cursor == f"{EPOCH}:8"
            assert [type(event) for event in await take(session, 3)] == [Entry, Entry, CaughtUp]
            assert [message.text for message in session.messages] == ["Hello"]

    async def test_what_is_no_cursor(self) -> None:
        async def script(peer: Peer) -> None:
            await peer.welcome()

        async with ScriptedGateway(script) as gateway, client(gateway) as opened:
            with pytest.raises(CursorInvalid):
                opened.session("demo", cursor="1842")
            await gateway.played(1)

    async def test_every_entry_on_request(self) -> None:
        async def script(peer: Peer) -> None:
            await peer.welcome()
            command = await peer.expect("subscribe", replay="every", after=None)
            await peer.ok(command, session="demo", epoch=EPOCH, head=1)
            await peer.send(snapshot(), delta(1, 0, 0, "a"))

        async with ScriptedGateway(script) as gateway, client(gateway) as opened:
            assert seqs(await take(opened.session("demo", every=True), 2)) == [1]

    @pytest.mark.parametrize("reason", ["cursor_epoch", "cursor_future", "cursor_bad"])
    async def test_a_cursor_that_is_refused(self, reason: str) -> None:
        async def first(peer: Peer) -> None:
            await peer.welcome()
            await peer.subscribed(after="old:8")
            # an old log goes on under the cursor, and with it the state that must be dropped
            await peer.send(entry(9, 8, START, id="7-9"))
            peer.abort()

        async def second(peer: Peer) -> None:
            await peer.welcome()
            await peer.error(await peer.expect("subscribe", after="old:9"), reason)
            await peer.subscribed(after=None)
            await peer.send(snapshot(2), entry(3, 2, {"type": "TEXT_MESSAGE_START", "messageId": "new"}))

        async def first_of_old_log(peer: Peer) -> None:
            peer.subscribed = subscribed_in_old_log(peer)  # type: ignore[method-assign]
            await first(peer)

        async with ScriptedGateway(first_of_old_log, second) as gateway, client(gateway) as opened:
            session = opened.session("demo", cursor="old:8")
            events = await take(session, 4)
            assert [type(event) for event in events] == [Entry, Reset, Snapshot, Entry]
            assert events[1] == Reset("demo", reason)
            assert [message.id for message in session.messages] == ["new"]
            assert session.cursor == f"{EPOCH}:3"

    async def test_a_broken_chain_is_read_again_and_never_given_out(self) -> None:
        async def script(peer: Peer) -> None:
            await peer.opened()
            await peer.send(delta(1, 0, 0, "a"), delta(3, 2, 2, "c"), delta(4, 3, 3, "d"))
            await peer.ok(await peer.expect("unsubscribe"))
            await peer.subscribed(after=f"{EPOCH}:1")
            await peer.send(delta(2, 1, 1, "b"), delta(3, 2, 2, "c"), delta(4, 3, 3, "d"))

        async with ScriptedGateway(script) as gateway, client(gateway) as opened:
            assert seqs(await take(opened.session("demo"), 5)) == [1, 2, 3, 4]
            assert gateway.connections == 1

    async def test_a_chain_that_never_mends(self) -> None:
        async def script(peer: Peer) -> None:
            await peer.opened()
            for _ in range(2):
                await peer.send(delta(9, 8, 0, "x"))
                await peer.ok(await peer.expect("unsubscribe"))
                await peer.subscribed(after=f"{EPOCH}:0")
            await peer.send(delta(9, 8, 0, "x"))
            await peer.ok(await peer.expect("unsubscribe"))

        async with ScriptedGateway(script) as gateway, client(gateway, chain_retries=2) as opened:
            session = opened.session("demo")
            stream = session.events()
            await anext(stream)
            with pytest.raises(ChainBroken):
                await anext(stream)
            with pytest.raises(RuntimeError, match="iteration is over"):
                await anext(stream)
            assert session.messages == []
            await gateway.played(1)

    async def test_a_gap(self) -> None:
        async def script(peer: Peer) -> None:
            await peer.opened()
            await peer.send(entry(1, 0, START), started(4, 1, "old"))
            await peer.send({"op": "session.gap", "session": "demo", "from": 1, "to": 4})
            await peer.send(snapshot(3), started(4, 3, "new"), caught_up(4))

        async with ScriptedGateway(script) as gateway, client(gateway) as opened:
            session = opened.session("demo")
            events = await take(session, 7)
            assert [type(event) for event in events] == [Snapshot, Entry, Entry, Gap, Snapshot, Entry, CaughtUp]
            assert events[3] == Gap("demo", 1, 4)
            assert session.messages == []
            assert [run.run_id for run in session.state.runs] == ["run_new"]

    async def test_no_right_to_read(self) -> None:
        async def script(peer: Peer) -> None:
            await peer.welcome()
            await peer.error(await peer.expect("subscribe"), "not_allowed", right="read")
            await peer.take_input(1)
            await peer.error(await peer.expect("subscribe"), "not_allowed", right="read")
            await peer.subscribed()
            await peer.send(snapshot())

        async with ScriptedGateway(script) as gateway, client(gateway) as opened:
            session = opened.session("demo")
            receipt = await session.send("hi")
            with pytest.raises(NotAllowed) as caught:
                await receipt.finished()
            assert caught.value.data == {"right": "read"}
            assert isinstance(session.error, NotAllowed)
            assert [type(event) for event in await take(session, 1)] == [Snapshot]  # asking again may help
            assert session.error is None

    async def test_a_log_that_is_away_for_a_moment(self) -> None:
        async def script(peer: Peer) -> None:
            await peer.welcome()
            for _ in range(3):
                await peer.error(await peer.expect("subscribe"), "unavailable", retryable=True, retry_after_ms=1)
            await peer.subscribed()
            await peer.send(snapshot())

        async with ScriptedGateway(script) as gateway, client(gateway) as opened:
            assert [type(event) for event in await take(opened.session("demo"), 1)] == [Snapshot]

    async def test_one_iteration_at_a_time_and_leaving_it_misses_nothing(self) -> None:
        async def script(peer: Peer) -> None:
            await peer.opened()
            await peer.send(*(delta(seq, seq - 1, seq - 1, "x") for seq in range(1, 5)))

        async with ScriptedGateway(script) as gateway, client(gateway) as opened:
            session = opened.session("demo")
            stream = session.events()
            with pytest.raises(RuntimeError, match="iterated already"):
                session.events()
            assert isinstance(await anext(stream), Snapshot)
            del stream
            assert seqs(await take(session, 2)) == [1, 2]
            assert seqs(await take(session, 2)) == [3, 4]

    async def test_cancelling_the_wait_for_an_event_loses_none(self) -> None:
        go_on = asyncio.Event()

        async def script(peer: Peer) -> None:
            await peer.opened()
            await go_on.wait()
            await peer.send(delta(1, 0, 0, "x"))

        async with ScriptedGateway(script) as gateway, client(gateway) as opened:
            session = opened.session("demo")
            stream = session.events()
            await anext(stream)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await anext(stream)
            go_on.set()
            assert seqs([await anext(stream)]) == [1]

    async def test_closing_a_session(self) -> None:
        async def script(peer: Peer) -> None:
            await peer.opened()
            await peer.take_input(1)
            command = await peer.expect("unsubscribe", session="demo")
            await peer.ok(command)
            await peer.subscribed(session="demo")
            await peer.send(snapshot())

        async with ScriptedGateway(script) as gateway, client(gateway) as opened:
            session = opened.session("demo")
            stream = session.events()
            await anext(stream)
            receipt = await session.send("x")
            await session.close()
            await session.close()
            for _ in range(2):
                with pytest.raises(StopAsyncIteration):
                    await anext(stream)
            with pytest.raises(ClientClosed):
                await receipt.finished()
            for work in (session.send("x"), session.cancel("r"), session.cancel_input("i"), session.history()):
                with pytest.raises(ClientClosed):
                    await work
            again = opened.session("demo")
            assert again is not session
            assert [type(event) for event in await take(again, 1)] == [Snapshot]


def subscribed_in_old_log(peer: Peer) -> Any:
    """Like `Peer.subscribed`, in a log of another epoch."""

    async def subscribed(after: str | None = None, **_fields: Any) -> None:
        command = await peer.expect("subscribe", after=after)
        await peer.ok(command, session="demo", epoch="old", head=9)

    return subscribed
