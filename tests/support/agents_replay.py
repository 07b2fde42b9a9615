"""Two versions of an agent that asks everybody it can, for tests of `antiphon replay`."""

from __future__ import annotations

from agent_worker.context import Agent, SessionContext
from agent_worker.errors import ToolFailed
from agent_worker.tools import Invocation


async def _price(call: Invocation) -> int:
    return 7 * int(call.args["count"])


async def _shop(ctx: SessionContext, thing: str) -> None:
    words = ctx.input.content.split() if ctx.input is not None else []
    if words[:1] == ["hang"]:
        await ctx.text("waiting ")
        await ctx.approve("for ever")
    if words[:1] != ["buy"]:
        await ctx.text(f"I sell {thing}.")
        return
    async with ctx.step("looking"):
        try:
            place = await ctx.client_tool("where", {"thing": thing})
        except ToolFailed as error:
            place = error.code
        opinion = await ctx.ask("critic", f"{thing}?")
    steered = [message.content for message in await ctx.take_steering()]
    price = await ctx.tool("price", {"count": int(words[1])}, _price)
    decision = await ctx.approve(f"Pay {price}?", roles=("manager",))
    await ctx.text(f"{thing} from {place}, {opinion}, {price}, {decision.option}, {','.join(steered)}")


async def _first(ctx: SessionContext) -> None:
    await _shop(ctx, "tea")


async def _second(ctx: SessionContext) -> None:
    await _shop(ctx, "coffee")


first = Agent("first", _first, accepts_steering=True)
second = Agent("second", _second, accepts_steering=True)
