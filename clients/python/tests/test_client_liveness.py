"""Sleep and changed networks: what is noticed, and that a silent socket is given up at once."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence

import pytest

from antiphon_client import Client, Settings
from antiphon_client.liveness import SOMEWHERE, Glance, Vigil, source_towards
from clients.python.tests.scripted_gateway import EPOCH, Peer, ScriptedGateway, client, snapshot, until

HOME, AWAY = "192.168.1.2", "10.0.0.7"


def glance(monotonic_s: float, wall_s: float, source: str | None = HOME, peer: tuple[str, int] = SOMEWHERE) -> Glance:
    return Glance(monotonic_s, wall_s, peer, source)


class TestVigil:
    @pytest.mark.parametrize(
        ("glances", "found"),
        [
            ([glance(0, 1000), glance(5, 1005), glance(10.5, 1010.5)], [None, None, None]),
            ([glance(0, 1000), glance(5, 1600)], [None, "slept"]),  # the monotonic clock stood still
            ([glance(0, 1000), glance(600, 1600)], [None, "slept"]),  # it did not; or the process was stopped
            ([glance(0, 1000), glance(5, 1600), glance(10, 1605)], [None, "slept", None]),
            ([glance(0, 1000), glance(5, 900)], [None, None]),  # the wall clock was set back
            ([glance(0, 0), glance(5, 5, AWAY), glance(10, 10, AWAY)], [None, "moved", None]),
            ([glance(0, 0), glance(5, 5, None), glance(10, 10, HOME)], [None, "moved", "moved"]),
            ([glance(0, 0), glance(5, 5, "127.0.0.1", ("127.0.0.1", 80))], [None, None]),  # another gateway
        ],
    )
    def test_what_it_notices(self, glances: Sequence[Glance], found: list[str | None]) -> None:
        vigil = Vigil(every_s=5.0, slack_s=5.0)
        assert [vigil.look(each) for each in glances] == found

    def test_the_way_there(self) -> None:
        assert source_towards(("127.0.0.1", 9)) == "127.0.0.1"
        assert source_towards(("::1", 9)) in ("::1", None)
        assert source_towards(("224.0.0.256", 9)) is None


class TestConnection:
    async def test_a_silent_one_is_given_up(self) -> None:
        """Nothing answers the ping: the client comes back at once, long before the heartbeats tell."""

        async def silent(peer: Peer) -> None:
            await peer.welcome()
            await asyncio.Event().wait()  # the socket is not read, so that no ping is answered

        async def script(peer: Peer) -> None:
            await peer.welcome()

        async with (
            ScriptedGateway(silent, script, exact=False) as gateway,
            client(gateway, liveness_timeout_s=0.2) as opened,
        ):
            assert opened.connected
            opened.check_connection()
            await gateway.played(1)
            assert gateway.connections == 2

    async def test_one_that_answers_is_kept(self) -> None:
        async def script(peer: Peer) -> None:
            await peer.opened()
            await peer.expect("run.cancel")
            await peer.expect("unsubscribe")

        async with ScriptedGateway(script) as gateway, client(gateway, liveness_timeout_s=5.0) as opened:
            session = opened.session("demo")
            async for view in session.changes():
                if view.cursor is not None:
                    break
            for _ in range(3):
                opened.check_connection()
                await asyncio.sleep(0)
            connection = opened._connection
            assert connection is not None
            await connection._heard.wait()  # the pong
            cancelling = asyncio.timeout(0.2)
            with pytest.raises(TimeoutError):
                async with cancelling:
                    await session.cancel_run("run_x")
            await session.close()
            await gateway.played(1)
            assert gateway.connections == 1

    async def test_a_paused_reader_is_no_sign(self) -> None:
        """Who leaves the socket unread hears no pong; the connection is not cut for that."""

        async def script(peer: Peer) -> None:
            await peer.welcome()
            await peer.subscribed(after=f"{EPOCH}:0")
            for seq in range(1, 5):
                await peer.send(
                    {"op": "entry", "session": "demo", "seq": seq, "prev": seq - 1, "id": f"x{seq}", "events": []}
                )

        settings = {"buffer_events": 1, "liveness_timeout_s": 0.1}
        async with ScriptedGateway(script) as gateway, client(gateway, **settings) as opened:
            session = opened.session("demo", cursor=f"{EPOCH}:0")
            events = session.events()
            assert (await anext(events)).session == "demo"
            connection = opened._connection
            assert connection is not None
            await until(lambda: connection._paused)
            assert await connection._answers()
            assert opened._connection is connection
            assert [await anext(events) for _ in range(3)]

    async def test_sleep_leads_to_a_look(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The wall clock jumps: the connection, which is silent, is replaced."""
        jumps: list[float] = []
        real = __import__("time").time
        monkeypatch.setattr("antiphon_client.hosting.time.time", lambda: real() + sum(jumps))

        async def silent(peer: Peer) -> None:
            await peer.welcome()
            jumps.append(3600.0)
            await asyncio.Event().wait()

        async def script(peer: Peer) -> None:
            await peer.welcome()

        quick = {"liveness_check_s": 0.05, "liveness_timeout_s": 0.2}
        async with ScriptedGateway(silent, script, exact=False) as gateway, client(gateway, **quick):
            await gateway.played(1)
            assert gateway.connections == 2

    async def test_a_changed_network_ends_the_back_off(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The client waits out a long pause, and comes back as soon as there is another way."""
        sources = {"now": HOME}
        monkeypatch.setattr("antiphon_client.hosting.source_towards", lambda _peer: sources["now"])
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]

        async def script(peer: Peer) -> None:
            await peer.welcome()

        settings = Settings(
            first_connect_timeout_s=None,
            backoff_base_s=60.0,
            backoff_cap_s=60.0,
            liveness_check_s=0.02,
            close_timeout_s=0.2,
        )
        randoms = iter([0.9])
        async with Client(
            f"http://127.0.0.1:{port}", "t1", settings=settings, rand=lambda: next(randoms, 0.0)
        ) as opened:
            async for status in opened.status_changes():
                if status == "waiting":
                    break
            async with ScriptedGateway(script, port=port) as gateway:
                sources["now"] = AWAY
                await gateway.played(1)

    async def test_never_looks_if_told_so(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("antiphon_client.hosting.source_towards", lambda _peer: pytest.fail("it has looked"))

        async def script(peer: Peer) -> None:
            await peer.welcome()

        async with ScriptedGateway(script) as gateway, client(gateway, liveness_check_s=None):
            await gateway.played(1)


class TestStatus:
    async def test_from_the_first_try_to_the_end(self) -> None:
        async def dies(peer: Peer) -> None:
            await peer.welcome()
            await peer.subscribed()
            await peer.send(snapshot())
            peer.abort()

        async def lives(peer: Peer) -> None:
            await peer.welcome()
            await peer.expect("subscribe")

        seen: list[str] = []

        async def watch(opened: Client, up: asyncio.Event) -> None:
            async for status in opened.status_changes():
                seen.append(status)
                if seen.count("connected") == 2:
                    up.set()

        async with ScriptedGateway(dies, lives) as gateway, asyncio.TaskGroup() as group:
            opened = Client(gateway.url, "t1", settings=Settings(close_timeout_s=0.2), rand=lambda: 0.05)
            assert opened.status == "connecting"
            up = asyncio.Event()
            group.create_task(watch(opened, up))
            await asyncio.sleep(0)
            async with opened:
                opened.session("demo").follow()
                await up.wait()
        assert seen == ["connecting", "connected", "waiting", "connecting", "connected", "stopped"]
        assert [status async for status in opened.status_changes()] == ["stopped"]
