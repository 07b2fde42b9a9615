"""A session as it is now, for who does not follow it."""

from __future__ import annotations

from typing import Any

from broker.codec import by_to_wire
from broker.view import public_view
from gateway.auth import Identity, Right
from gateway.commands.context import CommandContext


async def look(ctx: CommandContext, session: str, who: Identity) -> dict[str, Any] | None:
    """The state, and the cursor that it is as of; None if nobody has written to the session (since it was deleted).

    Raises Refused, InvalidName, Unavailable.
    """
    who.require(Right.READ, session)
    async with ctx.session(session) as feed:
        epoch = await ctx.log.epoch(feed.subjects)
        # Nothing is awaited from here on: the state and the cursor belong together.
        state = feed.state
        if state.as_of == state.deleted_seq:
            return None
        return {
            "session": session,
            "cursor": f"{epoch}:{feed.last}",
            "messages": state.messages,
            "createdBy": by_to_wire(state.created_by),
            "state": public_view(state),
        }
