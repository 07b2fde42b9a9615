"""Agents for tests of workers, given to a worker process as `tests.support.agents:NAME`."""

from __future__ import annotations

import asyncio
import contextlib

from agent_worker.agents.echo import echo
from agent_worker.context import Agent, SessionContext

NOT_AN_AGENT = 42

restarts = Agent("restarts", echo, on_takeover="restart")
"""Says everything from the beginning when it takes a run over."""

fails = Agent("fails", echo, on_takeover="fail")
"""Does not go on with a run whose worker has died."""


async def stubborn(ctx: SessionContext) -> None:
    """Says a word, and never returns, cancelled or not."""
    await ctx.text("first ")
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
