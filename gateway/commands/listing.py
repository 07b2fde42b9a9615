"""`session.list` and `handoff.list`: the directory says where to look, the sessions' logs say what is so."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from broker.codec import by_to_wire
from broker.errors import ErrorCode, Refused
from broker.interfaces import Noted
from broker.loading import load_state
from broker.state import SessionState
from broker.subjects import split_key
from broker.view import handoff_view
from gateway.auth import Identity, Right
from gateway.commands.context import CommandContext
from gateway.plane import HandoffList, SessionList

_AT_ONCE = 8
_LOOKED_AT = 400
"""Notes that one page may look at: stale ones, and sessions that the token may not read, are passed over."""


async def sessions(ctx: CommandContext, command: SessionList, who: Identity) -> dict[str, Any]:
    """Raises Refused, Unavailable."""
    before = _position(command.after)
    found = await ctx.directory.noted("user", who.id, before, _LOOKED_AT + 1, who.tenant)
    readable = [noted for noted in found if who.may(Right.READ, _name_of(noted))]
    chosen = readable[: command.limit]
    states = await _states(ctx, chosen)
    listed = []
    for noted, state in zip(chosen, states, strict=True):
        if state.as_of == 0 or (state.deleted_seq and state.untouched and not state.created_seq):
            await ctx.directory.forget("user", who.id, noted.session, noted)
        else:
            listed.append(_session(noted, state))
    return {"sessions": listed, "after": _next(found, readable, chosen)}


def _position(after: str | None) -> int | None:
    if after is None:
        return None
    if not after.isascii() or not after.isdigit() or len(after) > 16:
        raise Refused(ErrorCode.BAD_COMMAND, "`after` must be that of the page before", field="after")
    return int(after)


def _next(found: Sequence[Noted], readable: Sequence[Noted], chosen: Sequence[Noted]) -> str | None:
    """Where the next page begins: behind what was listed, or behind all that was looked at."""
    if len(readable) > len(chosen):
        return str(chosen[-1].seq)
    return str(found[-1].seq) if len(found) > _LOOKED_AT else None


async def handoffs(ctx: CommandContext, command: HandoffList, who: Identity) -> dict[str, Any]:
    """Raises Unavailable."""
    waiting: dict[str, dict[str, Any]] = {}
    for role in who.roles:
        found = await ctx.directory.noted("handoff", role, None, _LOOKED_AT, who.tenant)
        allowed = [noted for noted in found if who.may(Right.STEER, _name_of(noted))]
        for noted, state in zip(allowed, await _states(ctx, allowed), strict=True):
            views = [h for h in state.handoffs.values() if h.status == "waiting" and h.to == role]
            if not views:
                await ctx.directory.forget("handoff", role, noted.session, noted)
            for handoff in views:
                since = {"session": _name_of(noted), "since": noted.ts}
                waiting[handoff.id] = since | handoff_view(handoff)
    return {"handoffs": sorted(waiting.values(), key=lambda h: h["since"])[: command.limit]}


def _name_of(noted: Noted) -> str:
    """As the session's tenant knows it."""
    return split_key(noted.session)[1]


async def _states(ctx: CommandContext, noted: Sequence[Noted]) -> list[SessionState]:
    gate = asyncio.Semaphore(_AT_ONCE)

    async def state_of(key: str) -> SessionState:
        async with gate:
            return await load_state(ctx.log, ctx.log.subjects(key))

    async with asyncio.TaskGroup() as tasks:
        loading = [tasks.create_task(state_of(n.session)) for n in noted]
    return [task.result() for task in loading]


def _session(noted: Noted, state: SessionState) -> dict[str, Any]:
    return {
        "session": _name_of(noted),
        "title": state.title,
        "metadata": dict(state.metadata),
        "createdBy": by_to_wire(state.created_by),
        "updatedAt": noted.ts,
        "status": state.status,
    }
