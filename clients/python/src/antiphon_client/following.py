"""What has been folded of a session, and who is told of it: receipts, and the executor of tools."""

from __future__ import annotations

from .executor import Executor
from .fold import Fold
from .protocol import Cursor, Entry, Snapshot
from .receipts import ReceiptBook
from .state import State


class Following:
    """Folds what arrives, each entry once; `seq` is the latest one, -1 before the first.

    What is read again for `events()` is not folded again. `message_limit` bounds the transcript.
    """

    def __init__(self, cursor: Cursor | None, message_limit: int | None, executor: Executor | None) -> None:
        self.book = ReceiptBook()
        self.seq = -1 if cursor is None else cursor.seq
        self._limit = message_limit
        self._executor = executor
        self.fold = self._new_fold(State(partial=cursor is not None))

    def forget(self) -> None:
        """What was folded is void; a snapshot follows."""
        self.fold = self._new_fold(State())
        self.seq = -1

    def begin(self, snapshot: Snapshot) -> None:
        """Fold from here on, unless the fold is further on already."""
        if snapshot.as_of <= self.seq:
            return
        self.fold = self._new_fold(State.from_dict(snapshot.state))
        self.seq = snapshot.as_of
        self.book.restart(self.fold.state, snapshot.as_of)
        self._look(0)

    def take(self, entry: Entry) -> None:
        """Fold an entry, unless it is folded already."""
        if entry.seq <= self.seq:
            return
        self.seq = entry.seq
        self.book.observe(self.fold.apply(entry))
        if entry.off is None:
            self._look(entry.ts)

    def _look(self, ts: int) -> None:
        if self._executor is not None:
            self._executor.look(self.fold.state.calls, ts)

    def _new_fold(self, state: State) -> Fold:
        return Fold(state, message_limit=self._limit)
