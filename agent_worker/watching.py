"""Who watches a run, and what becomes of it when nobody does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from typing import Any

from agent_worker.control import RunControl
from agent_worker.scope import LaneScope
from broker.events import SessionStateChanged
from broker.interfaces import PresenceWatch
from broker.presence import Present
from broker.session_config import SessionConfig
from broker.tools import ToolDeclaration


class RunPresence:
    """Who is in the session, for one run; followed from the first question on, until `stack` is closed."""

    def __init__(self, scope: LaneScope, stack: AsyncExitStack) -> None:
        self._scope = scope
        self._stack = stack
        self._watch: PresenceWatch | None = None
        self._opening = asyncio.Lock()

    async def watch(self) -> PresenceWatch:
        """Returns when it is known who is there."""
        async with self._opening:
            if self._watch is None:
                presence = self._scope.services.presence
                self._watch = await self._stack.enter_async_context(presence.watch(self._scope.subjects))
        await self._watch.ready()
        return self._watch

    async def watchers(self) -> tuple[Present, ...]:
        return tuple(p for p in (await self.watch()).participants if p.watching)

    async def tools(self, name: str) -> tuple[ToolDeclaration, ...]:
        """A tool as those present declare it."""
        devices = [device for p in (await self.watch()).participants for device in p.devices]
        return tuple(tool for device in devices for tool in device.tools if tool.name == name)


class CostControl:
    """Holds a run while nobody watches, or says that it is to be stopped, as the session's config wants it."""

    def __init__(self, scope: LaneScope, control: RunControl, presence: RunPresence) -> None:
        self._scope = scope
        self._control = control
        self._presence = presence
        self._begun = time.monotonic()
        self._held_since: float | None = None
        self._held_s = 0.0
        self._unwatched_since: float | None = None
        if scope.state.lane(scope.lane).paused is not None:
            # The worker before this one held it.
            self._hold()

    async def run(self) -> None:
        """Returns when the run is to be stopped; until then holds it and lets it go on. Raises LogError."""
        try:
            while True:
                config = self._scope.state.config
                if config.when_unwatched == "continue":
                    await self._go_on()
                    await self._scope.until(lambda state, known=config: True if state.config != known else None)  # type: ignore[misc]
                elif await self._watched_or_waiting():
                    self._unwatched_since = None
                    await self._go_on()
                    await self._next_change(None)
                elif await self._time_is_up(config):
                    if config.when_unwatched == "stop":
                        return
                    self._pause()
                    await self._next_change(None)
        finally:
            self._account()

    async def _watched_or_waiting(self) -> bool:
        return self._control.waits > 0 or bool(await self._presence.watchers())

    async def _time_is_up(self, config: SessionConfig) -> bool:
        """Whether nobody has watched for the grace; waits for a change until then."""
        now = time.monotonic()
        self._unwatched_since = self._unwatched_since or now
        left_s = self._unwatched_since + config.unwatched_grace_ms / 1000 - now
        if self._held_since is not None or left_s <= 0:
            return True
        await self._next_change(left_s)
        return False

    async def _next_change(self, wait_s: float | None) -> None:
        watch = await self._presence.watch()
        await _first(wait_s, watch.changed(), self._scope.changed(), self._control.changed())

    def _pause(self) -> None:
        if self._held_since is None:
            self._hold()
            self._scope.writer.record(SessionStateChanged("paused", "unwatched"))

    def _hold(self) -> None:
        """Nothing is at work meanwhile, so the slot is somebody else's."""
        self._held_since = time.monotonic()
        self._control.hold()
        self._scope.slot.give()
        self._scope.services.metrics.paused.inc()

    async def _go_on(self) -> None:
        if self._held_since is not None:
            await self._scope.slot.hold()
            self._account()
            self._scope.writer.record(SessionStateChanged("running", "watched"))
            self._control.go_on()

    def _account(self) -> None:
        """Counts what the pause has saved: the time, and the text that would have been said in it at the pace so far."""
        if self._held_since is None:
            return
        now = time.monotonic()
        paused_s = now - self._held_since
        active_s = self._held_since - self._begun - self._held_s
        self._held_s += paused_s
        self._held_since = None
        metrics = self._scope.services.metrics
        metrics.paused.dec()
        metrics.paused_seconds.inc(paused_s)
        if active_s > 0:
            metrics.pieces_saved.inc(self._control.said / active_s * paused_s)


async def _first(wait_s: float | None, *waits: Coroutine[Any, Any, None]) -> None:
    """Returns when one of them does, or after `wait_s` seconds."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(wait) for wait in waits]
        await asyncio.wait(tasks, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
