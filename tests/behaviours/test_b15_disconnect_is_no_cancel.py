"""B15: a run goes on when everybody has gone, even the gateways; to stop it somebody must say so."""

from __future__ import annotations

import asyncio
import time

from broker.events import RunFinished
from tests.behaviours.conftest import Figure
from tests.support.place import Place
from tests.support.rawclient import WAIT_S, Wire, http_get, join
from tests.support.stack import Process, Stack, metric

SESSION = "left"
CLIENTS = 6
TOKENS = 450
STREAM = f"stream {TOKENS} tokens at 150/s"
POLL_S = 0.02


async def test_everybody_leaves(stack: Stack, figure: Figure) -> None:
    gateways = await stack.start(2, session_linger_s="0")
    token = stack.token()
    before = await _watch_and_leave(gateways, token, "a")
    async with asyncio.timeout(WAIT_S):
        while any([await _connections(gateway) for gateway in gateways]):
            await asyncio.sleep(POLL_S)
    assert await _outcome(stack, "run_a") is None, "the run was over too early to show anything"
    await _wait_outcome(stack, "run_a", "success")

    also_before = await _watch_and_leave(gateways, token, "b")
    for gateway in gateways:
        await gateway.kill()
    assert await _outcome(stack, "run_b") is None, "the run was over too early to show anything"
    await _wait_outcome(stack, "run_b", "success")

    new = await stack.gateway()
    text = "".join(f"t{i} " for i in range(TOKENS))
    for place in (*before, *also_before, Place(SESSION)):
        await join(new.url, token, place)
        assert place.whole, place
        assert place.answer("run_a") == place.answer("run_b") == text
        assert place.ended == {"run_a": "success", "run_b": "success"}
    figure(f"{CLIENTS} of {CLIENTS} clients gone, then both gateways too: both runs complete, seen in full afterwards")


async def test_stop_stops(stack: Stack, figure: Figure) -> None:
    near, far = await stack.start(2)
    token = stack.token()
    watcher = Place(SESSION)
    async with await Wire.open(far.url, token) as wire:
        await wire.subscribe(watcher)
        async with await Wire.open(near.url, token) as sender:
            await sender.input(SESSION, "a", "stream 1000000 tokens at 200/s")
            await wire.follow(watcher, lambda p: p.caught_up and len(p.entries) >= 50)
            begin = time.monotonic()
            status = (await sender.command("run.cancel", session=SESSION, runId="run_a"))["status"]
            # Whoever has stopped it may leave as well.
            sender.cut()
        await wire.follow(watcher, lambda p: "run_a" in p.ended)
        stopped_s = time.monotonic() - begin
        again = await wire.command("run.cancel", session=SESSION, runId="run_a")
    assert status in ("cancelling", "cancelled")
    assert again["status"] == "cancelled"
    assert watcher.whole
    assert watcher.ended == {"run_a": "cancelled"}
    (text,) = watcher.texts.values()
    assert (text.done, text.reason) == (True, "cancelled")
    said = str(text)
    assert said == "".join(f"t{i} " for i in range(len(said.split())))
    figure(f"stop ends the run {stopped_s * 1000:.0f} ms later, with its partial text kept")


async def _watch_and_leave(gateways: list[Process], token: str, input_id: str) -> list[Place]:
    """Clients see the run begin; then all go, some without a word, some with a goodbye. The sender goes too."""
    async with await Wire.open(gateways[0].url, token) as sender:
        await sender.input(SESSION, input_id, STREAM)
        async with asyncio.TaskGroup() as tasks:
            clients = [
                tasks.create_task(_leave(gateways[i % 2].url, token, input_id, polite=i % 3 == 0))
                for i in range(CLIENTS)
            ]
    return [client.result() for client in clients]


async def _leave(url: str, token: str, input_id: str, *, polite: bool) -> Place:
    place = Place(SESSION)
    async with await Wire.open(url, token) as wire:
        await wire.subscribe(place)
        await wire.follow(place, lambda p: len(p.answer(f"run_{input_id}")) >= 50)
        if polite:
            await wire.close()
    assert f"run_{input_id}" not in place.ended
    return place


async def _connections(gateway: Process) -> float:
    status, body = await http_get(f"{gateway.url}/metrics")
    assert status == 200
    return metric(body, "antiphon_gateway_connections")


async def _outcome(stack: Stack, run_id: str) -> str | None:
    """How the log says that the run ended; nobody is asked but the log."""
    for _, entry in await stack.entries(SESSION):
        for event in entry.events:
            if isinstance(event, RunFinished) and event.run_id == run_id:
                return str((event.outcome or {})["type"])
    return None


async def _wait_outcome(stack: Stack, run_id: str, outcome: str) -> None:
    async with asyncio.timeout(WAIT_S):
        while (found := await _outcome(stack, run_id)) is None:
            await asyncio.sleep(0.1)
    assert found == outcome
