"""Commands against a scripted gateway: sent again, refused, bounded, paced."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from antiphon_client import (
    CommandQueueFull,
    CommandRefused,
    ConnectionClosed,
    FrameTooLarge,
    Message,
    NotAllowed,
    QueueFull,
    TooLate,
)
from clients.python.tests.scripted_gateway import EPOCH, Peer, ScriptedGateway, client, take


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

    async def test_those_that_are_answered_make_room(self) -> None:
        async def script(peer: Peer) -> None:
            await peer.welcome()
            for _ in range(3):
                await peer.ok(await peer.expect("history"), messages=[], before=None)

        async with ScriptedGateway(script) as gateway, client(gateway, pending_commands=1) as opened:
            for _ in range(3):
                await opened.session("demo").history()

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
            {"id": "m", "role": "user", "by": {"kind": "user", "id": "user-1"}, "lane": "main", "run": "run_i", "seq": 7,
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
            by = {"kind": "user", "id": "user-1"}
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
