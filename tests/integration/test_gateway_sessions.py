"""Listing, forking and deleting sessions, over two real gateways."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from broker.events import (
    Entry,
    HandoffRequested,
    MessageSegment,
    Participant,
    SessionDeleted,
    TextMessageEnd,
    TextMessageStart,
)
from broker.jetstream.directory import JetStreamDirectory
from tests.support.bare import bare
from tests.support.plane import PlaneWorld, at_once, now_ms, plane_world, refused
from tests.support.rawclient import Wire

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[PlaneWorld]:
    async with plane_world(tmp_path_factory.mktemp("sessions")) as world:
        yield world


async def listed(wire: Wire, **fields: Any) -> list[str]:
    return [s["session"] for s in (await wire.command("session.list", **fields))["sessions"]]


async def spoken(world: PlaneWorld, session: str, texts: list[str]) -> None:
    """A finished run in which the agent says these texts."""
    owner = await world.running(session)
    for i, text in enumerate(texts):
        id_ = f"m{i}"
        segment = MessageSegment(id_, 0, len(text), text, True, "complete")
        await owner.write(TextMessageStart(id_), segment, TextMessageEnd(id_))
    await owner.finish()


async def messages_of(wire: Wire, session: str, count: int) -> list[dict[str, Any]]:
    """The session's messages, once the gateway has had so many."""
    async with asyncio.timeout(20):
        while len(found := (await wire.command("history", session=session))["messages"]) < count:
            await asyncio.sleep(0.02)
    return list(found)


async def history(wire: Wire, session: str) -> list[tuple[str, str]]:
    reply = await wire.command("history", session=session)
    return [(m["role"], m["text"]) for m in reply["messages"]]


# --- listing ---------------------------------------------------------------------------------------------------------


async def test_a_user_finds_their_sessions_newest_first(world: PlaneWorld) -> None:
    names = [world.session() for _ in range(5)]
    async with await world.wire("lister") as wire, await world.wire("other") as other:
        for name in names:
            await wire.command("session.create", session=name, title=f"About {name}", metadata={"n": name})
        await other.command("input.send", session=names[0], inputId="i", content="hello")
        assert await listed(wire) == names[::-1]
        assert await listed(other) == names[:1]
        reply = await wire.command("session.list", limit=2)
        assert [s["session"] for s in reply["sessions"]] == [names[4], names[3]]
        second = await wire.command("session.list", limit=2, after=reply["after"])
        assert [s["session"] for s in second["sessions"]] == [names[2], names[1]]
        last = await wire.command("session.list", limit=2, after=second["after"])
        assert ([s["session"] for s in last["sessions"]], last["after"]) == ([names[0]], None)
        await wire.command("session.close", session=names[4])
        (newest,) = (await wire.command("session.list", limit=1))["sessions"]
        assert newest["updatedAt"] <= now_ms()
        assert {k: newest[k] for k in ("title", "metadata", "status")} == {
            "title": f"About {names[4]}",
            "metadata": {"n": names[4]},
            "status": "closed",
        }
        assert newest["createdBy"]["id"] == "lister"
        await refused(wire, "bad_command", "session.list", after="x")
        await refused(wire, "bad_command", "session.list", limit=0)


async def test_a_listing_shows_what_the_token_may_read(world: PlaneWorld) -> None:
    session = world.session()
    async with await world.wire("narrow") as wire:
        await wire.command("session.create", session=session)
        assert await listed(wire) == [session]
    async with await world.wire("narrow", rights=("send",)) as wire:
        assert await listed(wire) == []


async def test_hand_overs_that_wait_are_found_by_role(world: PlaneWorld) -> None:
    session, gone = world.session(), world.session()
    directory = JetStreamDirectory(world.connection)
    owner = await world.running(session)
    await owner.write(HandoffRequested("ho_1", "desk", "refund", "They want it back", None))
    for name in (session, gone):
        await directory.note("handoff", "desk", name, now_ms())
    async with await world.wire("op", roles=("desk",)) as wire:
        (waiting,) = (await wire.command("handoff.list"))["handoffs"]
        assert (waiting["session"], waiting["handoffId"], waiting["summary"]) == (session, "ho_1", "They want it back")
        assert [n.session for n in await directory.noted("handoff", "desk", None, 9)] == [session], "stale ones go"
        await wire.command("handoff.claim", session=session, handoffId="ho_1")
        assert (await wire.command("handoff.list"))["handoffs"] == []
    async with await world.wire("nobody") as wire:
        assert (await wire.command("handoff.list"))["handoffs"] == []


# --- forking ---------------------------------------------------------------------------------------------------------


async def test_a_fork_begins_with_the_messages_so_far(world: PlaneWorld) -> None:
    """From another gateway, whole even where a text is larger than a record."""
    source, copy, part = world.session(), world.session(), world.session()
    long = "".join(chr(0x4E00 + i % 5000) for i in range(300_000))
    async with await world.wire() as wire, await world.wire(gateway=1) as other:
        await wire.command("session.create", session=source, title="A title", config={"onBusy": "reject"})
        await spoken(world, source, ["one", long])
        messages = await messages_of(wire, source, 3)
        reply = await other.command("session.fork", session=source, to=copy)
        assert reply["messages"] == 3
        assert await history(wire, copy) == [("user", "do something"), ("assistant", "one"), ("assistant", long)]
        state = await world.state(copy)
        assert (state.title, state.config.on_busy, state.messages) == ("A title", "reject", 3)
        await other.command("session.fork", session=source, to=part, before=messages[2]["seq"])
        assert await history(other, part) == [("user", "do something"), ("assistant", "one")]
        # It is a session of its own from here on.
        await other.command("input.send", session=part, inputId="i", content="something else")
        assert len(await history(wire, source)) == 3
        await refused(wire, "session_exists", "session.fork", session=source, to=copy)
        await refused(wire, "bad_name", "session.fork", session=source, to="no dots.")
    async with await world.wire("reader", rights=("read",)) as reader:
        await refused(reader, "not_allowed", "session.fork", session=source, to=world.session())


async def test_two_forks_to_one_name_are_one(world: PlaneWorld) -> None:
    sources, copy = [world.session(), world.session()], world.session()
    for source in sources:
        await spoken(world, source, [source])
    async with await world.wire() as one, await world.wire("user-2", gateway=1) as two:
        wires = (one, two)
        forks = [(w, "session.fork", {"session": s, "to": copy}) for w, s in zip(wires, sources, strict=True)]
        won, lost = await at_once(*forks)
        assert (len(won), [reply["code"] for reply in lost]) == (1, ["session_exists"])
        first, second = await history(one, copy)
        assert (first, second[1] in sources) == (("user", "do something"), True)


# --- deleting --------------------------------------------------------------------------------------------------------


async def test_a_deleted_session_is_gone(world: PlaneWorld) -> None:
    """From the log, from what gateways remember, and from listings; who watches is told, and who comes later sees none of it."""
    session = world.session()
    watching = bare(world.gateways[1].url, world.token("watcher"))
    async with await world.wire("owner") as wire, watching as watcher:
        await wire.command("session.create", session=session, title="secret title")
        await spoken(world, session, ["secret"])
        await watcher.ask("subscribe", session=session)
        reply = await wire.command("subscribe", session=session)
        cursor = f"{reply['epoch']}:{reply['head'] - 2}"
        assert (await wire.command("session.delete", session=session))["session"] == session
        while True:
            frame = await watcher.frame()
            if frame["op"] == "entry" and frame["events"][0]["type"] == "session.deleted":
                break
        assert await listed(wire) == []
        entries = await world.entries(session)
        assert [event.TYPE for entry in entries for event in entry.events] == ["session.deleted"]  # type: ignore[union-attr]
        assert await world.log.read_checkpoint(world.log.subjects(session)) is None
        for gateway in (0, 1):
            async with bare(world.gateways[gateway].url, world.token("late")) as late:
                await late.ask("subscribe", session=session, after=cursor)
                seen = []
                while (frame := await late.frame())["op"] != "session.caught_up":
                    seen.append(frame)
                assert "secret" not in str(seen)
                assert [f["events"][0]["type"] for f in seen if f["op"] == "entry"] == ["session.deleted"]
                assert (await late.ask("history", session=session))["messages"] == []
        # Twice is no harm, and the name is free.
        await wire.command("session.delete", session=session)
        await spoken(world, session, ["anew"])
        await messages_of(wire, session, 2)
        assert await history(wire, session) == [("user", "do something"), ("assistant", "anew")]


async def test_deleting_needs_the_right(world: PlaneWorld) -> None:
    session = world.session()
    async with await world.wire("owner") as wire:
        await wire.command("session.create", session=session)
    async with await world.wire("other", rights=("read", "send")) as other:
        await refused(other, "not_allowed", "session.delete", session=session)
    async with await world.wire("owner", rights=("read",)) as wire:
        await wire.command("session.delete", session=session)


async def test_a_run_that_is_going_on_is_stopped_by_a_deletion(world: PlaneWorld) -> None:
    worker = await world.stack.worker()
    session = world.session()
    async with await world.wire() as wire:
        await wire.command("input.send", session=session, inputId="a", content="stream 100000 tokens at 100/s")
        while not (await world.state(session)).lane("main").streams:
            await asyncio.sleep(0.02)
        await wire.command("session.delete", session=session)
        await wire.command("input.send", session=session, inputId="a", content="anew")
        await messages_of(wire, session, 2)
        assert (await history(wire, session))[:2] == [("user", "anew"), ("assistant", "anew")]
    await worker.terminate()


async def test_a_deletion_that_was_cut_short_is_finished_by_another_gateway(world: PlaneWorld) -> None:
    """Its gateway had written the entry, and died before anything was deleted."""
    session = world.session()
    await spoken(world, session, ["secret"])
    entry = Entry("delete:1", now_ms(), (SessionDeleted(),), by=Participant("user", "user-1"))
    await world.log.append_input(world.log.subjects(session), entry, entry.id)
    assert len(await world.entries(session)) > 1
    async with await world.wire() as wire:
        await wire.command("subscribe", session=session)
        async with asyncio.timeout(20):
            while len(await world.entries(session)) > 1:
                await asyncio.sleep(0.1)


async def test_a_message_is_edited_and_answered_anew(world: PlaneWorld) -> None:
    """Fork before it, and send the new one: the old conversation stays as it was."""
    worker = await world.stack.worker()
    source, copy = world.session(), world.session()
    async with await world.wire() as wire, await world.wire(gateway=1) as other:
        for i, text in enumerate(("first", "secnod")):
            await wire.command("input.send", session=source, inputId=f"i{i}", content=text)
            await messages_of(wire, source, 2 * i + 2)
        wrong = (await messages_of(other, source, 4))[2]
        assert wrong["text"] == "secnod"
        await other.command("session.fork", session=source, to=copy, before=wrong["seq"])
        await other.command("input.send", session=copy, inputId="i1", content="second")
        await messages_of(wire, copy, 4)
        assert [text for _, text in await history(wire, copy)] == ["first", "first", "second", "second"]
        assert [text for _, text in await history(wire, source)] == ["first", "first", "secnod", "secnod"]
    await worker.terminate()
