"""How many lanes a worker works on at once. A run that waits for people or other agents gives its slot up meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from agent_worker.metrics import WorkerMetrics


class Slots:
    """`size` slots for work; up to `parked_max` lanes may wait without one, more than that keep theirs."""

    def __init__(self, size: int, parked_max: int, metrics: WorkerMetrics) -> None:
        self.free = asyncio.Semaphore(size)
        self.parked_max = parked_max
        self.parked = 0
        self.metrics = metrics
        self._waiting = 0
        self.wanted = asyncio.Event()
        """Set while a run that was parked waits for a slot: who only looks for new work should give one up."""

    @property
    def full(self) -> bool:
        """Whether `take` would have to wait."""
        return self.free.locked()

    async def take(self) -> Slot:
        """Waits for a free slot. Safe to cancel."""
        await self.free.acquire()
        return Slot(self)

    async def regain(self) -> None:
        """Waits for a slot to go on with. Safe to cancel."""
        self._waiting += 1
        self.wanted.set()
        try:
            await self.free.acquire()
        finally:
            self._waiting -= 1
            if not self._waiting:
                self.wanted.clear()


class Slot:
    """A lane's slot, held from the beginning."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._held = True

    @property
    def held(self) -> bool:
        """Something is at work in the lane."""
        return self._held

    async def hold(self) -> None:
        """Returns when the slot is held (again). Safe to cancel."""
        if not self._held:
            await self._slots.regain()
            self._held = True

    def give(self) -> None:
        """Gives the slot up, if it is held."""
        if self._held:
            self._held = False
            self._slots.free.release()

    @asynccontextmanager
    async def parked(self) -> AsyncIterator[None]:
        """For the time of a wait: else agents that ask each other would block a small pool for good.

        A wait that is cut short does not take the slot back: what is left to do then is to write how the run ended.
        """
        if self._slots.parked >= self._slots.parked_max or not self._held:
            yield
            return
        self._slots.parked += 1
        self._slots.metrics.parked.inc()
        self.give()
        try:
            yield
        finally:
            self._slots.parked -= 1
            self._slots.metrics.parked.dec()
        await self.hold()
