"""Real gateways and workers as child processes, beside a nats-server of `tests.support.nats`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jwt

from broker.codec import decode_at
from broker.config import LogSettings, NatsSettings
from broker.events import Entry
from broker.jetstream.connection import Connection
from broker.jetstream.log import JetStreamLog
from broker.subjects import place_of
from tests.support.containers import command, in_containers, signal_container
from tests.support.nats import cluster, single_server
from tests.support.rawclient import WAIT_S, http_get
from tests.support.roles import environment_of

READY_WAIT_S = 45.0
STOP_WAIT_S = 20.0


@dataclass(slots=True)
class Process:
    """A child that has said it is ready. Its output is in `log`."""

    name: str
    url: str
    log: Path
    process: asyncio.subprocess.Process
    container: str = ""
    """The name of the container that it is, if it is one; `process` then is who started it, and ends with it."""

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def running(self) -> bool:
        return self.process.returncode is None

    async def kill(self) -> None:
        """Kill -9; returns when it is gone."""
        self._signal(signal.SIGKILL)
        await self.process.wait()

    async def terminate(self) -> int:
        """SIGTERM; returns its exit code when it is gone."""
        self._signal(signal.SIGTERM)
        async with asyncio.timeout(STOP_WAIT_S):
            return await self.process.wait()

    def terminate_soon(self) -> None:
        self._signal(signal.SIGTERM)

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def output(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def claimed(self) -> set[str]:
        """The sessions whose lanes a worker says it has claimed."""
        return {line["session"] for line in self.logged() if line.get("event") == "lane claimed"}

    def logged(self) -> list[dict[str, Any]]:
        """What it has logged, in order."""
        return [json.loads(line) for line in self.output().splitlines() if line.startswith("{")]

    def _signal(self, number: signal.Signals) -> None:
        if self.running and self.container:
            signal_container(self.container, number.name.removeprefix("SIG"))
        elif self.running:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)


@dataclass(slots=True)
class Stack:
    """Gateways and workers on one log: `async with Stack(dir, nats_url) as stack`. All of it is gone at the end.

    `env` is given to every process (`ANTIPHON_…`); short leases and few partitions by default.
    """

    directory: Path
    nats_url: str
    replicas: int = 1
    partitions: int = 4
    lease_s: float = 3.0
    delta_ttl_s: float = 3600.0
    env: Mapping[str, str] = field(default_factory=dict)
    code: Path | None = None
    """Whose code processes run that are started from now on: a tree of `tests.support.releases`, or this one."""
    ready_s: float = READY_WAIT_S
    """How long a process may take to be ready: more for those that import a lot."""
    processes: list[Process] = field(default_factory=list)
    _started: int = 0
    _secret: str = field(default_factory=lambda: secrets.token_urlsafe(48))

    async def __aenter__(self) -> Self:
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / "secret").write_text(self._secret)
        await self.apply_topology()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        for process in self.processes:
            process.resume()
            await process.kill()

    async def apply_topology(self, **env: str) -> None:
        """`antiphon topology apply`."""
        code, output = await self.run("topology", "apply", **env)
        assert code == 0, output

    async def gateway(self, port: str = "0", **env: str) -> Process:
        """A new gateway, on a free port unless it is given. `env` without its prefix: `ring_entries="8"`."""
        return await self._start("gateway", "gateway", "--port", port, **env)

    async def worker(self, agent: str = "echo", **env: str) -> Process:
        """A new worker."""
        return await self._start(f"worker-{agent.replace(':', '-')}", "worker", agent, **env)

    async def start_worker(self, args: Sequence[str], **env: str) -> Process:
        """A new worker, with arguments of its own in place of an agent."""
        return await self._start("worker", "worker", *args, **env)

    async def start(self, gateways: int, workers: int = 1, **env: str) -> list[Process]:
        """Gateways, and workers of the agent `echo`, all started at once; returns the gateways."""
        async with asyncio.TaskGroup() as tasks:
            started = [tasks.create_task(self.gateway(**env)) for _ in range(gateways)]
            for _ in range(workers):
                tasks.create_task(self.worker(**env))
        return [task.result() for task in started]

    async def webhooks(self, file: Path, **env: str) -> Process:
        """A new process that sends webhooks to the endpoints in a file, also on this machine."""
        own = {"webhook_file": str(file), "webhook_networks": "127.0.0.0/8", "webhook_lease_s": "2"}
        return await self._start("webhooks", "webhooks", **{**own, **env})

    @contextlib.asynccontextmanager
    async def log(self) -> AsyncIterator[JetStreamLog]:
        """The log itself, ready to be read in this process."""
        async with open_log(self.nats_url, LogSettings(lease_s=self.lease_s)) as (_, log):
            yield log

    async def entries(self, session: str) -> list[tuple[int, Entry]]:
        """Every entry that the log holds of a session now, by sequence."""
        async with self.log() as log:
            return await read_entries(log, session)

    async def run(self, *args: str, **env: str) -> tuple[int, str]:
        """Runs an `antiphon` command to its end; its exit code and all it printed."""
        process = await self.begin(*args, **env)
        async with asyncio.timeout(60):
            output, _ = await process.communicate()
        assert process.returncode is not None
        return process.returncode, output.decode()

    async def begin(self, *args: str, **env: str) -> asyncio.subprocess.Process:
        """Starts an `antiphon` command."""
        return await asyncio.create_subprocess_exec(
            *self._command(f"antiphon-{secrets.token_hex(6)}", args, env),
            cwd=self.code,
            env=self._environment(args[0], env),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )

    def token(
        self,
        user: str = "user-1",
        sessions: Mapping[str, list[str]] | None = None,
        ttl_s: float = 3600.0,
        **claims: Any,
    ) -> str:
        """A token for all sessions with all rights, unless `sessions` says otherwise."""
        now = time.time()
        wire = {"sub": user, "iat": now, "exp": now + ttl_s, "sessions": dict(sessions or {"*": ["admin"]})}
        return jwt.encode(wire | claims, self._secret, "HS256")

    async def _start(self, name: str, *args: str, **env: str) -> Process:
        self._started += 1
        log = self.directory / f"{name}-{self._started}.log"
        container = f"antiphon-{secrets.token_hex(6)}"
        with log.open("wb") as file:
            process = await asyncio.create_subprocess_exec(
                *self._command(container, args, env),
                cwd=self.code,
                env=self._environment(args[0], env),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=file,
                stderr=asyncio.subprocess.STDOUT,
            )
        started = Process(name, "", log, process, container if in_containers() else "")
        self.processes.append(started)
        started.url = await _ready(started, self.ready_s)
        return started

    def _command(self, name: str, args: Sequence[str], env: Mapping[str, str]) -> list[str]:
        if in_containers():
            # A worker's image has a port for its health, of which this machine has only one.
            settings = {"ANTIPHON_WORKER_PORT": "0", **self._settings(args[0], env)}
            return command(name, args, settings, self.directory / "secret")
        return [sys.executable, "-m", "antiphon", *args]

    def _environment(self, command: str, extra: Mapping[str, str]) -> dict[str, str]:
        return dict(os.environ) | self._settings(command, extra)

    def _settings(self, command: str, extra: Mapping[str, str]) -> dict[str, str]:
        own = {
            "NATS_URL": self.nats_url,
            "REPLICAS": str(self.replicas),
            "PARTITIONS": str(self.partitions),
            "LEASE_S": str(self.lease_s),
            "DELTA_TTL_S": str(self.delta_ttl_s),
            "JWT_SECRET_FILE": str(self.directory / "secret"),
            "DRAIN_S": "1",
            "WORKER_DRAIN_S": "10",
            **environment_of(self.nats_url, command),
            **self.env,
            **{name.upper(): value for name, value in extra.items()},
        }
        return {f"ANTIPHON_{name}": value for name, value in own.items()}


async def _ready(process: Process, wait_s: float) -> str:
    """Waits for the line `ready …`; returns what follows it."""
    async with asyncio.timeout(wait_s):
        while process.running:
            for line in process.output().splitlines():
                if line.startswith("ready "):
                    return line.removeprefix("ready ").strip()
            await asyncio.sleep(0.02)
    raise AssertionError(f"{process.name} ended: {process.output()}")


@contextlib.asynccontextmanager
async def replicated_stack(directory: Path, replicas: int, *, lease_s: float = 3.0) -> AsyncIterator[Stack]:
    """A stack on servers of its own: one for R1, a cluster of three for R3."""
    async with contextlib.AsyncExitStack() as stack:
        if replicas == 1:
            urls = [(await stack.enter_async_context(single_server(directory / "nats"))).url]
        else:
            urls = (await stack.enter_async_context(cluster(directory / "nats"))).urls
        made = Stack(directory / "stack", ",".join(urls), replicas=replicas, lease_s=lease_s)
        yield await stack.enter_async_context(made)


@contextlib.asynccontextmanager
async def open_log(
    nats_url: str, settings: LogSettings | None = None
) -> AsyncIterator[tuple[Connection, JetStreamLog]]:
    """A connection of this process and the log over it, prepared."""
    settings = settings or LogSettings()
    async with (
        Connection(NatsSettings(nats_url=nats_url), name="test") as connection,
        JetStreamLog(connection, settings) as log,
    ):
        await log.prepare()
        yield connection, log


async def read_entries(log: JetStreamLog, session: str) -> list[tuple[int, Entry]]:
    """Every entry of a session, up to the head that the stream's leader names."""
    subjects = log.subjects(session)
    head = await log.head(subjects)
    found: list[tuple[int, Entry]] = []
    seen = 0
    async with asyncio.timeout(READY_WAIT_S):
        while head is not None and seen < head.seq:
            page, _ = await log.read(subjects, seen)
            for stored in page:
                seen = stored.seq
                place = place_of(stored.subject)
                assert place is not None, stored.subject
                found.append((seen, decode_at(place, stored.body)[0]))
    return found


def metric(exposition: str, name: str, **labels: str) -> float:
    """The value of a sample in a Prometheus exposition; 0 if it is not there."""
    wanted = name + ("{" + ",".join(f'{k}="{v}"' for k, v in labels.items()) + "}" if labels else "")
    for line in exposition.splitlines():
        sample, _, value = line.rpartition(" ")
        if sample == wanted:
            return float(value)
    return 0.0


async def lanes_lost(worker_port: int, lanes: int) -> None:
    """Returns when a worker has noticed that it has lost so many lanes: at a write, or by what it has read before."""
    async with asyncio.timeout(WAIT_S):
        while True:
            _, exposition = await http_get(f"http://127.0.0.1:{worker_port}/metrics")
            ends = ("fenced", "taken")
            if sum(metric(exposition, "antiphon_worker_jobs_total", end=end) for end in ends) >= lanes:
                return
            await asyncio.sleep(0.05)
