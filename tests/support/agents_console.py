"""An agent that does all that a page can show, given to a worker as `tests.support.agents_console:guide`."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import orjson

from agent_worker.agents.echo import echo
from agent_worker.context import Agent, SessionContext
from agent_worker.errors import NoAnswer, ToolFailed

_STREAM = re.compile(r"stream (\d{1,6}) tokens at (\d{1,4})/s")
_CHAPTER = re.compile(r"(illustrated )?chapter (\d{1,6}) of (\d{1,6}) words")
_TOOL = re.compile(r"use (\w+) with (\{.*\})")


async def _guide(ctx: SessionContext) -> None:
    """What it is told decides what it does; what it does not know it says back, as `echo` does."""
    content = ctx.input.content if ctx.input is not None else ""
    if found := _STREAM.fullmatch(content):
        await _stream(ctx, int(found[1]), int(found[2]))
    elif found := _CHAPTER.fullmatch(content):
        text = chapter(int(found[2]), int(found[3]), illustrated=found[1] is not None)
        await ctx.text(text[len(ctx.said) :])
    elif found := _TOOL.fullmatch(content):
        await _use(ctx, found[1], orjson.loads(found[2]))
    elif content == "delete files":
        decision = await ctx.approve("Delete 3 files?", details={"files": ["a.txt", "b.txt", "c.txt"]}, key="delete")
        await ctx.text(f"{decision.option} by {','.join(who.id for who in decision.by)}")
    elif content == "plan a trip":
        await _plan(ctx)
    elif content == "look it up":
        await _look_up(ctx)
    elif content == "I want a human":
        await ctx.text("One moment, please. ")
        await ctx.handoff("support", reason="a refund", summary="It is about order 7.")
    else:
        await echo(ctx)


async def _stream(ctx: SessionContext, count: int, rate: int) -> None:
    """t0 t1 …, with what it is steered to between them; a second worker goes on with the first that was not said."""
    loop = asyncio.get_running_loop()
    first = len(re.findall(r"\bt\d+ ", ctx.said))
    begin = loop.time()
    for i in range(first, count):
        await ctx.text(f"t{i} ")
        for queued in await ctx.take_steering():
            await ctx.text(f"[{queued.content}] ")
        await asyncio.sleep(max(0.0, begin + (i - first + 1) / rate - loop.time()))


async def _use(ctx: SessionContext, name: str, args: dict[str, Any]) -> None:
    """Has a client execute a tool."""
    try:
        result = await ctx.client_tool(name, args, deadline_s=60)
    except ToolFailed as error:
        await ctx.text(f"failed: {error.code}")
    else:
        await ctx.text(f"result: {orjson.dumps(result).decode()}")


async def _plan(ctx: SessionContext) -> None:
    try:
        answer = await ctx.ask_user("Where to?", {"type": "string"})
    except NoAnswer as error:
        await ctx.text(f"nowhere: {error.code}")
    else:
        await ctx.text(f"to {answer}")


async def _look_up(ctx: SessionContext) -> None:
    """Thinks, calls a tool of its own, and answers with all that Markdown has."""
    await ctx.reasoning("They want to know about Ghent. I had better look it up.")
    await ctx.tool_result(await ctx.tool_call("search", {"query": "Ghent"}), "a city in Belgium")
    await ctx.text(ANSWER)


def chapter(number: int, words: int, *, illustrated: bool) -> str:
    """Paragraphs that differ from each other and from those of other chapters, `illustrated` with all sorts of blocks."""
    blocks = [f"## Chapter {number}"] if illustrated else []
    for at in range(0, words, PARAGRAPH_WORDS):
        said = (WORDS[(number * 31 + n * n) % len(WORDS)] for n in range(at, min(at + PARAGRAPH_WORDS, words)))
        blocks.append(f"Paragraph {number} {at} {' '.join(said)}.")
        if illustrated:
            blocks.append(_ILLUSTRATIONS[at // PARAGRAPH_WORDS % len(_ILLUSTRATIONS)])
    return "\n\n".join(blocks)


PARAGRAPH_WORDS = 80
WORDS = [
    "river",
    "bridge",
    "tower",
    "market",
    "bell",
    "harbour",
    "canal",
    "lantern",
    "stone",
    "garden",
    "morning",
    "ferry",
    "window",
    "street",
    "water",
    "island",
    "letter",
    "traveller",
    "evening",
    "winter",
]
_ILLUSTRATIONS = (
    "- a tower\n- a *bridge*\n- a `canal`",
    "| what | where |\n|---|---|\n| tower | market |\n| ferry | harbour |",
    "```python\ndef walk(street: str) -> str:\n    return f'along {street}'\n```",
    "> Whoever has seen the **harbour** has seen the town.",
)

ANSWER = """## Ghent

A city in **Belgium**, on the *Leie* and the `Scheldt`:

- the Gravensteen
- Saint Bavo's

| sight | built |
|---|---|
| Gravensteen | 1180 |
| Belfry | 1380 |

```python
def walk(city: str) -> str:
    return f"through {city}"
```

1. Go there.
2. See [the town](https://example.org/ghent).
"""

guide = Agent("guide", _guide, accepts_steering=True)
