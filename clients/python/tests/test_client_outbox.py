"""The outbox: in order, bounded, through outages, before the first connection, and into a later process."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

import pytest

from antiphon_client import Client, ClientClosed, CommandQueueFull, QueueFull, Settings, Unauthorized, Unsent
from clients.python.tests.scripted_gateway import EPOCH, Peer, ScriptedGateway, client

OFFLINE: dict[str, Any] = {"first_connect_timeout_s": None, "backoff_base_s": 0.01}


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def offline(port: int, **options: Any) -> Client:
    """A client of a gateway that is not there yet."""
    settings = Settings(**{**OFFLINE, "close_timeout_s": 0.2, **options})
    return Client(f"http://127.0.0.1:{port}", "t1", settings=settings)


async def take_all(peer: Peer, count: int, start: int = 1) -> list[str]:
    """Store so many inputs; their contents."""
    return [(await peer.take_input(start + n))["content"] for n in range(count)]


class TestOffline:
    async def test_before_the_first_connection(self) -> None:
        """Everything is there at once; what was submitted arrives in order when a gateway does."""
        port = free_port()
        stored: list[str] = []

        async def script(peer: Peer) -> None:
            await peer.opened()
            stored.extend(await take_all(peer, 3))

        async with offline(port) as opened:
            session = opened.session("demo")
            submissions = [session.submit(text, input_id=f"i{n}") for n, text in enumerate("abc")]
            assert [unsent.content for unsent in session.outbox] == ["a", "b", "c"]
            assert (opened.connected, submissions[0].receipt, submissions[0].run_id) == (False, None, "run_i0")
            async with ScriptedGateway(script, port=port) as gateway:
                receipts = [await submission.stored() for submission in submissions]
                assert [receipt.input_id for receipt in receipts] == ["i0", "i1", "i2"]
                assert submissions[0].receipt is not None
                assert (stored, session.outbox) == (["a", "b", "c"], ())
                await gateway.played(1)

    async def test_a_send_waits_for_the_first_connection(self) -> None:
        port = free_port()

        async def script(peer: Peer) -> None:
            await peer.opened()
            await take_all(peer, 1)

        async with offline(port) as opened, asyncio.TaskGroup() as group:
            sending = group.create_task(opened.session("demo").send("a", input_id="i"))
            async with ScriptedGateway(script, port=port):
                assert (await sending).input_id == "i"

    async def test_a_token_provider_that_is_offline_too(self) -> None:
        port = free_port()
        tries: list[int] = []

        async def provider() -> str:
            tries.append(1)
            if len(tries) < 3:
                raise OSError("no network")
            return "t1"

        async def script(peer: Peer) -> None:
            await peer.opened()
            await take_all(peer, 1)

        settings = Settings(**OFFLINE)
        async with (
            ScriptedGateway(script, port=port),
            Client(f"http://127.0.0.1:{port}", provider, settings=settings) as opened,
        ):
            await opened.session("demo").submit("a").stored()
        assert len(tries) == 3

    async def test_through_lost_connections(self) -> None:
        """Each is sent until it is stored, with the same id, and the order holds."""
        got: list[str] = []

        async def dies(peer: Peer) -> None:
            await peer.opened()
            await take_all(peer, 1)
            got.append((await peer.expect("input.send"))["inputId"])
            peer.abort()

        async def lives(peer: Peer) -> None:
            await peer.welcome()
            await peer.subscribed(after=f"{EPOCH}:0")
            got.extend([(await peer.take_input(n))["inputId"] for n in (2, 3)])

        async with ScriptedGateway(dies, lives) as gateway, client(gateway) as opened:
            session = opened.session("demo")
            submissions = [session.submit("x", input_id=f"i{n}") for n in range(3)]
            await submissions[-1].stored()
        assert got == ["i1", "i1", "i2"]

    async def test_while_the_log_is_away(self) -> None:
        """More often than a command is repeated by itself: a message in the outbox has no end of tries."""

        async def script(peer: Peer) -> None:
            await peer.opened()
            for _ in range(4):
                await peer.error(
                    await peer.expect("input.send", inputId="i0"), "unavailable", retryable=True, retry_after_ms=0
                )
            assert await take_all(peer, 2) == ["a", "b"]

        async with ScriptedGateway(script) as gateway, client(gateway, command_retries=1) as opened:
            session = opened.session("demo")
            session.submit("a", input_id="i0")
            await session.submit("b").stored()


class TestBounds:
    async def test_as_many_as_may_wait(self) -> None:
        async with offline(free_port(), outbox_inputs=2) as opened:
            session = opened.session("demo")
            first = session.submit("a", input_id="i")
            session.submit("b")
            assert session.submit("a", input_id="i") is first
            with pytest.raises(CommandQueueFull) as full:
                session.submit("c")
            assert (full.value.code, full.value.retryable) == ("outbox_full", True)
            assert len(session.outbox) == 2
        with pytest.raises(ClientClosed):
            await first.stored()
        assert [unsent.content for unsent in session.outbox] == ["a", "b"]

    async def test_as_many_as_may_be_sent_at_once(self) -> None:
        """Without a connection, too."""
        async with offline(free_port(), pending_commands=2) as opened, asyncio.TaskGroup() as group:
            session = opened.session("demo")
            sending = [group.create_task(session.send(text)) for text in "ab"]
            await asyncio.sleep(0)
            with pytest.raises(CommandQueueFull):
                await session.send("c")
            for task in sending:
                task.cancel()

    async def test_a_refusal_is_that_message_s_alone(self) -> None:
        async def script(peer: Peer) -> None:
            await peer.opened()
            await peer.error(await peer.expect("input.send"), "queue_full", retryable=True)
            assert await take_all(peer, 1) == ["b"]

        async with ScriptedGateway(script) as gateway, client(gateway, command_retries=0) as opened:
            session = opened.session("demo")
            refused, stored = session.submit("a"), session.submit("b")
            with pytest.raises(QueueFull):
                await refused.stored()
            await stored.stored()

    async def test_what_is_no_text(self) -> None:
        async with offline(free_port()) as opened:
            with pytest.raises(ValueError, match="not empty"):
                opened.session("demo").submit("")


async def test_the_trace_of_a_message_waits_with_it() -> None:
    trace = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    unsent = Unsent("i", "a", None, trace)
    assert Unsent.from_dict(json.loads(json.dumps(unsent.as_dict()))) == unsent

    async def script(peer: Peer) -> None:
        await peer.opened()
        command = await peer.expect("input.send", inputId="i", **trace)
        await peer.ok(command, inputId="i", runId="run_i", seq=1, status="queued", duplicate=False)

    async with ScriptedGateway(script) as gateway, client(gateway) as opened:
        saved = {**opened.session("other").save(), "session": "demo", "unsent": [unsent.as_dict()]}
        opened.session("demo", saved=saved)
        await gateway.played(1)


class TestEnds:
    async def test_the_session_is_closed(self) -> None:
        async def script(peer: Peer) -> None:
            await peer.opened()
            await peer.expect("input.send")
            await peer.expect("unsubscribe")

        async with ScriptedGateway(script) as gateway, client(gateway) as opened:
            session = opened.session("demo")
            submission = session.submit("a")
            async for view in session.changes():
                if view.cursor is not None:
                    break
            await session.close()
            with pytest.raises(ClientClosed):
                await submission.stored()
            with pytest.raises(ClientClosed):
                session.submit("b")
            await gateway.played(1)

    async def test_the_token_is_refused(self) -> None:
        """The client stops: whoever waits learns it, and nothing is thrown away."""

        async def script(peer: Peer) -> None:
            await peer.error(await peer.expect("hello"), "unauthorized")
            await peer.close(4401, {"code": "unauthorized"})

        async with ScriptedGateway(script) as gateway, client(gateway, first_connect_timeout_s=None) as opened:
            session = opened.session("demo")
            submission = session.submit("a")
            with pytest.raises(Unauthorized):
                await submission.stored()
            assert [unsent.content for unsent in session.outbox] == ["a"]
            assert opened.status == "stopped"

    async def test_into_a_later_process(self) -> None:
        """What could not be sent is saved, and sent with the same ids by the client that goes on from there."""
        port = free_port()
        async with offline(port) as opened:
            session = opened.session("demo")
            session.submit("a", input_id="i0")
            session.submit("b", input_id="i1", mode="interrupt")
        stored = json.loads(json.dumps(session.save()))

        async def script(peer: Peer) -> None:
            await peer.opened()
            await take_all(peer, 1)
            command = await peer.expect("input.send", inputId="i1", content="b", mode="interrupt")
            await peer.ok(command, inputId="i1", runId="run_i1", seq=2, status="queued", duplicate=False)

        async with ScriptedGateway(script, port=port) as gateway, offline(port) as opened:
            opened.session("demo", saved=stored)
            await gateway.played(1)
