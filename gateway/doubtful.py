"""The live readers that may lack text from before they were live, and segments for them with their text (ADR 40).

To a live reader segments come without their text, for it has had the deltas. One that came with a cursor may have been
cut where deltas had been left out for a segment that was to follow, and the gateway where it comes to may be behind the one
that left them out. Which it is nobody can tell while no leader answers, nor for certain by what a leader says. So of each text that
was open at its cursor it gets the next segment whole, which covers all there was before.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import Generic, Protocol, TypeVar

from gateway.framing import Framing, framed


class Doubter(Protocol):
    """A live reader, in this respect."""

    framing: Framing

    @property
    def doubts(self) -> AbstractSet[str]:
        """The texts of which it may lack something, by their messages."""
        ...

    def settled(self, texts: AbstractSet[str]) -> None:
        """It has got segments of these texts, whole."""
        ...


D = TypeVar("D", bound=Doubter)


class Doubtful(Generic[D]):
    """Of one session. What is kept is of one turn of the event loop, and nothing while nobody has doubts."""

    __slots__ = ("_readers", "_texts", "_whole")

    def __init__(self) -> None:
        self._readers: set[D] = set()
        self._whole: dict[int, bytes] = {}
        """Frames of segments with their text, by their place among those that are yet to be written."""
        self._texts: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self._readers)

    def add(self, reader: D) -> None:
        """It goes live; `written` was called before."""
        if reader.doubts:
            self._readers.add(reader)

    def discard(self, reader: D) -> None:
        """It is not live any more."""
        self._readers.discard(reader)

    def clear(self) -> None:
        """Nobody is, and nothing is yet to be written."""
        self._readers.clear()
        self._whole.clear()
        self._texts.clear()

    def took(self, place: int, whole: bytes, texts: tuple[str, ...]) -> None:
        """An entry with segments of these texts is yet to be written."""
        self._whole[place] = whole
        self._texts.update(texts)

    def writes(self, framing: Framing, frames: list[bytes]) -> dict[D, bytes]:
        """What readers get in place of the frames, if there are segments among them of which they need the text."""
        if not self._texts:
            return {}
        wanting = [r for r in self._readers if r.framing is framing and not r.doubts.isdisjoint(self._texts)]
        if not wanting:
            return {}
        return dict.fromkeys(wanting, framed(framing, [self._whole.get(i, each) for i, each in enumerate(frames)]))

    def written(self) -> None:
        """All frames have been written to those who are still live."""
        if not self._texts:
            return
        for reader in tuple(self._readers):
            reader.settled(self._texts)
            if not reader.doubts:
                self._readers.discard(reader)
        self._whole.clear()
        self._texts.clear()
