"""An agent of the OpenAI Agents SDK that asks the scripted model, over the SDK's own client."""

from __future__ import annotations

import os

from agents import Agent, OpenAIChatCompletionsModel, function_tool
from openai import AsyncOpenAI

from agent_worker.adapters import openai_agents
from tests.support.adapted.models import MODEL_URL, TOOLS

_URL = os.environ.get(MODEL_URL, "http://127.0.0.1:9")
model = OpenAIChatCompletionsModel("scripted", AsyncOpenAI(base_url=f"{_URL}/v1", api_key="k"))


@function_tool(needs_approval=True)
async def launch(target: str) -> str:
    """Launches something, if somebody allows it."""
    return f"launched {target}"


made = Agent(name="desk", instructions="Be brief.", model=model, tools=[launch])
adapted = openai_agents.agent(made, tools=TOOLS)
