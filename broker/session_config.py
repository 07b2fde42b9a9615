"""What a session is told about itself: who may steer it and how, and what it does when nobody watches.

The config comes from the log (`session.created`, `session.updated`), field by field; a field with a value that is none
is refused by gateways (`problem_of`), and the fold leaves what it had (`merged`).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from broker.queues import Priority

ON_BUSY = ("auto", "inject", "enqueue", "interrupt", "rollback", "reject")
COALESCE = ("none", "merge", "latest")
APPROVAL_ON_INPUT = ("wait", "cancel")
WHEN_UNWATCHED = ("continue", "pause", "stop")
PRIORITIES = tuple(Priority)
MAX_QUEUE = 16
"""Queued inputs that a session may hold unless its config says otherwise."""
MAX_QUEUE_LIMIT = 64
GRACE_MS = 15_000
GRACE_MS_LIMIT = 3_600_000
MAX_ROLES = 32
EVERYBODY = "*"
"""Among `roles`: who has none of the roles that are named."""


@dataclass(frozen=True, slots=True)
class RoleLimits:
    """What participants with a role may do. `modes` None: every mode; `max_queue` None: as many as the session takes."""

    modes: tuple[str, ...] | None = None
    max_queue: int | None = None
    cancel: bool = True


@dataclass(frozen=True, slots=True)
class SessionConfig:
    """A session's config.

    `on_busy` is what becomes of an input while a run is active; `coalesce` whether queued inputs become one run (merge),
    or only a sender's newest is kept (latest); `approval_on_input` whether an input cancels what waits for approval;
    `when_unwatched` what becomes of a run that nobody watches for `unwatched_grace_ms`; `pool` whose workers serve the
    main lane (None: those of the default pool); `priority` which jobs of a pool its workers take first.
    """

    on_busy: str = "auto"
    coalesce: str = "none"
    max_queue: int = MAX_QUEUE
    approval_on_input: str = "wait"
    when_unwatched: str = "continue"
    unwatched_grace_ms: int = GRACE_MS
    pool: str | None = None
    roles: Mapping[str, RoleLimits] = field(default_factory=dict)
    priority: str = Priority.NORMAL

    def limits_of(self, roles: tuple[str, ...]) -> tuple[RoleLimits, ...]:
        """The limits that are for somebody with `roles`: what one of them allows is allowed. Empty: no limits."""
        named = tuple(self.roles[role] for role in roles if role in self.roles)
        if not named and EVERYBODY in self.roles:
            return (self.roles[EVERYBODY],)
        return named

    def allows_mode(self, roles: tuple[str, ...], mode: str) -> bool:
        limits = self.limits_of(roles)
        return not limits or any(limit.modes is None or mode in limit.modes for limit in limits)

    def allows_cancel(self, roles: tuple[str, ...]) -> bool:
        limits = self.limits_of(roles)
        return not limits or any(limit.cancel for limit in limits)

    def queue_of(self, roles: tuple[str, ...]) -> int:
        """How many inputs one participant with `roles` may have in the queue."""
        limits = self.limits_of(roles)
        if not limits or any(limit.max_queue is None for limit in limits):
            return self.max_queue
        return max(limit.max_queue or 0 for limit in limits)


@dataclass(frozen=True, slots=True)
class _Field:
    wire: str
    accepts: Callable[[Any], bool]
    form: str


def _one_of(*values: str) -> Callable[[Any], bool]:
    return lambda v: isinstance(v, str) and v in values


def _whole(low: int, high: int) -> Callable[[Any], bool]:
    return lambda v: isinstance(v, int) and not isinstance(v, bool) and low <= v <= high


POOL_NAME = r"[A-Za-z0-9_-]{1,64}"
_POOL = re.compile(POOL_NAME)


def _is_pool(value: Any) -> bool:
    return value is None or (isinstance(value, str) and _POOL.fullmatch(value) is not None)


def _is_role(value: Any) -> bool:
    return isinstance(value, dict) and all(
        _ROLE_FIELDS[key](item) if key in _ROLE_FIELDS else True for key, item in value.items()
    )


_ROLE_FIELDS: dict[str, Callable[[Any], bool]] = {
    "modes": lambda v: v is None or (isinstance(v, list) and all(item in ON_BUSY for item in v)),
    "maxQueue": lambda v: v is None or _whole(0, MAX_QUEUE_LIMIT)(v),
    "cancel": lambda v: isinstance(v, bool),
}

_FIELDS = {
    "on_busy": _Field("onBusy", _one_of(*ON_BUSY), f"one of {', '.join(ON_BUSY)}"),
    "coalesce": _Field("coalesce", _one_of(*COALESCE), f"one of {', '.join(COALESCE)}"),
    "max_queue": _Field("maxQueue", _whole(1, MAX_QUEUE_LIMIT), f"a whole number from 1 to {MAX_QUEUE_LIMIT}"),
    "approval_on_input": _Field("approvalOnInput", _one_of(*APPROVAL_ON_INPUT), "wait or cancel"),
    "when_unwatched": _Field("whenUnwatched", _one_of(*WHEN_UNWATCHED), f"one of {', '.join(WHEN_UNWATCHED)}"),
    "unwatched_grace_ms": _Field(
        "unwatchedGraceMs", _whole(0, GRACE_MS_LIMIT), f"a whole number from 0 to {GRACE_MS_LIMIT}"
    ),
    "pool": _Field("pool", _is_pool, "the name of a worker pool"),
    "priority": _Field("priority", _one_of(*PRIORITIES), f"one of {', '.join(PRIORITIES)}"),
    "roles": _Field(
        "roles",
        lambda v: isinstance(v, dict) and len(v) <= MAX_ROLES and all(map(_is_role, v.values())),
        f"an object of at most {MAX_ROLES} roles, each with modes, maxQueue, cancel",
    ),
}


def problem_of(wire: Mapping[str, Any]) -> tuple[str, str] | None:
    """The first field that is wrong, and what it must be; None if the config can be used."""
    known = {spec.wire: spec for spec in _FIELDS.values()}
    for name, value in wire.items():
        if name not in known:
            return name, f"unknown; a config has {', '.join(known)}"
        if not known[name].accepts(value):
            return name, f"must be {known[name].form}"
    return None


def well_formed(wire: Mapping[str, Any]) -> Mapping[str, Any]:
    """The config without the fields that are not as they should be. Those of newer versions stay."""
    known = {spec.wire: spec for spec in _FIELDS.values()}
    return {name: value for name, value in wire.items() if name not in known or known[name].accepts(value)}


def merged(config: SessionConfig, wire: Mapping[str, Any]) -> SessionConfig:
    """The config with the fields of `wire` that are as they should be."""
    changes = {}
    for attribute, spec in _FIELDS.items():
        if spec.wire in wire and spec.accepts(wire[spec.wire]):
            changes[attribute] = wire[spec.wire]
    if "roles" in changes:
        changes["roles"] = {role: _role_limits(limits) for role, limits in changes["roles"].items()}
    return dataclasses.replace(config, **changes)


def _role_limits(wire: Mapping[str, Any]) -> RoleLimits:
    modes = wire.get("modes")
    return RoleLimits(None if modes is None else tuple(modes), wire.get("maxQueue"), wire.get("cancel", True))


def config_to_wire(config: SessionConfig) -> dict[str, Any]:
    """The inverse of `merged` with the default config. `priority` is there if it is not the normal one: readers of earlier
    days know no other.
    """
    wire: dict[str, Any] = {spec.wire: getattr(config, attribute) for attribute, spec in _FIELDS.items()}
    if config.priority == Priority.NORMAL:
        del wire["priority"]
    wire["roles"] = {
        role: {"modes": None if r.modes is None else list(r.modes), "maxQueue": r.max_queue, "cancel": r.cancel}
        for role, r in config.roles.items()
    }
    return wire
