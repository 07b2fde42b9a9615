"""Answering a gateway that asks when an entry has been handled (PROTOCOL, section 3)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from antiphon_client import Entry
from antiphon_client._json import JsonObject
from antiphon_client.marks import Mark, Marks
from clients.python.tests.scripted_gateway import START, Peer, ScriptedGateway, client, delta, entry, take


def mark(seq: int) -> dict[str, Any]:
    return {"op": "session.mark", "session": "demo", "seq": seq}


async def test_it_is_answered_when_the_entry_has_been_handled() -> None:
    handled: list[int] = []
    acks: list[tuple[int, int]] = []

    async def script(peer: Peer) -> None:
        await peer.opened()
        await peer.send(entry(1, 0, START), delta(2, 1, 0, "a"), mark(2), delta(3, 2, 1, "b"))
        command = await peer.expect("ack", session="demo", seq=2)
        acks.append((command["seq"], len(handled)))
        await peer.ok(command)

    async with ScriptedGateway(script) as gateway, client(gateway) as opened:
        async for event in opened.session("demo").events():
            if isinstance(event, Entry):
                await asyncio.sleep(0.01)
                handled.append(event.seq)
                if event.seq == 2:
                    await asyncio.sleep(0.05)
                    # It has been given out, and this is what is done with it.
                    assert not acks
                if event.seq == 3:
                    break
        await gateway.played(1)
    assert acks[0][1] >= 2


async def test_who_waits_for_the_next_event_has_handled_the_last() -> None:
    async def script(peer: Peer) -> None:
        await peer.opened()
        await peer.send(entry(1, 0, START))
        await asyncio.sleep(0.05)
        await peer.send(mark(1))
        await peer.ok(await peer.expect("ack", session="demo", seq=1))

    async with ScriptedGateway(script) as gateway, client(gateway) as opened:
        session = opened.session("demo")
        async with asyncio.TaskGroup() as tasks:

            async def read() -> None:
                async for _ in session.events():
                    pass

            reading = tasks.create_task(read())
            await gateway.played(1)
            reading.cancel()


async def test_where_nobody_iterates_folding_is_handling() -> None:
    async def script(peer: Peer) -> None:
        await peer.opened()
        await peer.send(entry(1, 0, START), mark(1))
        await peer.ok(await peer.expect("ack", session="demo", seq=1))

    async with ScriptedGateway(script) as gateway, client(gateway) as opened:
        opened.session("demo").follow()
        await gateway.played(1)


class Posted:
    """The part of a host that takes commands, and keeps them."""

    def __init__(self) -> None:
        self.frames: list[JsonObject | None] = []

    def post(self, build: Callable[[int], JsonObject | None], on_reply: Callable[[JsonObject], None]) -> None:
        self.frames.append(build(7))


def test_only_the_latest_mark_of_this_connection_is_answered_and_once() -> None:
    host = Posted()
    marks = Marks(host, "demo")  # type: ignore[arg-type]
    marks.asked(Mark(5), handled=-1)
    marks.handled(4)
    marks.lost()
    marks.handled(6)
    assert not host.frames
    marks.asked(Mark(8), handled=-1)
    marks.asked(Mark(9), handled=8)
    assert not host.frames
    marks.handled(9)
    marks.handled(10)
    assert host.frames == [{"op": "ack", "id": 7, "session": "demo", "seq": 9}]


async def test_a_mark_that_is_none_is_ignored() -> None:
    async def script(peer: Peer) -> None:
        await peer.opened()
        await peer.send({"op": "session.mark", "session": "demo"}, entry(1, 0, START))

    async with ScriptedGateway(script) as gateway, client(gateway) as opened:
        assert len(await take(opened.session("demo"), 2)) == 2
