"""A worker that dies at a chosen write. Whatever it would still do to the log or to its jobs is not done, as after kill -9."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, TypeVar, cast

from broker.errors import Unavailable
from broker.events import Entry, OtherEvent
from broker.interfaces import Job, JobSource, SessionLog

T = TypeVar("T")
When = Literal["before", "after"]


@dataclass(frozen=True, slots=True)
class Write:
    """A worker's write: the `number`-th (from 1), and what it was."""

    number: int
    what: str


class Mortality:
    """When a worker dies: at its write `at` (0: never), `before` it is stored or `after` that, before the worker knows.

    `died` is set then, and nothing that goes through `wrap` returns any more. With `process`, this process is killed.
    """

    def __init__(self, at: int = 0, when: When = "before", *, process: bool = False) -> None:
        self._at = at
        self._when = when
        self._process = process
        self._count = 0
        self._jobs: list[Job] = []
        self.died = asyncio.Event()
        self.over = asyncio.Event()
        """It has died, or need not go on."""
        self.last: Write | None = None
        """The write that it died at."""

    def wrap(self, log: SessionLog, source: JobSource) -> tuple[SessionLog, JobSource]:
        """What the worker is to be given in their place."""
        return cast("SessionLog", _MortalLog(log, self)), _MortalSource(source, self)

    def die(self) -> None:
        """It dies now."""
        if self._process:
            os.kill(os.getpid(), signal.SIGKILL)
        self.died.set()
        self.over.set()

    async def write(self, what: str, act: Callable[[], Awaitable[T]]) -> T:
        """Does a write, unless that is where the worker dies."""
        await self.alive()
        self._count += 1
        here = self._count == self._at
        if here:
            self.last = Write(self._count, what)
        if here and self._when == "before":
            await self._dead()
        done = await act()
        await self.alive()
        if here:
            await self._dead()
        return done

    async def alive(self) -> None:
        """Does not return in a worker that has died."""
        if self.died.is_set():
            await asyncio.Event().wait()

    async def _dead(self) -> NoReturn:
        self.die()
        await asyncio.Event().wait()
        raise AssertionError

    def leased(self, job: Job) -> None:
        self._jobs.append(job)

    async def leases_run_out(self) -> None:
        """What NATS does a lease later: the dead worker's jobs go to others. Call it when nothing of the worker is left."""
        for job in self._jobs:
            try:
                await job.give_back()
            except Unavailable:
                return


class _MortalLog:
    """A log of a worker that may die: writes are counted, all else goes through."""

    def __init__(self, log: SessionLog, mortality: Mortality) -> None:
        self._log = log
        self._mortality = mortality

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    async def append(self, subjects: Any, lane: str, fence: int, entry: Entry) -> int:
        what = ", ".join(e.type if isinstance(e, OtherEvent) else e.TYPE for e in entry.events)
        return await self._mortality.write(what, lambda: self._log.append(subjects, lane, fence, entry))

    async def claim(self, *args: Any) -> int:
        return await self._mortality.write("the claim of the lane", lambda: self._log.claim(*args))

    async def release(self, *args: Any) -> None:
        await self._mortality.write("the release of the lane", lambda: self._log.release(*args))

    async def write_checkpoint(self, *args: Any) -> None:
        await self._mortality.write("a checkpoint", lambda: self._log.write_checkpoint(*args))


class _MortalSource:
    def __init__(self, source: JobSource, mortality: Mortality) -> None:
        self._source = source
        self._mortality = mortality

    async def take(self, wait_s: float) -> Job | None:
        job = await self._source.take(wait_s)
        await self._mortality.alive()
        if job is None:
            return None
        self._mortality.leased(job)
        return _MortalJob(job, self._mortality)

    async def rest(self) -> None:
        await self._source.rest()

    async def close(self) -> None:
        await self._source.close()


class _MortalJob:
    def __init__(self, job: Job, mortality: Mortality) -> None:
        self._job = job
        self._mortality = mortality
        self.session = job.session
        self.lane = job.lane
        self.delivery = job.delivery
        self.waited_s = job.waited_s
        self.seq = job.seq

    async def is_second_to(self, first: int | None) -> bool:
        await self._mortality.alive()
        return await self._job.is_second_to(first)

    async def renew(self) -> None:
        await self._mortality.alive()
        await self._job.renew()

    async def done(self) -> None:
        await self._mortality.write("the end of the job", self._job.done)

    async def give_back(self, delay_s: float = 0.0) -> None:
        await self._mortality.alive()
        await self._job.give_back(delay_s)
