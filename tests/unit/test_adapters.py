"""Adapters without a network: what is read and written on the wires, what a model is given, what importing costs."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Mapping
from typing import Any, Literal

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_worker.adapters import Limits, Tool, client_tool, conversation, declaring, tool, toolbox
from agent_worker.adapters.anthropic import Messages
from agent_worker.adapters.conversation import AssistantTurn, Image, ToolTurn, ToolUse, Turn, UserTurn
from agent_worker.adapters.http import Broken, Caller, Retries, failed_by, failed_with
from agent_worker.adapters.loop import Question
from agent_worker.adapters.openai_compatible import ChatAnswer, ChatCompletions, Responses
from agent_worker.adapters.sse import EVENT_BYTES_MAX, EventParser, EventTooLarge, ServerEvent
from agent_worker.errors import ArgumentsInvalid, ModelFailed
from agent_worker.tools import Invocation
from broker.errors import RunErrorCode
from broker.events import Participant
from broker.transcript import Message

FRAMEWORKS = ("agents", "httpx", "langchain_core", "langgraph", "mcp", "openai", "pydantic_ai", "pydantic")
MODULES = ("ag_ui", "anthropic", "generator", "langgraph", "mcp", "openai_agents", "openai_compatible", "pydantic_ai")
RUN = "run_a"


def test_importing_an_adapter_imports_no_framework() -> None:
    code = f"""
import sys
import {", ".join(f"agent_worker.adapters.{name}" for name in MODULES)}
print([name for name in {FRAMEWORKS!r} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- server-sent events --------------------------------------------------------------------------------------------------

STREAM = b'event: a\r\ndata: {"x":1}\r\n\r\n: comment\ndata: one\ndata: two\n\nid: 7\n\ndata:\xc3\xa4\r\rdata: open'
EVENTS = [ServerEvent("a", '{"x":1}'), ServerEvent("message", "one\ntwo"), ServerEvent("message", "ä")]


@given(st.lists(st.integers(0, len(STREAM)), max_size=8))
def test_events_are_the_same_wherever_they_are_cut(cuts: list[int]) -> None:
    parser, places = EventParser(), [0, *sorted(cuts), len(STREAM)]
    pieces = [STREAM[a:b] for a, b in itertools.pairwise(places)]
    assert [event for piece in pieces for event in parser.feed(piece)] == EVENTS


def test_an_event_without_end_is_refused() -> None:
    parser = EventParser()
    lines = b"".join(b"data: " + b"x" * 65_536 + b"\n" for _ in range(EVENT_BYTES_MAX // 65_536 + 2))
    with pytest.raises(EventTooLarge):
        list(parser.feed(lines))
    with pytest.raises(EventTooLarge):
        list(EventParser().feed(b"x" * (EVENT_BYTES_MAX + 1)))


# --- what a model is given -----------------------------------------------------------------------------------------------


def said(role: str, text: str, *, id_: str = "", run: str = RUN, reason: str = "complete", **more: Any) -> Message:
    message = Message(id_ or f"{role}-{text}", role, 1, run=run, **more)
    message.put(0, text)
    message.end(2, reason)
    return message


class Context:
    """As much of a SessionContext as the conversation asks for."""

    run_id = RUN
    input = None
    attempt = 1

    def __init__(self, *messages: Message) -> None:
        self._messages = list(messages)

    async def history(self, limit: int) -> list[Message]:
        return self._messages[-limit:]


async def turns_of(*messages: Message, limits: Limits | None = None) -> conversation.Past:
    context: Any = Context(*messages)
    return await conversation.read(context, limits or Limits())


async def test_calls_stand_with_their_results() -> None:
    past = await turns_of(
        said("user", "go"),
        said("assistant", "I look. "),
        said("reasoning", "hm"),
        said("tool_call", '{"q":1}', id_="c1", name="look"),
        said("tool_call", "no json", id_="c2", name="look", run="run_0"),
        said("tool", "one", tool_call_id="c1"),
        said("user", "more"),
    )
    assert past.turns == [
        UserTurn("go"),
        AssistantTurn("I look. ", (ToolUse("c1", "look", {"q": 1}), ToolUse("c2", "look", {}))),
        ToolTurn({"c1": ("look", "one"), "c2": ("look", conversation.NO_RESULT)}),
        UserTurn("more"),
    ]
    assert past.unfinished == []


async def test_what_an_earlier_attempt_left() -> None:
    past = await turns_of(
        said("user", "go"),
        said("assistant", "Let me see. "),
        said("tool_call", "{}", id_="c1", name="look"),
    )
    assert past.unfinished == [ToolUse("c1", "look", {})]
    assert not past.answered
    past = await turns_of(said("user", "go"), said("assistant", "half a ", reason="worker_lost"))
    assert past.turns[-1] == AssistantTurn("half a ", partial=True)
    assert not past.answered
    assert (await turns_of(said("user", "go"), said("assistant", "all of it"))).answered


async def test_several_people_are_told_apart() -> None:
    ann, bob = Participant("user", "u1", name="Ann"), Participant("user", "u2")
    past = await turns_of(said("user", "hi", by=ann), said("user", "ho", by=bob))
    assert past.turns == [UserTurn("Ann: hi\n\nu2: ho")]
    assert (await turns_of(said("user", "hi", by=ann))).turns == [UserTurn("hi")]


async def test_only_the_newest_that_fit() -> None:
    old = [said("user", "x" * 60, id_=f"u{i}", run=f"run_{i}") for i in range(5)]
    past = await turns_of(*old, limits=Limits(chars=130))
    assert past.turns == [UserTurn("\n\n".join(["x" * 60] * 2))]
    # The last word of a user is there whatever its length.
    assert (await turns_of(said("user", "y" * 500), limits=Limits(chars=130))).turns == [UserTurn("y" * 500)]
    cut = await turns_of(
        said("user", "go"),
        said("tool_call", "{}", id_="c1", name="look"),
        said("tool", "z" * 99, tool_call_id="c1"),
        limits=Limits(result_chars=10),
    )
    result = cut.turns[-1]
    assert isinstance(result, ToolTurn)
    assert result.results["c1"][1] == f"{'z' * 10}\n[89 more characters were left out]"


# --- wires ---------------------------------------------------------------------------------------------------------------

PICTURE = Image("image/png", "AAAA")
TURNS: tuple[Turn, ...] = (
    UserTurn("look", (PICTURE,)),
    AssistantTurn("I do. ", (ToolUse("c1", "add", {"a": 1}),)),
    ToolTurn({"c1": ("add", "2")}),
    AssistantTurn("half ", partial=True),
)


def test_chat_completions() -> None:
    asked = ChatCompletions("m", "http://x/v1", "key", {"temperature": 0}).request(Question("Be brief.", TURNS, [ADD]))
    assert (asked.url, asked.headers["Authorization"]) == ("http://x/v1/chat/completions", "Bearer key")
    body = asked.body
    assert (body["model"], body["stream"], body["temperature"]) == ("m", True, 0)
    system, user, assistant, result, partial = body["messages"]
    assert system == {"role": "system", "content": "Be brief."}
    assert user["content"][1]["image_url"]["url"] == "data:image/png;base64,AAAA"
    assert assistant["tool_calls"][0]["function"] == {"name": "add", "arguments": '{"a":1}'}
    assert result == {"role": "tool", "tool_call_id": "c1", "content": "2"}
    assert partial == {"role": "assistant", "content": "half "}
    assert "Authorization" not in ChatCompletions("m", "http://x", None, {}).request(Question("", TURNS, [])).headers


def test_responses_and_messages() -> None:
    items = Responses("m", "http://x/v1", None, {}).request(Question("Be brief.", TURNS, [ADD])).body
    assert (items["store"], items["instructions"]) == (False, "Be brief.")
    assert [item.get("type", item.get("role")) for item in items["input"]] == [
        *("user", "assistant", "function_call", "function_call_output", "assistant")
    ]
    thinking = {"thinking": {"type": "enabled", "budget_tokens": 1024}}
    told = Messages("m", "http://x", "key", 100, thinking).request(Question("Be brief.", TURNS, [ADD]))
    assert told.headers["x-api-key"] == "key"
    assert [m["role"] for m in told.body["messages"]] == ["user", "assistant", "user", "assistant"]
    assert told.body["messages"][-1]["content"] == [{"type": "text", "text": "half"}]
    # In the middle of calls that another attempt made there are no thoughts to give back.
    assert "thinking" not in told.body
    again = Messages("m", "http://x", "key", 100, thinking).request(Question("", [*TURNS, UserTurn("more")], []))
    assert "thinking" in again.body


def events(*chunks: Mapping[str, Any]) -> list[ServerEvent]:
    return [ServerEvent("message", orjson.dumps(chunk).decode()) for chunk in chunks]


def test_what_an_answer_may_hold() -> None:
    answer = ChatAnswer()
    calls = [{"index": 0, "id": "c", "function": {"name": "add", "arguments": "not js"}}]
    for event in events(
        {"choices": [{"delta": {"content": None, "tool_calls": calls}}]},
        {"choices": [{"delta": {"tool_calls": [{"index": 0, "function": {"arguments": "on"}}]}}]},
        {"choices": [{"delta": {}, "finish_reason": "tool_calls"}]},
        {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}},
    ):
        assert list(answer.take(event)) == []
    assert answer.whole
    assert not answer.over
    assert answer.turn("").calls == (ToolUse("c", "add", {}, invalid=True),)
    with pytest.raises(ModelFailed, match="withholds"):
        list(ChatAnswer().take(events({"choices": [{"delta": {}, "finish_reason": "content_filter"}]})[0]))
    for odd in ("no json", "[]"):
        with pytest.raises(Broken):
            list(ChatAnswer().take(ServerEvent("message", odd)))
    with pytest.raises(Broken) as caught:
        list(ChatAnswer().take(events({"error": {"code": "rate_limit_exceeded", "message": "secret"}})[0]))
    assert caught.value.failed.code == RunErrorCode.MODEL_RATE_LIMITED
    assert "secret" not in str(caught.value.failed)


# --- failures ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "code"),
    [(400, "model_refused"), (401, "model_refused"), (429, "model_rate_limited"), (503, "model_unavailable")],
)
def test_what_a_status_means(status: int, code: str) -> None:
    assert failed_with(status).code == code
    error = RuntimeError()
    error.status_code = status  # type: ignore[attr-defined]
    found = failed_by(error)
    assert found is not None
    assert found.code == code
    assert failed_by(ConnectionResetError()) is not None
    assert failed_by(ValueError()) is None


async def test_asked_again_only_so_often() -> None:
    told: list[None] = []
    http: Any = None
    caller = Caller(http, Retries(attempts=3, first_s=0.001, told_s=5), lambda: told.append(None))
    broken = Broken(failed_with(503))
    await caller.wait(broken)
    await caller.wait(Broken(failed_with(503), retry_after_s=0.0))
    with pytest.raises(ModelFailed):
        await caller.wait(broken)
    assert len(told) == 2
    caller.worked()
    await caller.wait(broken)
    # A service that asks for more patience than we have is not asked again.
    with pytest.raises(ModelFailed):
        await caller.wait(Broken(failed_with(429), retry_after_s=6.0))


# --- tools ---------------------------------------------------------------------------------------------------------------


@tool
async def add(a: int, b: int | None = None, how: Literal["fast", "slow"] = "fast") -> int:
    """Adds."""
    return a + (b or 0)


ADD = Tool("add", add.function, "Adds.", {"type": "object", "properties": {"a": {"type": "integer"}}})


async def test_a_tool_made_of_a_function() -> None:
    @tool(name="own", needs_permission=True)
    async def made(x: list[str], call: Invocation) -> str:
        return f"{x} {call.tool_call_id}"

    assert made.parameters == {
        "type": "object",
        "properties": {"x": {"type": "array", "items": {"type": "string"}}},
        "required": ["x"],
        "additionalProperties": False,
    }
    assert (made.name, made.needs_permission) == ("own", True)
    assert await made.function(Invocation("own", {"x": ["a"]}, "c1", "k")) == "['a'] c1"
    toolbox.check(made, {"x": ["a"]})
    with pytest.raises(ArgumentsInvalid):
        toolbox.check(made, {"x": "a"})


def test_what_is_no_tool() -> None:
    async def odd(x: complex) -> None: ...

    with pytest.raises(TypeError, match="no JSON Schema"):
        tool(odd)
    with pytest.raises(ValueError, match="different names: add"):
        declaring.as_tools([ADD, client_tool("add")])


async def test_failures_at_once_are_one_failure() -> None:
    async def fails(error: Exception) -> None:
        raise error

    with pytest.raises(ModelFailed):
        await toolbox.together([fails(ValueError()), fails(failed_with(500))])
    assert await toolbox.together([]) == []
