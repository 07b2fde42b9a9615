"""What a session is told about itself: its config (PROTOCOL, section 6, Config)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, cast

from ._json import JsonObject, as_object, as_strings
from .model import Part

MODES: Final = ("auto", "inject", "enqueue", "interrupt", "rollback", "reject")
MAX_ROLES: Final = 32
MAX_QUEUE: Final = 64
MAX_GRACE_MS: Final = 3_600_000
_NORMAL: Final = "normal"
ELSE_ROLE: Final = "*"
"""The limits of those who have none of the roles that are named."""


@dataclass(frozen=True, slots=True)
class RoleLimits(Part):
    """What the people of one role may do. None is no limit."""

    modes: tuple[str, ...] | None = None
    max_queue: int | None = None
    cancel: bool = True


@dataclass(frozen=True, slots=True)
class Config(Part):
    """How a session deals with inputs, approvals and being unwatched."""

    on_busy: str = "auto"
    coalesce: str = "none"
    max_queue: int = 16
    approval_on_input: str = "wait"
    when_unwatched: str = "continue"
    unwatched_grace_ms: int = 15_000
    pool: str | None = None
    priority: str = _NORMAL
    """Which sessions of a pool workers serve first: `high`, `normal` or `low`."""
    roles: Mapping[str, RoleLimits] = field(default_factory=dict)

    def as_dict(self) -> dict[str, object]:
        """As in a snapshot, which names a priority that is not the normal one alone."""
        wire = Part.as_dict(self)
        if self.priority == _NORMAL:
            del wire["priority"]
        return wire

    def updated(self, raw: JsonObject) -> Config:
        """With the fields of `raw` that are as they must be; the others stay."""
        found: dict[str, Any] = {}
        for name, (attribute, good) in _FIELDS.items():
            if name in raw and good(raw[name]):
                found[attribute] = raw[name]
        if (roles := _read_roles(raw.get("roles"))) is not None:
            found["roles"] = roles
        return replace(self, **found)

    def limits_of(self, by: JsonObject | None) -> tuple[RoleLimits, ...]:
        """The limits of somebody, of which any one suffices; none at all: no limit."""
        has = as_strings((by or {}).get("roles"))
        named = tuple(limits for role, limits in self.roles.items() if role in has)
        if named:
            return named
        return (self.roles[ELSE_ROLE],) if ELSE_ROLE in self.roles else ()

    def allows_mode(self, by: JsonObject | None, mode: str) -> bool:
        """Whether somebody may send in this mode."""
        limits = self.limits_of(by)
        return not limits or any(each.modes is None or mode in each.modes for each in limits)

    def allows_cancel(self, by: JsonObject | None) -> bool:
        """Whether somebody may cancel runs."""
        limits = self.limits_of(by)
        return not limits or any(each.cancel for each in limits)

    def queue_of(self, by: JsonObject | None) -> int | None:
        """How many inputs of somebody may wait; None: as many as there is room for."""
        numbers = [each.max_queue for each in self.limits_of(by)]
        bounded = [number for number in numbers if number is not None]
        return max(bounded) if bounded and len(bounded) == len(numbers) else None


def _one_of(*words: str) -> Callable[[object], bool]:
    return lambda value: isinstance(value, str) and value in words


def _between(low: int, high: int) -> Callable[[object], bool]:
    return lambda value: type(value) is int and low <= value <= high


_POOL: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")

_FIELDS: Final[Mapping[str, tuple[str, Callable[[object], bool]]]] = {
    "onBusy": ("on_busy", _one_of(*MODES)),
    "coalesce": ("coalesce", _one_of("none", "merge", "latest")),
    "maxQueue": ("max_queue", _between(1, MAX_QUEUE)),
    "approvalOnInput": ("approval_on_input", _one_of("wait", "cancel")),
    "whenUnwatched": ("when_unwatched", _one_of("continue", "pause", "stop")),
    "unwatchedGraceMs": ("unwatched_grace_ms", _between(0, MAX_GRACE_MS)),
    "priority": ("priority", _one_of("high", _NORMAL, "low")),
    "pool": ("pool", lambda value: value is None or (isinstance(value, str) and _POOL.fullmatch(value) is not None)),
}


def _read_roles(raw: object) -> Mapping[str, RoleLimits] | None:
    """`roles` if all of it is as it must be, else None."""
    named = as_object(raw)
    if named is None or len(named) > MAX_ROLES:
        return None
    found = {role: _read_limits(limits) for role, limits in named.items()}
    good = {role: limits for role, limits in found.items() if limits is not None}
    return good if len(good) == len(found) else None


def _read_limits(raw: object) -> RoleLimits | None:
    limits = as_object(raw)
    if limits is None:
        return None
    modes, queue, cancel = limits.get("modes"), limits.get("maxQueue"), limits.get("cancel", True)
    if modes is not None and not (isinstance(modes, list) and all(_is_mode(mode) for mode in modes)):
        return None
    if queue is not None and not _between(0, MAX_QUEUE)(queue):
        return None
    if not isinstance(cancel, bool):
        return None
    return RoleLimits(None if modes is None else as_strings(modes), cast("int | None", queue), cancel)


_is_mode = _one_of(*MODES)
