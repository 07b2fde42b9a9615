"""The agent of the latency benchmark: each token is the time at which it was said."""

from __future__ import annotations

import asyncio
import time

from agent_worker.context import Agent, SessionContext


async def say_times(ctx: SessionContext) -> None:
    """Input: `<tokens> <tokens a second>`. Says nanoseconds of the monotonic clock, which processes share."""
    assert ctx.input is not None
    count, rate = map(int, ctx.input.content.split())
    loop = asyncio.get_running_loop()
    begin = loop.time()
    for i in range(count):
        await ctx.text(f"{time.monotonic_ns()} ")
        await asyncio.sleep(max(0.0, begin + (i + 1) / rate - loop.time()))


agent = Agent("times", say_times)
