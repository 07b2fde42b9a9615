"""Reading JSON that somebody else wrote: every getter answers None instead of raising."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final, TypeAlias

JsonObject: TypeAlias = Mapping[str, object]

RETRY_AFTER_CAP_S: Final = 300.0
"""A pause asked for by a gateway is honoured up to here: a wrong number must not park a client."""


def as_int(value: object) -> int | None:
    """The value if it is an integer (true and false are not), else None."""
    return value if type(value) is int else None


def as_count(value: object) -> int | None:
    """The value if it is an integer >= 0, else None."""
    return value if type(value) is int and value >= 0 else None


def as_bounded(value: object, cap: float) -> float | None:
    """The value if it is a number >= 0, as a float not above `cap`; else None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        return None
    return float(min(value, cap))  # min first: an integer may be too large for a float


def retry_after_s(body: JsonObject) -> float | None:
    """`retry_after_ms` of a refusal or of a close reason, in seconds; None if there is none."""
    pause_ms = as_bounded(body.get("retry_after_ms"), RETRY_AFTER_CAP_S * 1000)
    return None if pause_ms is None else pause_ms / 1000


def as_str(value: object) -> str | None:
    """The value if it is a string, else None."""
    return value if isinstance(value, str) else None


def as_object(value: object) -> JsonObject | None:
    """The value if it is a JSON object, else None."""
    return value if isinstance(value, dict) else None


def as_objects(value: object) -> tuple[JsonObject, ...]:
    """The JSON objects in a JSON array, in order; anything else in it is left out."""
    if not isinstance(value, list):
        return ()
    return tuple(item for item in value if isinstance(item, dict))


def as_strings(value: object) -> tuple[str, ...]:
    """The strings in a JSON array, in order; anything else in it is left out."""
    if not isinstance(value, list):
        return ()
    return tuple(item for item in value if isinstance(item, str))


def parse_object(text: str) -> JsonObject | None:
    """The JSON object that `text` is; None if it is none (also: nested too deep to read)."""
    try:
        return as_object(json.loads(text))
    except (ValueError, RecursionError):
        return None


def check_json(value: object, what: str) -> None:
    """Raise ValueError if `value` cannot be sent as JSON: other objects, NaN, half a surrogate pair."""
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{what} is no JSON: {error}") from None


def encode(frame: JsonObject) -> str:
    """`frame` as one line of JSON, without the escapes that would make it longer."""
    return json.dumps(frame, ensure_ascii=False, separators=(",", ":"))
