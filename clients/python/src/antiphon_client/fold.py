"""State and transcript of a session together: what a reader has made of the entries so far."""

from __future__ import annotations

from .changes import Change, Emptied, Imported, InputApplied, InputSpoken, RunEnded
from .protocol import Entry
from .state import State
from .transcript import Message, Transcript


class Fold:
    """Folds entries, in order, into `state` and `transcript`.

    The two move event by event, because each event counts only under the lane's current fence,
    a message of a user has the content of an input that waits, and a run ends its open texts.
    """

    def __init__(self, state: State | None = None, *, message_limit: int | None = None) -> None:
        self.state = State() if state is None else state
        self.transcript = Transcript(message_limit)

    @property
    def messages(self) -> list[Message]:
        """The messages as they stand."""
        return self.transcript.messages

    def apply(self, entry: Entry) -> list[Change]:
        """Fold one entry; returns what somebody may wait for, in order."""
        found: list[Change] = []
        for event, changes in self.state.apply_each(entry):
            self.transcript.apply_event(entry, event)
            for change in changes:
                self._tell(entry, change)
            found += changes
        for change in found:  # the messages of the entry that ends a run are its messages, too
            if isinstance(change, RunEnded) and change.rolled_back:
                self.transcript.roll_back(change.run_id)
        return found

    def _tell(self, entry: Entry, change: Change) -> None:
        """What a change of the state is to the transcript."""
        match change:
            case InputApplied(message_id=str() as message_id, source=source) if source is not None:
                self.transcript.add_input(entry, message_id, source, lane=entry.lane, run=entry.run)
            case InputSpoken(source=source, role=role):
                self.transcript.add_input(entry, change.message_id, source, lane=source.lane, run=None, role=role)
            case RunEnded():
                self.transcript.end_lane(entry.lane)
            case Emptied():
                self.transcript.clear()
            case Imported(messages=messages):
                self.transcript.import_messages(entry.seq, messages)
            case _:
                pass

    def as_dict(self) -> dict[str, object]:
        """`{"state": …, "messages": […]}`, ready for JSON."""
        return {"state": self.state.as_dict()} | self.transcript.as_dict()
