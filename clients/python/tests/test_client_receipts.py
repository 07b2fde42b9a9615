"""Receipts against a scripted gateway: applied, finished, refused, hidden by a gap."""

from __future__ import annotations

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
            source = Input("i", 1, 1, None, "Hi", None)
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
