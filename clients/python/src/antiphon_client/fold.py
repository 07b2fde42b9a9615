"""State and transcript of a session together: what a reader has made of the entries so far."""

from __future__ import annotations

from .protocol import Entry
from .state import Change, InputApplied, RunEnded, State
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
        changes = []
        for event, change in self.state.apply_each(entry):
            source = change.source if isinstance(change, InputApplied) else None
            self.transcript.apply_event(entry, event, source)
            if isinstance(change, RunEnded):
                self.transcript.end_lane(entry.lane)
            if change is not None:
                changes.append(change)
        return changes

    def as_dict(self) -> dict[str, object]:
        """`{"state": …, "messages": […]}`, ready for JSON."""
        return {"state": self.state.as_dict()} | self.transcript.as_dict()
