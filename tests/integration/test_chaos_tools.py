"""What the nemesis breaks is really broken, and whole again afterwards: links, disks, clocks, proxies."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.chaos.disk import Disk, missing_for_disks, mounted, unmount_left_over
from tests.chaos.network import RUNNER, Namespaces, free_subnet, missing_for_namespaces
from tests.chaos.parts import Clock
from tests.chaos.proxy import Mode, Proxy, proxy_to

WAIT_S = 20.0
LOST_S = 1.0
"""For so long nothing comes by a link that is cut."""
PORT = 4000
_ECHO = f"""
import socket, sys
listener = socket.create_server((sys.argv[1], {PORT}))
print("ready", flush=True)
while True:
    connection, _ = listener.accept()
    connection.sendall(connection.recv(100))
"""


@contextlib.asynccontextmanager
async def echoing(network: Namespaces, name: str) -> AsyncIterator[None]:
    """A server at a part that says what it hears."""
    command = network.command(name, [sys.executable, "-c", _ECHO, network.address(name)])
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        await process.stdout.readline()
        yield
    finally:
        process.kill()
        await process.wait()


async def heard(address: str, port: int = PORT, wait_s: float = WAIT_S) -> bytes:
    """What comes back from there; nothing if it takes too long."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(wait_s):
            reader, writer = await asyncio.open_connection(address, port)
            try:
                writer.write(b"hello")
                return await reader.read(100)
            finally:
                writer.transport.abort()
    return b""


@pytest.mark.skipif(bool(missing_for_namespaces()), reason=f"needs {missing_for_namespaces()}")
@pytest.mark.parametrize("way", [(RUNNER, "a"), ("a", RUNNER)])
async def test_a_link_that_is_cut_loses_everything_in_silence(way: tuple[str, str]) -> None:
    network = Namespaces(("a", "b"), free_subnet())
    try:
        await network.open()
        async with echoing(network, "a"), echoing(network, "b"):
            a, b = network.address("a"), network.address("b")
            assert await heard(a) == await heard(b) == b"hello"
            reader, writer = await asyncio.open_connection(a, PORT)
            await network.cut(*way)
            assert await heard(a, wait_s=LOST_S) == b""
            assert await heard(b) == b"hello", "the other link passes everything"
            writer.write(b"late")
            await network.heal()
            async with asyncio.timeout(WAIT_S):
                assert await reader.read(100) == b"late", "the connection has survived"
            writer.transport.abort()
            assert await heard(a) == b"hello"
    finally:
        await network.close()


@pytest.mark.skipif(bool(missing_for_disks()), reason=f"needs {missing_for_disks()}")
async def test_a_disk_is_full_and_frozen_and_well_again(tmp_path: Path) -> None:
    directory = tmp_path / "disk"
    directory.mkdir()
    async with mounted(directory, tmp_path / "image") as disk:
        disk.fill()
        with pytest.raises(OSError, match="No space"):
            (directory / "a").write_bytes(bytes(1 << 16))
        disk.free()
        (directory / "a").write_bytes(bytes(1 << 16))
        await disk.freeze()
        async with asyncio.TaskGroup() as tasks:
            writing = tasks.create_task(asyncio.to_thread((directory / "b").write_bytes, b"b"))
            done, _ = await asyncio.wait({writing}, timeout=LOST_S)
            assert not done
            await disk.thaw()
        assert writing.result() == 1
    assert not (directory / "a").exists(), "it is not there any more"


@pytest.mark.skipif(bool(missing_for_disks()), reason=f"needs {missing_for_disks()}")
async def test_disks_of_a_run_that_was_killed_are_unmounted_and_others_are_not(tmp_path: Path) -> None:
    gone = await asyncio.create_subprocess_exec(sys.executable, "-c", "")
    await gone.wait()
    disks = {}
    for name, pid in (("dead", gone.pid), ("alive", os.getpid())):
        directory = tmp_path / "kept" / name / "n0"
        directory.mkdir(parents=True)
        (directory.parent / "pid").write_text(str(pid))
        disks[name] = Disk(directory, real=True)
        await disks[name].open(tmp_path / f"{name}.img")
    await unmount_left_over(tmp_path / "kept")
    mounted_now = {name for name, disk in disks.items() if disk.directory.is_mount()}
    await disks["alive"].close()
    assert mounted_now == {"alive"}


def test_a_clock_jumps_in_a_process_that_runs(tmp_path: Path) -> None:
    clock = Clock(tmp_path / "clock")
    code = (
        "import time, sys\nfor _ in sys.stdin: print(time.time(), time.time_ns() / 1e9, time.monotonic(), flush=True)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        env=dict(os.environ) | clock.env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for ahead_s in (0.0, 1_000.0, -1_000.0, 0.0):
            clock.set(ahead_s)
            process.stdin.write("\n")
            wall, wall_ns, monotonic = map(float, process.stdout.readline().split())
            assert abs(wall - time.time() - ahead_s) < WAIT_S
            assert abs(wall_ns - wall) < WAIT_S
            assert abs(monotonic - time.monotonic()) < WAIT_S
        process.stdin.close()


@contextlib.asynccontextmanager
async def proxied() -> AsyncIterator[tuple[Proxy, asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection by a proxy to a server that says what it hears."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                writer.write(data)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with (
        server,
        proxy_to("127.0.0.1", server.sockets[0].getsockname()[1], "127.0.0.1", random.Random(1)) as proxy,
    ):
        host, _, port = proxy.address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        yield proxy, reader, writer
        writer.transport.abort()


async def _ended(reader: asyncio.StreamReader) -> bytes:
    """All that still comes until the connection ends."""
    data = b""
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(WAIT_S):
            while piece := await reader.read(1 << 16):
                data += piece
    return data


async def test_a_proxy_delays_and_keeps_the_order() -> None:
    async with proxied() as (proxy, reader, writer):
        proxy.mode = Mode.DELAY
        for n in range(10):
            writer.write(b"%d" % n)
            await asyncio.sleep(0.01)
        assert await reader.readexactly(10) == b"0123456789"


async def test_a_proxy_truncates_and_ends_the_connection() -> None:
    async with proxied() as (proxy, reader, writer):
        proxy.mode = Mode.TRUNCATE
        sent = bytes(range(256)) * 100
        writer.write(sent)
        came = await _ended(reader)
        assert len(came) < len(sent)
        assert sent.startswith(came)


async def test_a_proxy_is_a_hole_until_it_is_mended() -> None:
    async with proxied() as (proxy, reader, writer):
        proxy.mode = Mode.HOLE
        writer.write(b"lost")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(LOST_S):
                await reader.read(1)
        proxy.heal()
        assert await _ended(reader) == b"", "what was swallowed must not be missing in a connection that goes on"


async def test_a_proxy_cuts_and_takes_new_connections() -> None:
    async with proxied() as (proxy, reader, _):
        proxy.cut()
        assert await _ended(reader) == b""
        host, _, port = proxy.address.rpartition(":")
        assert await heard(host, int(port)) == b"hello"
