"""Tasks that live as long as a client."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self

logger = logging.getLogger("antiphon_client")


@asynccontextmanager
async def running(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """`work` as a task, cancelled and awaited at the end.

    The group is left without the body's exception, which it would wrap into an ExceptionGroup.
    """
    group = asyncio.TaskGroup()
    await group.__aenter__()
    task = group.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await group.__aexit__(None, None, None)


class Beside:
    """Tasks that may be started at any time inside; leaving it cancels them and waits for their end.

    `on_fault` is told what one of them raises.
    """

    def __init__(self, on_fault: Callable[[Exception], None]) -> None:
        self._on_fault = on_fault
        self._group = asyncio.TaskGroup()
        self._tasks: set[asyncio.Task[None]] = set()
        self._open = False

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        self._open = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._open = False
        for task in self._tasks:
            task.cancel()
        await self._group.__aexit__(None, None, None)  # without the body's exception, as above

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None] | None:
        """`work` as a task; None if it is too late (or too early) for that."""
        if not self._open:
            work.close()
            return None
        task = self._group.create_task(self._guarded(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _task: work.close())  # one that is cancelled before its first step never began it
        return task

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as error:
            logger.exception("a task of the client has failed")
            self._on_fault(error)
