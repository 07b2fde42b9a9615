"""The state of a session: the fold of its entries (PROTOCOL, section 6, State).

Pure and deterministic: every reader who folds the same entries has the same state. Nothing
here raises on an entry or event that is unknown or malformed; such an event counts as nothing.
The rules themselves are in `rules`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from ._json import JsonObject
from .changes import Change
from .config import Config
from .ledger import Ledger
from .model import Approval, Call, Handoff, Input, Lane, Run, Scheduled
from .protocol import Entry
from .rules import OF_ANYBODY, OF_OWNERS, OWNER, Rule, owner
from .rules.lanes import admits


class State:
    """The folded state; `apply` moves it on. What its properties return does not change later.

    `partial` is for a reader who begins at a stored cursor and so has not seen which fence is a
    lane's current one: it takes the first it meets (the log holds no entry of an old fence).
    """

    def __init__(self, *, partial: bool = False) -> None:
        self.ledger = Ledger(partial=partial)

    def copy(self) -> State:
        """The state as it stands now: to be read, not moved on."""
        copied = State()
        copied.ledger = self.ledger.copy()
        return copied

    @classmethod
    def from_dict(cls, raw: JsonObject) -> State:
        """The state of a snapshot; parts that are malformed are left out."""
        state = cls()
        state.ledger = Ledger.from_dict(raw)
        return state

    def as_dict(self) -> dict[str, object]:
        """As in a snapshot, ready for JSON."""
        return self.ledger.as_dict()

    @property
    def partial(self) -> bool:
        """Whether it began at a stored cursor, and knows only what came after that."""
        return self.ledger.partial

    @property
    def status(self) -> str:
        """`closed`, `paused`, `requires_action`, `running`, `human` or `idle`: the first that holds."""
        return self.ledger.status

    @property
    def title(self) -> str | None:
        """The session's title."""
        return self.ledger.title

    @property
    def metadata(self) -> JsonObject:
        """What the session's users keep with it."""
        return MappingProxyType(dict(self.ledger.metadata))

    @property
    def config(self) -> Config:
        """How the session deals with inputs, approvals and being unwatched."""
        return self.ledger.config

    @property
    def lanes(self) -> Mapping[str, Lane]:
        """The lanes by name."""
        return MappingProxyType(dict(self.ledger.lanes))

    @property
    def runs(self) -> tuple[Run, ...]:
        """The running runs, in the order of their start."""
        return tuple(self.ledger.runs.values())

    @property
    def inputs(self) -> tuple[Input, ...]:
        """The inputs that wait, next first."""
        return tuple(self.ledger.queue.values())

    @property
    def scheduled(self) -> tuple[Scheduled, ...]:
        """The inputs that are to be sent later, next first."""
        return tuple(self.ledger.scheduled.values())

    @property
    def calls(self) -> tuple[Call, ...]:
        """The open calls of tools, in the order they were requested."""
        return tuple(self.ledger.calls.values())

    @property
    def approvals(self) -> tuple[Approval, ...]:
        """The pending approvals and questions, in the order they were requested."""
        return tuple(self.ledger.approvals.values())

    @property
    def handoffs(self) -> tuple[Handoff, ...]:
        """The hand-overs that wait for a human."""
        return tuple(self.ledger.handoffs.values())

    @property
    def remembered(self) -> Mapping[str, JsonObject]:
        """What was decided for always, by key: `option` and `by`."""
        return MappingProxyType(dict(self.ledger.remembered))

    def is_running(self, run_id: str) -> bool:
        """Whether this run is running."""
        return run_id in self.ledger.runs

    def is_queued(self, input_id: str) -> bool:
        """Whether this input waits."""
        return input_id in self.ledger.queue

    def is_scheduled(self, input_id: str) -> bool:
        """Whether this input is to be sent later."""
        return input_id in self.ledger.scheduled

    def apply(self, entry: Entry) -> list[Change]:
        """Fold one entry; returns what somebody may wait for, in order."""
        return [change for _, changes in self.apply_each(entry) for change in changes]

    def apply_each(self, entry: Entry) -> Iterator[tuple[JsonObject, list[Change]]]:
        """Fold one entry, event by event; yields each event that counts, and what it did."""
        claims = entry.lane is not None and entry.off is None and len(entry.events) == 1
        claims = claims and entry.events[0].get("type") == OWNER
        if not claims and not admits(self.ledger, entry):
            return
        for event in entry.events:
            self._apply_event(entry, event, claims=claims)
            changes, self.ledger.changes = self.ledger.changes, []
            yield event, changes

    def _apply_event(self, entry: Entry, event: JsonObject, *, claims: bool) -> None:
        kind = event.get("type")
        if entry.off is not None or not isinstance(kind, str):
            return  # deltas do not change the state
        if claims:
            rule: Rule | None = owner
        else:
            rule = (OF_ANYBODY if entry.lane is None else OF_OWNERS).get(kind)
        if rule is not None:
            rule(self.ledger, entry, event)
