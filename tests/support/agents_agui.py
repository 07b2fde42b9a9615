"""An agent for clients of AG-UI that does, word by word, whatever AG-UI has events for: `tests.support.agents_agui:NAME`."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable

import orjson

from agent_worker.context import Agent, SessionContext
from agent_worker.errors import NoAnswer, ToolFailed
from agent_worker.tools import Invocation
from broker.events import OtherEvent

_STREAM = re.compile(r"stream (\d+) at (\d+)/s")


async def _steps(ctx: SessionContext) -> None:
    async with ctx.step("look"):
        await ctx.reasoning("where is it? ")
    async with ctx.step("say"):
        await ctx.text("here it is")


async def _look_up(call: Invocation) -> dict[str, object]:
    return {"found": call.args["q"]}


async def _tool(ctx: SessionContext) -> None:
    found = await ctx.tool("look_up", {"q": "x"}, _look_up)
    await ctx.text(f"found {found['found']}")


async def _pick(ctx: SessionContext) -> None:
    """A tool of the page, between two messages."""
    await ctx.text("pick one")
    try:
        picked = await ctx.client_tool("pick_color", {"of": ["red", "blue"]}, deadline_s=60)
    except ToolFailed as error:
        picked = error.code
    await ctx.text(f"you picked {picked}")


async def _pick_two(ctx: SessionContext) -> None:
    async with asyncio.TaskGroup() as tasks:
        both = [tasks.create_task(ctx.client_tool("pick_color", {"n": n}, deadline_s=60)) for n in range(2)]
    await ctx.text(f"you picked {both[0].result()} and {both[1].result()}")


async def _approve(ctx: SessionContext) -> None:
    await ctx.text("wait ")
    decision = await ctx.approve("Delete 3 files?", response_schema={"type": "object"})
    await ctx.text(f"{decision.option} {orjson.dumps(decision.payload).decode()}")


async def _approve_by_boss(ctx: SessionContext) -> None:
    decision = await ctx.approve("Go on?", roles=["boss"])
    await ctx.text(decision.option or "nothing")


async def _question(ctx: SessionContext) -> None:
    try:
        size = await ctx.ask_user("Which size?", {"type": "integer"})
    except NoAnswer as error:
        size = error.code
    await ctx.text(f"size {size}")


async def _state(ctx: SessionContext) -> None:
    await ctx.state_snapshot({"count": 1})
    patch = [{"op": "replace", "path": "/count", "value": 2}]
    await ctx._record(OtherEvent("STATE_DELTA", {"type": "STATE_DELTA", "delta": patch}))
    await ctx.custom("note", {"a": 1})
    await ctx.text("counted")


async def _ask(ctx: SessionContext) -> None:
    await ctx.text("let me ask. ")
    await ctx.text(await ctx.ask("helper", "what is it?"))


async def _fail(_: SessionContext) -> None:
    raise RuntimeError("it broke")


async def _step_and_stream(ctx: SessionContext) -> None:
    """A long answer within a step, which a second worker goes on with."""
    async with ctx.step("long"):
        await _stream(ctx, 100, 50)


async def _stream(ctx: SessionContext, count: int, rate: int) -> None:
    whole = "".join(f"t{i} " for i in range(count))
    for word in whole[len(ctx.said) :].split(" ")[:-1]:
        await ctx.text(f"{word} ")
        await asyncio.sleep(1 / rate)


_DOES: dict[str, Callable[[SessionContext], Awaitable[None]]] = {
    "steps": _steps,
    "tool": _tool,
    "pick": _pick,
    "pick two": _pick_two,
    "approve": _approve,
    "approve by boss": _approve_by_boss,
    "question": _question,
    "state": _state,
    "ask": _ask,
    "fail": _fail,
    "long": _step_and_stream,
}


async def _everything(ctx: SessionContext) -> None:
    content = ctx.input.content if ctx.input is not None else ""
    if (does := _DOES.get(content)) is not None:
        await does(ctx)
    elif (found := _STREAM.fullmatch(content)) is not None:
        await _stream(ctx, int(found[1]), int(found[2]))
    else:
        await ctx.text(f"you said {content}")


async def _helps(ctx: SessionContext) -> None:
    async with ctx.step("think"):
        await ctx.reasoning("hm ")
    await ctx.text("it is a thing")


everything = Agent("everything", _everything)
helper = Agent("helper", _helps)
