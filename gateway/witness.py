"""What the fold makes of an entry, seen at the very moment: by the time a command looks, more may have happened."""

from __future__ import annotations

from broker.state import SessionState

_KEPT = 8
"""Entries of one id: two that raced within the log's memory of ids, and then some."""


class Witness:
    """Keeps the states right after the entries with an id, for whoever is about to store one."""

    __slots__ = ("_states", "entry_id")

    def __init__(self, entry_id: str) -> None:
        self.entry_id = entry_id
        self._states: dict[int, SessionState] = {}

    def saw(self, seq: int, state: SessionState) -> None:
        if len(self._states) < _KEPT:
            self._states[seq] = state

    def forget(self) -> None:
        """What it saw was folded without something that had been missed: it is not what the log makes of it."""
        self._states.clear()

    def after(self, seq: int) -> SessionState | None:
        """The state right after entry `seq`; None if it was folded before the witness looked."""
        return self._states.get(seq)
