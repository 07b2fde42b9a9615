"""Servers that run on Node: Socket.IO on two nodes that its cluster adapter joins, and Durable Streams' reference server.

Socket.IO has adapters for Redis, Postgres, MongoDB and others, none for NATS that its makers publish; the cluster adapter
joins the processes of one machine and needs no server beside. The readers are at one node, which is measured, and the
producer at the other, so that each event goes through the adapter.

Durable Streams keeps each event (in memory, as it does by default), and readers read by Server-Sent Events.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from antiphon.bench.crowd import Reached
from antiphon.bench.harness import TOKEN_CHARS, Measured, measured
from antiphon.bench.peers import Feed, Served
from tests.bench.peers.common import HOST, by_websocket, feed_by_websocket, no_preparation, port_of, said_by

_HERE = Path(__file__).parent / "node"
_MODULES = _HERE / "node_modules"
_INSTALL = "`make peers` takes it from npm; needs Node 20"
_SOCKET_IO = "/socket.io/?EIO=4&transport=websocket"


def _missing(*packages: str) -> str:
    if not shutil.which("node"):
        return "there is no Node"
    absent = [package for package in packages if not (_MODULES / package).exists()]
    return f"there is no package {absent[0]}" if absent else ""


def _versions(*packages: str) -> Mapping[str, str]:
    def of(package: str) -> str:
        declared = json.loads((_MODULES / package / "package.json").read_text(encoding="utf-8"))
        return str(declared["version"])

    return {"node": said_by("node", "--version").lstrip("v"), **{package: of(package) for package in packages}}


def _command(script: str, *args: str) -> tuple[str, ...]:
    node = shutil.which("node")
    assert node is not None
    return node, str(_HERE / script), *args


@dataclass(frozen=True, slots=True)
class SocketIo:
    """The driver."""

    name: str = "socket.io"
    keeps: str = "nothing"
    install: str = _INSTALL

    def missing(self) -> str:
        return _missing("socket.io", "@socket.io/cluster-adapter")

    def versions(self) -> Mapping[str, str]:
        return _versions("socket.io", "@socket.io/cluster-adapter")

    @contextlib.asynccontextmanager
    async def serving(self, directory: Path) -> AsyncIterator[Served]:
        async with measured(directory, "socket.io", _command("socketio.mjs")) as primary:
            near, far = json.loads(primary.address)
            yield Served(
                server=[Measured(near["pid"], "")],
                beside=[primary, Measured(far["pid"], "")],
                reached=lambda room: by_websocket(
                    near["port"], _SOCKET_IO, frames=[f'40{{"room":"{room}"}}'], ready='42["in"'
                ),
                feed=lambda prefix: feed_by_websocket(
                    far["port"], _SOCKET_IO, f'42["say","{prefix}{{g}}","{{token}}"]', greet="40{}", ready='42["in"'
                ),
                prepare=no_preparation,
            )


@dataclass(frozen=True, slots=True)
class DurableStreams:
    """The driver."""

    name: str = "durable-streams"
    keeps: str = "all, in memory"
    install: str = _INSTALL

    def missing(self) -> str:
        return _missing("@durable-streams/server")

    def versions(self) -> Mapping[str, str]:
        return _versions("@durable-streams/server")

    @contextlib.asynccontextmanager
    async def serving(self, directory: Path) -> AsyncIterator[Served]:
        async with measured(directory, "durable-streams", _command("durable.mjs")) as server:
            port = port_of(server)
            yield Served(
                server=[server],
                beside=[],
                reached=lambda stream: Reached(
                    HOST, port, f"{_head('GET', f'/{stream}?offset=now&live=sse', port)}\r\n", (), "upToDate"
                ),
                feed=lambda prefix: Feed(
                    HOST,
                    port,
                    f"{_head('POST', f'/{prefix}{{g}}', port)}Content-Type: text/plain\r\n"
                    f"Content-Length: {TOKEN_CHARS}\r\n\r\n{{token}}",
                ),
                prepare=lambda prefix, count: _make_streams(server.address, prefix, count),
            )


def _head(method: str, path: str, port: int) -> str:
    return f"{method} {path} HTTP/1.1\r\nHost: {HOST}:{port}\r\n"


async def _make_streams(address: str, prefix: str, count: int) -> None:
    async with aiohttp.ClientSession(headers={"Content-Type": "text/plain"}) as http:
        for i in range(count):
            async with http.put(f"{address}/{prefix}{i}") as answer:
                answer.raise_for_status()


SOCKET_IO = SocketIo()
DURABLE_STREAMS = DurableStreams()
