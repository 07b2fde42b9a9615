"""Agents that are steered, stopped and asked in behaviours, given to workers as `tests.support.agents_steering:NAME`."""

from __future__ import annotations

import asyncio
import os
import re

import aiohttp

from agent_worker.context import Agent, SessionContext
from agent_worker.tools import Invocation

MODEL_URL = "ANTIPHON_TEST_MODEL_URL"
"""The variable that names the model of `thinker`."""
SINGERS = 10
STEPS = 8
_SONG = re.compile(r"sing (\w+) (\d+) tokens at (\d+)/s")


# --- agents that ask agents ------------------------------------------------------------------------------------------


async def conducting(ctx: SessionContext) -> None:
    """Has `SINGERS` agents sing at once; its input is the song: ``300 tokens at 150/s``."""
    song = ctx.input.content if ctx.input is not None else ""
    async with asyncio.TaskGroup() as tasks:
        for i in range(SINGERS):
            tasks.create_task(ctx.ask("singer", f"sing v{i} {song}", key=f"voice-{i}"))
    await ctx.text("all sung")


async def singing(ctx: SessionContext) -> None:
    """``sing v3 300 tokens at 150/s``: v3.0 v3.1 …; a second worker goes on with the first token that was not said."""
    found = _SONG.fullmatch(ctx.input.content if ctx.input is not None else "")
    assert found is not None
    voice, count, rate = found[1], int(found[2]), int(found[3])
    song = "".join(f"{voice}.{i} " for i in range(count))
    assert song.startswith(ctx.said)
    tokens = song[len(ctx.said) :].split(" ")[:-1]
    loop = asyncio.get_running_loop()
    begin = loop.time()
    for i, token in enumerate(tokens):
        await ctx.text(f"{token} ")
        await asyncio.sleep(max(0.0, begin + (i + 1) / rate - loop.time()))


conductor = Agent("conductor", conducting)
singer = Agent("singer", singing)


# --- agents that are steered and stopped -----------------------------------------------------------------------------


async def stepping(ctx: SessionContext) -> None:
    """`STEPS` short steps, and takes what it is told after each of them."""
    for i in range(ctx.said.count("step "), STEPS):
        async with ctx.step(f"step-{i}"):
            await ctx.text(f"step {i} ")
            await asyncio.sleep(0.02)
        for queued in await ctx.take_steering():
            await ctx.text(f"[{queued.input_id}] ")


async def walking(ctx: SessionContext) -> None:
    """Steps without end, each of which says that it begins and that it ends. ``one long step`` does not end."""
    begun = ctx.said.count("begin ")
    for i in range(begun, 1_000_000):
        async with ctx.step(f"step-{i}"):
            await ctx.text(f"begin {i} ")
            if ctx.input is not None and ctx.input.content == "one long step":
                await asyncio.Event().wait()
            await asyncio.sleep(0.05)
            await ctx.text(f"end {i} ")


async def holding(ctx: SessionContext) -> None:
    """Says its input back. Told to ``hold …`` it stays, and says what it is steered to, until somebody stops it."""
    content = ctx.input.content if ctx.input is not None else ""
    if not ctx.said:
        await ctx.text(f"<{content}> ")
    if content.startswith("hold"):
        async for queued in ctx.steering():
            await ctx.text(f"[{queued.content}] ")


async def asking(ctx: SessionContext) -> None:
    """Says its input back. Told to ``ask`` it waits for an approval first."""
    content = ctx.input.content if ctx.input is not None else ""
    if content == "ask":
        decision = await ctx.approve("Go on?", default="reject_once")
        await ctx.text("allowed " if decision.allowed else "not allowed ")
    for queued in await ctx.take_steering():
        await ctx.text(f"[{queued.content}] ")
    await ctx.text(f"<{content}> ")


stepper = Agent("stepper", stepping, accepts_steering=True)
walker = Agent("walker", walking)
plain = Agent("plain", holding)
steerable = Agent("steerable", holding, accepts_steering=True)
asker = Agent("asker", asking)
patient_asker = Agent("patient_asker", asking, accepts_steering=True)


# --- an agent with a model -------------------------------------------------------------------------------------------


async def thinking(ctx: SessionContext) -> None:
    """Streams what the model says to its input; ``use tools …`` calls three tools meanwhile. Nothing is about stopping."""
    content = ctx.input.content if ctx.input is not None else ""
    async with asyncio.TaskGroup() as tasks:
        if content.startswith("use tools"):
            tasks.create_task(ctx.client_tool("pick", {"kind": "file"}))
            tasks.create_task(ctx.client_tool("sign", {"page": 1}))
            tasks.create_task(ctx.tool("send", {"to": "somebody"}, _never))
        await _stream(ctx, content)


async def _stream(ctx: SessionContext, content: str) -> None:
    async with (
        aiohttp.ClientSession() as http,
        http.get(os.environ[MODEL_URL], params={"prompt": content}) as response,
    ):
        async for chunk in response.content.iter_any():
            await ctx.text(chunk.decode())


async def _never(_: Invocation) -> None:
    await asyncio.Event().wait()


thinker = Agent("thinker", thinking)
