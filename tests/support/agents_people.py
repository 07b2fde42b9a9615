"""Agents that wait for people and for other agents, given to a worker as `tests.support.agents_people:NAME`.

What they are told decides what they do: a word, and for some its options as JSON, so that a test says beside its
checks what is asked. What they say of it is one text, which a later attempt of the run completes.
"""

from __future__ import annotations

from typing import Any

import orjson

from agent_worker.agents.echo import echo
from agent_worker.approvals import Decision
from agent_worker.context import Agent, SessionContext
from agent_worker.errors import AskFailed, NoAnswer, NobodyCame, ToolFailed
from agent_worker.tools import Target


def _told(ctx: SessionContext) -> str:
    return ctx.input.content if ctx.input is not None else ""


async def _say(ctx: SessionContext, text: str) -> None:
    """Says what of the text an earlier attempt has not said."""
    assert text.startswith(ctx.said), "another attempt came to another end"
    if rest := text[len(ctx.said) :]:
        await ctx.text(rest)


async def _pick(ctx: SessionContext) -> None:
    """Has a client pick a file: options of `client_tool`, and `anybody` for a call that is for nobody in particular."""
    options: dict[str, Any] = orjson.loads(_told(ctx))
    target = Target() if options.pop("anybody", False) else None
    try:
        picked = await ctx.client_tool("pick_file", {"kind": "pdf"}, target=target, **options)
    except ToolFailed as error:
        await _say(ctx, f"failed: {error.code}")
    else:
        await _say(ctx, f"got {picked['file']}")


picking = Agent("picking", _pick)


async def _approve(ctx: SessionContext) -> None:
    """Asks for a decision, with options of `approve`; with a `schema`, asks a question."""
    options: dict[str, Any] = orjson.loads(_told(ctx))
    if (schema := options.pop("schema", None)) is not None:
        await _say(ctx, f"answer {await _answer(ctx, schema, options)}")
    else:
        await _say(ctx, _of(await ctx.approve("Delete 3 files?", **options)))


async def _answer(ctx: SessionContext, schema: dict[str, Any], options: dict[str, Any]) -> str:
    try:
        return orjson.dumps(await ctx.ask_user("Which size?", schema, **options)).decode()
    except NoAnswer as error:
        return error.code


def _of(decision: Decision) -> str:
    by = ",".join(who.id for who in decision.by)
    return f"{decision.option} {decision.status} by [{by}] with {orjson.dumps(decision.payload).decode()}"


approving = Agent("approving", _approve)


async def _desk(ctx: SessionContext) -> None:
    """`hand over` to somebody with the role `support`, `hand over to ROLE for N s`; anything else as `echo` does."""
    match _told(ctx).split():
        case ["hand", "over"]:
            await ctx.text("One moment. ")
            await ctx.handoff("support", reason="refund", summary="They want their money back")
        case ["hand", "over", "to", role, "for", seconds, "s"]:
            try:
                await ctx.handoff(role, reason="refund", expires_s=float(seconds))
            except NobodyCame:
                await ctx.text("nobody came")
        case _:
            await echo(ctx)


desk = Agent("desk", _desk)


async def _ask(ctx: SessionContext) -> None:
    """`ask AGENT CONTENT`: says what that agent says to CONTENT, or why it did not; anything else as `echo` does."""
    match _told(ctx).split(maxsplit=2):
        case ["ask", agent, content]:
            try:
                answer = await ctx.ask(agent, content, timeout_s=30)
            except AskFailed as error:
                answer = f"nothing, {error.code}"
            await _say(ctx, f"{agent} says {answer}")
        case _:
            await echo(ctx)


lead = Agent("lead", _ask)
helper = Agent("helper", _ask)
third = Agent("third", _ask)
