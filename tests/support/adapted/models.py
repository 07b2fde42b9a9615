"""Agents of the adapters that need no framework, given to workers as `tests.support.adapted.models:NAME`."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncGenerator
from typing import Any

from agent_worker.adapters import Limits, ag_ui, anthropic, client_tool, generator, openai_compatible, tool
from agent_worker.adapters.generator import Reasoning, Yielded
from agent_worker.adapters.http import Retries
from agent_worker.context import SessionContext

MODEL_URL = "ANTIPHON_TEST_MODEL_URL"
"""The variable that names the model's server."""
RETRIES = Retries(attempts=3, first_s=0.02, most_s=0.1)

FILE = {"type": "object", "properties": {"file": {"type": "string"}}, "required": ["file"]}


@tool
async def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


@tool(needs_permission=True)
async def delete(file: str) -> dict[str, str]:
    """Deletes a file, if somebody allows it."""
    return {"deleted": file}


@tool
async def breaks() -> None:
    """Raises."""
    raise RuntimeError("what somebody said: secret")


pick_file = client_tool("pick_file", "Lets the user pick a file.", {"type": "object"}, needs_permission=False)
TOOLS: list[Any] = [add, delete, breaks, pick_file]
_URL = os.environ.get(MODEL_URL, "http://127.0.0.1:9")

chat = openai_compatible.agent(
    "scripted", base_url=f"{_URL}/v1", api_key="k", tools=TOOLS, system="Be brief.", retries=RETRIES
)
small = openai_compatible.agent(
    "small",
    base_url=f"{_URL}/v1",
    prefill=True,
    limits=Limits(chars=4000, images=0),
    options={"max_tokens": 24, "temperature": 0},
)
responses = openai_compatible.agent(
    "scripted", base_url=f"{_URL}/v1", api_key="k", api="responses", tools=TOOLS, system="Be brief.", retries=RETRIES
)
messages = anthropic.agent("scripted", base_url=_URL, api_key="k", tools=TOOLS, system="Be brief.", retries=RETRIES)
service = ag_ui.agent(f"{_URL}/agui", client_tools=[pick_file], retries=RETRIES)


async def talk(ctx: SessionContext) -> AsyncGenerator[Yielded, None]:
    """Asks the same model by itself, as an author would who has a client of their own."""
    import aiohttp

    content = ctx.input.content if ctx.input is not None else ""
    if content == "think":
        yield Reasoning("hmm, let me see")
    history = [{"role": m.role, "content": m.text} for m in await ctx.history() if m.role in ("user", "assistant")]
    if history and history[-1]["role"] == "assistant":
        history.pop()
    async with (
        aiohttp.ClientSession() as http,
        http.post(f"{_URL}/v1/chat/completions", json={"messages": history}) as response,
    ):
        async for line in response.content:
            if found := re.search(rb'"delta":\{"content":"((?:[^"\\]|\\.)*)"', line):
                yield found[1].decode()


generated = generator.agent(talk, name="generated")
