"""What a session does by itself: executes tools, has approvals decided, sends what waits."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from ._host import Host
from .deciding import Decide, Decider
from .executor import Executor
from .outbox import Outbox
from .state import State
from .tools import Tool


class Acting:
    """The tasks of one session, begun when there is a connection, and ended with the session."""

    def __init__(self, host: Host, name: str, tools: Mapping[str, Tool], decide: Decide | None, outbox: Outbox) -> None:
        self._host = host
        self._executor = Executor(host, name, tools) if tools else None
        self._decider = None if decide is None else Decider(host, name, decide)
        self._outbox = outbox
        self._tasks: dict[Executor | Decider | Outbox, asyncio.Task[None]] = {}

    def look(self, state: State, ts: int) -> None:
        """The session stands like this, after an entry of the time `ts` (ms since 1970; 0: not known)."""
        if self._executor is not None:
            self._executor.look(state.calls, ts)
        if self._decider is not None:
            self._decider.look(state.approvals)

    def begin(self) -> None:
        """Start what is to be done and has not been started."""
        if not self._host.connected:
            return
        for actor in (self._executor, self._decider, self._outbox if self._outbox.waiting else None):
            if actor is not None and actor not in self._tasks:
                task = self._host.start(actor.run())
                if task is not None:
                    self._tasks[actor] = task

    async def end(self) -> None:
        """Stop all of it, and wait until that is done."""
        tasks = [task for task in self._tasks.values() if task.cancel()]
        if tasks:
            await asyncio.wait(tasks)
