"""The agent of the suite: what it is told decides what it says, so that the checker knows it beforehand.

* ``stream N R NAME``: ``NAME.0 NAME.1 …`` up to N tokens, R a second, and between them ``[ID]`` for each input that it is
  steered by.
* ``tool NAME``: has any client execute the tool ``pick``, and says what came of it.
* ``approve NAME``: asks for a decision, and says what it was.

A worker that takes a run over goes on behind what was said.
"""

from __future__ import annotations

import asyncio
import re

from agent_worker.context import Agent, SessionContext
from agent_worker.errors import ToolFailed
from agent_worker.tools import Target

TOOL = "pick"
_WAIT_S = 12.0
"""Nobody waits for ever for a client that is gone."""
_MARK = re.compile(r"\[[^\]]*\] ")
STEERED_EVERY = 5


def said_of(content: str) -> str | None:
    """All that a run says to this which succeeds, without marks of steering; None: that depends on others."""
    match content.split():
        case ["stream", count, _, name]:
            return "".join(f"{name}.{i} " for i in range(int(count)))
        case _:
            return None


def without_marks(text: str) -> str:
    """What was said, without marks of steering."""
    return _MARK.sub("", text)


async def _play(ctx: SessionContext) -> None:
    content = ctx.input.content if ctx.input is not None else ""
    match content.split():
        case ["stream", count, rate, name]:
            await _stream(ctx, int(count), int(rate), name)
        case ["tool", kind, name]:
            await _say(ctx, await _tool(ctx, name, idempotent=kind == "again"))
        case ["approve", name]:
            decision = await ctx.approve(f"Go on with {name}?", expires_s=_WAIT_S)
            await _say(ctx, f"{decision.status} {decision.option} by {','.join(who.id for who in decision.by)} ")
        case _:
            await _say(ctx, content)


async def _tool(ctx: SessionContext, name: str, *, idempotent: bool) -> str:
    try:
        got = await ctx.client_tool(TOOL, {"for": name}, target=Target(), deadline_s=_WAIT_S, idempotent=idempotent)
    except ToolFailed as error:
        return f"failed {error.code} "
    return f"got {got} "


async def _say(ctx: SessionContext, text: str) -> None:
    if rest := text[len(ctx.said) :]:
        await ctx.text(rest)


async def _stream(ctx: SessionContext, count: int, rate: int, name: str) -> None:
    first = without_marks(ctx.said).count(" ")
    for i in range(first, count):
        await ctx.text(f"{name}.{i} ")
        await asyncio.sleep(1 / rate)
        if i % STEERED_EVERY == 0:
            for queued in await ctx.take_steering():
                await ctx.text(f"[{queued.input_id}] ")


agent = Agent("chaos", _play, accepts_steering=True)
