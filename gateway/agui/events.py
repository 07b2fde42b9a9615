"""Events of the log that go to AG-UI clients as they are, if they are as AG-UI says. Pure.

One malformed field is fatal to a client's whole run, and an agent may put what it likes into its own events: so only
the fields that AG-UI knows are passed on, and an event that would not be accepted is left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

_POINTER = re.compile(r"(/([^/~]|~[01])*)*")
"""RFC 6901."""
_VALUED, _MOVING = ("add", "replace", "test"), ("move", "copy")


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _object(value: Any) -> bool:
    return isinstance(value, dict)


def _anything(_: Any) -> bool:
    return True


def _patch(value: Any) -> bool:
    """RFC 6902."""
    return isinstance(value, list) and all(_operation(operation) for operation in value)


def _operation(value: Any) -> bool:
    if not isinstance(value, dict) or not _pointer(value.get("path")):
        return False
    op = value.get("op")
    if op in _VALUED:
        return "value" in value
    return op == "remove" or (op in _MOVING and _pointer(value.get("from")))


def _pointer(value: Any) -> bool:
    return isinstance(value, str) and _POINTER.fullmatch(value) is not None


_Check = Callable[[Any], bool]
_PASSED_ON: Mapping[str, tuple[Mapping[str, _Check], Mapping[str, _Check]]] = {
    "CUSTOM": ({"name": _text, "value": _anything}, {}),
    "RAW": ({"event": _anything}, {"source": _text}),
    "STATE_SNAPSHOT": ({"snapshot": _anything}, {}),
    "STATE_DELTA": ({"delta": _patch}, {}),
    "ACTIVITY_SNAPSHOT": (
        {"messageId": _text, "activityType": _text, "content": _object},
        {"replace": lambda value: isinstance(value, bool)},
    ),
    "ACTIVITY_DELTA": ({"messageId": _text, "activityType": _text, "patch": _patch}, {}),
    "REASONING_ENCRYPTED_VALUE": (
        {"subtype": lambda value: value in ("tool-call", "message"), "entityId": _text, "encryptedValue": _text},
        {},
    ),
}
"""By type: the fields that an event must have, and those that it may have."""
SHARED_STATE = ("STATE_SNAPSHOT", "STATE_DELTA")


def passed_on(body: Mapping[str, Any]) -> dict[str, Any] | None:
    """The event as clients get it; None: not at all."""
    fields = _PASSED_ON.get(str(body.get("type")))
    if fields is None:
        return None
    required, optional = fields
    if not all(name in body and check(body[name]) for name, check in required.items()):
        return None
    known = {name: body[name] for name in required}
    return {
        "type": body["type"],
        **known,
        **{n: body[n] for n, check in optional.items() if n in body and check(body[n])},
    }
