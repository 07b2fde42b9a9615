"""How many may do something at once, and how many wait for that."""

from __future__ import annotations

import asyncio
from types import TracebackType


class Gate:
    """A context that `at_once` may be in; the others wait, and are let in in the order in which they came."""

    def __init__(self, at_once: int) -> None:
        self._semaphore = asyncio.Semaphore(at_once)
        self.waiting = 0

    async def __aenter__(self) -> None:
        """Safe to cancel."""
        self.waiting += 1
        try:
            await self._semaphore.acquire()
        finally:
            self.waiting -= 1

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._semaphore.release()
