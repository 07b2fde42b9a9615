"""A LangGraph graph that asks the scripted model, by a LangChain model over HTTP."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import Any

import httpx
import orjson
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, ToolMessage, convert_to_openai_messages
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.utils.function_calling import convert_to_openai_tool
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import RetryPolicy, interrupt

from agent_worker.adapters import langgraph
from tests.support.adapted.models import MODEL_URL, add, pick_file

_URL = os.environ.get(MODEL_URL, "http://127.0.0.1:9")
TOOLS = langgraph.tools(add, pick_file)
_BY_NAME = {tool.name: tool for tool in TOOLS}
_OTHERS = [
    {"type": "function", "function": {"name": name, "description": name, "parameters": {"type": "object"}}}
    for name in ("delete", "breaks")
]


class Scripted(BaseChatModel):
    """Streams from the scripted model."""

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def _generate(self, *_: Any, **__: Any) -> ChatResult:
        raise NotImplementedError

    async def _astream(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **_: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        body = {
            "messages": convert_to_openai_messages(messages),
            "tools": [*map(convert_to_openai_tool, TOOLS), *_OTHERS],
            "stream": True,
        }
        async with (
            httpx.AsyncClient(timeout=60) as http,
            http.stream("POST", f"{_URL}/v1/chat/completions", json=body) as response,
        ):
            response.raise_for_status()
            async for line in response.aiter_lines():
                if not line.startswith("data: {"):
                    continue
                chunk = ChatGenerationChunk(message=_chunk(orjson.loads(line[6:])))
                if run_manager is not None:
                    await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                yield chunk


def _chunk(told: Any) -> AIMessageChunk:
    if not told["choices"]:
        used = told["usage"]
        into, out = used["prompt_tokens"], used["completion_tokens"]
        return AIMessageChunk(
            "", usage_metadata={"input_tokens": into, "output_tokens": out, "total_tokens": into + out}
        )
    delta = told["choices"][0]["delta"]
    kwargs = {"reasoning_content": delta["reasoning_content"]} if "reasoning_content" in delta else {}
    calls: Any = [
        {"index": c["index"], "id": c.get("id"), "name": c["function"].get("name"), "args": c["function"]["arguments"]}
        for c in delta.get("tool_calls") or ()
    ]
    return AIMessageChunk(delta.get("content") or "", additional_kwargs=kwargs, tool_call_chunks=calls)


model = Scripted()


async def think(state: MessagesState) -> dict[str, list[BaseMessage]]:
    return {"messages": [await model.ainvoke(state["messages"])]}


async def act(state: MessagesState) -> dict[str, list[BaseMessage]]:
    """Calls what the model asks for; asks before it deletes."""
    asked = state["messages"][-1]
    assert isinstance(asked, AIMessage)
    return {"messages": [await _done(call) for call in asked.tool_calls]}


async def _done(call: Any) -> ToolMessage:
    return ToolMessage(await _call(call["name"], call["args"]), tool_call_id=call["id"], name=call["name"])


async def _call(name: str, args: dict[str, Any]) -> str:
    if name == "breaks":
        raise RuntimeError("what somebody said: secret")
    if name == "delete":
        decided = interrupt({"message": "Run delete?", "name": name, "args": args})
        file = decided["file"] if isinstance(decided, dict) else args["file"]
        return orjson.dumps({"deleted": file} if decided else {"error": "rejected"}).decode()
    found = _BY_NAME.get(name)
    return '{"error":"unknown_tool"}' if found is None else str(await found.ainvoke(args))


def more(state: MessagesState) -> str:
    last = state["messages"][-1]
    return "act" if isinstance(last, AIMessage) and last.tool_calls else END


def _again(error: Exception) -> bool:
    return isinstance(error, httpx.HTTPStatusError) and error.response.status_code != 400


_RETRY = RetryPolicy(max_attempts=3, initial_interval=0.02, retry_on=_again)
graph = StateGraph(MessagesState)
graph.add_node("think", think, retry_policy=_RETRY)
graph.add_node("act", act)
graph.add_edge(START, "think")
graph.add_conditional_edges("think", more, ["act", END])
graph.add_edge("act", "think")
adapted = langgraph.agent(graph.compile(), tools=TOOLS)
