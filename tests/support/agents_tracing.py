"""Agents whose runs go through everything that a trace tells of, given to a worker as `tests.support.agents_tracing:NAME`."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging

import structlog
from opentelemetry import trace as otel

from agent_worker.agents.echo import echo
from agent_worker.context import Agent, SessionContext
from agent_worker.tools import Invocation

TOKENS = 200
TEXT = "".join(f"t{i} " for i in range(TOKENS))
PACE_S = 0.02


async def _look_up(_invocation: Invocation) -> str:
    # As an author instruments a call of a model: it knows nothing of Antiphon.
    with otel.get_tracer("author").start_as_current_span("model"):
        return "found"


async def _traced(ctx: SessionContext) -> None:
    """A step with a tool of its own, a client's tool, a decision, another agent, and then so many tokens."""
    await ctx.custom("trace", ctx.trace.headers)
    async with ctx.step("think"):
        await ctx.tool("look_up", {}, _look_up, idempotent=True)
    await ctx.client_tool("pick_file", {"kind": "pdf"}, idempotent=True)
    await ctx.approve("Go on?")
    await ctx.ask("helper", "hello")
    for token in TEXT[len(ctx.said) :].split():
        await ctx.text(f"{token} ")
        await asyncio.sleep(PACE_S)


traced = Agent("traced", _traced)
helper = Agent("helper", echo)


async def _tool_that_raises(invocation: Invocation) -> str:
    raise ValueError(invocation.args["text"])


async def _forgotten(text: str) -> None:
    raise LookupError(text)


async def _leaky(ctx: SessionContext) -> None:
    """Has what it was told in the text of an exception: of a tool, of a task that nobody awaits, of the library, its own."""
    text = ctx.input.content if ctx.input else ""
    with contextlib.suppress(ValueError):
        await ctx.tool("look_up", {"text": text}, _tool_that_raises)
    task = asyncio.create_task(_forgotten(text))  # noqa: TID251 (what an author may do)
    await asyncio.sleep(0)
    del task
    gc.collect()
    try:
        raise RuntimeError(text)
    except RuntimeError:
        logging.getLogger("a.library").exception("it went wrong")
        structlog.get_logger("an.agent").exception("it went wrong here")
    raise KeyError(text)


leaky = Agent("leaky", _leaky)
