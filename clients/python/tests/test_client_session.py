"""Sessions against a scripted gateway: events, commands, receipts, and a consumer that is slow."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

import pytest

from antiphon_client import (
    CaughtUp,
    ChainBroken,
    Client,
    ClientClosed,
    CommandQueueFull,
    CommandRefused,
    ConnectionClosed,
    CursorInvalid,
    Entry,
    FrameTooLarge,
    Gap,
    InputApplied,
    InputNotApplied,
    Message,
    NotAllowed,
    Outcome,
    QueueFull,
    Reset,
    Session,
    SessionEvent,
    Settings,
    Snapshot,
    TooLate,
)
from clients.python.tests.scripted_gateway import (
    EPOCH,
    Hung,
    Peer,
    ScriptedGateway,
    caught_up,
    delta,
    entry,
    sent,
    snapshot,
)

START = {"type": "TEXT_MESSAGE_START", "messageId": "m1"}
END = {"type": "TEXT_MESSAGE_END", "messageId": "m1"}


def client(gateway: ScriptedGateway, **options: Any) -> Client:
    return Client(gateway.url, "t1", rand=lambda: 0.0, settings=Settings(close_timeout_s=0.2, **options))


async def take(session: Session, count: int) -> list[SessionEvent]:
    """The next events; the iteration is left then."""
    found: list[SessionEvent] = []
    async for event in session.events():
        found.append(event)
        if len(found) == count:
            break
    return found


def seqs(events: list[SessionEvent]) -> list[int]:
    return [event.seq for event in events if isinstance(event, Entry)]


def started(seq: int, prev: int, input_id: str = "i") -> dict[str, Any]:
    return entry(seq, prev, {"type": "RUN_STARTED", "threadId": "demo", "runId": f"run_{input_id}"})


def applied(seq: int, prev: int, input_id: str = "i") -> dict[str, Any]:
    event = {"type": "input.applied", "inputId": input_id, "runId": f"run_{input_id}", "messageId": f"msg_{input_id}"}
    return entry(seq, prev, event)


def finished(seq: int, prev: int, input_id: str = "i", kind: str = "success") -> dict[str, Any]:
    return entry(seq, prev, {"type": "RUN_FINISHED", "runId": f"run_{input_id}", "outcome": {"type": kind}})


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
                Message("msg_i", "user", None, "main", "run_i", "Hi", "done"),
                Message("m1", "assistant", None, "main", None, "Hello", "done", "complete"),
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


class TestCommands:
    async def test_are_sent_again_with_the_same_ids(self) -> None:
        seen = []

        async def first(peer: Peer) -> None:
            await peer.opened()
            seen.append(await peer.expect("input.send"))
            seen.append(await peer.expect("run.cancel"))
            peer.abort()

        async def second(peer: Peer) -> None:
            await peer.welcome()
            await peer.subscribed(after=f"{EPOCH}:0")
            seen.append(await peer.take_input(1, duplicate=True))
            cancel = await peer.expect("run.cancel")
            seen.append(cancel)
            await peer.ok(cancel, runId="run_x", status="cancelling")

        async with ScriptedGateway(first, second) as gateway, client(gateway) as opened:
            session = opened.session("demo")
            await take(session, 1)
            async with asyncio.TaskGroup() as group:
                send = group.create_task(session.send("Hello", input_id="i"))
                cancel = group.create_task(session.cancel("run_x"))
            assert seen[:2] == seen[2:]
            assert seen[0]["inputId"] == "i"
            receipt = send.result()
            assert (receipt.input_id, receipt.run_id, receipt.seq, receipt.duplicate) == ("i", "run_i", 1, True)
            assert cancel.result() == "cancelling"

    async def test_what_was_answered_or_abandoned_is_not_sent_again(self) -> None:
        arrived = asyncio.Event()

        async def first(peer: Peer) -> None:
            await peer.opened()
            await peer.take_input(1)
            await peer.expect("history", limit=1)
            arrived.set()
            await peer.expect("history", limit=2)
            peer.abort()

        async def second(peer: Peer) -> None:
            await peer.welcome()
            await peer.subscribed(after=f"{EPOCH}:0")
            await peer.ok(await peer.expect("history", limit=2), messages=[], before=None)

        async with ScriptedGateway(first, second) as gateway, client(gateway) as opened:
            session = opened.session("demo")
            await take(session, 1)
            await session.send("x")
            async with asyncio.TaskGroup() as group:
                abandoned = group.create_task(session.history(limit=1))
                await arrived.wait()
                abandoned.cancel()
            assert (await session.history(limit=2)).before is None

    async def test_a_command_that_kills_each_connection_fails(self) -> None:
        async def script(peer: Peer) -> None:
            await peer.welcome()
            await peer.expect("history")
            peer.abort()

        async def last(peer: Peer) -> None:
            await peer.welcome()
            await peer.ok(await peer.expect("run.cancel"), status="cancelled")

        async with ScriptedGateway(script, script, last) as gateway, client(gateway, command_sends=2) as opened:
            with pytest.raises(ConnectionClosed, match="sent 2 times"):
                await opened.session("demo").history()
            assert await opened.session("demo").cancel("r") == "cancelled"

    async def test_those_of_an_outage_wait_and_are_bounded(self) -> None:
        async def leave(peer: Peer) -> None:
            await peer.welcome()
            await peer.expect("history")
            await peer.close(4200, {"code": "draining", "retry_after_ms": 100})

        async def back(peer: Peer) -> None:
            await peer.welcome()
            for _ in range(3):
                await peer.ok(await peer.expect("history"), messages=[], before=None)

        async with ScriptedGateway(leave, back) as gateway, client(gateway, pending_commands=3) as opened:
            session = opened.session("demo")
            async with asyncio.TaskGroup() as group:
                waiting = [group.create_task(session.history()) for _ in range(3)]
                await asyncio.sleep(0)
                with pytest.raises(CommandQueueFull) as caught:
                    await session.history()
            assert caught.value.retryable
            assert all(task.result().messages == () for task in waiting)

    async def test_refusals_are_typed(self) -> None:
        async def script(peer: Peer) -> None:
            await peer.opened()
            await peer.error(await peer.expect("input.send"), "queue_full", retryable=True)
            await peer.error(await peer.expect("run.cancel"), "run_ended")
            await peer.error(await peer.expect("input.cancel", inputId="i"), "not_allowed", right="admin")
            await peer.ok(await peer.expect("input.cancel", inputId="j"), inputId="j", status="cancelled")

        async with ScriptedGateway(script) as gateway, client(gateway) as opened:
            session = opened.session("demo")
            with pytest.raises(QueueFull) as caught:
                await session.send("x")
            assert caught.value.retryable
            with pytest.raises(TooLate):
                await session.cancel("run_x")
            with pytest.raises(NotAllowed):
                await session.cancel_input("i")
            await session.cancel_input("j")

    async def test_passing_refusals_are_waited_out(self) -> None:
        async def script(peer: Peer) -> None:
            await peer.opened()
            first = await peer.expect("input.send")
            await peer.error(first, "unavailable", retryable=True, retry_after_ms=1)
            second = await peer.expect("input.send", inputId=first["inputId"], content="x")
            await peer.error(second, "rate_limited", retryable=True, retry_after_ms=1)
            await peer.take_input(1)

        async with ScriptedGateway(script) as gateway, client(gateway) as opened:
            assert (await opened.session("demo").send("x")).seq == 1

    async def test_but_not_for_ever(self) -> None:
        async def script(peer: Peer) -> None:
            await peer.welcome()
            for _ in range(3):
                await peer.error(await peer.expect("history"), "unavailable", retryable=True)

        async with ScriptedGateway(script) as gateway, client(gateway, command_retries=2) as opened:
            with pytest.raises(CommandRefused) as caught:
                await opened.session("demo").history()
            assert (caught.value.code, caught.value.retryable) == ("unavailable", True)

    async def test_history(self) -> None:
        messages = [
            {"id": "m", "role": "user", "by": {"kind": "user", "id": "ada"}, "lane": "main", "run": "run_i", "seq": 7,
             "text": "Hi", "status": "done", "reason": None, "new": 1},
            "nonsense",
        ]  # fmt: skip

        async def script(peer: Peer) -> None:
            await peer.welcome()
            command = await peer.expect("history", session="demo", before=99, limit=20)
            await peer.ok(command, messages=messages, before=7)

        async with ScriptedGateway(script) as gateway, client(gateway) as opened:
            page = await opened.session("demo").history(before=99, limit=20)
            assert page.before == 7
            by = {"kind": "user", "id": "ada"}
            assert page.messages == (Message("m", "user", by, "main", "run_i", "Hi", "done", seq=7),)

    async def test_a_frame_over_the_limit_is_not_sent(self) -> None:
        async def script(peer: Peer) -> None:
            limits = {"frame_bytes": 300, "commands_per_second": 1000}
            await peer.welcome(limits=limits)
            await peer.subscribed()
            await peer.take_input(1)

        async with ScriptedGateway(script) as gateway, client(gateway) as opened:
            session = opened.session("demo")
            for text in ("x" * 300, "é" * 140):
                with pytest.raises(FrameTooLarge):
                    await session.send(text)
            assert (await session.send("é" * 50)).seq == 1

    @pytest.mark.parametrize("text", ["", "\ud800"])
    async def test_what_is_no_text(self, text: str) -> None:
        async def script(peer: Peer) -> None:
            await peer.welcome()

        async with ScriptedGateway(script) as gateway, client(gateway) as opened:
            with pytest.raises(ValueError, match=r"empty|surrogates"):
                await opened.session("demo").send(text)
            await gateway.played(1)

    async def test_a_page_that_is_too_large_fails_alone(self) -> None:
        async def first(peer: Peer) -> None:
            await peer.welcome()
            command = await peer.expect("history")
            await peer.expect("run.cancel")
            await peer.ok(command, messages=[{"id": "m", "text": "x" * 5000}], before=None)

        async def second(peer: Peer) -> None:
            await peer.welcome()
            await peer.ok(await peer.expect("run.cancel"), status="cancelled")

        async with ScriptedGateway(first, second) as gateway, client(gateway, max_frame_bytes=4096) as opened:
            session = opened.session("demo")
            async with asyncio.TaskGroup() as group:
                page = group.create_task(_error_of(session.history()))
                cancel = group.create_task(session.cancel("r"))
            assert isinstance(page.result(), FrameTooLarge)
            assert cancel.result() == "cancelled"

    async def test_are_paced_below_the_gateways_limit(self) -> None:
        async def script(peer: Peer) -> None:
            await peer.welcome(limits={"commands_per_second": 50, "commands_burst": 10})
            begun = asyncio.get_running_loop().time()
            for _ in range(20):
                await peer.ok(await peer.expect("history"), messages=[], before=None)
            # nine at once, the others 22 ms apart
            assert asyncio.get_running_loop().time() - begun >= 10 / 50

        async with ScriptedGateway(script) as gateway, client(gateway) as opened, asyncio.TaskGroup() as group:
            for _ in range(20):
                group.create_task(opened.session("demo").history())


async def _error_of(work: Any) -> Exception | None:
    try:
        await work
    except Exception as error:  # noqa: BLE001 - it is what the test asks for
        return error
    return None


class TestReceipts:
    @pytest.mark.parametrize(
        ("last", "outcome"),
        [
            (finished(4, 3), Outcome("success")),
            (finished(4, 3, kind="cancelled"), Outcome("cancelled")),
            (
                entry(4, 3, {"type": "RUN_ERROR", "message": "boom", "code": "agent_error"}, run="run_i"),
                Outcome("error", "agent_error", "boom"),
            ),
        ],
    )
    async def test_from_stored_to_finished(self, last: dict[str, Any], outcome: Outcome) -> None:
        async def script(peer: Peer) -> None:
            await peer.opened()
            command = await peer.expect("input.send", inputId="i", content="Hi")
            assert "mode" not in command
            # the entries may be faster than the reply
            await peer.send(sent(1, 0, "i", "Hi"), started(2, 1), applied(3, 2))
            run = {"runId": "run_i", "status": "applied", "position": 1, "duplicate": False}
            await peer.ok(command, inputId="i", seq=1, **run)
            await peer.send(last)

        async with ScriptedGateway(script) as gateway, client(gateway) as opened:
            receipt = await opened.session("demo").send("Hi", input_id="i")
            assert (receipt.input_id, receipt.run_id, receipt.seq, receipt.duplicate) == ("i", "run_i", 1, False)
            assert await receipt.applied() == InputApplied("i", "run_i", "msg_i")
            assert await receipt.finished() == outcome
            assert "run_i" in repr(receipt)

    async def test_ids_are_made_that_are_valid_and_differ(self) -> None:
        seen = []

        async def script(peer: Peer) -> None:
            await peer.opened()
            seen.extend([(await peer.take_input(seq))["inputId"] for seq in (1, 2)])

        async with ScriptedGateway(script) as gateway, client(gateway) as opened:
            session = opened.session("demo")
            ids = [(await session.send("x")).input_id for _ in range(2)]
            assert ids == seen
            assert len(set(ids)) == 2
            assert all(len(name) == 32 and name.isalnum() for name in ids)

    @pytest.mark.parametrize(
        ("event", "code", "outcome"),
        [
            ({"type": "input.cancel.requested", "inputId": "i"}, "cancelled", Outcome("cancelled", "cancelled")),
            ({"type": "run.cancel.requested", "runId": "run_i"}, "cancelled", Outcome("cancelled", "cancelled")),
            ({"type": "input.failed", "inputId": "i", "code": "bad"}, "bad", Outcome("error", "bad")),
        ],
    )
    async def test_an_input_that_is_never_applied(self, event: dict[str, Any], code: str, outcome: Outcome) -> None:
        async def script(peer: Peer) -> None:
            await peer.opened()
            await peer.take_input(1)
            await peer.send(sent(1, 0, "i"), entry(2, 1, event))

        async with ScriptedGateway(script) as gateway, client(gateway) as opened:
            receipt = await opened.session("demo").send("Hi", input_id="i")
            with pytest.raises(InputNotApplied) as caught:
                await receipt.applied()
            assert caught.value.code == code
            assert await receipt.finished() == outcome

    async def test_survives_the_connection(self) -> None:
        async def first(peer: Peer) -> None:
            await peer.opened()
            await peer.take_input(1)
            await peer.send(sent(1, 0, "i"), started(2, 1))
            peer.abort()

        async def second(peer: Peer) -> None:
            await peer.welcome()
            await peer.subscribed(after=f"{EPOCH}:2")
            await peer.send(applied(3, 2), finished(4, 3))

        async with ScriptedGateway(first, second) as gateway, client(gateway) as opened:
            receipt = await opened.session("demo").send("Hi", input_id="i")
            assert (await receipt.finished()).ok

    async def test_one_that_ended_before_is_known_to_have_ended(self) -> None:
        async def script(peer: Peer) -> None:
            await peer.opened(as_of=50)
            await peer.take_input(1, status="ended", duplicate=True)

        async with ScriptedGateway(script) as gateway, client(gateway) as opened:
            receipt = await opened.session("demo").send("Hi", input_id="i")
            assert await receipt.finished() == Outcome("unknown")
            assert await receipt.applied() == InputApplied("i", "run_i", None)

    async def test_a_gap_that_hides_the_end(self) -> None:
        async def script(peer: Peer) -> None:
            await peer.opened()
            await peer.take_input(1)
            await peer.send(sent(1, 0, "i"), {"op": "session.gap", "session": "demo", "from": 1, "to": 9}, snapshot(9))

        async with ScriptedGateway(script) as gateway, client(gateway) as opened:
            receipt = await opened.session("demo").send("Hi", input_id="i")
            assert await receipt.finished() == Outcome("unknown")

    async def test_a_gap_in_the_middle_of_the_run(self) -> None:
        running = [{"runId": "run_i", "lane": "main", "inputId": "i", "attempt": 1, "cancel": None}]

        async def script(peer: Peer) -> None:
            await peer.opened()
            await peer.take_input(1)
            await peer.send(sent(1, 0, "i"), {"op": "session.gap", "session": "demo", "from": 1, "to": 9})
            await peer.send(snapshot(9, runs=running), finished(10, 9))

        async with ScriptedGateway(script) as gateway, client(gateway) as opened:
            receipt = await opened.session("demo").send("Hi", input_id="i")
            assert (await receipt.applied()).message_id is None
            assert await receipt.finished() == Outcome("success")

    async def test_a_gap_while_it_waits(self) -> None:
        waiting = [{"inputId": "i", "seq": 1, "ts": 1, "by": None, "content": "Hi", "mode": None}]

        async def script(peer: Peer) -> None:
            await peer.opened()
            await peer.take_input(1)
            await peer.send(sent(1, 0, "i"), {"op": "session.gap", "session": "demo", "from": 1, "to": 9})
            await peer.send(snapshot(9, inputs=waiting), started(10, 9), applied(11, 10), finished(12, 11))

        async with ScriptedGateway(script) as gateway, client(gateway) as opened:
            session = opened.session("demo")
            receipt = await session.send("Hi", input_id="i")
            assert (await receipt.applied()).message_id == "msg_i"
            assert (await receipt.finished()).ok
            assert [message.text for message in session.messages] == ["Hi"]

    async def test_a_seventeenth_that_two_gateways_let_in(self) -> None:
        async def script(peer: Peer) -> None:
            await peer.opened()
            await peer.take_input(17)
            await peer.send(*(sent(seq, seq - 1, f"i{seq}") for seq in range(1, 17)), sent(17, 16, "late"))

        async with ScriptedGateway(script) as gateway, client(gateway) as opened:
            receipt = await opened.session("demo").send("Hi", input_id="late")
            with pytest.raises(InputNotApplied, match="queue_full"):
                await receipt.applied()

    async def test_the_end_of_the_client_ends_the_wait(self) -> None:
        async def script(peer: Peer) -> None:
            await peer.opened()
            await peer.take_input(1)
            await peer.close(4429, {"code": "flood"})

        async with ScriptedGateway(script) as gateway, client(gateway) as opened:
            receipt = await opened.session("demo").send("Hi")
            with pytest.raises(ConnectionClosed, match="flood"):
                await receipt.finished()
            with pytest.raises(ConnectionClosed, match="flood"):
                await receipt.applied()


class Flood:
    """Sends `total` entries of `pad` bytes as fast as the client takes them."""

    def __init__(self, total: int, pad: int = 1000) -> None:
        self.total = total
        self.text = "x" * pad
        self.sent = 0

    async def pour(self, peer: Peer, after: int = 0, session: str = "demo") -> None:
        for seq in range(after + 1, self.total + 1):
            await peer.send(delta(seq, seq - 1, 0, self.text, session=session))
            self.sent = seq


async def stalled(flood: Flood) -> int:
    """Wait until no more is taken; returns how many entries were."""
    while True:
        before = flood.sent
        await asyncio.sleep(0.3)
        if before == flood.sent > 0:
            return before


class TestBackpressure:
    async def test_a_slow_consumer_stops_the_socket(self) -> None:
        flood = Flood(60_000)

        async def script(peer: Peer) -> None:
            await peer.opened()
            await flood.pour(peer)

        async with ScriptedGateway(script, limit_s=50) as gateway, client(gateway, buffer_events=100) as opened:
            session = opened.session("demo")
            stream = session.events()
            assert isinstance(await anext(stream), Snapshot)
            taken = await stalled(flood)
            assert taken < flood.total  # 60 MB: more than sockets hold
            assert len(session._buffer) <= 100
            for expected in range(1, flood.total + 1):
                event = await anext(stream)
                assert isinstance(event, Entry)
                assert event.seq == expected
            assert gateway.connections == 1

    async def test_the_buffer_is_bounded_by_size_too(self) -> None:
        flood = Flood(400, pad=100_000)

        async def script(peer: Peer) -> None:
            await peer.opened()
            await flood.pour(peer)

        async with ScriptedGateway(script) as gateway, client(gateway, buffer_bytes=1_000_000) as opened:
            session = opened.session("demo")
            stream = session.events()
            await anext(stream)
            assert await stalled(flood) < flood.total
            assert len(session._buffer) <= 10
            for expected in range(1, flood.total + 1):
                assert seqs([await anext(stream)]) == [expected]

    async def test_silence_of_our_own_making_is_not_a_dead_connection(self) -> None:
        flood = Flood(20_000)

        async def script(peer: Peer) -> None:
            await peer.welcome(heartbeat_ms=100)
            await peer.subscribed()
            await peer.send(snapshot())
            await flood.pour(peer)

        async with ScriptedGateway(script, limit_s=50) as gateway, client(gateway, buffer_events=10) as opened:
            stream = opened.session("demo").events()
            await anext(stream)
            assert await stalled(flood) < flood.total  # for longer than two heartbeats
            for expected in range(1, flood.total + 1):
                assert seqs([await anext(stream)]) == [expected]
            assert gateway.connections == 1

    async def test_a_command_inside_the_loop_does_not_deadlock(self) -> None:
        flood = Flood(500, pad=10)

        async def script(peer: Peer) -> None:
            await peer.opened()
            await flood.pour(peer)
            while True:
                command = await peer.receive()
                match command["op"]:
                    case "history":
                        await peer.ok(command, messages=[], before=None)
                    case "unsubscribe":
                        await peer.ok(command)
                    case "subscribe":
                        after = command["after"].split(":")[1]
                        await peer.ok(command, session="demo", epoch=EPOCH, head=flood.total)
                        await flood.pour(peer, int(after))
                    case "run.cancel":
                        await peer.ok(command, status="cancelled")
                        return

        async with ScriptedGateway(script) as gateway, client(gateway, buffer_events=50) as opened:
            session = opened.session("demo")
            found = []
            async for event in session.events():
                if isinstance(event, Entry):
                    found.append(event.seq)
                    if event.seq % 100 == 1:
                        await session.history()
                if len(found) == flood.total:
                    break
            assert found == list(range(1, flood.total + 1))
            await session.cancel("r")

    async def test_a_receipt_needs_no_consumer_and_events_still_gives_all(self) -> None:
        total = 300

        async def pour(peer: Peer, after: int) -> None:
            frames = [sent(1, 0, "i"), started(2, 1), applied(3, 2), entry(4, 3, START)]
            frames += [delta(seq, seq - 1, seq - 5, "x") for seq in range(5, total)]
            frames += [finished(total, total - 1)]
            await peer.send(*frames[after:])

        async def script(peer: Peer) -> None:
            await peer.opened()
            await peer.take_input(1)
            await pour(peer, 0)
            await peer.ok(await peer.expect("unsubscribe"))
            await peer.subscribed(after=f"{EPOCH}:199")  # with the snapshot, as much as the buffer holds
            await pour(peer, 199)

        async with ScriptedGateway(script) as gateway, client(gateway, buffer_events=200) as opened:
            session = opened.session("demo")
            receipt = await session.send("Hi", input_id="i")
            assert await receipt.finished() == Outcome("success")
            assert [message.text for message in session.messages] == ["hi", "x" * (total - 5)]
            assert session.cursor is None
            events = await take(session, total + 1)
            assert seqs(events) == list(range(1, total + 1))
            assert [len(message.text) for message in session.messages] == [2, total - 5]

    async def test_a_session_nobody_reads_does_not_hold_up_another(self) -> None:
        flood = Flood(300, pad=10)

        async def script(peer: Peer) -> None:
            await peer.welcome()
            for name in ("slow", "quick"):
                await peer.subscribed(session=name)
                await peer.send(snapshot(session=name))
            await flood.pour(peer, session="slow")
            await peer.send(delta(1, 0, 0, "x", session="quick"))
            await peer.ok(await peer.expect("unsubscribe", session="slow"))
            command = await peer.expect("subscribe", session="slow")
            await peer.ok(command, session="slow", epoch=EPOCH, head=flood.total)
            await flood.pour(peer, int(command["after"].split(":")[1]), session="slow")

        async with ScriptedGateway(script) as gateway, client(gateway, buffer_events=200) as opened:
            slow, quick = opened.session("slow"), opened.session("quick")
            stream = slow.events()
            await anext(stream)
            assert seqs(await take(quick, 2)) == [1]
            for expected in range(1, flood.total + 1):
                assert seqs([await anext(stream)]) == [expected]


class TestBehind:
    """What happens to a session whose buffer was full while somebody waited for something else."""

    async def test_a_gap_begins_anew(self) -> None:
        async def script(peer: Peer) -> None:
            await peer.opened()
            await peer.take_input(1)
            await peer.send(sent(1, 0, "i"), started(2, 1), applied(3, 2), entry(4, 3, START), delta(5, 4, 0, "x"))
            await peer.send({"op": "session.gap", "session": "demo", "from": 3, "to": 5}, snapshot(2), finished(6, 2))

        async with ScriptedGateway(script) as gateway, client(gateway, buffer_events=3) as opened:
            session = opened.session("demo")
            receipt = await session.send("Hi", input_id="i")
            await receipt.finished()
            assert [type(event) for event in await take(session, 3)] == [Gap, Snapshot, Entry]
            assert session.messages == []

    async def test_a_lost_connection_goes_on_where_the_fold_is(self) -> None:
        async def first(peer: Peer) -> None:
            await peer.opened()
            await peer.take_input(1)
            await peer.send(sent(1, 0, "i"), started(2, 1), applied(3, 2))
            peer.abort()

        async def second(peer: Peer) -> None:
            await peer.welcome()
            await peer.subscribed(after=f"{EPOCH}:3")
            await peer.send(finished(4, 3))
            await peer.ok(await peer.expect("unsubscribe"))
            await peer.subscribed(after=f"{EPOCH}:1")
            await peer.send(started(2, 1), applied(3, 2), finished(4, 3))

        async with ScriptedGateway(first, second) as gateway, client(gateway, buffer_events=2) as opened:
            session = opened.session("demo")
            receipt = await session.send("Hi", input_id="i")
            assert (await receipt.finished()).ok
            assert seqs(await take(session, 5)) == [1, 2, 3, 4]
            assert [message.text for message in session.messages] == ["hi"]


class Storm:
    """A gateway with one log, which kills each connection after a random number of frames."""

    def __init__(self, seed: int, total: int) -> None:
        self.random = Random(seed)
        self.total = total
        self.text = "".join(self.random.choices("abc \u00e9\U0001f600\n", k=total))

    def log(self, after: int) -> list[dict[str, Any]]:
        """The entries after a place: one message, one character for each delta."""
        last = self.total + 2
        frames = [entry(1, 0, START)]
        frames += [delta(seq, seq - 1, seq - 2, self.text[seq - 2]) for seq in range(2, last)]
        return [*frames, entry(last, last - 1, END)][after:]

    async def script(self, peer: Peer) -> None:
        """Play the gateway until the connection is killed, or the client is content."""
        frames_left = self.random.randrange(5, self.total // 4)
        await peer.welcome()
        while True:
            command = await peer.receive()
            match command["op"]:
                case "subscribe":
                    after = command.get("after")
                    await peer.ok(command, session="demo", epoch=EPOCH, head=self.total)
                    if after is None:
                        await peer.send(snapshot())
                    for frame in self.log(0 if after is None else int(after.split(":")[1])):
                        await peer.send(frame)
                        frames_left -= 1
                        if frames_left == 0:
                            peer.abort()
                            return
                case "history":
                    await peer.ok(command, messages=[], before=None)
                case _:
                    await peer.ok(command)

    async def serve(self, peer: Peer) -> None:
        """The same; the client may leave whenever it likes."""
        try:
            await self.script(peer)
        except (Hung, ConnectionError):
            pass


@pytest.mark.parametrize("seed", range(5))
async def test_a_storm_of_kills_loses_nothing_and_repeats_nothing(seed: int) -> None:
    storm, dice = Storm(seed, total=2000), Random(-seed)
    async with (
        ScriptedGateway(*[storm.serve] * 400, limit_s=50, exact=False) as gateway,
        client(gateway, buffer_events=64, command_sends=400) as opened,
    ):
        session = opened.session("demo")
        found: list[int] = []
        while not found or found[-1] < storm.total + 2:
            async for event in session.events():
                if isinstance(event, Entry):
                    found.append(event.seq)
                    if event.seq == storm.total + 2:
                        break
                if dice.random() < 0.01:
                    await session.history()
                if dice.random() < 0.01:
                    break  # and enter the loop again
        assert found == list(range(1, storm.total + 3))
        (message,) = session.messages
        assert (message.text, message.status) == (storm.text, "done")
        assert gateway.connections > 4
