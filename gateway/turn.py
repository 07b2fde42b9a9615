"""The end of a turn of the event loop, when what came in it is written."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

_log = structlog.get_logger("antiphon.feed")


class Turn:
    """Gathers what is to be done once the messages that are there have been taken: one callback for all sessions."""

    __slots__ = ("_acts",)

    def __init__(self) -> None:
        self._acts: list[Callable[[], None]] = []

    def at_its_end(self, act: Callable[[], None]) -> None:
        """Calls `act` once, when the event loop comes round again."""
        if not self._acts:
            asyncio.get_running_loop().call_soon(self._end)
        self._acts.append(act)

    def _end(self) -> None:
        acts, self._acts = self._acts, []
        for act in acts:
            try:
                act()
            except Exception:  # noqa: BLE001 (a fault in one session must not keep what others have to write)
                _log.exception("a write failed")
