"""The client's connection against a scripted gateway: coming back, close codes, tokens, heartbeats."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import Any

import pytest
from aiohttp import web

from antiphon_client import (
    Client,
    ClientClosed,
    ConnectFailed,
    ConnectionClosed,
    Entry,
    Settings,
    Unauthorized,
)
from antiphon_client.connection import gateway_url
from clients.python.tests.scripted_gateway import EPOCH, Peer, Script, ScriptedGateway, caught_up, delta, snapshot

QUICK = Settings(first_connect_timeout_s=5, close_timeout_s=0.2)


def client(*urls: str, token: str | None = "t1", **options: Any) -> Client:
    """A client that never waits before it comes back, unless a gateway says so."""
    return Client(list(urls), token, **{"settings": QUICK, "rand": lambda: 0.0, **options})


async def read(session: Any, count: int) -> list[int]:
    """The `seq`s of the next entries."""
    found: list[int] = []
    async for event in session.events():
        if isinstance(event, Entry):
            found.append(event.seq)
        if len(found) == count:
            break
    return found


async def greet(peer: Peer) -> None:
    await peer.welcome()


class TestOpening:
    async def test_says_hello_and_learns_who_it_is(self) -> None:
        async def script(peer: Peer) -> None:
            hello = await peer.welcome()
            assert hello["client"].startswith("antiphon-client/")
            assert "t1" not in str(peer.request.url)

        async with ScriptedGateway(script) as gateway, client(gateway.url) as opened:
            assert opened.connected
            assert opened.welcome is not None
            assert (opened.welcome.user_id, opened.welcome.user_name) == ("user-1", "A user")
            await gateway.played(1)

    async def test_nobody_there(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{free.getsockname()[1]}"
            with pytest.raises(ConnectFailed, match=r"127\.0\.0\.1"):
                async with client(url, settings=Settings(first_connect_timeout_s=0.2), rand=lambda: 0.1):
                    pass

    async def test_something_else_there(self) -> None:
        runner = web.AppRunner(web.Application())
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        with pytest.raises(ConnectFailed, match="answered 404"):
            async with client(f"http://127.0.0.1:{runner.addresses[0][1]}"):
                pass
        await runner.cleanup()

    @pytest.mark.parametrize("status", [401, 403])
    async def test_the_upgrade_is_refused(self, status: int) -> None:
        async def refuse(_request: web.Request) -> web.Response:
            return web.Response(status=status)

        app = web.Application()
        app.router.add_get("/v1/connect", refuse)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        with pytest.raises(Unauthorized):
            async with client(f"http://127.0.0.1:{runner.addresses[0][1]}"):
                pass
        await runner.cleanup()

    async def test_the_token_is_refused(self) -> None:
        async def script(peer: Peer) -> None:
            await peer.error(await peer.expect("hello"), "unauthorized")
            await peer.close(4401, {"code": "unauthorized"})

        async with ScriptedGateway(script) as gateway:
            with pytest.raises(Unauthorized) as caught:
                async with client(gateway.url):
                    pass
        assert (caught.value.close_code, caught.value.message) == (4401, "no: unauthorized")

    async def test_no_welcome_in_time(self) -> None:
        async def silent(peer: Peer) -> None:
            await peer.expect("hello")
            await peer.until_closed()

        settings = Settings(connect_timeout_s=0.5, close_timeout_s=0.1, first_connect_timeout_s=10)
        async with ScriptedGateway(silent, greet) as gateway, client(gateway.url, settings=settings):
            await gateway.played(2)

    async def test_a_dead_gateway_is_passed_over(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            dead = f"http://127.0.0.1:{free.getsockname()[1]}"
            async with ScriptedGateway(greet) as gateway, client(dead, gateway.url) as opened:
                assert opened.connected

    @pytest.mark.parametrize(
        ("text", "url"),
        [
            ("http://host:8080", "http://host:8080/v1/connect"),
            ("wss://host/", "wss://host/v1/connect"),
            ("https://host/under/v1/connect", "https://host/under/v1/connect"),
        ],
    )
    def test_addresses(self, text: str, url: str) -> None:
        assert gateway_url(text) == url

    @pytest.mark.parametrize("url", ["", "host:1", "ftp://host", "http://"])
    def test_what_is_no_address(self, url: str) -> None:
        with pytest.raises(ValueError, match="not the address"):
            Client(url, "t")

    def test_what_is_missing(self) -> None:
        with pytest.raises(ValueError, match="at least one"):
            Client([], "t")
        with pytest.raises(ValueError, match="token"):
            Client("http://host")

    async def test_errors_of_the_body_come_out_as_they_are(self) -> None:
        async with ScriptedGateway(greet) as gateway:
            with pytest.raises(ZeroDivisionError):
                async with client(gateway.url):
                    raise ZeroDivisionError


class TestComingBack:
    @pytest.mark.parametrize("code", [None, 1006, 1011, 3999, 4100, 4101, 4102, 4200])
    async def test_reads_on_after_the_last_entry(self, code: int | None) -> None:
        async def first(peer: Peer) -> None:
            await peer.opened(as_of=5)
            await peer.send(delta(6, 5, 0, "a"), delta(8, 6, 1, "b"))
            if code is None or code == 1006:
                peer.abort()
            else:
                await peer.close(code, {"code": "some_reason", "retry_after_ms": 1})

        async def second(peer: Peer) -> None:
            await peer.welcome()
            await peer.subscribed(after=f"{EPOCH}:8")
            await peer.send(delta(8, 6, 1, "b"), delta(9, 8, 2, "c"), caught_up(9))

        async with ScriptedGateway(first, second) as gateway, client(gateway.url) as opened:
            assert await read(opened.session("demo"), 3) == [6, 8, 9]

    @pytest.mark.parametrize(
        ("code", "kind"),
        [
            (4400, ConnectionClosed),
            (4406, ConnectionClosed),
            (4429, ConnectionClosed),
            (1009, ConnectionClosed),
            (1000, ConnectionClosed),
        ],
    )
    async def test_stays_away_when_told_so(self, code: int, kind: type[ConnectionClosed]) -> None:
        async def script(peer: Peer) -> None:
            await peer.opened()
            await peer.send(delta(6, 0, 0, "a"))
            await peer.expect("history")
            await peer.close(code, {"code": "told_so"})

        async with ScriptedGateway(script) as gateway, client(gateway.url) as opened:
            session = opened.session("demo")
            assert await read(session, 1) == [6]
            with pytest.raises(kind) as caught:
                await session.history()
            assert (caught.value.code, caught.value.close_code) == ("told_so", code)
            with pytest.raises(kind):
                await session.send("x")
            with pytest.raises(kind):
                await read(session, 1)
            with pytest.raises(kind):
                await read(opened.session("other"), 1)

    async def test_goes_elsewhere_after_the_time_given(self) -> None:
        left = 0.0

        async def draining(peer: Peer) -> None:
            nonlocal left
            await peer.welcome()
            left = time.monotonic()
            await peer.close(4200, {"code": "draining", "retry_after_ms": 150})

        async def other(peer: Peer) -> None:
            await peer.welcome()
            assert time.monotonic() - left >= 0.15

        async with (
            ScriptedGateway(draining) as gateway,
            ScriptedGateway(other) as elsewhere,
            client(gateway.url, elsewhere.url),
        ):
            await elsewhere.played(1)

    async def test_a_gateway_that_is_down_for_a_while(self) -> None:
        tries, tried = 0, asyncio.Event()

        def rand() -> float:
            nonlocal tries
            tries += 1
            if tries == 3:
                tried.set()
            return 0.01

        killed = ScriptedGateway(greet)
        async with killed:
            opened = client(killed.url, rand=rand)
            await opened.__aenter__()
        await tried.wait()
        async with ScriptedGateway(greet, port=killed.port) as gateway:
            await gateway.played(1)
            await opened.__aexit__(None, None, None)

    async def test_gives_up_after_the_attempts_allowed(self) -> None:
        async def script(peer: Peer) -> None:
            await peer.welcome()
            await peer.expect("history")
            peer.abort()

        settings = Settings(reconnect_attempts=1, close_timeout_s=0.1)
        async with ScriptedGateway(script, script) as gateway, client(gateway.url, settings=settings) as opened:
            with pytest.raises(ConnectFailed, match="1 attempts"):
                await opened.session("demo").history()

    async def test_attempts_are_counted_from_the_last_progress(self) -> None:
        def script(seq: int) -> Script:
            async def play(peer: Peer) -> None:
                await peer.welcome()
                await peer.subscribed(after=None if seq == 1 else f"{EPOCH}:{seq - 1}")
                if seq == 1:
                    await peer.send(snapshot())
                await peer.send(delta(seq, seq - 1, 0, "x"))
                peer.abort()

            return play

        settings = Settings(reconnect_attempts=1, close_timeout_s=0.1)
        scripts = [script(seq) for seq in (1, 2, 3)]
        async with ScriptedGateway(*scripts) as gateway, client(gateway.url, settings=settings) as opened:
            assert await read(opened.session("demo"), 3) == [1, 2, 3]

    async def test_attempts_are_counted_from_the_last_stable_connection(self) -> None:
        async def brief(peer: Peer) -> None:
            await peer.welcome()
            peer.abort()

        settings = Settings(reconnect_attempts=1, stable_after_s=0.0, close_timeout_s=0.1)
        async with ScriptedGateway(brief, brief, brief, greet) as gateway, client(gateway.url, settings=settings):
            await gateway.played(4)

    @pytest.mark.parametrize("garbage", ["{", "[]", "1", ""])
    async def test_a_gateway_that_talks_nonsense_is_left(self, garbage: str) -> None:
        async def nonsense(peer: Peer) -> None:
            await peer.welcome()
            await peer.socket.send_str(garbage)
            await peer.until_closed()

        async with ScriptedGateway(nonsense, greet) as gateway, client(gateway.url):
            await gateway.played(2)

    async def test_whether_the_gateway_has_the_log(self) -> None:
        async def script(peer: Peer) -> None:
            await peer.welcome()
            for op in ("log.away", "log.back"):
                command = await peer.expect("history")
                await peer.send({"op": op})
                await peer.ok(command, messages=[], before=None)

        async with ScriptedGateway(script) as gateway, client(gateway.url) as opened:
            for away in (True, False):
                await opened.session("demo").history()
                assert opened.log_away is away

    async def test_what_it_does_not_know_is_ignored(self) -> None:
        async def script(peer: Peer) -> None:
            await peer.welcome()
            await peer.send(
                {"op": "news"}, {"no": "op"}, {"op": "entry", "session": "nobody's"}, {"op": "pong", "id": 1}
            )
            await peer.send({"op": "error", "code": "bad_json"}, {"op": "ok", "id": 99_999}, {"op": "ok", "id": "x"})
            await peer.socket.send_bytes(b"\0\1")
            await peer.ok(await peer.expect("history"), messages=[], before=None)

        async with ScriptedGateway(script) as gateway, client(gateway.url) as opened:
            assert (await opened.session("demo").history()).messages == ()
            assert gateway.connections == 1


class TestHeartbeat:
    async def test_a_silent_connection_is_left(self) -> None:
        async def silent(peer: Peer) -> None:
            await peer.welcome(heartbeat_ms=50)
            await peer.until_closed()

        async with ScriptedGateway(silent, greet) as gateway, client(gateway.url):
            await gateway.played(2)

    async def test_pings_keep_it_and_are_answered(self) -> None:
        async def pinging(peer: Peer) -> None:
            await peer.welcome(heartbeat_ms=300)
            for number in range(8):  # twice as long as silence would be suffered
                await asyncio.sleep(0.15)
                await peer.socket.ping(bytes([number]))
                message = await peer.socket.receive()
                assert message.data == bytes([number])

        async with ScriptedGateway(pinging, autoping=False) as gateway, client(gateway.url):
            await gateway.played(1)
            assert gateway.connections == 1


class TestClosing:
    async def test_everything_that_waits_learns_of_it(self) -> None:
        waiting = asyncio.Event()

        async def script(peer: Peer) -> None:
            await peer.opened()
            await peer.expect("history")
            waiting.set()
            assert await peer.until_closed() is not None

        async with ScriptedGateway(script) as gateway, asyncio.TaskGroup() as group:
            opened = client(gateway.url)
            await opened.__aenter__()
            session = opened.session("demo")

            async def closed(work: Any) -> None:
                with pytest.raises(ClientClosed):
                    await work

            group.create_task(closed(read(session, 1)))
            group.create_task(closed(session.history()))
            await waiting.wait()
            await opened.__aexit__(None, None, None)
            with pytest.raises(ClientClosed):
                await session.send("x")

    async def test_leaves_nothing_running_and_is_entered_once(self) -> None:
        async with ScriptedGateway(greet) as gateway:
            opened = client(gateway.url)
            async with opened:
                pass
            running = [task.get_coro() for task in asyncio.all_tasks()]
            assert not [work for work in running if "Client" in getattr(work, "__qualname__", "")]
            with pytest.raises(RuntimeError, match="once"):
                async with opened:
                    pass

    async def test_a_fault_in_the_client_is_no_silence(self) -> None:
        async def script(peer: Peer) -> None:
            await peer.welcome()
            await peer.expect("history")
            peer.abort()

        def rand() -> float:
            raise ZeroDivisionError

        async with ScriptedGateway(script) as gateway, client(gateway.url, rand=rand) as opened:
            with pytest.raises(ConnectionClosed, match="ZeroDivisionError"):
                await opened.session("demo").history()

    async def test_leaving_while_it_tries_to_come_back(self) -> None:
        async def script(peer: Peer) -> None:
            await peer.welcome()
            await peer.close(4201, {"retry_after_ms": 60_000})

        leaving = asyncio.Event()

        def rand() -> float:
            leaving.set()
            return 0.0

        async with ScriptedGateway(script) as gateway, client(gateway.url, rand=rand):
            await leaving.wait()


class TestManySessions:
    async def test_share_one_connection(self) -> None:
        async def first(peer: Peer) -> None:
            await peer.welcome()
            for name in ("a", "b"):
                await peer.subscribed(session=name)
                await peer.send(snapshot(0, name))
            await peer.send(delta(1, 0, 0, "x", session="a"), delta(2, 0, 0, "y", session="b"))
            await peer.expect("history")
            peer.abort()

        async def second(peer: Peer) -> None:
            await peer.welcome()
            await peer.subscribed(session="a", after=f"{EPOCH}:1")
            await peer.subscribed(session="b", after=f"{EPOCH}:2")
            await peer.send(delta(3, 2, 1, "y", session="b"), delta(4, 1, 1, "x", session="a"))
            await peer.ok(await peer.expect("history"), messages=[], before=None)

        async with ScriptedGateway(first, second) as gateway, client(gateway.url) as opened:
            a, b = opened.session("a"), opened.session("b")
            async with asyncio.TaskGroup() as group:
                read_a, read_b = group.create_task(read(a, 1)), group.create_task(read(b, 1))
            assert (read_a.result(), read_b.result()) == ([1], [2])
            await a.history()
            assert (await read(a, 1), await read(b, 1)) == ([4], [3])

    async def test_a_session_is_one_object(self) -> None:
        async with ScriptedGateway(greet) as gateway, client(gateway.url) as opened:
            session = opened.session("demo")
            assert opened.session("demo") is session
            with pytest.raises(ValueError, match="is open"):
                opened.session("demo", cursor="e:1")
            await gateway.played(1)
