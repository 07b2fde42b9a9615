"""What becomes of the entries that come to a session, for each of its readers. Pure.

An entry is **due** to a reader that has been live before it came, and has not left. So what is due is what was published
times the subscribers, and it must be found again, at any moment:

    due = live + caught up (frames, merged, left out, superseded, unread) + in flight

A sum that is not right says that an entry was lost, or counted twice. What readers are given when they join, before they
are live for the first time, was never due and is counted apart.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass


@dataclass(slots=True)
class Tally:
    """Of all sessions of a gateway, since it started. Plain numbers, for each entry counts here."""

    taken: int = 0
    """Entries that came to sessions that are open here."""
    due: int = 0
    live: int = 0
    """Written to live readers."""
    frames: int = 0
    """Given to a reader that was held back, as a frame of its own or the first of a merged one."""
    merged: int = 0
    """The same, as a further part of a merged frame."""
    left_out: int = 0
    """A record that it was given says the same, or the log does not hold it any more."""
    superseded: int = 0
    """The reader began afresh, with a snapshot."""
    unread: int = 0
    """The reader left before."""
    replayed: int = 0
    """Given to readers that joined: frames."""
    replayed_merged: int = 0
    """The same: further parts of merged frames."""


class Dues:
    """Of one session. Readers are told apart by identity; what is due to a live one is written within the turn."""

    __slots__ = ("_behind", "_following", "_taken", "_tally")

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._taken = 0
        self._following: set[object] = set()
        self._behind: dict[object, int] = {}
        """Those of them that are held back, and how many of the entries that were taken are dealt with for them."""

    def took(self) -> None:
        """An entry has come."""
        self._taken += 1
        self._tally.taken += 1
        self._tally.due += len(self._following)

    def delivered(self, entries: int, readers: int) -> None:
        """So many live readers have been written so many entries each."""
        self._tally.live += entries * readers

    def held_back(self, reader: object, entries: int) -> None:
        """A live reader does not take the latest `entries`."""
        self._behind[reader] = self._taken - entries

    def gave(self, reader: object, entries: int, frames: int) -> None:
        """A reader that is not live has been given entries, in so many frames."""
        if reader in self._behind:
            self._behind[reader] += entries
            self._tally.frames += frames
            self._tally.merged += entries - frames
        else:
            self._tally.replayed += frames
            self._tally.replayed_merged += entries - frames

    def went_live(self, reader: object) -> None:
        """A reader has had all there is. What it was not given while it was held back, it was not meant to have."""
        dealt_with = self._behind.pop(reader, None)
        if dealt_with is None:
            self._following.add(reader)
        else:
            self._tally.left_out += self._taken - dealt_with

    def left(self, reader: object, unwritten: int) -> None:
        """A reader is gone; if it was live, so many entries were yet to be written to it."""
        if reader in self._following:
            self._following.discard(reader)
            self._tally.unread += self._owed(reader, unwritten)
            self._behind.pop(reader, None)

    def began_anew(self, unwritten: int) -> None:
        """All readers begin afresh; so many entries were yet to be written to the live ones."""
        self._tally.superseded += sum(self._owed(reader, unwritten) for reader in self._following)
        self._following.clear()
        self._behind.clear()

    def in_flight(self, live: Collection[object], unwritten: int) -> int:
        """What is due and not dealt with yet, now."""
        waiting = sum(unwritten for reader in live if reader in self._following)
        return waiting + sum(self._taken - dealt_with for dealt_with in self._behind.values())

    def _owed(self, reader: object, unwritten: int) -> int:
        dealt_with = self._behind.get(reader)
        return unwritten if dealt_with is None else self._taken - dealt_with
