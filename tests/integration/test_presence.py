"""Presence on real gateways: who is there, on which devices, and who is no longer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import jwt
import pytest
import pytest_asyncio

from broker.interfaces import PresenceWatch
from broker.jetstream.presence import NatsPresence
from broker.tools import ToolDeclaration
from tests.support.bare import bare, get
from tests.support.nats import single_server
from tests.support.place import Frame, Place
from tests.support.presence import Viewer, devices, viewer
from tests.support.rawclient import Wire
from tests.support.stack import Process, Stack, metric, open_log

pytestmark = pytest.mark.asyncio(loop_scope="module")

GRACE_S = 1.0
LONG_GRACE_S = 60.0
BEAT_S = 0.3
ANSWER_BYTES = 12_000_000
PICK = {
    "name": "pick_file",
    "description": "Lets the user choose a file",
    "parameters": {"type": "object"},
    "idempotent": True,
}


@dataclass(frozen=True, slots=True)
class World:
    """Two gateways with a short grace, and one with a long one."""

    stack: Stack
    one: Process
    two: Process
    patient: Process
    sessions: count[int]

    def session(self) -> str:
        """A session that no other test has."""
        return f"s{next(self.sessions)}"

    def token(self, user: str) -> str:
        return self.stack.token(user)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    directory = tmp_path_factory.mktemp("presence")
    async with single_server(directory / "nats") as nats, Stack(directory / "stack", nats.url) as stack:
        beat = str(BEAT_S)
        async with asyncio.TaskGroup() as tasks:
            one = tasks.create_task(stack.gateway(leave_grace_s=str(GRACE_S), presence_heartbeat_s=beat))
            two = tasks.create_task(stack.gateway(leave_grace_s=str(GRACE_S), presence_heartbeat_s=beat))
            patient = tasks.create_task(stack.gateway(leave_grace_s=str(LONG_GRACE_S), presence_heartbeat_s=beat))
        yield World(stack, one.result(), two.result(), patient.result(), count())
        for process in (one, two, patient):
            assert "Traceback" not in process.result().output()


async def test_one_user_on_two_devices_and_two_gateways_counts_once(world: World) -> None:
    session = world.session()
    async with (
        viewer(world.one.url, world.token("user-1"), session, device="laptop") as laptop,
        viewer(world.two.url, world.token("user-1"), session, device="phone", tools=[PICK]) as phone,
    ):
        for me in (laptop, phone):
            people = await me.until(lambda p: devices(p, "user-1").keys() == {"laptop", "phone"})
            assert list(people) == ["user-1"]
            assert people["user-1"] == {
                "kind": "user",
                "id": "user-1",
                "name": None,
                "roles": [],
                "state": "active",
                "devices": [
                    {"device": "laptop", "state": "active", "tools": []},
                    {"device": "phone", "state": "active", "tools": ["pick_file"]},
                ],
            }


async def test_presence_comes_after_caught_up_and_a_connection_without_a_device_stands_for_one(world: World) -> None:
    session = world.session()
    async with bare(world.one.url) as client:
        welcome = await client.ask("hello", token=world.token("user-1"))
        await client.ask("subscribe", session=session)
        ops = [(await client.frame())["op"] for _ in range(2)]
        presence = await client.frame()
    assert ops == ["session.snapshot", "session.caught_up"]
    assert presence["op"] == "session.presence"
    assert [device["device"] for device in presence["participants"][0]["devices"]] == [welcome["connection"]]


async def test_who_comes_late_sees_all_at_once(world: World) -> None:
    session = world.session()
    async with AsyncExitStack() as room:
        for i in range(10):
            last = await room.enter_async_context(
                viewer(world.one.url, world.token(f"user-{i}"), session, device=f"d{i}")
            )
        everybody = await last.until(lambda p: len(p) == 10)
        # On a gateway that has just opened the session, and on one that has it.
        for gateway in (world.two, world.two, world.one):
            async with viewer(gateway.url, world.token("user-0"), session, device="d0") as late:
                assert await late.next() == everybody


async def test_states(world: World) -> None:
    session = world.session()
    async with (
        viewer(world.one.url, world.token("user-1"), session, device="laptop") as laptop,
        viewer(world.two.url, world.token("user-1"), session, device="phone") as phone,
    ):
        await laptop.until(lambda p: len(devices(p, "user-1")) == 2)
        for on_laptop, on_phone, both in (
            ("typing", "away", "typing"),
            ("idle", "away", "idle"),
            ("away", "active", "active"),
            ("away", "away", "away"),
        ):
            await laptop.say(on_laptop)
            await phone.say(on_phone)
            wanted = {"laptop": on_laptop, "phone": on_phone}
            for me in (laptop, phone):
                people = await me.until(lambda p, w=wanted: devices(p, "user-1") == w)
                assert people["user-1"]["state"] == both


async def test_a_reload_is_not_seen(world: World) -> None:
    session = world.session()
    url = world.patient.url
    async with viewer(url, world.token("watcher"), session, device="w") as watcher:
        async with viewer(url, world.token("user-1"), session, device="laptop"):
            before = dict(await watcher.until(lambda p: "user-1" in p))
        await _connections(world.patient, 1)
        # What is seen next, when the page is gone, when it is back, and later, is only what the watcher does.
        await watcher.say("idle")
        while_away = await watcher.next()
        async with viewer(url, world.token("user-1"), session, device="laptop") as back:
            await back.next()
            await watcher.say("away")
            afterwards = await watcher.next()
    for seen, state in ((while_away, "idle"), (afterwards, "away")):
        assert seen["user-1"] == before["user-1"]
        assert devices(seen, "watcher") == {"w": state}


async def test_who_leaves_is_gone_after_the_grace_and_one_frame_says_so(world: World) -> None:
    session = world.session()
    async with viewer(world.two.url, world.token("watcher"), session) as watcher:
        async with viewer(world.one.url, world.token("user-1"), session, device="laptop"):
            await watcher.until(lambda p: "user-1" in p)
            began = time.monotonic()
        assert list(await watcher.next()) == ["watcher"]
        assert time.monotonic() - began >= GRACE_S
        # Nothing else was on its way.
        await watcher.say("idle")
        assert (await watcher.next())["watcher"]["state"] == "idle"


async def test_unsubscribing_is_leaving(world: World) -> None:
    session = world.session()
    async with (
        viewer(world.two.url, world.token("watcher"), session) as watcher,
        viewer(world.one.url, world.token("user-1"), session) as other,
    ):
        await watcher.until(lambda p: "user-1" in p)
        await other.client.ask("unsubscribe", session=session)
        assert list(await watcher.next()) == ["watcher"]


async def test_who_does_not_watch_is_not_listed_but_known_to_workers(world: World) -> None:
    session = world.session()
    async with (
        viewer(world.one.url, world.token("user-1"), session, device="d1") as watcher,
        viewer(world.two.url, world.token("bot"), session, device="b1", watching=False, tools=[PICK]) as bot,
        open_log(world.stack.nats_url) as (connection, log),
        NatsPresence(connection) as presence,
        presence.watch(log.subjects(session)) as watch,
    ):
        assert list(await bot.until(lambda p: "user-1" in p)) == ["user-1"]
        assert list(await watcher.next()) == ["user-1"]
        await watch.ready()
        known = {present.id: present for present in watch.participants}
        assert {id_: present.watching for id_, present in known.items()} == {"bot": False, "user-1": True}
        (device,) = known["bot"].devices
        assert device.tools == (
            ToolDeclaration("pick_file", "Lets the user choose a file", {"type": "object"}, None, True, False),
        )
        # A change that is shown nowhere wakes whoever waits for changes, and sends nothing to people.
        await bot.say("away")
        await _changes_until(watch, lambda: watch.participants[0].devices[0].state == "away")
        await watcher.say("idle")
        assert (await watcher.next())["user-1"]["state"] == "idle"


async def test_a_worker_sees_the_last_viewer_go(world: World) -> None:
    session = world.session()
    async with (
        open_log(world.stack.nats_url) as (connection, log),
        NatsPresence(connection) as presence,
        presence.watch(log.subjects(session)) as watch,
    ):
        async with asyncio.timeout(20):
            await watch.ready()
        assert watch.participants == ()
        async with viewer(world.one.url, world.token("user-1"), session):
            await _changes_until(watch, lambda: any(p.watching for p in watch.participants))
            began = time.monotonic()
        await _changes_until(watch, lambda: not watch.participants)
        assert time.monotonic() - began >= GRACE_S


async def test_the_people_of_a_killed_gateway_go(world: World) -> None:
    session = world.session()
    victim = await world.stack.gateway(leave_grace_s=str(GRACE_S), presence_heartbeat_s=str(BEAT_S))
    async with (
        viewer(world.one.url, world.token("watcher"), session, device="w") as watcher,
        viewer(victim.url, world.token("user-1"), session, device="d1"),
        viewer(victim.url, world.token("user-2"), session, device="d2"),
    ):
        await watcher.until(lambda p: len(p) == 3)
        killed = time.monotonic()
        await victim.kill()
        # One of them comes back, elsewhere: nothing of that is seen. The other one goes.
        async with viewer(world.two.url, world.token("user-1"), session, device="d1"):
            assert list(await watcher.next()) == ["user-1", "watcher"]
            took_s = time.monotonic() - killed
            assert GRACE_S + 2 * BEAT_S < took_s < GRACE_S + 3 * BEAT_S + 5
            await watcher.say("idle")
            assert list(await watcher.next()) == ["user-1", "watcher"]


async def test_the_people_of_a_gateway_that_was_stopped_stay_for_the_grace(world: World) -> None:
    session = world.session()
    leaving = await world.stack.gateway(leave_grace_s=str(LONG_GRACE_S), presence_heartbeat_s=str(BEAT_S))
    async with (
        viewer(world.one.url, world.token("watcher"), session, device="w") as watcher,
        viewer(leaving.url, world.token("user-1"), session, device="d1"),
    ):
        await watcher.until(lambda p: len(p) == 2)
        assert await leaving.terminate() == 0
        # Long after its life would have been over.
        async with asyncio.timeout(20):
            while "a gateway is gone" not in world.one.output():
                await asyncio.sleep(0.05)
        await watcher.say("idle")
        people = await watcher.next()
    assert people["watcher"]["state"] == "idle"
    assert devices(people, "user-1") == {"d1": "active"}


async def test_a_gateway_that_stood_still_is_back_with_its_people(world: World) -> None:
    session = world.session()
    frozen = await world.stack.gateway(leave_grace_s=str(GRACE_S), presence_heartbeat_s=str(BEAT_S))
    async with (
        viewer(world.one.url, world.token("watcher"), session, device="w") as watcher,
        viewer(frozen.url, world.token("user-1"), session, device="d1") as other,
    ):
        await watcher.until(lambda p: len(p) == 2)
        await other.until(lambda p: len(p) == 2)
        frozen.pause()
        assert list(await watcher.next()) == ["watcher"]
        await watcher.say("away")
        frozen.resume()
        await watcher.until(lambda p: "user-1" in p)
        # Who could not hear blames nobody.
        assert all("watcher" in people for people in other.seen)
        people = await other.until(lambda p: p["watcher"]["state"] == "away")
        assert list(people) == ["user-1", "watcher"]
    await frozen.kill()


async def test_an_outage_of_nats(tmp_path: Path) -> None:
    settings = {"leave_grace_s": str(GRACE_S), "presence_heartbeat_s": str(BEAT_S)}
    async with single_server(tmp_path / "nats") as nats, Stack(tmp_path / "stack", nats.url) as stack:
        async with asyncio.TaskGroup() as tasks:
            one, two = (tasks.create_task(stack.gateway(**settings)) for _ in range(2))
        here, there = one.result(), two.result()
        async with (
            viewer(here.url, stack.token("watcher"), "demo", device="w") as watcher,
            viewer(there.url, stack.token("user-1"), "demo", device="d1") as stays,
        ):
            async with viewer(there.url, stack.token("user-2"), "demo", device="d2"):
                await watcher.until(lambda p: len(p) == 3)
                await stays.until(lambda p: len(p) == 3)
                await nats.kill()
                await _frame(watcher, "log.away")
                await _frame(stays, "log.away")
            # Who leaves now is gone at once after the grace where that is known; elsewhere nobody is blamed.
            assert list(await stays.next()) == ["user-1", "watcher"]
            await watcher.say("idle")
            people = await watcher.next()
            assert (list(people), people["watcher"]["state"]) == (["user-1", "user-2", "watcher"], "idle")
            await nats.start()
            assert list(await watcher.next()) == ["user-1", "watcher"]
            people = await stays.next()
            assert (list(people), people["watcher"]["state"]) == (["user-1", "watcher"], "idle")


async def test_who_cannot_take_it_gets_only_the_newest(world: World) -> None:
    session = world.session()
    gateway, worker = await world.stack.gateway(), await world.stack.worker()
    async with (
        await Wire.open(gateway.url, world.token("slow")) as slow,
        viewer(gateway.url, world.token("user-1"), session, device="d1") as other,
    ):
        place = Place(session)
        await slow.subscribe(place)
        await slow.follow(place, lambda p: p.caught_up)
        await other.until(lambda p: len(p) == 2)
        while len((await _presence(slow))["participants"]) < 2:
            pass
        # From here on it reads nothing, while more is said than the sockets hold.
        await other.client.ask("input.send", session=session, inputId="i1", content=f"say {ANSWER_BYTES} bytes")
        async with asyncio.timeout(20):
            while not metric((await get(f"{gateway.url}/metrics")).text, "antiphon_gateway_readers_held_back_total"):
                await asyncio.sleep(0.02)
        for state in ("idle", "typing", "away", "idle", "typing", "away"):
            await other.say(state)
            await other.until(lambda p, s=state: p["user-1"]["state"] == s)
        newest = await _presence(slow)
        assert {p["id"]: p["state"] for p in newest["participants"]} == {"slow": "active", "user-1": "away"}
        await other.say("active")
        assert {p["id"]: p["state"] for p in (await _presence(slow))["participants"]}["user-1"] == "active"
    await gateway.kill()
    await worker.kill()


async def _presence(wire: Wire) -> Frame:
    while (frame := await wire.receive())["op"] != "session.presence":
        pass
    return frame


async def test_a_new_token_may_change_the_name_and_the_roles(world: World) -> None:
    session = world.session()

    def token(**claims: object) -> str:
        known = {"sub": "user-1", "exp": time.time() + 60, "sessions": {"*": ["read"]}}
        return jwt.encode(known | claims, world.stack._secret, "HS256")

    async with viewer(world.one.url, token(name="A user", roles=["support"]), session, device="d1") as me:
        shown = (await me.next())["user-1"]
        assert (shown["name"], shown["roles"]) == ("A user", ["support"])
        assert (await me.client.ask("auth.refresh", token=token(name="Another name")))["op"] == "ok"
        shown = (await me.next())["user-1"]
        assert (shown["name"], shown["roles"]) == ("Another name", [])


@pytest.mark.parametrize(
    ("fields", "code", "field"),
    [
        ({"session": "nowhere", "state": "idle"}, "not_subscribed", None),
        ({"session": "nowhere"}, "bad_command", "state"),
        ({"session": "nowhere", "state": "dancing"}, "bad_command", "state"),
        ({"session": "nowhere", "state": ["idle"]}, "bad_command", "state"),
        ({"session": "no where", "state": "idle"}, "bad_name", "session"),
    ],
)
async def test_refused_states(world: World, fields: dict[str, object], code: str, field: str | None) -> None:
    async with bare(world.one.url, world.token("user-1")) as client:
        reply = await client.ask("presence.set", **fields)
    assert (reply["op"], reply["code"], reply.get("field")) == ("error", code, field)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"watching": "no"}, "bad_command"),
        ({"tools": "pick"}, "bad_command"),
        ({"tools": [PICK, PICK]}, "bad_command"),
        ({"tools": [PICK | {"parameters": {"type": 7}}]}, "schema_invalid"),
    ],
)
async def test_refused_subscriptions(world: World, fields: dict[str, object], code: str) -> None:
    session = world.session()
    async with bare(world.one.url, world.token("user-1")) as client:
        assert (await client.ask("subscribe", session=session, **fields))["code"] == code
        assert (await client.ask("subscribe", session=session))["op"] == "ok"


async def test_declaring_tools_needs_the_right(world: World) -> None:
    session = world.session()
    token = world.stack.token("user-1", {"*": ["read"]})
    async with bare(world.one.url, token) as client:
        reply = await client.ask("subscribe", session=session, tools=[PICK])
        assert (reply["code"], reply["right"]) == ("not_allowed", "tools")
        assert (await client.ask("subscribe", session=session, tools=[]))["op"] == "ok"
        assert (await client.ask("presence.set", session=session, state="idle"))["op"] == "ok"


@pytest.mark.parametrize("device", ["", "a b", "x" * 65, "ä"])
async def test_refused_devices(world: World, device: str) -> None:
    async with bare(world.one.url) as client:
        reply = await client.ask("hello", token=world.token("user-1"), device=device)
    assert (reply["code"], reply["field"]) == ("bad_name", "device")


async def test_the_metric_counts_people(world: World) -> None:
    session = world.session()
    gateway = await world.stack.gateway(leave_grace_s="0", presence_heartbeat_s=str(BEAT_S))
    async with viewer(gateway.url, world.token("user-1"), session, device="d1") as first:
        async with (
            viewer(gateway.url, world.token("user-1"), session, device="d2"),
            viewer(gateway.url, world.token("user-2"), session, device="d3"),
            viewer(gateway.url, world.token("bot"), session, watching=False),
        ):
            await first.until(lambda p: len(p) == 2 and len(devices(p, "user-1")) == 2)
            assert await _participants(gateway) == 2
        await first.until(lambda p: len(p) == 1 and len(devices(p, "user-1")) == 1)
        assert await _participants(gateway) == 1
    async with asyncio.timeout(20):
        while await _participants(gateway):
            await asyncio.sleep(0.02)
    await gateway.kill()


async def _participants(gateway: Process) -> float:
    return metric((await get(f"{gateway.url}/metrics")).text, "antiphon_gateway_participants")


async def _connections(gateway: Process, wanted: int) -> None:
    """Returns when the gateway has found out."""
    async with asyncio.timeout(20):
        while metric((await get(f"{gateway.url}/metrics")).text, "antiphon_gateway_connections") != wanted:
            await asyncio.sleep(0.02)


async def _frame(who: Viewer, op: str) -> None:
    while (await who.client.frame())["op"] != op:
        pass


async def _changes_until(watch: PresenceWatch, holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await watch.changed()
