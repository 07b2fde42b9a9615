"""What all events are, and those that are not known."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from antiphon_client._json import JsonObject


@dataclass(frozen=True, slots=True)
class Event:
    """An event. `TYPE` is its `type` on the wire."""

    TYPE: ClassVar[str] = ""


@dataclass(frozen=True, slots=True)
class Unknown(Event):
    """An event of another type, AG-UI's own among them (`STATE_DELTA`, `CUSTOM`), or one that is malformed."""

    type: str
    raw: JsonObject = field(default_factory=dict)
