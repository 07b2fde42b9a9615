"""`session.create`, `session.update`, `session.close`, `session.reopen`."""

from __future__ import annotations

import secrets
from typing import Any

from broker.errors import ErrorCode, Refused
from broker.events import SessionClosed, SessionCreated, SessionReopened, SessionUpdated
from broker.queues import Priority
from broker.session_config import problem_of
from broker.state import SessionState
from gateway.auth import Identity, Right
from gateway.commands.context import CommandContext, check_json, not_allowed, short_id
from gateway.plane import TITLE_CHARS, SessionClose, SessionCreate, SessionReopen, SessionUpdate

METADATA_BYTES = 8_192


async def create(ctx: CommandContext, command: SessionCreate, who: Identity) -> dict[str, Any]:
    """Raises Refused, Unavailable."""
    who.require(Right.SEND, command.session)
    _check(command, who)
    async with ctx.session(command.session) as feed:
        state, stored_seq = feed.state, 0
        if not state.created_seq and not state.untouched and not who.may(Right.ADMIN, command.session):
            raise Refused(ErrorCode.SESSION_EXISTS, "the session is in use: only an admin can still say what it is")
        if not state.created_seq:
            event = SessionCreated(command.title, command.metadata, command.config)
            async with ctx.begins(feed):
                folded = await ctx.append(feed, ctx.entry(event, who, f"create:{short_id(who.id)}"))
            state, stored_seq = folded.state, 0 if folded.duplicate else folded.seq
        if state.created_by is None or state.created_by.id != who.id:
            raise Refused(ErrorCode.SESSION_EXISTS, "somebody else has created the session")
        await ctx.activity.note(command.session, who)
        duplicate = state.created_seq != stored_seq
        return {"session": command.session, "seq": state.created_seq, "duplicate": duplicate}


async def update(ctx: CommandContext, command: SessionUpdate, who: Identity) -> dict[str, Any]:
    """Raises Refused, Unavailable."""
    _check(command, who)
    async with ctx.session(command.session) as feed:
        require_manager(feed.state, command.session, who)
        ctx.usage.check_room(ctx.tenant)
        event = SessionUpdated(command.title, command.metadata, command.config)
        folded = await ctx.append(feed, ctx.entry(event, who, f"update:{secrets.token_hex(8)}"))
        return {"session": command.session, "seq": folded.seq}


async def set_closed(ctx: CommandContext, command: SessionClose | SessionReopen, who: Identity) -> dict[str, Any]:
    """Raises Refused, Unavailable."""
    closed = isinstance(command, SessionClose)
    async with ctx.session(command.session) as feed:
        require_manager(feed.state, command.session, who)
        if feed.state.closed != closed:
            event = SessionClosed() if closed else SessionReopened()
            # A session may be closed and opened again within a minute: each time is an entry of its own.
            word = "close" if closed else "reopen"
            await ctx.append(feed, ctx.entry(event, who, f"{word}:{secrets.token_hex(8)}"))
        return {"session": command.session, "closed": closed}


def require_manager(state: SessionState, session: str, who: Identity) -> None:
    """Raises Refused (not_allowed) for anybody but admins and the session's creator, if that still may read it."""
    created = state.created_by is not None and state.created_by.id == who.id
    is_creator = created and who.may(Right.READ, session)
    if not is_creator and not who.may(Right.ADMIN, session):
        raise not_allowed(Right.ADMIN, "only the session's creator or an admin may do this")


def _check(command: SessionCreate | SessionUpdate, who: Identity) -> None:
    """Raises Refused (content_too_large, config_invalid, not_allowed)."""
    if command.title is not None and len(command.title) > TITLE_CHARS:
        text = f"`title` has {len(command.title)} characters, the limit is {TITLE_CHARS}"
        raise Refused(ErrorCode.CONTENT_TOO_LARGE, text, limit=TITLE_CHARS)
    if command.metadata is not None:
        check_json("metadata", command.metadata, METADATA_BYTES)
    problem = None if command.config is None else problem_of(command.config)
    if problem is not None:
        field, message = problem
        raise Refused(ErrorCode.CONFIG_INVALID, f"`{field}` {message}", field=field)
    if (command.config or {}).get("priority") == Priority.HIGH and not who.may(Right.PRIORITY, command.session):
        raise not_allowed(Right.PRIORITY, "the token does not let you put a session's work before that of others")
