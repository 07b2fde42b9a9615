"""What a stream's leader tells of the other copies (`cluster.replicas` in STREAM.INFO). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_NS = 1_000_000_000


def is_away(replica: Mapping[str, Any], silent_s: float) -> bool:
    """Whether its server is lost to the leader, which hears of its followers every second.

    NATS itself says `offline` only after a minute. `active` is how long ago the leader has heard of the copy; 0, where it
    is not current, that it never has since it leads the stream.
    """
    if replica.get("offline"):
        return True
    active_ns = int(replica.get("active", 0))
    return active_ns > silent_s * _NS or (active_ns == 0 and not replica.get("current"))
