"""Fields that a newer version has given an event: they survive a round trip."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Extra = Mapping[str, Any]


def no_extra() -> Extra:
    return {}
