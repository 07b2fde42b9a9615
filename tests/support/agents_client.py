"""An agent that uses what a program at the other end declares, given to a worker as `tests.support.agents_client:NAME`."""

from __future__ import annotations

import re

from agent_worker.agents.echo import echo
from agent_worker.context import Agent, SessionContext

_COUNT = re.compile(r"How many words has (\S+)\?")
_DELETE = re.compile(r"Delete (\S+)")


async def _help(ctx: SessionContext) -> None:
    """Has a client count words, asks before it deletes; anything else as `echo` does."""
    content = ctx.input.content if ctx.input is not None else ""
    if counted := _COUNT.fullmatch(content):
        await ctx.text("Let me look.")
        words = await ctx.client_tool("word_count", {"path": counted[1]})
        await ctx.text(f"It has {words} words.")
    elif deleted := _DELETE.fullmatch(content):
        decision = await ctx.approve(f"Delete {deleted[1]}?")
        await ctx.text(f"{decision.option} by {','.join(who.id for who in decision.by)}")
    else:
        await echo(ctx)


helper = Agent("helper", _help)
