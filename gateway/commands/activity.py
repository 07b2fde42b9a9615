"""Who is active where: notes for the listing of a user's sessions."""

from __future__ import annotations

import time
from collections import OrderedDict

from broker.clock import now_ms
from broker.errors import Unavailable
from broker.interfaces import Directory
from gateway.auth import Identity

_NOTE_EVERY_S = 30.0
_NOTES_KEPT = 100_000
_FORGOTTEN_AT_ONCE = 16
"""Notes that are too old to matter and are forgotten when another is made: more than come, and soon done."""


class Activity:
    """Notes in the directory that a user is active in a session; not at every input."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._noted: OrderedDict[tuple[str, str], float] = OrderedDict()
        """When the latest notes were made, in this order; older ones are as if there were none."""

    def __len__(self) -> int:
        """Notes that are remembered."""
        return len(self._noted)

    async def note(self, session: str, who: Identity) -> None:
        """An aid: a directory that cannot be written is no reason to refuse anything."""
        key, now = (who.key(session), who.id), time.monotonic()
        last = self._noted.get(key)
        if last is not None and now - last < _NOTE_EVERY_S:
            return
        try:
            await self._directory.note("user", who.id, who.key(session), now_ms())
        except Unavailable:
            return
        self._noted[key] = now
        self._noted.move_to_end(key)
        self._forget(now)

    def _forget(self, now: float) -> None:
        for _ in range(_FORGOTTEN_AT_ONCE):
            oldest, at = next(iter(self._noted.items()))
            if now - at < _NOTE_EVERY_S and len(self._noted) <= _NOTES_KEPT:
                return
            del self._noted[oldest]
