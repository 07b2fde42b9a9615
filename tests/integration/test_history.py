"""Pages of history: together they are the whole conversation, however far it goes back and whatever happened in it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.nats import single_server
from tests.support.place import Place
from tests.support.rawclient import Wire
from tests.support.stack import Stack

SESSION = "s"


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    async with single_server(tmp_path / "nats") as nats, Stack(tmp_path / "stack", nats.url) as stack:
        yield stack


async def pages(wire: Wire, session: str, limit: int) -> list[dict[str, Any]]:
    """All messages, page by page."""
    found: list[dict[str, Any]] = []
    before: dict[str, int] = {}
    while True:
        page = await wire.command("history", session=session, limit=limit, **before)
        found = page["messages"] + found
        if page["before"] is None:
            return found
        before = {"before": page["before"]}


async def said(wire: Wire, place: Place, *input_ids: str) -> None:
    """Sends inputs, one after the other's answer."""
    for input_id in input_ids:
        await wire.input(SESSION, input_id, "hi")
        await wire.follow(place, lambda p, run=f"run_{input_id}": run in p.ended)


async def test_what_one_entry_added_is_on_one_page(stack: Stack) -> None:
    (gateway,) = await stack.start(1, workers=0)
    place = Place(SESSION)
    async with await Wire.open(gateway.url, stack.token()) as wire:
        await wire.command("session.create", session=SESSION, config={"coalesce": "merge"})
        await wire.subscribe(place)
        for i in range(4):
            await wire.input(SESSION, f"i{i}", "hi")
        await stack.worker()
        await wire.follow(place, lambda p: "run_i0" in p.ended)
        whole = [m["id"] for m in await pages(wire, SESSION, 200)]
        assert whole[:4] == ["msg_i0", "msg_i1", "msg_i2", "msg_i3"]
        assert [m["id"] for m in await pages(wire, SESSION, 2)] == whole


async def test_a_fork_of_many_messages_can_be_read(stack: Stack) -> None:
    (gateway,) = await stack.start(1)
    place = Place(SESSION)
    async with await Wire.open(gateway.url, stack.token()) as wire:
        await wire.subscribe(place)
        await said(wire, place, *(f"i{i}" for i in range(40)))
        await wire.command("session.fork", session=SESSION, to="t")
        assert len(await pages(wire, "t", 30)) == 80


async def test_config_of_long_ago_counts(stack: Stack) -> None:
    """Behind the checkpoints, too, the history knows which messages were rolled back."""
    (gateway,) = await stack.start(1)
    place = Place(SESSION)
    async with await Wire.open(gateway.url, stack.token()) as wire:
        await wire.command("session.create", session=SESSION, config={"onBusy": "rollback"})
        await wire.subscribe(place)
        for i in range(0, 30, 2):
            await wire.input(SESSION, f"a{i}", "hang")
            await wire.follow(place, lambda p, run=f"run_a{i}": run in p.started)
            await wire.input(SESSION, f"a{i + 1}", "hello")
            await wire.follow(place, lambda p, runs={f"run_a{i}", f"run_a{i + 1}"}: runs <= set(p.ended))
        marked = [m["id"] for m in await pages(wire, SESSION, 200) if m.get("rolledBack")]
        assert marked == [f"msg_a{i}" for i in range(0, 30, 2)]


async def test_what_was_said_to_a_human_long_ago_is_there(stack: Stack) -> None:
    (gateway,) = await stack.start(1)
    place = Place(SESSION)
    async with await Wire.open(gateway.url, stack.token()) as wire:
        await wire.subscribe(place)
        await said(wire, place, *(f"b{i}" for i in range(24)))
        await wire.input(SESSION, "long", "stream 100000 tokens at 100/s")
        await wire.follow(place, lambda p: len(p.answer("run_long")) > 20)
        await wire.command("handoff.claim", session=SESSION)
        await wire.follow(place, lambda p: "run_long" in p.ended)
        for i in range(60):
            await wire.input(SESSION, f"h{i}", "human says")
        await wire.command("handoff.return", session=SESSION, inputId="back", note="go on")
        await wire.follow(place, lambda p: "run_back" in p.ended)
        await said(wire, place, *(f"i{i}" for i in range(40)))
        assert sum(m["text"] == "human says" for m in await pages(wire, SESSION, 200)) == 60
