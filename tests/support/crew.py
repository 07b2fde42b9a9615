"""Workers that are killed in the middle of their work, and replaced."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from tests.support.stack import Process, Stack


def owner_of(workers: Sequence[Process], session: str) -> Process:
    """The worker that was the last one to claim a lane of the session."""
    return max(workers, key=lambda worker: max(_fences(worker, session), default=0))


def _fences(worker: Process, session: str) -> Iterator[int]:
    for line in worker.output().splitlines():
        if line.startswith("{"):
            said = json.loads(line)
            if said.get("event") == "lane claimed" and said["session"] == session:
                yield said["fence"]


@dataclass(slots=True)
class Crew:
    """Workers of one agent (`module:object`), one of which is killed every now and then, and replaced."""

    stack: Stack
    agent: str
    pool: str = "default"
    workers: list[Process] = field(default_factory=list)
    killed: int = 0

    async def start(self, count: int) -> None:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(count):
                tasks.create_task(self.hire())

    async def hire(self) -> None:
        self.workers.append(await self.stack.worker(self.agent, pool=self.pool))

    async def kill_owner_of(self, session: str) -> None:
        """Kill -9 of the worker that was last at work in a session, with another one to come."""
        if self.workers:
            await self.kill(owner_of(self.workers, session))

    async def kill(self, worker: Process) -> None:
        """Kill -9, with another one to come."""
        self.workers.remove(worker)
        await worker.kill()
        self.killed += 1
        await self.hire()
