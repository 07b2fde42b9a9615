"""One session's subscription as a state machine, without any input or output.

It says which command to send next (`command`), takes replies and frames, and returns what
they mean. Whoever drives it sends the commands, waits the pauses and hands out the events.

::

    OFF ── subscribe ──► SUBSCRIBING ── ok ──► LIVE
     ▲                                          │ chain broken, rewound, or no longer wanted
     └───────── ok ──── UNSUBSCRIBING ◄─────────┘

A session can be subscribed once on a connection, so reading a place again takes both commands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from ._json import JsonObject, as_str
from .errors import AntiphonError, ChainBroken, refusal
from .frames import subscribe, unsubscribe
from .marks import Mark
from .presence import Presence
from .protocol import (
    CaughtUp,
    Cursor,
    Entry,
    Gap,
    Reset,
    SessionEvent,
    Snapshot,
    Verdict,
    chain_verdict,
)

_CURSOR_CODES: Final = frozenset({"cursor_bad", "cursor_epoch", "cursor_future"})
_NOTHING: Final[JsonObject] = {}


class Phase(Enum):
    """Where the subscription stands on the present connection."""

    OFF = "off"
    SUBSCRIBING = "subscribing"
    LIVE = "live"
    UNSUBSCRIBING = "unsubscribing"


@dataclass(frozen=True, slots=True)
class Refused:
    """The session cannot be read; the subscription is not wanted any more."""

    error: AntiphonError


@dataclass(frozen=True, slots=True)
class Pause:
    """Something is in the way: wait before the next command.

    `retry_after_s` is the gateway's wish; None leaves it to the reader's back-off.
    """

    retry_after_s: float | None


Output = SessionEvent | Refused | Pause | Presence | Mark
Disturbance = Pause | Refused | Gap | Reset
"""What a reply, too, can bring."""


class Subscription:
    """Follows one session from connection to connection, and proves that nothing is missing.

    `declared` is what each `subscribe` says besides the place: how to replay, tools, presence.
    """

    def __init__(
        self, session: str, after: Cursor | None, *, declared: JsonObject = _NOTHING, chain_retries: int = 8
    ) -> None:
        self.session = session
        self.phase = Phase.OFF
        self.wanted = False
        self._declared = declared
        self._epoch = None if after is None else after.epoch
        self._last = None if after is None else after.seq
        self._stale = False
        self._chain_retries = chain_retries
        self._breaks = 0

    @property
    def after(self) -> Cursor | None:
        """Where to go on reading; None: from a snapshot."""
        if self._epoch is None or self._last is None:
            return None
        return Cursor(self._epoch, self._last)

    # ---- what the driver does to it

    def lost(self) -> None:
        """The connection has ended."""
        self.phase, self._stale = Phase.OFF, False

    def rewind(self, after: Cursor | None) -> None:
        """Read again from `after`; what still comes of the present subscription is dropped."""
        self._epoch = None if after is None else after.epoch
        self._last = None if after is None else after.seq
        self._stale = self.phase in (Phase.SUBSCRIBING, Phase.LIVE)

    def command(self, command_id: int) -> JsonObject | None:
        """The command to send now, if any; it counts as sent."""
        if self.phase is Phase.OFF and self.wanted:
            self.phase, self._stale = Phase.SUBSCRIBING, False
            return subscribe(command_id, self.session, self.after, self._declared)
        if self.phase is Phase.LIVE and (self._stale or not self.wanted):
            self.phase = Phase.UNSUBSCRIBING
            return unsubscribe(command_id, self.session)
        return None

    # ---- what the gateway says

    def on_reply(self, frame: JsonObject) -> Sequence[Disturbance]:
        """Take the reply to the command sent last."""
        refused = frame.get("op") == "error"
        if self.phase is Phase.UNSUBSCRIBING:
            # `not_subscribed` is as good as `ok`: nothing comes any more
            self.phase = Phase.OFF
            return []
        if self.phase is not Phase.SUBSCRIBING:
            return []
        return self._on_refused(frame) if refused else self._on_subscribed(frame)

    def _on_subscribed(self, frame: JsonObject) -> Sequence[Disturbance]:
        epoch = as_str(frame.get("epoch"))
        self.phase = Phase.LIVE
        if self._stale:
            return []
        if epoch is None or (self._last is not None and epoch != self._epoch):
            # not by the protocol; the place we hold means nothing in another log
            self._epoch = self._last = None
            self._stale = True
            return [Reset(self.session, "cursor_epoch"), *self._broken()]
        self._epoch = epoch
        return []

    def _on_refused(self, frame: JsonObject) -> Sequence[Disturbance]:
        error = refusal(frame)
        self.phase = Phase.OFF
        if error.code in _CURSOR_CODES and self._stale:
            self._stale = False  # the refused place is not the one wanted by now
            return []
        if error.code in _CURSOR_CODES and self.after is not None:
            self._epoch = self._last = None
            return [Reset(self.session, error.code)]
        if error.code == "already_subscribed":
            self.phase, self._stale = Phase.LIVE, True  # unsubscribe, then begin again
            return self._broken()
        if error.retryable:
            return [Pause(error.retry_after_s)]
        self.wanted = False
        return [Refused(error)]

    def on_frame(self, frame: JsonObject) -> Sequence[Output]:
        """Take a frame of this session."""
        if self.phase is not Phase.LIVE or self._stale:
            return []
        match frame.get("op"):
            case "entry":
                return self._on_entry(frame)
            case "session.snapshot":
                return self._on_snapshot(frame)
            case "session.caught_up":
                caught_up = CaughtUp.parse(frame, self._epoch or "")
                return [] if caught_up is None else [caught_up]
            case "session.gap":
                gap = Gap.parse(frame)
                self._last = None
                return [] if gap is None else [gap]
            case "session.unsubscribed":
                return self._on_refused(frame)  # the token does not allow it any more
            case "session.mark":
                mark = Mark.parse(frame)
                return [] if mark is None else [mark]
            case "session.presence":
                presence = Presence.parse(frame)
                return [] if presence is None else [presence]
            case _:
                return []

    def _on_entry(self, frame: JsonObject) -> Sequence[Output]:
        entry = Entry.parse(frame, self._epoch or "")
        if entry is None or self._last is None:
            return self._broken()  # no place in the log, or no snapshot before it
        match chain_verdict(self._last, entry.seq, entry.prev):
            case Verdict.NEXT:
                self._last = entry.seq
                self._breaks = 0
                return [entry]
            case Verdict.DUPLICATE:
                return []
            case Verdict.BROKEN:
                return self._broken()

    def _on_snapshot(self, frame: JsonObject) -> Sequence[Output]:
        snapshot = Snapshot.parse(frame, self._epoch or "")
        if snapshot is None:
            return self._broken()
        self._last = snapshot.as_of
        return [snapshot]

    def _broken(self) -> Sequence[Pause | Refused]:
        """Read the same place again, a bounded number of times."""
        self._stale = True
        self._breaks += 1
        if self._breaks > self._chain_retries:
            self._breaks = 0
            self.wanted = False
            where = self.after or "a snapshot"
            return [Refused(ChainBroken("chain_broken", f"no whole log after {where}"))]
        return [Pause(None)]
