"""Agents for tests of workers, given to a worker process as `tests.support.agents:NAME`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path

from agent_worker.agents.echo import echo
from agent_worker.context import Agent, SessionContext
from agent_worker.using_models import Usage

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


async def _long_winded(ctx: SessionContext) -> None:
    """Input: a number. Says so many tokens as fast as the log takes them, then one every 20 ms until it is cancelled."""
    assert ctx.input is not None
    count = int(ctx.input.content)
    for i in range(count):
        await ctx.text(f"t{i} ")
        if i % 16 == 0:
            await asyncio.sleep(0)
    while True:
        await ctx.text(f"t{count} ")
        count += 1
        await asyncio.sleep(0.02)


long_winded = Agent("long_winded", _long_winded)
"""Has said much already, and goes on."""


async def _secretive(ctx: SessionContext) -> None:
    async def look() -> str:
        await ctx.text("looking ")
        ctx.end_message()
        return "secret-of-a-step"

    for _ in range(2):
        await ctx.step("look", look)
    await ctx.text("seen")


secretive = Agent("secretive", _secretive)
"""Works in steps whose results are nobody's business; each ends right behind a text."""


async def _poisoned(ctx: SessionContext) -> None:
    """Its process dies of an input that says so."""
    content = ctx.input.content if ctx.input is not None else ""
    if content == "poison":
        os.kill(os.getpid(), signal.SIGKILL)
    await ctx.text(f"got {content}")


poisoned = Agent("poisoned", _poisoned)


async def _cured(ctx: SessionContext) -> None:
    await ctx.text(f"swallowed {ctx.input.content if ctx.input is not None else ''}")


cured = Agent("cured", _cured)
"""The next version of `poisoned`."""


async def _asks_helper(ctx: SessionContext) -> None:
    answer = await ctx.ask("helper", ctx.input.content if ctx.input is not None else "")
    await ctx.text(f"the helper says: {answer.rstrip()}")


asks_helper = Agent("asks_helper", _asks_helper)
"""Gives its input to the agent `helper`, and says what came of it."""


async def _until_open(ctx: SessionContext) -> None:
    gate = Path(ctx.input.content if ctx.input is not None else "")
    count = len(ctx.said.split())
    while not gate.exists() or count < 3:  # noqa: ASYNC240 (a look at a file, twice a second)
        await ctx.text(f"t{count} ")
        count += 1
        await asyncio.sleep(0.5)
    await ctx.text("end")


until_open = Agent("until_open", _until_open)
"""Streams two tokens a second, until there is a file of the name that is its input."""


async def _costs(ctx: SessionContext) -> None:
    """Input: tokens that went into a model and came out of it, for each call of it."""
    for call_of in (ctx.input.content if ctx.input is not None else "").split(";"):
        took, gave = map(int, call_of.split())
        async with ctx.model_call("ours", f"model-{took % 2}") as call:
            call.usage = Usage(took, gave, cached_input_tokens=took // 2)
    await ctx.text("done")


costs = Agent("costs", _costs)
