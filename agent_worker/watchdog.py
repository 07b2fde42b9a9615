"""Looks after the event loop from a thread beside it: who holds it up is named, and in the end interrupted.

One agent that blocks (a busy loop, a library that waits without `await`) holds up every session of its worker: no token
moves, and no lease is renewed. While the loop stands still only another thread can act. It knows whose task is running,
logs that, and when it lasts, sends the main thread a signal whose handler raises EventLoopBlocked where the agent stands.
Code that lets no Python run (an extension that keeps the interpreter's lock) cannot be seen, nor interrupted: then the
leases run out, and other workers take over.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import FrameType

import structlog

from agent_worker.config import WorkerSettings
from agent_worker.errors import EventLoopBlocked
from agent_worker.metrics import WorkerMetrics
from agent_worker.tasks import RunTasks, run_of

_log = structlog.get_logger("antiphon.worker")

SIGNAL = signal.SIGUSR2
"""What the main thread is interrupted by."""
_LIBRARIES = (f"{os.sep}site-packages{os.sep}", os.path.dirname(os.__file__) + os.sep)  # noqa: PTH120 (a text is compared)


class Watchdog:
    """For the main thread's event loop. `watch` is a context; nothing is changed outside of it."""

    def __init__(self, settings: WorkerSettings, metrics: WorkerMetrics) -> None:
        self._warn_s = settings.blocked_warn_s
        self._limit_s = settings.blocked_limit_s
        self._look_s = max(0.01, min(0.25, self._warn_s / 4))
        self._metrics = metrics
        self._beat = time.monotonic()
        self._seen = 0.0
        """The beat that the thread has seen last."""
        self._still_s = 0.0
        """For how long it has seen no other."""
        self._told = 0.0
        self._over = threading.Event()
        self._main = threading.main_thread().ident or 0

    @asynccontextmanager
    async def watch(self) -> AsyncIterator[None]:
        """Watches this loop. To be entered in the main thread: elsewhere who blocks is named, and not interrupted."""
        self._loop = asyncio.get_running_loop()
        self._main = threading.get_ident()
        may_interrupt = self._limit_s > 0 and threading.current_thread() is threading.main_thread()
        before = signal.signal(SIGNAL, self._interrupt) if may_interrupt else None
        thread = threading.Thread(target=self._look, args=(may_interrupt,), name="antiphon-watchdog", daemon=True)
        thread.start()
        async with asyncio.TaskGroup() as tasks:
            beating = tasks.create_task(self._keep_beating())
            try:
                yield
            finally:
                beating.cancel()
                self._over.set()
                if may_interrupt:
                    signal.signal(SIGNAL, signal.SIG_IGN if before is None else before)

    async def _keep_beating(self) -> None:
        while True:
            self._beat = time.monotonic()
            await asyncio.sleep(self._look_s)

    # --- in the thread -------------------------------------------------------------------------------------------------

    def _look(self, may_interrupt: bool) -> None:
        before = time.monotonic()
        while not self._over.wait(self._look_s):
            now = time.monotonic()
            # A process that got no CPU, or was stopped, got none for this thread either: that time is nobody's fault.
            passed_s, before = min(now - before, 2 * self._look_s), now
            if self._beat != self._seen:
                self._seen, self._still_s = self._beat, 0.0
                continue
            self._still_s += passed_s
            if self._still_s < self._warn_s:
                continue
            run = self._running()
            if self._told != self._seen:
                self._told = self._seen
                self._tell(run, self._still_s)
            if may_interrupt and run is not None and self._still_s >= self._limit_s:
                signal.pthread_kill(self._main, SIGNAL)

    def _running(self) -> RunTasks | None:
        return run_of(asyncio.current_task(self._loop))

    def _tell(self, run: RunTasks | None, still_s: float) -> None:
        place = _place(sys._current_frames().get(self._main))  # noqa: SLF001 (documented)
        self._metrics.loop_blocked.labels("agent" if run is not None else "other").inc()
        if run is None:
            _log.error("the event loop is held up", by="not an agent", place=place, seconds=round(still_s, 2))
            return
        who = {"agent": run.agent, "session": run.session, "run": run.run_id}
        _log.error("an agent holds up the event loop", place=place, seconds=round(still_s, 2), **who)

    # --- in the main thread --------------------------------------------------------------------------------------------

    def _interrupt(self, _number: int, _frame: FrameType | None) -> None:
        """Raises where the agent stands, if it still stands there."""
        still_s, run = self._still_s, self._running()
        if run is not None and still_s >= self._limit_s and self._beat == self._seen:
            # Should it go on all the same, it has as long again.
            self._still_s = 0.0
            raise EventLoopBlocked(still_s)


def _place(frame: FrameType | None) -> str:
    """Where that is: the innermost place outside of libraries, `file:line function`; else the innermost."""
    innermost = frame
    while frame is not None and any(part in frame.f_code.co_filename for part in _LIBRARIES):
        frame = frame.f_back
    found = frame or innermost
    return "" if found is None else f"{found.f_code.co_filename}:{found.f_lineno} {found.f_code.co_qualname}"
