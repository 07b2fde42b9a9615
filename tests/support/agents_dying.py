"""An agent whose worker dies of kill -9 at a place that its input names: `PLACE FILE`. What it does to the world is a line
of FILE.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

from agent_worker.context import Agent, SessionContext
from agent_worker.errors import ToolFailed
from agent_worker.tools import Invocation

Effect = Callable[[str], None]
PLACES: dict[str, Callable[[SessionContext, Effect], Awaitable[str]]] = {}


def place(function: Callable[[SessionContext, Effect], Awaitable[str]]) -> Callable[..., Awaitable[str]]:
    PLACES[function.__name__] = function
    return function


def die(ctx: SessionContext) -> None:
    """Kill -9 of this process, in the run's first attempt."""
    if ctx.attempt == 1:
        os.kill(os.getpid(), signal.SIGKILL)


async def _run(ctx: SessionContext) -> None:
    name, file = (ctx.input.content if ctx.input is not None else "").split(" ")

    def effect(what: str) -> None:
        with Path(file).open("a", encoding="utf-8") as out:
            out.write(f"{what}\n")
            out.flush()
            os.fsync(out.fileno())

    said = await PLACES[name](ctx, effect)
    await ctx.text(said)
    if name == "returning":
        asyncio.get_running_loop().call_soon(die, ctx)


agent = Agent("dying", _run, accepts_steering=True)


@place
async def plain_code(ctx: SessionContext, effect: Effect) -> str:
    effect("done")
    die(ctx)
    return "end"


@place
async def shown_step(ctx: SessionContext, effect: Effect) -> str:
    async with ctx.step("shown"):
        effect("done")
    await ctx.flush()
    die(ctx)
    return "end"


@place
async def in_step(ctx: SessionContext, effect: Effect) -> str:
    async def work() -> str:
        effect(ctx.idempotency_key("work"))
        die(ctx)
        return "worked"

    return await ctx.step("work", work)


@place
async def after_step(ctx: SessionContext, effect: Effect) -> str:
    async def work() -> str:
        effect("done")
        return f"worked in {ctx.attempt}"

    result = await ctx.step("work", work)
    die(ctx)
    return result


def _tool(effect: Effect, then: Callable[[], None]) -> Callable[[Invocation], Awaitable[str]]:
    async def work(call: Invocation) -> str:
        effect(call.idempotency_key)
        then()
        return "worked"

    return work


@place
async def in_idempotent_tool(ctx: SessionContext, effect: Effect) -> str:
    return str(await ctx.tool("work", {}, _tool(effect, lambda: die(ctx)), idempotent=True))


@place
async def in_tool(ctx: SessionContext, effect: Effect) -> str:
    try:
        return str(await ctx.tool("work", {}, _tool(effect, lambda: die(ctx))))
    except ToolFailed as error:
        return error.code


@place
async def after_tool(ctx: SessionContext, effect: Effect) -> str:
    result = await ctx.tool("work", {}, _tool(effect, lambda: None))
    die(ctx)
    return str(result)


@place
async def waiting_for_client_tool(ctx: SessionContext, effect: Effect) -> str:
    return str(await ctx.client_tool("pick", {}))


@place
async def waiting_for_approval(ctx: SessionContext, effect: Effect) -> str:
    return (await ctx.approve("Go on?")).option or ""


@place
async def waiting_for_agent(ctx: SessionContext, effect: Effect) -> str:
    return await ctx.ask("helper", "say it")


@place
async def text_in_the_log(ctx: SessionContext, effect: Effect) -> str:
    if not ctx.said:
        await ctx.text("one ")
        await ctx.flush()
    die(ctx)
    return "two"


@place
async def text_on_its_way(ctx: SessionContext, effect: Effect) -> str:
    await ctx.text("one ")
    die(ctx)
    return f"and {ctx.said!r} before"


@place
async def steering_taken(ctx: SessionContext, effect: Effect) -> str:
    effect("waiting")
    while True:
        for message in await ctx.take_steering():
            effect(message.content)
            die(ctx)
        history = await ctx.history()
        if ctx.attempt > 1:
            return ",".join(message.text for message in history if message.role == "user" and " " not in message.text)
        await asyncio.sleep(0.01)


@place
async def attached(ctx: SessionContext, effect: Effect) -> str:
    await ctx.attach("a.txt", "text/plain", b"abc")
    die(ctx)
    return "end"


@place
async def custom_event(ctx: SessionContext, effect: Effect) -> str:
    await ctx.custom("note", ctx.attempt)
    await ctx.flush()
    die(ctx)
    return "end"


@place
async def returning(ctx: SessionContext, effect: Effect) -> str:
    effect("done")
    return "" if ctx.said else "end"


@place
async def ended(ctx: SessionContext, effect: Effect) -> str:
    effect("done")
    return "end"
