"""NATS servers for tests: real processes on loopback (or containers), which a test may kill, pause and restart.

The helpers do not need pytest; the fixtures at the end are loaded for all tests by `[tool.pytest.ini_options]`.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import random
import signal
import socket
from collections import deque
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Self

import nats
import nats.errors
import nats.js.errors
import pytest
from nats.aio.client import Client

from broker.jetstream.probe import UserOptions
from broker.jetstream.server import ClusterOptions, EmbeddedServer, PortInUse, ServerOptions
from tests.support.containers import ContainerServer, in_containers
from tests.support.roles import RoleUsers

_CLUSTER_SIZE = 3
_READY_TIMEOUT_S = 30.0
_START_ATTEMPTS = 3
_POLL_S = 0.02
_PORTS = range(20_000, 32_000)
_PORT_SHARES = 8
_ROLES_ASKED = [False]
_given: deque[int] = deque(maxlen=200)
"""Who was given one of these may not listen on it yet."""


def free_ports(count: int) -> list[int]:
    """Free ports of loopback, below the range from which the kernel takes the ports of outgoing connections.

    A client that tries again and again to reach a dead server on a port of that range ends up connected to itself, and
    a server could not have its port back.
    """
    with contextlib.ExitStack() as held:
        ports: list[int] = []
        for port in random.sample(_own_range(), k=1_000):
            listener = held.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                if port in _given:
                    continue
                listener.bind(("", port))
                ports.append(port)
            if len(ports) == count:
                _given.extend(ports)
                return ports
    raise RuntimeError("no free ports")


def _own_range() -> range:
    """Ports that no other of the processes takes among which pytest shares out the tests: a free one stays free."""
    name = os.environ.get("PYTEST_XDIST_WORKER")
    if name is None:
        return _PORTS
    worker = int(name.removeprefix("gw")) % _PORT_SHARES
    size = (_PORTS.stop - _PORTS.start) // _PORT_SHARES
    return _PORTS[worker * size : (worker + 1) * size]


class ProcessServer(EmbeddedServer):
    """A child process, which a test may hurt."""

    async def kill(self) -> None:
        """Kill -9; returns when it is gone."""
        if not self.exited.is_set():
            os.kill(self.pid, signal.SIGKILL)
            await self.exited.wait()

    def pause(self) -> None:
        """Returns when all threads stand."""
        os.kill(self.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WNOWAIT)

    def resume(self) -> None:
        if not self.exited.is_set():
            os.kill(self.pid, signal.SIGCONT)


class NatsNode:
    """One server at a fixed address. `async with NatsNode(options)`, where `options` name all ports."""

    def __init__(self, options: ServerOptions) -> None:
        self.options = options
        self._stack = contextlib.AsyncExitStack()
        self._server: ProcessServer | ContainerServer | None = None
        self._paused = False

    @property
    def server(self) -> ProcessServer | ContainerServer:
        """The process that runs now, or the container."""
        assert self._server is not None, "the node is down"
        return self._server

    @property
    def url(self) -> str:
        users = self.options.users
        who = f"{users.name}:{users.password}@" if users else ""
        return f"nats://{who}{self.options.host}:{self.options.port}"

    @property
    def name(self) -> str:
        return self.options.server_name

    @property
    def pid(self) -> int:
        assert isinstance(self.server, ProcessServer), "a container has no process of ours"
        return self.server.pid

    @property
    def running(self) -> bool:
        return self._server is not None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        # A test is over: there is nothing to flush, and an orderly stop of a cluster takes seconds.
        if self._server is not None:
            await self.kill()

    async def start(self) -> None:
        """Start on the same ports and data. Alone it is ready then; in a cluster see `NatsCluster`."""
        assert self._server is None, "the node runs"
        server = ContainerServer(self.options) if in_containers() else ProcessServer(self.options)
        self._server = await self._stack.enter_async_context(server)

    async def kill(self) -> None:
        """Crash it (kill -9). Returns when the process is gone."""
        await self.server.kill()
        await self.stop()

    async def stop(self) -> None:
        """SIGTERM and wait for the end."""
        self.resume()
        self._server = None
        await self._stack.aclose()

    async def restart(self) -> None:
        """Start again, after an orderly stop if it still runs."""
        if self._server is not None:
            await self.stop()
        await self.start()

    def pause(self) -> None:
        """SIGSTOP: the process holds still, its sockets stay open, nobody is told. Returns when all threads stand."""
        self.server.pause()
        self._paused = True

    def resume(self) -> None:
        """SIGCONT, if it was paused."""
        if self._paused:
            self.server.resume()
        self._paused = False

    async def wait_healthy(self, timeout_s: float = _READY_TIMEOUT_S) -> None:
        """Wait until the server's own health check passes: in a cluster, until all its streams have caught up."""
        async with asyncio.timeout(timeout_s):
            while not await self._healthz():
                await asyncio.sleep(_POLL_S)

    async def _healthz(self) -> bool:
        assert self.options.http_port, "no monitoring port"
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(1.0):
                reader, writer = await asyncio.open_connection(self.options.host, self.options.http_port)
                try:
                    writer.write(b"GET /healthz HTTP/1.0\r\n\r\n")
                    return b" 200 " in await reader.readline()
                finally:
                    writer.close()
        return False


class NatsCluster:
    """Three servers as one R3 cluster. Nodes are named by their index; each keeps its ports for life."""

    def __init__(self, nodes: list[NatsNode]) -> None:
        self.nodes = nodes

    @property
    def urls(self) -> list[str]:
        return [node.url for node in self.nodes]

    async def kill(self, index: int) -> None:
        await self.nodes[index].kill()

    def pause(self, index: int) -> None:
        self.nodes[index].pause()

    def resume(self, index: int) -> None:
        self.nodes[index].resume()

    async def restart(self, index: int) -> None:
        """Start the node again on its ports and data; returns when it has caught up (which needs a majority)."""
        await self.nodes[index].restart()
        await self.nodes[index].wait_healthy()

    async def stream_leader(self, stream: str) -> int:
        """The index of the running node that leads the stream. Raises TimeoutError when there is none for long."""
        async with asyncio.timeout(_READY_TIMEOUT_S):
            while True:
                running = {node.name: index for index, node in enumerate(self.nodes) if node.running}
                with contextlib.suppress(*_NOT_YET):
                    async with _connected([self.nodes[index].url for index in running.values()]) as client:
                        info = await client.jetstream(timeout=1).stream_info(stream)
                    # For a moment after a crash the survivors still name the old leader.
                    if info.cluster and info.cluster.leader in running:
                        return running[info.cluster.leader]
                await asyncio.sleep(_POLL_S)

    async def wait_ready(self) -> None:
        """Wait until the cluster would place a stream on all its nodes, which is more than having a leader."""
        async with asyncio.timeout(_READY_TIMEOUT_S):
            for node in self.nodes:
                await node.wait_healthy()
            while True:
                with contextlib.suppress(*_NOT_YET):
                    async with _connected(self.urls) as client:
                        streams = client.jetstream(timeout=2)
                        await streams.add_stream(name="READY", subjects=["ready"], num_replicas=len(self.nodes))
                        await streams.delete_stream("READY")
                        return
                await asyncio.sleep(_POLL_S)


_NOT_YET = (OSError, nats.errors.Error, nats.js.errors.Error, TimeoutError)


@contextlib.asynccontextmanager
async def _connected(urls: list[str]) -> AsyncIterator[Client]:
    client = await nats.connect(urls, allow_reconnect=False, connect_timeout=1, error_cb=_ignore)
    try:
        yield client
    finally:
        await client.close()


async def _ignore(_: Exception) -> None:
    """The call that failed raises as well."""


@contextlib.asynccontextmanager
async def single_server(
    directory: Path, *, sync_always: bool = False, roles: bool | None = None
) -> AsyncIterator[NatsNode]:
    """One server, R1. Without `sync_always` no fsync per write: what a killed process had written stays readable.

    With `roles` its users may do what their roles need, and nothing else (`tests.support.roles`); None: as
    `--nats-roles` says.
    """
    users = _users(directory, roles)

    def options() -> list[ServerOptions]:
        port, http_port = free_ports(2)
        return [ServerOptions(data_dir=directory, port=port, http_port=http_port, sync_always=sync_always, users=users)]

    async with _started(options) as nodes:
        yield nodes[0]


@contextlib.asynccontextmanager
async def cluster(
    directory: Path, *, sync_always: bool = False, roles: bool | None = None
) -> AsyncIterator[NatsCluster]:
    """Three servers, ready for R3 streams. `roles` as for one."""
    users = _users(directory, roles)
    async with _started(lambda: _cluster_options(directory, users, sync_always=sync_always)) as nodes:
        running = NatsCluster(nodes)
        await running.wait_ready()
        yield running


@contextlib.asynccontextmanager
async def _started(options: Callable[[], list[ServerOptions]]) -> AsyncIterator[list[NatsNode]]:
    """Start nodes; with other ports, a bounded number of times, if one was taken since it was picked."""
    async with contextlib.AsyncExitStack() as stack:
        for attempt in range(1, _START_ATTEMPTS + 1):
            try:
                nodes = [await stack.enter_async_context(NatsNode(each)) for each in options()]
            except PortInUse:
                await stack.aclose()
                if attempt == _START_ATTEMPTS:
                    raise
            else:
                yield nodes
                return


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--nats-roles", action="store_true", help="users of NATS with the permissions of their roles alone"
    )


def pytest_configure(config: pytest.Config) -> None:
    _ROLES_ASKED[:] = [bool(config.getoption("--nats-roles"))]


def _users(directory: Path, roles: bool | None) -> UserOptions | None:
    asked = _ROLES_ASKED[0] if roles is None else roles
    # Passwords are in files of this machine, which containers do not see.
    return RoleUsers.made(directory / "users").options() if asked and not in_containers() else None


def _cluster_options(directory: Path, users: UserOptions | None, *, sync_always: bool) -> list[ServerOptions]:
    ports = free_ports(3 * _CLUSTER_SIZE)
    routes = tuple(f"nats-route://127.0.0.1:{port}" for port in ports[:_CLUSTER_SIZE])
    first = ServerOptions(data_dir=directory, sync_always=sync_always, users=users)
    return [
        dataclasses.replace(
            first,
            data_dir=directory / f"n{index}",
            server_name=f"n{index}",
            port=ports[_CLUSTER_SIZE + index],
            http_port=ports[2 * _CLUSTER_SIZE + index],
            cluster=ClusterOptions("tests", ports[index], routes[:index] + routes[index + 1 :]),
        )
        for index in range(_CLUSTER_SIZE)
    ]


def _marked(request: pytest.FixtureRequest) -> bool | None:
    return True if request.node.get_closest_marker("nats_roles") else None


@pytest.fixture
async def nats_server(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[NatsNode]:
    """One R1 server of this test alone; in a module that is marked `nats_roles`, with the users of roles."""
    async with single_server(tmp_path / "nats", roles=_marked(request)) as node:
        yield node


@pytest.fixture
async def nats_cluster(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[NatsCluster]:
    """Three servers of this test alone, ready for R3 streams; users as for `nats_server`."""
    async with cluster(tmp_path / "nats", roles=_marked(request)) as running:
        yield running
