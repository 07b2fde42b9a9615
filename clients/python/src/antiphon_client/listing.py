"""What a user sees across sessions: their own, and the hand-overs that wait for them (PROTOCOL, section 7)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from ._host import CommandBuilder
from ._json import JsonObject, as_int, as_object, as_objects, as_str
from .frames import command
from .model import Handoff

Call: TypeAlias = Callable[[CommandBuilder], Awaitable[JsonObject]]


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """What a list says of a session.

    `updated_at` is when this user was last active there, in ms since 1970 (to half a minute);
    `status` is as in `State.status`.
    """

    session: str
    title: str | None
    metadata: JsonObject
    created_by: JsonObject | None
    updated_at: int | None
    status: str

    @classmethod
    def parse(cls, raw: JsonObject) -> SessionInfo | None:
        """Read an item of the list; None without a name."""
        name = as_str(raw.get("session"))
        if name is None:
            return None
        metadata, created_by = as_object(raw.get("metadata")) or {}, as_object(raw.get("createdBy"))
        title, updated_at = as_str(raw.get("title")), as_int(raw.get("updatedAt"))
        return cls(name, title, metadata, created_by, updated_at, as_str(raw.get("status")) or "idle")


@dataclass(frozen=True, slots=True)
class WaitingHandoff:
    """A hand-over that waits, and the session in which it does."""

    session: str
    handoff: Handoff

    @classmethod
    def parse(cls, raw: JsonObject) -> WaitingHandoff | None:
        """Read an item of the list; None if it cannot be taken."""
        session, handoff = as_str(raw.get("session")), Handoff.from_dict(raw)
        return None if session is None or handoff is None else cls(session, handoff)


async def waiting_handoffs(call: Call, limit: int | None) -> list[WaitingHandoff]:
    """The hand-overs that wait for this user's roles, oldest first."""
    reply = await call(partial(command, "handoff.list", session=None, limit=limit))
    found = (WaitingHandoff.parse(raw) for raw in as_objects(reply.get("handoffs")))
    return [waiting for waiting in found if waiting is not None]


async def listed(call: Call, page_size: int) -> AsyncIterator[SessionInfo]:
    """All sessions, a page at a time. Ends, too, where a page leads to itself."""
    after: object = None
    while True:
        reply = await call(partial(command, "session.list", session=None, limit=page_size, after=after))
        for raw in as_objects(reply.get("sessions")):
            info = SessionInfo.parse(raw)
            if info is not None:
                yield info
        before, after = after, reply.get("after")
        if after is None or after == before:
            return
