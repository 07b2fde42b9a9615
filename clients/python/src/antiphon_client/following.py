"""What has been folded of a session, and who is told of it: receipts, those who act on it, and whoever waits."""

from __future__ import annotations

from dataclasses import dataclass

from .acting import Acting
from .bell import Bell
from .fold import Fold
from .protocol import Cursor, Entry, Snapshot
from .receipts import ReceiptBook
from .saved import Saved, load_fold
from .state import State
from .transcript import Message


@dataclass(frozen=True, slots=True)
class View:
    """A session as it stood after one entry: it does not change any more.

    `cursor` is the place of that entry, None before anything was read.
    """

    cursor: str | None
    state: State
    messages: tuple[Message, ...]


class Following:
    """Folds what arrives, each entry once; `seq` is the latest one, -1 before the first.

    What is read again for `events()` is not folded again. `message_limit` bounds the transcript.
    """

    def __init__(self, cursor: Cursor | None, message_limit: int | None, acting: Acting) -> None:
        self.book = ReceiptBook()
        self.bell = Bell()
        self.seq = -1 if cursor is None else cursor.seq
        self._epoch = "" if cursor is None else cursor.epoch
        self._limit = message_limit
        self._acting = acting
        self._shown: State | None = None
        self.fold = self._new_fold(State(partial=cursor is not None))

    @property
    def place(self) -> Cursor | None:
        """The place of the latest entry that is folded; None before the first."""
        return None if self.seq < 0 else Cursor(self._epoch, self.seq)

    @property
    def view(self) -> View:
        """The session as it stands."""
        if self._shown is None:
            self._shown = self.fold.state.copy()
        place = self.place
        return View(None if place is None else str(place), self._shown, tuple(self.fold.messages))

    def resume(self, saved: Saved) -> None:
        """Go on with what an earlier process has folded."""
        if saved.place is not None:
            self.fold = load_fold(saved.fold, self._limit)
            self._moved(saved.place, 0)

    def forget(self) -> None:
        """What was folded is void; a snapshot follows."""
        self.fold = self._new_fold(State())
        self.seq, self._shown = -1, None
        self.bell.ring()

    def begin(self, snapshot: Snapshot) -> None:
        """Fold from here on, unless the fold is further on already."""
        if snapshot.as_of <= self.seq:
            return
        self.fold = self._new_fold(State.from_dict(snapshot.state))
        self.book.restart(self.fold.state, snapshot.as_of)
        self._moved(Cursor(snapshot.epoch, snapshot.as_of), 0)

    def take(self, entry: Entry) -> None:
        """Fold an entry, unless it is folded already."""
        if entry.seq <= self.seq:
            return
        self.book.observe(self.fold.apply(entry))
        if entry.off is None:
            self._moved(Cursor(entry.epoch, entry.seq), entry.ts)
        else:  # a delta changes nothing but a text
            self.seq = entry.seq
            self.bell.ring()

    def _moved(self, place: Cursor, ts: int) -> None:
        self.seq, self._epoch, self._shown = place.seq, place.epoch, None
        self._acting.look(self.fold.state, ts)
        self.bell.ring()

    def _new_fold(self, state: State) -> Fold:
        return Fold(state, message_limit=self._limit)
