"""A deterministic agent, for tests and benchmarks.

What it is told decides what it says:

* ``stream N tokens at R/s`` (also ``stream N tokens``): says ``t0 t1 … t(N-1)``, at R tokens a second, or as fast as
  the log takes them; after a takeover it goes on with the first token that was not said.
* ``say N bytes``: one answer of N bytes.
* ``raise``, ``hang``, ``nothing``: raises an exception; waits for ever; returns without a word.
* anything else comes back as it is, word by word.
"""

from __future__ import annotations

import asyncio
import re

from agent_worker.context import Agent, SessionContext

_STREAM = re.compile(r"stream (\d{1,9}) tokens(?: at (\d{1,6})/s)?")
_SAY = re.compile(r"say (\d{1,9}) bytes")
_CHUNK = 4096


async def echo(ctx: SessionContext) -> None:
    """Answers the input of the run."""
    content = ctx.input.content if ctx.input is not None else ""
    if found := _STREAM.fullmatch(content.strip()):
        await _stream(ctx, int(found[1]), int(found[2]) if found[2] else None)
    elif found := _SAY.fullmatch(content.strip()):
        await _say(ctx, int(found[1]))
    else:
        await _other(ctx, content)


async def _stream(ctx: SessionContext, count: int, rate: int | None) -> None:
    loop = asyncio.get_running_loop()
    first = len(ctx.said.split()) if ctx.said.endswith(" ") else max(0, len(ctx.said.split()) - 1)
    rest = "" if not ctx.said or ctx.said.endswith(" ") else f"t{first} "[len(ctx.said.rpartition(" ")[2]) :]
    begin = loop.time()
    for i in range(first, count):
        await ctx.text(rest or f"t{i} ")
        rest = ""
        if rate is not None:
            delay_s = begin + (i - first + 1) / rate - loop.time()
            await asyncio.sleep(max(0.0, delay_s))
        elif i % 16 == 0:
            await asyncio.sleep(0)


async def _say(ctx: SessionContext, size: int) -> None:
    """Bytes that differ from place to place, so that a lost or doubled piece shows."""
    position = len(ctx.said)
    while position < size:
        chunk = "".join(f"{i:08x} " for i in range(position // 9, (position + _CHUNK) // 9 + 2))
        start = position - (position // 9) * 9
        chunk = chunk[start : start + min(_CHUNK, size - position)]
        await ctx.text(chunk)
        position += len(chunk)
        await asyncio.sleep(0)


async def _other(ctx: SessionContext, content: str) -> None:
    match content.strip():
        case "raise":
            raise RuntimeError("told to raise")
        case "hang":
            await asyncio.Event().wait()
        case "nothing":
            return
        case _:
            for word in re.findall(r"\S+\s*", content[len(ctx.said) :]):
                await ctx.text(word)
                await asyncio.sleep(0)


agent = Agent("echo", echo)
