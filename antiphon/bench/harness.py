"""Processes to measure, and what CPU time they take."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from antiphon.place import make_token
from antiphon.processes import BrokerSettings
from broker.config import LogSettings, NatsSettings
from broker.errors import ConfigError
from broker.jetstream.child import ChildProcess, try_lock
from broker.jetstream.connection import Connection
from broker.jetstream.server import EmbeddedServer, ServerOptions
from broker.jetstream.topology import Topology

_SECRET = "a secret for benchmarks, which leave nothing behind"  # noqa: S105
_READY_WAIT_S = 30.0
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Measured:
    """A child process that is ready; `address` is what it said after `ready`."""

    pid: int
    address: str

    def cpu_s(self) -> float:
        """CPU seconds (user and system) that it has taken so far; from /proc, so on Linux only."""
        fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS


@dataclass(frozen=True, slots=True)
class Bench:
    """A directory, a NATS server and its topology; starts gateways and workers on them."""

    directory: Path
    nats: Measured
    broker: BrokerSettings

    @property
    def token(self) -> str:
        return make_token(_SECRET, "bench", None, {"*": ["admin"]})

    @asynccontextmanager
    async def process(self, *args: str) -> AsyncIterator[Measured]:
        """An `antiphon` process, until the context ends."""
        name = args[0]
        lock = try_lock(self.directory / f"{name}.lock")
        assert lock is not None
        output = self.directory / f"{name}.log"
        child = await ChildProcess.spawn(
            (sys.executable, "-m", "antiphon", *args, "--nats-url", self.broker.nats.nats_url),
            lock=lock,
            output=output,
            on_exit=lambda _: None,
        )
        try:
            yield Measured(child.pid, await _ready(child, output))
        finally:
            await child.stop(5.0)
            os.close(lock)

    def gateway_args(self) -> tuple[str, ...]:
        secret = self.directory / "secret"
        secret.write_text(_SECRET, encoding="utf-8")
        limits = ("--commands-per-second", "100000", "--commands-burst", "100000", "--subscriptions", "10000")
        return ("gateway", "--port", "0", "--jwt-secret-file", str(secret), *limits)


@asynccontextmanager
async def bench() -> AsyncIterator[Bench]:
    """One server with R1 streams in a temporary directory. Writes are flushed as NATS does by default (every 2 min)."""
    with tempfile.TemporaryDirectory(prefix="antiphon-bench-") as name:
        directory = Path(name)
        async with EmbeddedServer(ServerOptions(data_dir=directory / "nats", sync_always=False)) as server:
            broker = BrokerSettings(NatsSettings(nats_url=server.url), LogSettings())
            async with Connection(broker.nats, name="bench") as connection:
                await Topology(connection, broker.log).apply()
            yield Bench(directory, Measured(server.pid, server.url), broker)


async def _ready(child: ChildProcess, output: Path) -> str:
    async with asyncio.timeout(_READY_WAIT_S):
        while child.returncode is None:
            for line in _lines(output):
                if line.startswith("ready "):
                    return line.removeprefix("ready ")
            await asyncio.sleep(0.02)
    raise ConfigError(f"a process to be measured ended: {' '.join(_lines(output)[-1:])}")


def _lines(output: Path) -> list[str]:
    return output.read_text(encoding="utf-8", errors="replace").splitlines()
