"""How a run is held and stopped from outside, as its agent meets it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from agent_worker.errors import RunEnded
from broker.state import Cancel


class RunControl:
    """One for each attempt of a run. The agent's context passes through it; whoever executes the run acts on it."""

    def __init__(self, cancelled: Callable[[], Cancel | None]) -> None:
        self._cancelled = cancelled
        self._going = asyncio.Event()
        self._going.set()
        self.at_boundary = asyncio.Event()
        """Set when the agent has come to where the run is to be stopped."""
        self.stopping = False
        """The agent's task is being cancelled from outside: not by its author."""
        self.ended = False
        self.said = 0
        """Pieces of text said so far, for an estimate of what a pause has saved."""
        self.waits = 0
        """Waits for people or other agents that are going on: no model runs meanwhile."""
        self.called = False
        """The agent has called a tool: at the end there may be calls without a result."""
        self._pulse = asyncio.Event()

    def hold(self) -> None:
        """What the agent says next waits until `go_on`."""
        self._going.clear()
        self._tell()

    def go_on(self) -> None:
        self._going.set()
        self._tell()

    @property
    def held(self) -> bool:
        return not self._going.is_set()

    @property
    def state(self) -> str:
        """One of `agent_worker.metrics.RUN_STATES`."""
        if self.held:
            return "paused"
        return "waiting" if self.waits else "working"

    @property
    def resting(self) -> bool:
        """Held, or waiting: time does not count."""
        return self.waits > 0 or self.held

    async def pass_through(self) -> None:
        """Waits while the run is held. Raises RunEnded."""
        self.check()
        if not self._going.is_set():
            await self._going.wait()
            self.check()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """For the time of a wait for people or other agents."""
        self._count_wait(1)
        try:
            yield
        finally:
            self._count_wait(-1)

    def _count_wait(self, by: int) -> None:
        self.waits += by
        self._tell()

    def _tell(self) -> None:
        self._pulse.set()
        self._pulse = asyncio.Event()

    async def changed(self) -> None:
        """Returns when a wait or a hold begins or ends. Safe to cancel."""
        await self._pulse.wait()

    async def worked(self, limit_s: float) -> None:
        """Returns when the agent has been at work for that long, waits and holds not counted."""
        left_s = limit_s
        while left_s > 0:
            begin, resting = time.monotonic(), self.resting
            try:
                async with asyncio.timeout(None if resting else left_s):
                    await self.changed()
            except TimeoutError:
                return
            if not resting:
                left_s -= time.monotonic() - begin

    async def boundary(self) -> None:
        """A place where the run may be stopped or held. Does not return if it is stopped: the task is cancelled."""
        await self.pass_through()
        cancel = self._cancelled()
        if cancel is not None:
            # With "immediate", the task is about to be cancelled anyway: nothing more is to be done in this run.
            self.at_boundary.set()
            await asyncio.Event().wait()

    def check(self) -> None:
        """Raises RunEnded."""
        if self.ended:
            raise RunEnded("the run has ended")
