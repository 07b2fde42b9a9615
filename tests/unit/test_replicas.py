"""Which copies of a stream are lost to its leader, by what nats-server 2.15 says of them."""

from __future__ import annotations

from typing import Any

import pytest

from broker.replicas import is_away

SECOND = 1_000_000_000


@pytest.mark.parametrize(
    ("replica", "away"),
    [
        ({"name": "n1", "current": True, "active": 195_392_043}, False),
        ({"name": "n1", "current": False, "active": 195_392_043, "lag": 40}, False),
        ({"name": "n1", "current": True, "active": 0}, False),
        ({"name": "n1", "current": True}, False),
        ({"name": "n1", "current": False, "active": 10_195_868_839}, True),
        # A new leader that has not heard of it at all.
        ({"name": "n1", "current": False, "active": 0, "lag": 2}, True),
        ({"name": "n1", "current": False, "offline": True, "active": SECOND}, True),
    ],
)
def test_who_is_away(replica: dict[str, Any], away: bool) -> None:
    assert is_away(replica, 5.0) is away
