"""Notices that this machine has slept, or changed its network: then a socket may be dead without a word."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Final, TypeAlias

Address: TypeAlias = tuple[str, int]

SOMEWHERE: Final[Address] = ("192.0.2.1", 9)
"""An address of TEST-NET-1 (RFC 5737): the way there is the default route. Nothing is sent to it."""


@dataclass(frozen=True, slots=True)
class Glance:
    """What there is to see at one moment: two clocks in seconds, and the way to a gateway.

    `source` is the address that this machine would send from to `peer`, None if there is no way.
    """

    monotonic_s: float
    wall_s: float
    peer: Address
    source: str | None


class Vigil:
    """Compares each glance with the one before. Pure: whoever looks hands in what is seen."""

    def __init__(self, every_s: float, slack_s: float) -> None:
        self._most_s = every_s + slack_s
        self._last: Glance | None = None

    def look(self, now: Glance) -> str | None:
        """`slept`, `moved` (to another network, or out of one), or None: nothing special."""
        before, self._last = self._last, now
        if before is None:
            return None
        # While a machine sleeps the monotonic clock stops on Linux and macOS and the wall clock does not; on
        # Windows, and in a process that was stopped, both go on. A wall clock that is set looks like sleep, too.
        passed_s = max(now.monotonic_s - before.monotonic_s, now.wall_s - before.wall_s)
        if passed_s > self._most_s:
            return "slept"
        if now.peer == before.peer and now.source != before.source:
            return "moved"
        return None


def source_towards(peer: Address) -> str | None:
    """The address that this machine sends from to `peer`, None if there is no way. Sends nothing."""
    family = socket.AF_INET6 if ":" in peer[0] else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(peer)
            source: str = probe.getsockname()[0]
            return source
    except OSError:
        return None
