"""What NATS allows to the user that this process is, compared with what its role needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from broker.errors import ROLES_HINT, LogError
from broker.jetstream.answers import ServerRefused
from broker.jetstream.connection import Connection
from broker.permissions import Access, Role, User, access

_EVERYTHING = (">",)
_NAMED = 6


async def user_access(connection: Connection) -> tuple[str, Access] | None:
    """The user's name and what it may do; None if it may not even ask, or nobody answers. Raises Unavailable."""
    try:
        answer = await connection.call("$SYS.REQ.USER.INFO")
    except (LogError, ServerRefused):
        if connection.connected:
            return None
        raise
    data = answer.get("data") or {}
    permissions: Mapping[str, Any] = data.get("permissions") or {}
    publish, subscribe = permissions.get("publish") or {}, permissions.get("subscribe") or {}
    found = Access(
        tuple(publish.get("allow") or _EVERYTHING),
        tuple(subscribe.get("allow") or _EVERYTHING),
        tuple(publish.get("deny") or ()),
        tuple(subscribe.get("deny") or ()),
    )
    return str(data.get("user") or "nobody in particular"), found


async def lacking(connection: Connection, role: Role, partitions: int, pools: tuple[str, ...]) -> list[str] | None:
    """What the user lacks of what the role needs: `publish <subject>`, `subscribe <subject>`. Raises Unavailable.

    None if it may not even ask: then what is refused later is said then.
    """
    found = await user_access(connection)
    if found is None:
        return None
    return [*found[1].lacks(access(User(role, pools, connection.inbox_prefix), partitions))]


def said_of(lacks: list[str]) -> str:
    """What is missing, for people: the first few, and how many more."""
    more = f" and {len(lacks) - _NAMED} more" if len(lacks) > _NAMED else ""
    return f"NATS does not let this user {', '.join(lacks[:_NAMED])}{more}: {ROLES_HINT}"
