"""Reading JSON that another process wrote: each field is what it must be. Pure.

Processes are let into NATS by role, and one of them may be of another version, have a fault, or be in wrong hands. What it
wrote is a message of ours, or it is none; it is never half of one, that fails later where nobody expects it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_WHOLE_MAX = 2**63 - 1
"""Sequences, times and sizes are below it; JSON, as it is written here, ends at twice as much."""


def text(value: Any) -> str:
    """Raises TypeError or ValueError, as all of these."""
    if not isinstance(value, str):
        raise TypeError("not text")
    return value


def maybe_text(value: Any) -> str | None:
    return None if value is None else text(value)


def whole(value: Any) -> int:
    """A whole number that is not negative."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _WHOLE_MAX:
        raise ValueError("not a whole number")
    return value


def flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError("neither true nor false")
    return value


def texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise TypeError("not a list")
    return tuple(map(text, value))


def thing(value: Any) -> Mapping[str, Any]:
    """A JSON object."""
    if not isinstance(value, dict):
        raise TypeError("not an object")
    return value


def maybe_thing(value: Any) -> Mapping[str, Any] | None:
    return None if value is None else thing(value)
