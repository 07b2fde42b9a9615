"""Agents that send later, given to a worker process as `tests.support.agents_later:NAME`."""

from __future__ import annotations

from agent_worker.context import Agent, SessionContext


async def _later(ctx: SessionContext) -> None:
    """Input: `SECONDS TEXT`, sent then; `drop`, which takes back all that is scheduled. Anything else is said back."""
    content = ctx.input.content if ctx.input else ""
    first, _, rest = content.partition(" ")
    if content == "drop":
        taken = [await ctx.unschedule(planned.input_id) for planned in ctx.scheduled]
        await ctx.text(f"taken back: {sum(taken)}")
    elif rest and first.replace(".", "").isdigit():
        id_ = await ctx.schedule(rest, after_s=float(first))
        await ctx.text(f"scheduled {id_}")
    else:
        await ctx.text(f"now: {content}")


later = Agent("later", _later)
