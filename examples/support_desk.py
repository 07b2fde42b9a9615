"""Answers simple questions, and hands over to a human with the role `support` when it is asked for one.

A token with that role: ``antiphon token user-9 --rights read,send,steer --roles support``. While the human has the
session, the agent is silent; what the human says at the end goes on to the agent.
"""

from __future__ import annotations

from agent_worker.context import Agent, SessionContext
from agent_worker.errors import NobodyCame


async def answer(ctx: SessionContext) -> None:
    content = ctx.input.content if ctx.input else ""
    if "human" not in content.lower():
        await ctx.text("I can take orders. For anything else, ask for a human.")
        return
    await ctx.text("I am looking for somebody. ")
    said = [message.text for message in await ctx.history(10) if message.role == "user"]
    try:
        await ctx.handoff("support", reason="asked for a human", summary=" / ".join(said), expires_s=120)
    except NobodyCame:
        await ctx.text("Nobody is free just now. Please try again later.")


agent = Agent("support-desk", answer)
