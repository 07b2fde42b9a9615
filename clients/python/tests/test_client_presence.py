"""Presence against a scripted gateway: who is there, what we say of ourselves, and what a lost connection makes of it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from antiphon_client import Client, ClientClosed, CommandRefused, Device, NotAllowed, Participant, Presence
from clients.python.tests.scripted_gateway import EPOCH, Frame, Peer, ScriptedGateway, caught_up, client, snapshot, take

DEVICES = [{"device": "d", "state": "typing", "tools": ["pick"]}, {"device": "phone", "state": "away", "tools": []}]


def present(*participants: Any) -> Frame:
    return {"op": "session.presence", "session": "demo", "participants": list(participants)}


def user(name: str, state: str = "active", **fields: Any) -> Frame:
    return {"kind": "user", "id": name, "name": name.title(), "roles": [], "state": state, "devices": [], **fields}


class TestReading:
    async def test_who_is_there(self) -> None:
        async def script(peer: Peer) -> None:
            await peer.opened()
            await peer.send(caught_up(0), present(user("a", "typing", roles=["boss"], devices=DEVICES), user("b")))

        async with ScriptedGateway(script) as gateway, client(gateway) as opened:
            session = opened.session("demo")
            assert session.presence is None
            found = await anext(aiter(session.presence_changes()))
            devices = (Device("d", "typing", ("pick",)), Device("phone", "away"))
            participants = (
                Participant("user", "a", "A", "typing", ("boss",), devices),
                Participant("user", "b", "B", "active"),
            )
            assert found == session.presence == Presence("demo", participants)

    @pytest.mark.parametrize("odd", [None, 3, [1, {}], [{"kind": "user"}], [{"kind": 1, "id": "a"}]])
    async def test_what_is_malformed_is_left_out(self, odd: Any) -> None:
        assert Presence.parse({"session": "demo", "participants": odd}) == Presence("demo", ())
        found = Presence.parse({"session": "demo", "participants": [{"kind": "user", "id": "a", "devices": odd}]})
        assert found is not None
        assert found.participants[0].devices == ()

    async def test_changes_are_told_and_a_lost_connection_makes_them_stale(self) -> None:
        seen: list[tuple[str, bool]] = []
        noted = asyncio.Event()

        async def first(peer: Peer) -> None:
            await peer.opened()
            for name in ("a", "b"):
                noted.clear()
                await peer.send(present(user(name)))
                await noted.wait()
            peer.abort()

        async def second(peer: Peer) -> None:
            await peer.welcome()
            await peer.subscribed(after=f"{EPOCH}:0")
            await peer.send(caught_up(0), present(user("c")))

        async with ScriptedGateway(first, second) as gateway, client(gateway) as opened:
            async for presence in opened.session("demo").presence_changes():
                seen.append((presence.participants[0].id, presence.stale))
                noted.set()
                if len(seen) == 4:
                    break
            assert seen == [("a", False), ("b", False), ("b", True), ("c", False)]

    async def test_who_is_slow_gets_the_latest(self) -> None:
        async def script(peer: Peer) -> None:
            await peer.opened()
            await peer.send(*(present(user(name)) for name in "abc"), caught_up(0))

        async with ScriptedGateway(script) as gateway, client(gateway) as opened:
            session = opened.session("demo")
            await take(session, 2)
            found = await anext(aiter(session.presence_changes()))
            assert found.participants[0].id == "c"

    async def test_closing_ends_the_iteration(self) -> None:
        async def script(peer: Peer) -> None:
            await peer.opened()
            await peer.send(present(user("a")))
            await peer.expect("unsubscribe")

        async with ScriptedGateway(script) as gateway, client(gateway) as opened:
            session = opened.session("demo")
            async for _ in session.presence_changes():
                await session.close()
            with pytest.raises(ClientClosed):
                await session.set_presence("idle")
            await gateway.played(1)

    async def test_a_session_that_cannot_be_read(self) -> None:
        async def script(peer: Peer) -> None:
            await peer.welcome()
            for _ in range(2):  # asking again may help
                await peer.error(await peer.expect("subscribe"), "not_allowed", right="read")

        async with ScriptedGateway(script) as gateway, client(gateway) as opened:
            session = opened.session("demo")
            with pytest.raises(NotAllowed):
                await session.set_presence("idle")
            with pytest.raises(NotAllowed):
                await anext(aiter(session.presence_changes()))


class TestSaying:
    async def test_is_said_again_after_a_reconnect(self) -> None:
        again = asyncio.Event()

        async def first(peer: Peer) -> None:
            await peer.opened()
            await peer.ok(await peer.expect("presence.set", session="demo", state="typing"))
            peer.abort()

        async def second(peer: Peer) -> None:
            await peer.welcome()
            await peer.subscribed(after=f"{EPOCH}:0")
            await peer.ok(await peer.expect("presence.set", session="demo", state="typing"))
            again.set()
            await peer.ok(await peer.expect("presence.set", session="demo", state="active"))
            await peer.expect("history")
            peer.abort()

        async def third(peer: Peer) -> None:
            await peer.welcome()
            await peer.subscribed(after=f"{EPOCH}:0")
            await peer.ok(await peer.expect("history"), messages=[], before=None)  # nothing to say

        async with ScriptedGateway(first, second, third) as gateway, client(gateway) as opened:
            session = opened.session("demo")
            await take(session, 1)
            await session.set_presence("typing")
            await again.wait()
            await session.set_presence("active")
            await session.history()

    async def test_what_is_no_state(self) -> None:
        async def script(peer: Peer) -> None:
            await peer.opened()
            await peer.error(await peer.expect("presence.set"), "bad_command", field="state")

        async with ScriptedGateway(script) as gateway, client(gateway) as opened:
            session = opened.session("demo")
            with pytest.raises(ValueError, match="asleep"):
                await session.set_presence("asleep")
            with pytest.raises(CommandRefused):
                await session.set_presence("idle")

    async def test_the_device_is_named_and_stays_the_same(self) -> None:
        devices: list[str] = []

        async def script(peer: Peer) -> None:
            devices.append((await peer.welcome())["device"])
            peer.abort()

        async with ScriptedGateway(script, script) as gateway, client(gateway) as opened:
            await gateway.played(2)
            assert set(devices) == {opened.device}

    @pytest.mark.parametrize("device", ["", "a b", "a" * 65, "ü"])
    async def test_what_is_no_device(self, device: str) -> None:
        with pytest.raises(ValueError, match="device"):
            Client("http://localhost", "t", device=device)
        assert Client("http://localhost", "t", device="d-1").device == "d-1"

    async def test_one_that_only_reads_along(self) -> None:
        async def script(peer: Peer) -> None:
            await peer.welcome()
            command = await peer.expect("subscribe", watching=False)
            await peer.ok(command, session="demo", epoch=EPOCH, head=0)
            await peer.send(snapshot())

        async with ScriptedGateway(script) as gateway, client(gateway) as opened:
            await take(opened.session("demo", watching=False), 1)
