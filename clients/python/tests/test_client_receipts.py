"""Receipts against a scripted gateway: applied, finished, refused, hidden by a gap."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from antiphon_client import ConnectionClosed, Input, InputApplied, InputNotApplied, Outcome
from clients.python.tests.scripted_gateway import (
    EPOCH,
    Peer,
    ScriptedGateway,
    applied,
    client,
    entry,
    finished,
    sent,
    snapshot,
    started,
    take,
)

OWNED = {"owner": {"kind": "agent", "id": "w"}, "fence": 1, "run": None}
RUNNING = [{"runId": "run_a", "lane": "main", "inputId": "a", "attempt": 1, "cancel": None}]


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
            source = Input("i", 1, 1, None, "Hi")
            assert await receipt.applied() == InputApplied("i", "run_i", "msg_i", source)
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
            ({"type": "input.cancel.requested", "inputId": "i"}, "cancelled", Outcome("cancelled")),
            ({"type": "run.cancel.requested", "runId": "run_i"}, "cancelled", Outcome("cancelled")),
            ({"type": "input.failed", "inputId": "i", "code": "bad"}, "bad", Outcome("error", "bad")),
        ],
    )
    async def test_an_input_that_is_never_applied(self, event: dict[str, Any], code: str, outcome: Outcome) -> None:
        async def script(peer: Peer) -> None:
            await peer.opened()
            await peer.take_input(1)
            command = entry(2, 1, event)
            if not event["type"].startswith("input.failed"):
                del command["lane"]  # a participant's
            await peer.send(sent(1, 0, "i"), command)

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

    @pytest.mark.parametrize("status", ["applied", "ended"])
    async def test_the_entries_know_more_than_the_reply(self, status: str) -> None:
        async def script(peer: Peer) -> None:
            await peer.opened()
            await peer.take_input(1, status=status)
            await peer.send(sent(1, 0, "i"), started(2, 1), applied(3, 2), finished(4, 3))

        async with ScriptedGateway(script) as gateway, client(gateway) as opened:
            receipt = await opened.session("demo").send("Hi", input_id="i")
            assert (await receipt.applied()).message_id == "msg_i"
            assert await receipt.finished() == Outcome("success")

    async def test_one_sent_again_after_its_end(self) -> None:
        async def script(peer: Peer) -> None:
            await peer.opened()
            await peer.send(sent(1, 0, "i"), started(2, 1), applied(3, 2), finished(4, 3))
            await peer.take_input(1, status="ended", duplicate=True)

        async with ScriptedGateway(script) as gateway, client(gateway) as opened:
            session = opened.session("demo")
            await take(session, 5)
            receipt = await session.send("Hi", input_id="i")
            assert receipt.duplicate
            assert await receipt.finished() == Outcome("unknown")

    @pytest.mark.parametrize("cursor", [None, f"{EPOCH}:50"])
    async def test_one_that_was_taken_back_long_ago(self, cursor: str | None) -> None:
        async def script(peer: Peer) -> None:
            await peer.welcome()
            await peer.subscribed(after=cursor)
            if cursor is None:
                await peer.send(snapshot(50))
            await peer.take_input(1, seq=None, status="cancelled", duplicate=True)

        async with ScriptedGateway(script) as gateway, client(gateway) as opened:
            receipt = await opened.session("demo", cursor=cursor).send("Hi", input_id="i")
            assert receipt.seq is None
            assert await receipt.finished() == Outcome("cancelled")
            with pytest.raises(InputNotApplied, match="cancelled"):
                await receipt.applied()

    async def test_one_that_runs_since_before_the_snapshot(self) -> None:
        running = [{"runId": "run_i", "lane": "main", "inputId": "i", "attempt": 1, "cancel": None}]
        lanes = {"main": {"owner": None, "fence": 1, "run": "run_i"}}

        async def script(peer: Peer) -> None:
            await peer.opened(9, runs=running, lanes=lanes)
            await peer.take_input(3, status="applied", duplicate=True)
            await peer.send(finished(10, 9))

        async with ScriptedGateway(script) as gateway, client(gateway) as opened:
            session = opened.session("demo")
            await take(session, 1)
            receipt = await session.send("Hi", input_id="i")
            assert (await receipt.applied()).message_id is None
            assert await receipt.finished() == Outcome("success")

    @pytest.mark.parametrize(("status", "outcome"), [("ended", Outcome("unknown")), ("applied", Outcome("success"))])
    async def test_one_from_before_a_stored_cursor(self, status: str, outcome: Outcome) -> None:
        async def script(peer: Peer) -> None:
            await peer.welcome()
            await peer.subscribed(after=f"{EPOCH}:9")
            await peer.take_input(3, status=status, duplicate=True)
            if status == "applied":
                await peer.send(finished(10, 9))

        async with ScriptedGateway(script) as gateway, client(gateway) as opened:
            receipt = await opened.session("demo", cursor=f"{EPOCH}:9").send("Hi", input_id="i")
            assert (await receipt.applied()).message_id is None
            assert await receipt.finished() == outcome

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
            lanes = {"main": {"owner": None, "fence": 1, "run": "run_i"}}
            await peer.send(snapshot(9, runs=running, lanes=lanes), finished(10, 9))

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

    async def test_an_injected_input_goes_into_the_run_that_is_going_on(self) -> None:
        go_on = asyncio.Event()

        async def script(peer: Peer) -> None:
            await peer.opened(0, runs=RUNNING, lanes={"main": {**OWNED, "run": "run_a", "can": ["inject"]}})
            await peer.take_input(1, mode="inject", position=1)
            await peer.send(sent(1, 0, "i"))
            await go_on.wait()
            event = {"type": "input.applied", "inputId": "i", "runId": "run_a", "messageId": "msg_i"}
            await peer.send(entry(2, 1, event, run="run_a"))
            await peer.send(finished(3, 2, "i"))  # of no run that is running
            await peer.send(finished(4, 3, "a"))

        async with ScriptedGateway(script) as gateway, client(gateway) as opened:
            session = opened.session("demo")
            receipt = await session.send("And then?", input_id="i", mode="inject")
            assert (receipt.status, receipt.mode, receipt.position, receipt.run_id) == ("queued", "inject", 1, "run_i")
            go_on.set()
            assert (await receipt.applied()).run_id == receipt.run_id == "run_a"
            assert await receipt.finished() == Outcome("success")
            assert receipt.status == "ended"

    async def test_an_injected_input_sent_again(self) -> None:
        go_on = asyncio.Event()

        async def script(peer: Peer) -> None:
            await peer.opened(9, runs=RUNNING, lanes={"main": {**OWNED, "run": "run_a"}})
            await peer.take_input(3, runId="run_a", status="applied", duplicate=True)
            await go_on.wait()
            await peer.send(finished(10, 9, "a", kind="cancelled"))

        async with ScriptedGateway(script) as gateway, client(gateway) as opened:
            session = opened.session("demo")
            await take(session, 1)
            receipt = await session.send("Hi", input_id="i")
            assert (receipt.status, receipt.run_id) == ("applied", "run_a")
            go_on.set()
            assert await receipt.finished() == Outcome("cancelled")

    async def test_what_becomes_of_one_when_the_session_is_deleted(self) -> None:
        async def script(peer: Peer) -> None:
            await peer.opened()
            await peer.take_input(1)
            await peer.take_input(2)
            gone = entry(5, 4, {"type": "session.deleted"}, id="session-deleted:5")
            del gone["lane"]
            await peer.send(sent(1, 0, "i"), sent(2, 1, "j"), started(3, 2), applied(4, 3), gone)

        async with ScriptedGateway(script) as gateway, client(gateway) as opened:
            session = opened.session("demo")
            running, waiting = await session.send("Hi", input_id="i"), await session.send("Ho", input_id="j")
            assert await running.finished() == Outcome("cancelled", reason="deleted")
            with pytest.raises(InputNotApplied, match="deleted"):
                await waiting.applied()
            assert (session.messages, session.state.lanes, session.state.status) == ([], {}, "idle")

    async def test_one_that_waits_for_an_approval(self) -> None:
        async def script(peer: Peer) -> None:
            await peer.opened()
            await peer.take_input(1, status="pending", reason="approval", mode="enqueue", position=2)
            await peer.send(sent(1, 0, "i"), started(2, 1), applied(3, 2))

        async with ScriptedGateway(script) as gateway, client(gateway) as opened:
            receipt = await opened.session("demo").send("Hi", input_id="i")
            assert (receipt.reason, receipt.mode, receipt.position) == ("approval", "enqueue", 2)
            await receipt.applied()
            assert receipt.status == "applied"

    @pytest.mark.parametrize("sender", ["user-1", "user-2"])
    async def test_one_that_goes_to_a_human(self, sender: str) -> None:
        lanes = {"main": {"owner": {"kind": "user", "id": "user-1"}, "fence": 1, "run": None}}

        async def script(peer: Peer) -> None:
            await peer.opened(lanes=lanes)
            await peer.take_input(1, status="applied", runId=None, mode=None, position=None)
            await peer.send(sent(1, 0, "i", "Hello", by={"kind": "user", "id": sender}))

        async with ScriptedGateway(script) as gateway, client(gateway) as opened:
            session = opened.session("demo")
            receipt = await session.send("Hello", input_id="i")
            assert await receipt.finished() == Outcome("no_run")
            assert (await receipt.applied()).message_id == "msg_i"
            (message,) = session.messages
            role = "assistant" if sender == "user-1" else "user"
            assert (message.id, message.role, message.text, message.run) == ("msg_i", role, "Hello", None)

    async def test_one_that_went_to_a_human_long_ago(self) -> None:
        async def script(peer: Peer) -> None:
            await peer.opened(9)
            await peer.take_input(3, status="applied", runId=None, duplicate=True)

        async with ScriptedGateway(script) as gateway, client(gateway) as opened:
            session = opened.session("demo")
            await take(session, 1)
            receipt = await session.send("Hello", input_id="i")
            assert (await receipt.applied()).run_id is None
            assert await receipt.finished() == Outcome("no_run")

    async def test_one_that_the_next_one_supersedes(self) -> None:
        by = {"kind": "user", "id": "user-1"}

        async def script(peer: Peer) -> None:
            await peer.opened(config={"coalesce": "latest"})
            await peer.take_input(1)
            await peer.send(sent(1, 0, "i", by=by), sent(2, 1, "j", by=by))

        async with ScriptedGateway(script) as gateway, client(gateway) as opened:
            session = opened.session("demo")
            receipt = await session.send("Hi", input_id="i")
            with pytest.raises(InputNotApplied, match="superseded"):
                await receipt.applied()
            assert (receipt.status, await receipt.finished()) == ("cancelled", Outcome("cancelled"))
            assert [waiting.input_id for waiting in session.state.inputs] == ["j"]

    async def test_one_that_failed_before(self) -> None:
        async def script(peer: Peer) -> None:
            await peer.opened(9)
            await peer.take_input(3, status="failed", reason="content_too_large", duplicate=True)

        async with ScriptedGateway(script) as gateway, client(gateway) as opened:
            session = opened.session("demo")
            await take(session, 1)
            receipt = await session.send("Hi", input_id="i")
            assert receipt.status == "failed"
            assert await receipt.finished() == Outcome("error", "content_too_large")

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
