"""A long answer that pauses while nobody watches.

The session is told so once: in the page's address or by a client, with ``session.update`` and the config
``{"whenUnwatched": "pause", "unwatchedGraceMs": 5000}``. When the last viewer has been gone that long, the next token
waits; so the loop below, and with it whatever model feeds it, stands still. The first viewer to return sets it going.
"""

from __future__ import annotations

import asyncio

from agent_worker.context import Agent, SessionContext


async def answer(ctx: SessionContext) -> None:
    begin = len(ctx.said.split())
    for number in range(begin, 600):
        await ctx.text(f"{number} ")
        await asyncio.sleep(0.05)


agent = Agent("unwatched", answer)
