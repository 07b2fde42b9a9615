"""A pydantic-ai agent that asks the scripted model, over pydantic-ai's own client."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import Any

import orjson
from pydantic import BaseModel
from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, FunctionModel
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from agent_worker.adapters import client_tool, pydantic_ai
from agent_worker.context import SessionContext
from tests.support.adapted.models import MODEL_URL, pick_file

_URL = os.environ.get(MODEL_URL, "http://127.0.0.1:9")
model = OpenAIChatModel("scripted", provider=OpenAIProvider(base_url=f"{_URL}/v1", api_key="k"))
made = Agent(model, instructions="Be brief.", retries=1)


@made.tool_plain
async def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


@made.tool_plain(requires_approval=True)
async def delete(file: str) -> dict[str, str]:
    """Deletes a file, if somebody allows it."""
    return {"deleted": file}


@made.tool_plain
async def breaks() -> None:
    """Raises."""
    raise RuntimeError("what somebody said: secret")


adapted = pydantic_ai.agent(made, name="pydantic", client_tools=[pick_file])


class Weather(BaseModel):
    """An output that is no text."""

    city: str
    degrees: int


async def answers(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[Any]:
    """pydantic-ai's own model without a network: asks a client where it is, then gives an output."""
    returned = [part for message in messages for part in message.parts if part.part_kind == "tool-return"]
    if not returned:
        yield {0: DeltaToolCall("where", "{}", tool_call_id="w1")}
    else:
        told = orjson.dumps({"city": returned[-1].content, "degrees": 7}).decode()
        yield {0: DeltaToolCall(info.output_tools[0].name, told)}


offline = pydantic_ai.agent(
    Agent(FunctionModel(stream_function=answers), output_type=Weather, deps_type=SessionContext),
    client_tools=[client_tool("where", needs_permission=False)],
)
