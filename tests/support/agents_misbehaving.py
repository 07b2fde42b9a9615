"""An agent that does what its input says, most of it wrong."""

from __future__ import annotations

import asyncio
import contextlib
import time

from agent_worker.context import Agent, SessionContext


async def _forever() -> None:
    await asyncio.Event().wait()


async def _run(ctx: SessionContext) -> None:
    word = ctx.input.content if ctx.input is not None else ""
    await ctx.text(f"{word} ")
    await ctx.flush()
    match word:
        case "sleep":
            time.sleep(60)  # noqa: ASYNC251 (that is what is tested)
        case "spin":
            while True:
                pass
        case "stumble":
            time.sleep(0.4)  # noqa: ASYNC251 (likewise)
        case "print":
            print("a line that is longer than a pipe: " + "x" * 200_000, flush=True)  # noqa: T201 (likewise)
        case "leak":
            for _ in range(3):
                _ = asyncio.create_task(_forever())  # noqa: TID251, RUF006 (likewise)
        case "cleanup":
            try:
                await asyncio.Event().wait()
            finally:
                raise LookupError("of the cleanup")
        case "ignore":
            while True:
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.Event().wait()
        case "count":
            for number in range(60):
                await ctx.text(f"{number} ")
                await asyncio.sleep(0.05)
        case _:
            pass


agent = Agent("misbehaving", _run)
keeper = Agent("keeper", _run, keeps_tasks=True)
