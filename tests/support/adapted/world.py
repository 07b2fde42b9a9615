"""A gateway on a log, the scripted model, and a worker of one adapter at a time."""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from agent_worker.adapters.capabilities import Capabilities
from antiphon_client import Client, Receipt, Session, Tool
from broker.events import Entry
from tests.support.adapted.brain import Brain, Call
from tests.support.nats import free_ports
from tests.support.rawclient import http_get
from tests.support.stack import Process, Stack, metric

T = TypeVar("T")

WAIT_S = 90.0
NAMES: Iterator[int] = itertools.count()


@dataclass(frozen=True, slots=True)
class Adapted:
    """An adapter in the suite: the agent that workers run, and what its module says that it can do."""

    name: str
    agent: str
    can: Capabilities


@dataclass(slots=True)
class World:
    """What the adapters are seen in."""

    stack: Stack
    gateway: Process
    brain: Brain
    adapted: Adapted
    port: int = 0
    env: dict[str, str] = field(default_factory=dict)
    workers: list[Process] = field(default_factory=list)

    @property
    def can(self) -> Capabilities:
        return self.adapted.can

    async def hire(self) -> Process:
        """A worker more."""
        (port,) = free_ports(1)
        worker = await self.stack.worker(
            self.adapted.agent, test_model_url=self.brain.url, worker_port=str(port), cancel_grace_s="10", **self.env
        )
        self.port = port
        self.workers.append(worker)
        return worker

    async def kill(self) -> None:
        """Kill -9 of the workers, one of which is replaced."""
        for worker in self.workers:
            await worker.kill()
        self.workers.clear()
        await self.hire()

    async def instead(self, agent: str) -> None:
        """From now on, workers of another agent of `tests.support.adapted`."""
        self.adapted = replace(self.adapted, agent=f"tests.support.adapted.{agent}")
        await self.kill()

    def session(self) -> str:
        return f"{self.adapted.name}-{next(NAMES)}"

    @asynccontextmanager
    async def user(
        self, session: str, user: str = "user-1", tools: Sequence[Tool] = (), **options: Any
    ) -> AsyncIterator[Session]:
        """Somebody in a session."""
        async with Client(self.gateway.url, self.stack.token(user)) as client:
            joined = client.session(session, tools=list(tools), **options)
            joined.follow()
            yield joined

    async def events(self, session: str, type_: str) -> list[Any]:
        """The events of a type that the log holds, in order."""
        found: list[Any] = []
        for _, entry in await self.entries(session):
            found += [e for e in entry.events if getattr(e, "TYPE", getattr(e, "type", "")) == type_]
        return found

    async def entries(self, session: str) -> list[tuple[int, Entry]]:
        return await self.stack.entries(session)

    async def metric(self, name: str, **labels: str) -> float:
        _, exposition = await http_get(f"http://127.0.0.1:{self.port}/metrics")
        return metric(exposition, name, **labels)


async def until(session: Session, reached: Callable[[Session], T]) -> T:
    """Returns what `reached` says, once it says something."""
    async with asyncio.timeout(WAIT_S):
        while not (value := reached(session)):
            await asyncio.sleep(0.02)
    return value


async def finished(receipt: Receipt) -> str:
    """How the input's run ended."""
    async with asyncio.timeout(WAIT_S):
        return str((await receipt.finished()).kind)


async def asked(session: Session, text: str) -> str:
    """Sends a message; returns all that the agent says in that run, which succeeds."""
    receipt = await session.send(text)
    assert await finished(receipt) == "success"
    return said(session, receipt.run_id)


def said(session: Session, run_id: str) -> str:
    return "".join(m.text for m in session.messages if m.run == run_id and m.role == "assistant")


def messages(session: Session, role: str) -> list[str]:
    return [m.text for m in session.messages if m.role == role]


async def ended(call: Call) -> str:
    """How a request to the model ended."""
    async with asyncio.timeout(WAIT_S):
        await call.over.wait()
    return call.end


@asynccontextmanager
async def served(directory: Path, nats_url: str) -> AsyncIterator[tuple[Stack, Process]]:
    """A gateway that notices soon who leaves, and no worker yet."""
    async with Stack(directory, nats_url, lease_s=3.0, ready_s=WAIT_S) as stack:
        gateway = await stack.gateway(leave_grace_s="0.3", presence_heartbeat_s="0.5")
        yield stack, gateway


@asynccontextmanager
async def port_of_server(module: str) -> AsyncIterator[str]:
    """A server of `tests.support.adapted`, as a process that is given a port; gives that."""
    (port,) = free_ports(1)
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", f"tests.support.adapted.{module}", str(port))
    try:
        async with asyncio.timeout(WAIT_S):
            while not await _listens(port):
                assert process.returncode is None, f"{module} has ended"
                await asyncio.sleep(0.05)
        yield str(port)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True
