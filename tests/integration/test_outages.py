"""NATS away, wrong or full: gateways stay up, say what is wrong to whoever can act on it, and recover by themselves."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import nats
import pytest

from broker.jetstream.server import ServerOptions
from tests.support.bare import Bare, bare, get, until_status
from tests.support.nats import NatsNode, free_ports
from tests.support.place import Place
from tests.support.rawclient import Wire
from tests.support.stack import Process, Stack

SESSION = "demo"
NARROW = 3 << 20
DISK = 24 << 20


@contextlib.asynccontextmanager
async def running(
    directory: Path, data: Path | None = None, max_store_bytes: int | None = None, **env: str
) -> AsyncIterator[tuple[NatsNode, Stack]]:
    """A server that may be killed and a stack on it. Writes are given up after a second."""
    port, http_port = free_ports(2)
    options = ServerOptions(
        data_dir=data or directory / "nats",
        port=port,
        http_port=http_port,
        sync_always=False,
        max_store_bytes=max_store_bytes,
    )
    async with (
        NatsNode(options) as node,
        Stack(directory / "stack", node.url, env={"ACK_TIMEOUT_S": "1", "RECONNECT_WAIT_S": "0.05", **env}) as stack,
    ):
        yield node, stack


async def problems(gateway: Process) -> str:
    """What is wrong, as `/readyz` says it."""
    answer = await get(f"{gateway.url}/readyz")
    body = answer.json()
    assert (answer.status, body["status"]) == ((503, "not ready") if body["problems"] else (200, "ready"))
    return "; ".join(body["problems"])


def unavailable(reply: dict[str, Any]) -> None:
    assert (reply["op"], reply.get("code"), reply.get("retryable")) == ("error", "unavailable", True), reply
    assert reply["retry_after_ms"] > 0
    assert reply["message"]


async def send(socket: Bare, input_id: str, content: str, session: str = SESSION) -> dict[str, Any]:
    return await socket.ask("input.send", session=session, inputId=input_id, content=content)


async def sent(socket: Bare, input_id: str, content: str, session: str = SESSION) -> dict[str, Any]:
    """Sends until it is stored, as often as it is said to be `unavailable`."""
    while (reply := await send(socket, input_id, content, session))["op"] == "error":
        unavailable(reply)
        await asyncio.sleep(0.05)  # sooner than it asks for, and slower than it allows
    return reply


# --- away at start -------------------------------------------------------------------------------------------------------


async def test_everything_starts_before_nats_does(tmp_path: Path) -> None:
    async with running(tmp_path) as (node, stack):
        await node.stop()
        shutil.rmtree(node.options.data_dir / "jetstream")  # as if no log had ever been made
        gateway = await stack.gateway()
        async with asyncio.TaskGroup() as tasks, bare(gateway.url, stack.token()) as socket:
            worker = tasks.create_task(stack.worker())
            assert (await get(f"{gateway.url}/healthz")).status == 200
            assert "NATS is away" in await problems(gateway)
            await refuses_everything(socket)

            await node.start()
            while "NATS is away" in (said := await problems(gateway)):
                await asyncio.sleep(0.02)
            assert "antiphon topology apply" in said
            await refuses_everything(socket)
            assert not worker.done()

            await stack.apply_topology()
            await until_status(f"{gateway.url}/readyz", 200)
            await worker
            await sent(socket, "a", "hello there")
        place = Place(SESSION)
        async with await Wire.open(gateway.url, stack.token()) as wire:
            await wire.subscribe(place)
            await wire.follow(place, lambda p: "run_a" in p.ended)
        assert place.answer("run_a") == "hello there"
        assert "Traceback" not in gateway.output()


async def refuses_everything(socket: Bare) -> None:
    for op, fields in {
        "subscribe": {},
        "history": {},
        "input.send": {"inputId": "a", "content": "hello there"},
        "input.cancel": {"inputId": "a"},
        "run.cancel": {"runId": "run_a"},
    }.items():
        unavailable(await socket.ask(op, session=SESSION, **fields))
    assert (await socket.ask("ping"))["op"] == "pong"


# --- away in the middle ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gone_for", ["a moment", "longer than a lease"])
async def test_nats_is_killed_in_the_middle_of_a_run(tmp_path: Path, gone_for: str) -> None:
    """Readers stay connected and get everything, once and in order; what is sent meanwhile is stored once, or not."""
    async with running(tmp_path, LEASE_S="1") as (node, stack):
        first, second = await stack.gateway(), await stack.gateway()
        await stack.worker(lease_s="1")
        places = [Place(SESSION), Place(SESSION, every=True), Place(SESSION)]
        async with contextlib.AsyncExitStack() as opened:
            wires = [
                await opened.enter_async_context(await Wire.open(gateway.url, stack.token()))
                for gateway in (first, second, second)
            ]
            socket = await opened.enter_async_context(bare(first.url, stack.token()))
            for wire, place in zip(wires, places, strict=True):
                await wire.subscribe(place)
            await send(socket, "long", "stream 120 tokens at 60/s")
            await wires[0].follow(places[0], lambda p: len(p.answer("run_long")) > 60)

            await node.kill()
            for gateway in (first, second):
                assert "NATS is away" in (await until_status(f"{gateway.url}/readyz", 503)).text
                assert (await get(f"{gateway.url}/healthz")).status == 200
            unavailable(await send(socket, "meanwhile", "hi"))
            if gone_for != "a moment":
                while "the lane was lost" not in stack.processes[-1].output():
                    await asyncio.sleep(0.02)
            await node.start()
            for gateway in (first, second):
                await until_status(f"{gateway.url}/readyz", 200)
            await sent(socket, "meanwhile", "hi")
            again = await send(socket, "meanwhile", "hi")
            assert (again["op"], again["duplicate"]) == ("ok", True)
            for wire, place in zip(wires, places, strict=True):
                await wire.follow(place, lambda p: "run_meanwhile" in p.ended)
            assert [frame["op"] for frame in await pushed(socket)] == ["log.away", "log.back"]

        for place in places:
            assert place.whole, place
            assert place.answer("run_long") == "".join(f"t{n} " for n in range(120))
            assert place.applied == ["long", "meanwhile"]
            assert place.ended == {"run_long": "success", "run_meanwhile": "success"}
        log = [(seq, entry.id) for seq, entry in await stack.entries(SESSION)]
        # Readers that were live all the time have had every entry of the log, as it is, from whichever gateway.
        for place in places:
            assert place.entries == log[: len(place.entries)]


async def pushed(socket: Bare) -> list[dict[str, Any]]:
    """What the server has said of its own accord by now, on a connection that subscribed to nothing."""
    await socket.ask("ping")
    waiting = list(socket.frames)
    socket.frames.clear()
    return waiting


async def test_nats_comes_and_goes(tmp_path: Path) -> None:
    """Inputs that go on being sent through three crashes are all stored once, and answered once."""
    async with running(tmp_path) as (node, stack):
        gateway = await stack.gateway()
        await stack.worker()
        place = Place(SESSION)
        async with (
            await Wire.open(gateway.url, stack.token()) as wire,
            bare(gateway.url, stack.token()) as socket,
        ):
            await wire.subscribe(place)
            stored = 0

            async def crash() -> None:
                for after in (3, 6, 9):
                    while stored < after:
                        await asyncio.sleep(0.005)
                    await node.kill()
                    await node.start()

            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(crash())
                while stored < 12:
                    await sent(socket, f"i{stored}", f"words of {stored}")
                    stored += 1
            await wire.follow(place, lambda p: len(p.ended) == 12)
        assert place.whole, place
        assert place.applied == [f"i{n}" for n in range(12)]
        assert [place.answer(f"run_i{n}") for n in range(12)] == [f"words of {n}" for n in range(12)]


# --- wrong ---------------------------------------------------------------------------------------------------------------


async def test_streams_that_are_not_as_they_must_be(tmp_path: Path) -> None:
    async with running(tmp_path) as (node, stack):
        gateway = await stack.gateway()
        client = await nats.connect(node.url)
        streams = client.jetstream()
        config = (await streams.stream_info("S01")).config
        await streams.update_stream(config.evolve(max_msgs_per_subject=5, allow_rollup_hdrs=False))
        await streams.delete_consumer("WORK", "pool-default")
        await streams.delete_stream("S02")
        await client.close()

        said = await problems(gateway)
        for part in ("stream S01", "stream S02 is missing", "pool-default is missing", "antiphon topology apply"):
            assert part in said
        assert (await get(f"{gateway.url}/healthz")).status == 200
        await stack.apply_topology()
        assert await problems(gateway) == ""
        # And it leaves in order when NATS has left before.
        async with bare(gateway.url, stack.token()) as socket:
            await node.kill()
            assert (await socket.ask("ping"))["op"] == "pong"
            assert await gateway.terminate() == 0


# --- full ----------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def small_disk(directory: Path) -> Iterator[Path]:
    """A file system of its own, of 24 MiB."""
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(directory)]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield directory
    finally:
        subprocess.run(["umount", "-l", str(directory)], check=True)


async def test_the_log_has_reached_its_limit(tmp_path: Path) -> None:
    async with running(tmp_path, max_store_bytes=NARROW) as (node, stack):
        gateway = await stack.gateway()
        await stack.worker()
        async with bare(gateway.url, stack.token()) as socket:
            stored, refusal = await fill(socket)
            assert "storage is full" in refusal["message"]
            assert (await get(f"{gateway.url}/healthz")).status == 200
            node.options = replace(node.options, max_store_bytes=1 << 30)
            await node.restart()
            await everything_is_answered(stack, gateway, socket, stored)


async def test_the_disk_is_full(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        async with running(tmp_path, data=disk / "nats", max_store_bytes=1 << 30) as (node, stack):
            gateway = await stack.gateway()
            await stack.worker()
            filler = disk / "filler"
            usage = os.statvfs(disk)
            filler.write_bytes(bytes(usage.f_bavail * usage.f_frsize - (1 << 20)))
            async with bare(gateway.url, stack.token()) as socket:
                stored, _ = await fill(socket)
                assert (await get(f"{gateway.url}/healthz")).status == 200
                filler.unlink()
                await node.restart()  # the server itself gives up its streams for good when a write has failed
                await everything_is_answered(stack, gateway, socket, stored)


async def fill(socket: Bare) -> tuple[dict[str, tuple[str, str]], dict[str, Any]]:
    """Sends until nothing more is stored; what was (session and content by id), and how the rest is refused."""
    stored: dict[str, tuple[str, str]] = {}
    for n in range(200):
        session, input_id, content = f"s{n % 4}", f"i{n}", f"{n}".rjust(60_000, "x")
        reply = await send(socket, input_id, content, session)
        if reply["op"] == "ok":
            stored[input_id] = session, content
        elif reply["code"] != "queue_full":
            unavailable(reply)
            return stored, reply
    raise AssertionError("it was never full")


async def everything_is_answered(
    stack: Stack, gateway: Process, socket: Bare, stored: dict[str, tuple[str, str]]
) -> None:
    """Whatever was acknowledged is in the log and gets its answer; and it can be written again."""
    assert stored
    assert (await sent(socket, "after", "and then", "s0"))["duplicate"] is False
    expected = stored | {"after": ("s0", "and then")}
    for session in sorted({session for session, _ in expected.values()}):
        ids = {input_id for input_id, (where, _) in expected.items() if where == session}
        place = Place(session)
        async with await Wire.open(gateway.url, stack.token()) as wire:
            await wire.subscribe(place)
            await wire.follow(place, lambda p, ids=ids: {f"run_{id_}" for id_ in ids} <= p.ended.keys())
        assert place.whole, place
        assert len(place.applied) == len(set(place.applied))
        for id_ in ids:
            assert place.ended[f"run_{id_}"] == "success"
            assert place.answer(f"run_{id_}") == expected[id_][1]
