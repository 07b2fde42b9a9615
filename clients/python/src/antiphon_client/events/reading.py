"""From the wire to typed events."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from functools import cache
from typing import Any, Final, get_type_hints

from antiphon_client._json import JsonObject, as_int, as_object, as_objects, as_str, as_strings

from . import owners, participants, texts
from .base import Event, Unknown


def read(raw: JsonObject) -> Event:
    """The event that came as `raw`."""
    kind = as_str(raw.get("type")) or ""
    cls = BY_TYPE.get(kind)
    return Unknown(kind, raw) if cls is None else _made(cls, raw) or Unknown(kind, raw)


def _made(cls: type[Event], raw: JsonObject) -> Event | None:
    """The event; None if a field that it must have is not there, or not of its type."""
    found: dict[str, Any] = {}
    for attribute, name, as_type, needed in _plan(cls.TYPE):
        value = raw.get(name)
        good = as_type(value)
        if good is not None:
            found[attribute] = good
        elif needed:
            return None
    return cls(**found)


@cache
def _plan(kind: str) -> tuple[tuple[str, str, Callable[[object], object], bool], ...]:
    """Of each field: how it is spelt here and on the wire, how to read it, and whether it must be there."""
    cls = BY_TYPE[kind]
    hints = get_type_hints(cls)
    return tuple((each.name, _camel(each.name), _AS[hints[each.name]], each.default is MISSING) for each in fields(cls))


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(word.capitalize() for word in others)


def _as_bool(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


_AS: Final[Mapping[object, Callable[[object], object]]] = {
    str: as_str,
    str | None: as_str,
    int: as_int,
    int | None: as_int,
    bool: _as_bool,
    object: lambda value: value,
    JsonObject | None: as_object,
    tuple[str, ...]: as_strings,
    tuple[JsonObject, ...]: as_objects,
}

BY_TYPE: Final[Mapping[str, type[Event]]] = {
    found.TYPE: found
    for module in (participants, owners, texts)
    for found in vars(module).values()
    if isinstance(found, type) and issubclass(found, Event) and found.TYPE
}
"""The events that are known here."""
