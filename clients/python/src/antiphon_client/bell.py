"""A change that any number of coroutines may wait for."""

from __future__ import annotations

import asyncio


class Bell:
    """Rings when something has changed. Ringing costs next to nothing while nobody waits."""

    __slots__ = ("_next",)

    def __init__(self) -> None:
        self._next: asyncio.Event | None = None

    def ring(self) -> None:
        """Let all who wait look again."""
        if self._next is not None:
            self._next.set()
            self._next = None

    async def wait(self) -> None:
        """Wait for the next ring. Cancelling the wait is safe."""
        if self._next is None:
            self._next = asyncio.Event()
        await self._next.wait()
