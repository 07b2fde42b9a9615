"""What the drivers share."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from antiphon.bench.crowd import Reached
from antiphon.bench.harness import Measured
from antiphon.bench.peers import Feed
from antiphon.bench.sockets import upgrade
from broker.errors import ConfigError
from broker.jetstream.child import ChildProcess, try_lock

INSTALLED = Path(__file__).resolve().parents[3] / ".peers"
"""Where `make peers` puts programs."""
HOST = "127.0.0.1"
_READY_WAIT_S = 30.0
_LOOK_S = 0.02


async def no_preparation(prefix: str, count: int) -> None:
    """For a peer whose channels are there as soon as somebody names them."""


def by_websocket(port: int, path: str, *, frames: Sequence[str] = (), ready: str) -> Reached:
    """How readers reach a peer by WebSocket."""
    return Reached(HOST, port, upgrade(path, HOST, port), frames, ready)


def feed_by_websocket(port: int, path: str, write: str, *, greet: str, ready: str) -> Feed:
    return Feed(HOST, port, write, upgrade(path, HOST, port), greet, ready)


def port_of(process: Measured) -> int:
    """Where a server says that it listens."""
    port = urlsplit(process.address).port
    assert port is not None
    return port


def free_port() -> int:
    """A port that nobody had a moment ago: for servers that cannot choose one themselves."""
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        port: int = sock.getsockname()[1]
        return port


@contextlib.asynccontextmanager
async def listening(directory: Path, name: str, command: Sequence[str], port: int) -> AsyncIterator[Measured]:
    """A server that says nothing when it is ready: it is asked by connecting. `command[0]` is a path.

    Raises ConfigError if it ends before, TimeoutError.
    """
    lock = try_lock(directory / f"{name}.lock")
    assert lock is not None
    output = directory / f"{name}.log"
    child = await ChildProcess.spawn(command, lock=lock, output=output, on_exit=lambda _: None)
    try:
        async with asyncio.timeout(_READY_WAIT_S):
            while not _listens(port):
                if child.returncode is not None:
                    said = output.read_text(encoding="utf-8", errors="replace").strip().splitlines()
                    raise ConfigError(f"{name} ended before it was ready: {' '.join(said[-1:])}")
                await asyncio.sleep(_LOOK_S)
        yield Measured(child.pid, f"http://{HOST}:{port}")
    finally:
        with contextlib.suppress(ProcessLookupError):
            await child.stop(5.0)


def _listens(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex((HOST, port)) == 0


def said_by(*command: str) -> str:
    """What a program prints of its version; empty if it cannot be run."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()
