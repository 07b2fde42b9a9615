"""A plain async generator as an agent: what it yields is said. Needs no package.

::

    async def answer(ctx):
        yield "Hello, "
        yield "world."

    agent = generator.agent(answer)
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from agent_worker.adapters.capabilities import Capabilities
from agent_worker.context import Agent, OnTakeover, SessionContext

CAPABILITIES = Capabilities(
    steering="enqueue",
    on_hold="waits",
    on_loss="by_author",
    tools=False,
    client_tools=False,
    approvals=False,
    usage=False,
    images=False,
)
"""What it yields are words; for anything else the function has its SessionContext."""


@dataclass(frozen=True, slots=True)
class Reasoning:
    """A piece of reasoning."""

    text: str


@dataclass(frozen=True, slots=True)
class NextMessage:
    """What comes after this is another message."""


@dataclass(frozen=True, slots=True)
class Custom:
    """An event of the application's own."""

    name: str
    value: Any


Yielded = str | Reasoning | NextMessage | Custom
Generator = Callable[[SessionContext], AsyncGenerator[Yielded, None]]


def agent(
    function: Generator,
    *,
    name: str | None = None,
    on_takeover: OnTakeover = "restart",
    accepts_steering: bool = False,
) -> Agent:
    """An agent that says what an async generator yields: texts, `Reasoning`, `NextMessage`, `Custom`.

    The generator is closed when the run is stopped, so its `finally` runs. With `on_takeover="continue"` it must look at
    `ctx.said`; with `accepts_steering` it must call `ctx.take_steering()`.
    """

    async def run(ctx: SessionContext) -> None:
        async with aclosing(function(ctx)) as pieces:
            await _say(ctx, pieces)

    return Agent(
        name or str(getattr(function, "__name__", "agent")), run, on_takeover, accepts_steering=accepts_steering
    )


async def _say(ctx: SessionContext, pieces: AsyncIterator[Yielded]) -> None:
    async for piece in pieces:
        match piece:
            case str():
                await ctx.text(piece)
            case Reasoning():
                await ctx.reasoning(piece.text)
            case NextMessage():
                ctx.end_message()
            case Custom():
                await ctx.custom(piece.name, piece.value)
            case _:
                raise TypeError(
                    f"the generator yielded {type(piece).__name__}: it may yield str and what {__name__} has"
                )
