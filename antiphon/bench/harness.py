"""Processes to measure, and what CPU time they take."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from antiphon.bench.sockets import MARK, TIME_DIGITS
from antiphon.place import make_token
from antiphon.processes import BrokerSettings
from broker.config import LogSettings, NatsSettings
from broker.errors import ConfigError
from broker.jetstream.child import ChildProcess, try_lock
from broker.jetstream.connection import Connection
from broker.jetstream.server import EmbeddedServer, ServerOptions
from broker.jetstream.topology import Topology

TOKEN_CHARS = 25
"""Of a token: its mark, the time at which it was made, and a word."""
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

    def memory_bytes(self) -> int:
        """Of its own and its part of what it shares (PSS), from /proc."""
        for line in Path(f"/proc/{self.pid}/smaps_rollup").read_text(encoding="utf-8").splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
        raise ConfigError("this kernel does not say how much memory a process has")

    def pin(self, core: int) -> None:
        """Keeps all its threads, and those to come, on one core. Does nothing on a machine with a single one."""
        pin(self.pid, core)


def pin(pid: int, core: int) -> None:
    """Keeps a process on one of this machine's cores, if it has several."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) > 1:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), {cores[core % len(cores)]})


def cpu_of_this_process() -> float:
    """CPU seconds (user and system)."""
    used = os.times()
    return used.user + used.system


def token() -> str:
    """A token that says when it was made, as `antiphon.bench.sockets` reads it."""
    return f"{MARK.decode()}{time.monotonic_ns():0{TIME_DIGITS - 1}d} tok"


@dataclass(frozen=True, slots=True)
class Bench:
    """A directory, a NATS server and its topology; starts gateways and workers on them."""

    directory: Path
    nats: Measured
    broker: BrokerSettings

    @property
    def token(self) -> str:
        """A token that may do everything."""
        return make_token(_SECRET, "bench", None, {"*": ["admin"]})

    def process(self, *args: str) -> AbstractAsyncContextManager[Measured]:
        """An `antiphon` process, until the context ends."""
        command = (sys.executable, "-m", "antiphon", *args, "--nats-url", self.broker.nats.nats_url)
        return measured(self.directory, args[0], command)

    def gateway_args(self) -> tuple[str, ...]:
        secret = self.directory / "secret"
        secret.write_text(_SECRET, encoding="utf-8")
        # One user is all of them.
        rates = ("commands", "bytes", "inputs", "joins")
        limits = (
            *(word for rate in rates for word in (f"--{rate}-per-second", "1e9", f"--{rate}-burst", "1000000000")),
            *("--subscriptions", "10000", "--user-connections", "0", "--greeting-connections", "20000"),
            *("--user-frames-per-second", "1e9", "--address-frames-per-second", "0", "--sockets-per-second", "1e9"),
        )
        # Readers that are cheap do not answer pings (`antiphon.bench.sockets`).
        patience = ("--heartbeat-s", "3600")
        return ("gateway", "--port", "0", "--jwt-secret-file", str(secret), *limits, *patience)


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


@asynccontextmanager
async def measured(directory: Path, name: str, command: Sequence[str]) -> AsyncIterator[Measured]:
    """A process that says `ready ADDRESS` in a line of its own, until the context ends. `command[0]` is a path.

    Its output is in `<name>.log` in the directory. Raises ConfigError if it ends before it is ready.
    """
    lock = try_lock(directory / f"{name}.lock")
    assert lock is not None
    output = directory / f"{name}.log"
    child = await ChildProcess.spawn(command, lock=lock, output=output, on_exit=lambda _: None)
    try:
        yield Measured(child.pid, await _ready(child, output))
    finally:
        await child.stop(5.0)
        os.close(lock)


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
