"""How deeply JSON may be nested. Pure.

Python's recursion, and the 254 levels that orjson writes, end somewhere: what is read must not be what cannot be written
again, with an entry, a frame or a snapshot around it. So what people and agents send is refused beyond `SENT_DEPTH_MAX`,
and an entry of the log beyond `STORED_DEPTH_MAX` says nothing.
"""

from __future__ import annotations

from typing import Any

import orjson

SENT_DEPTH_MAX = 128
"""Levels of JSON in a command, in the body of a request, and in an event of an agent's own."""
STORED_DEPTH_MAX = 192
"""Levels of JSON in an entry of the log: what was sent, with the entry around it, and room for newer writers."""
_WRITTEN_DEPTH_MAX = 254
"""Levels that orjson writes."""


def is_deeper(value: Any, text: bytes | str, depth_max: int) -> bool:
    """Whether a JSON value, which `text` is, has more levels than `depth_max`. It takes no longer than writing it does."""
    opening = text.count("[") + text.count("{") if isinstance(text, str) else text.count(b"[") + text.count(b"{")
    if opening <= depth_max:
        return False
    for _ in range(_WRITTEN_DEPTH_MAX - depth_max):
        value = [value]
    try:
        orjson.dumps(value)
    except orjson.JSONEncodeError:
        return True
    return False
