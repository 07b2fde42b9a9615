"""Asks something in the user's own browser, with the tool `ask_browser` that the page brings.

The call goes to the user whose message started the run; after ten seconds, to any client that has the tool. If nobody
answers within a minute, the agent says so and goes on.
"""

from __future__ import annotations

from agent_worker.context import Agent, SessionContext
from agent_worker.errors import ToolFailed


async def answer(ctx: SessionContext) -> None:
    await ctx.text("One question first. ")
    try:
        result = await ctx.client_tool("ask_browser", {"question": "What is your favourite colour?"}, deadline_s=60)
    except ToolFailed as error:
        await ctx.text(f"Never mind ({error.code}).")
        return
    await ctx.text(f"{result['answer']} it is.")


agent = Agent("browser-tool", answer)
