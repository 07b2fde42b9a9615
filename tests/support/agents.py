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


async def _answers(ctx: SessionContext) -> None:
    """Says its input back, and that it may be given again; told to ``fail`` it raises, to ``ask`` it asks first."""
    content = ctx.input.content if ctx.input is not None else ""
    if content == "fail":
        raise RuntimeError(content)
    if content == "ask":
        await ctx.approve("Go on?")
    if content != "not to be kept":
        await ctx.cacheable(600)
    await ctx.reasoning("what was that? ")
    for word in content.split(" "):
        await ctx.text(f"{word} ")
    await ctx.tool_result(await ctx.tool_call("look_up", {"q": content}), "nothing")
    await ctx.text("done")


answers = Agent("answers", _answers)
"""An answer in two messages, with what HTTP clients are told of caching."""
