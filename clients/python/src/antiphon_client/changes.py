"""What an event did that somebody may wait for: receipts, and the transcript."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ._json import JsonObject
from .model import Input

MESSAGE_PREFIX: Final = "msg_"
"""With the id of an input that is a message at once, the id of that message; workers do the same."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended.

    `kind` is `success`, `cancelled` (for `reason`), `error` (with `code` and `message`), `no_run`
    (the input went to a human, who has the lane), or `unknown` (the run ended before this client
    began to read, so that its end lies before the snapshot).
    """

    kind: str
    code: str | None = None
    message: str | None = None
    reason: str | None = None

    @property
    def ok(self) -> bool:
        """Whether the run ended well."""
        return self.kind == "success"


@dataclass(frozen=True, slots=True)
class InputApplied:
    """An input has entered the transcript, as the message `message_id`.

    `run_id` is the run it went into: its own, or (injected, or merged with others) another; None
    if it went to a human, who has the lane. `source` is the input as it waited; None if it did not
    (or this reader does not know).
    """

    input_id: str
    run_id: str | None
    message_id: str | None
    source: Input | None = None


@dataclass(frozen=True, slots=True)
class InputSpoken:
    """An input was a message at once, because a human has the lane; `role` is that of the message."""

    source: Input
    role: str

    @property
    def input_id(self) -> str:
        """The id of the input."""
        return self.source.input_id

    @property
    def message_id(self) -> str:
        """The id of the message."""
        return MESSAGE_PREFIX + self.source.input_id


@dataclass(frozen=True, slots=True)
class InputDropped:
    """An input will not be applied.

    `code` is `cancelled`, `superseded` (the sender's next one took its place), `parent_cancelled`,
    `deleted` (with the session), that of a refusal of `input.send`, or the owner's.
    """

    input_id: str
    code: str


@dataclass(frozen=True, slots=True)
class InputDue:
    """An input that was scheduled is sent: from here on it is as any other."""

    input_id: str


@dataclass(frozen=True, slots=True)
class RunEnded:
    """A run has ended; `rolled_back`: its messages are no part of the conversation any more."""

    run_id: str
    outcome: Outcome
    rolled_back: bool = False


@dataclass(frozen=True, slots=True)
class Emptied:
    """The session was deleted: there are no messages any more."""


@dataclass(frozen=True, slots=True)
class Imported:
    """The session begins with these messages of another, as in the replies to `history`."""

    messages: tuple[JsonObject, ...]


Change = InputApplied | InputSpoken | InputDropped | InputDue | RunEnded | Emptied | Imported
