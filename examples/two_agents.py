"""A writer that shows its text to a critic before it answers. Everybody in the session sees both at work.

Stopping the writer stops the critic, too. If the critic takes longer than a minute, the writer does without.
"""

from __future__ import annotations

from agent_worker.context import Agent, SessionContext
from agent_worker.errors import AskFailed


async def write(ctx: SessionContext) -> None:
    topic = ctx.input.content if ctx.input else ""
    draft = f"{topic} is a fine thing. It is very, very fine."
    async with ctx.step("review"):
        try:
            advice = await ctx.ask("critic", draft, timeout_s=60)
        except AskFailed as error:
            advice = f"(no advice: {error.code})"
    await ctx.text(draft.replace(" It is very, very fine.", "") if "shorter" in advice else draft)


async def criticise(ctx: SessionContext) -> None:
    draft = ctx.input.content if ctx.input else ""
    await ctx.text("Make it shorter." if len(draft) > 20 else "Leave it.")


writer = Agent("writer", write)
critic = Agent("critic", criticise)
