"""State and transcript of a session together: what a reader has made of the entries so far."""

from __future__ import annotations

from ._json import JsonObject, as_str
from .protocol import Entry
from .state import Change, State
from .transcript import Message, Transcript


class Fold:
    """Folds entries, in order, into `state` and `transcript`.

    The two move event by event, because each needs the other's facts: a message of a user has
    the content of an input that waits, and an event counts only under the lane's current fence.
    """

    def __init__(self, state: State | None = None, *, message_limit: int | None = None) -> None:
        self.state = State() if state is None else state
        self.transcript = Transcript(message_limit)

    @classmethod
    def from_snapshot(cls, state: JsonObject, *, message_limit: int | None = None) -> Fold:
        """The fold just after a snapshot: its state, and no message yet."""
        return cls(State.from_dict(state), message_limit=message_limit)

    @property
    def messages(self) -> list[Message]:
        """The messages as they stand."""
        return self.transcript.messages

    def apply(self, entry: Entry) -> list[Change]:
        """Fold one entry; returns what somebody may wait for, in order."""
        changes = []
        for event in entry.events:
            if not self.state.counts(entry, event):
                continue
            source = None
            if event.get("type") == "input.applied":
                source = self.state.find_input(as_str(event.get("inputId")) or "")
            self.transcript.apply_event(entry, event, source)
            change = self.state.apply_event(entry, event)
            if change is not None:
                changes.append(change)
        return changes

    def as_dict(self) -> dict[str, object]:
        """`{"state": …, "messages": […]}`, ready for JSON."""
        return {"state": self.state.as_dict()} | self.transcript.as_dict()
