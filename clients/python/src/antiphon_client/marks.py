"""Saying when an entry has been handled, if the gateway asks: its operators measure with it how late people see things.

Optional in the protocol (section 3), and rare: the gateway asks one reader of a session every few seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from ._host import Host
from ._json import JsonObject, as_int
from .frames import ack


@dataclass(frozen=True, slots=True)
class Mark:
    """The gateway asks to be told when entry `seq` has been handled."""

    seq: int

    @classmethod
    def parse(cls, frame: JsonObject) -> Mark | None:
        """The question in a frame, if there is one."""
        seq = as_int(frame.get("seq"))
        return None if seq is None else cls(seq)


class Marks:
    """The latest question about one session, until it is answered."""

    def __init__(self, host: Host, session: str) -> None:
        self._host = host
        self._session = session
        self._seq: int | None = None

    def asked(self, mark: Mark, handled: int) -> None:
        """A newer question takes the place of the one before.

        `handled` is how far the session is folded if nothing more is done with it, else -1.
        """
        self._seq = mark.seq
        self.handled(handled)

    def handled(self, seq: int) -> None:
        """Everything up to `seq` has been handled: answer, if that was asked for."""
        if self._seq is None or seq < self._seq:
            return
        self._host.post(partial(ack, session=self._session, seq=self._seq), _nothing)
        self._seq = None

    def lost(self) -> None:
        """Whoever asked is gone."""
        self._seq = None


def _nothing(_reply: JsonObject) -> None:
    """A gateway that does not know the command has not asked."""
