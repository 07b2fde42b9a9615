"""Which tasks belong to which run: those that its agent has started, and those that they have.

A task that outlives its run is a leak: it says nothing more, but it goes on using the worker, and holds what it refers to.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

import broker

_FOREIGN = (f"{os.sep}nats{os.sep}aio{os.sep}", os.path.dirname(broker.__file__) + os.sep)  # noqa: PTH120 (texts are compared)
"""Where coroutines come from that a run has only happened to start: they serve the whole worker."""


class RunTasks:
    """The tasks of one attempt of a run."""

    def __init__(self, session: str, run_id: str, agent: str) -> None:
        self.session = session
        self.run_id = run_id
        self.agent = agent
        self.main: asyncio.Task[Any] | None = None
        """The task of the agent's function."""
        self._tasks: WeakSet[asyncio.Task[Any]] = WeakSet()

    def __contains__(self, task: object) -> bool:
        return task is not None and (task is self.main or task in self._tasks)

    def add(self, task: asyncio.Task[Any]) -> None:
        self._tasks.add(task)

    def left(self) -> list[asyncio.Task[Any]]:
        """Those that have not ended, without the agent's own and without what serves others."""
        return [task for task in self._tasks if not task.done() and task is not self.main and not _is_foreign(task)]


_RUN: contextvars.ContextVar[RunTasks | None] = contextvars.ContextVar("antiphon_run_tasks", default=None)
_ACTIVE: WeakSet[RunTasks] = WeakSet()


@contextmanager
def counted_as(run: RunTasks) -> Iterator[None]:
    """Within it, in this task and what it starts, new tasks are the run's."""
    _ACTIVE.add(run)
    token = _RUN.set(run)
    try:
        yield
    finally:
        _RUN.reset(token)


def run_of(task: asyncio.Task[Any] | None) -> RunTasks | None:
    """The run that a task belongs to. May be asked from any thread."""
    return next((run for run in tuple(_ACTIVE) if task in run), None)


def count_tasks(loop: asyncio.AbstractEventLoop) -> None:
    """From here on, tasks of runs are known. May be called again."""
    if loop.get_task_factory() is None:
        loop.set_task_factory(_make)


def _make(loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any] | Any, **options: Any) -> asyncio.Task[Any]:
    task: asyncio.Task[Any] = asyncio.Task(coro, loop=loop, **options)
    run = _RUN.get()
    if run is not None:
        run.add(task)
    return task


def name_of(task: asyncio.Task[Any]) -> str:
    """What a task runs, for a log: a name in somebody's code."""
    return str(getattr(task.get_coro(), "__qualname__", type(task.get_coro()).__name__))


def _is_foreign(task: asyncio.Task[Any]) -> bool:
    code = getattr(task.get_coro(), "cr_code", None)
    return code is not None and any(part in code.co_filename for part in _FOREIGN)
