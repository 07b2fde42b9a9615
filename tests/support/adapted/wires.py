"""The wires by which the model of the tests is asked: what a request says, and how an answer is written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import orjson

from tests.support.adapted.script import Asked, Script

Json = dict[str, Any]


def _text(content: Any) -> str:
    if isinstance(content, list):
        return "".join(str(part.get("text") or "") for part in content)
    return str(content or "")


def asked_of(messages: Sequence[tuple[str, str]], tools: Sequence[str], images: int) -> Asked:
    """Of (role, text) pairs: user, assistant or tool. A user's word that only asks to go on is none of the user's."""
    users: list[str] = []
    said, results = "", list[str]()
    for role, text in messages:
        if role == "user" and "Your answer was interrupted" not in text:
            users.append(text)
            said, results = "", []
        elif role == "assistant":
            said += text
        elif role == "tool":
            said = ""
            results.append(text)
    return Asked(users, said, results, tools, images)


def data(event: Json, name: str | None = None) -> bytes:
    head = b"" if name is None else f"event: {name}\n".encode()
    return head + b"data: " + orjson.dumps(event) + b"\n\n"


# --- Chat Completions ----------------------------------------------------------------------------------------------------


def chat_asked(body: Json) -> Asked:
    messages = [(m["role"], _text(m.get("content"))) for m in body["messages"]]
    parts = [p for m in body["messages"] if isinstance(m.get("content"), list) for p in m["content"]]
    images = sum(p.get("type") == "image_url" for p in parts)
    _check_pairs(
        [c["id"] for m in body["messages"] for c in m.get("tool_calls") or ()],
        [m["tool_call_id"] for m in body["messages"] if m["role"] == "tool"],
    )
    return asked_of(messages, [t["function"]["name"] for t in body.get("tools") or ()], images)


def _check_pairs(calls: Sequence[str], results: Sequence[str]) -> None:
    """No call without its one result, as providers ask for."""
    assert sorted(calls) == sorted(results), (calls, results)


def chat_written(script: Script, n: int, _body: Json) -> Iterator[bytes]:
    def chunk(delta: Json, finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return data(
            {"id": f"c{n}", "object": "chat.completion.chunk", "created": 1, "model": "scripted", "choices": [choice]}
        )

    yield chunk({"role": "assistant", "content": ""})
    for thought in script.reasoning:
        yield chunk({"reasoning_content": thought})
    for word in script.words:
        yield chunk({"content": word})
    if script.call is not None:
        name, args = script.call
        whole = orjson.dumps(args).decode()
        function: Json = {"name": name, "arguments": whole[:3]}
        yield chunk({"tool_calls": [{"index": 0, "id": f"call_m{n}", "type": "function", "function": function}]})
        yield chunk({"tool_calls": [{"index": 0, "function": {"arguments": whole[3:]}}]})
    yield chunk({}, "stop" if script.call is None else "tool_calls")
    into, out = script.usage
    usage = {
        "prompt_tokens": into,
        "completion_tokens": out,
        "total_tokens": into + out,
        "prompt_tokens_details": {"cached_tokens": 3},
        "completion_tokens_details": {"reasoning_tokens": 2},
    }
    yield data(
        {
            "id": f"c{n}",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": "scripted",
            "choices": [],
            "usage": usage,
        }
    )
    yield b"data: [DONE]\n\n"


# --- Responses -----------------------------------------------------------------------------------------------------------


def responses_asked(body: Json) -> Asked:
    messages: list[tuple[str, str]] = []
    images = 0
    for item in body["input"]:
        match item.get("type", "message"):
            case "message":
                messages.append((item["role"], _text(item["content"])))
                content = item["content"] if isinstance(item["content"], list) else []
                images += sum(part["type"] == "input_image" for part in content)
            case "function_call_output":
                messages.append(("tool", item["output"]))
    calls = [item["call_id"] for item in body["input"] if item.get("type") == "function_call"]
    _check_pairs(calls, [item["call_id"] for item in body["input"] if item.get("type") == "function_call_output"])
    return asked_of(messages, [t["name"] for t in body.get("tools") or ()], images)


def responses_written(script: Script, n: int, _body: Json) -> Iterator[bytes]:
    number = iter(range(1_000_000))

    def event(type_: str, **fields: Any) -> bytes:
        return data({"type": type_, "sequence_number": next(number), **fields}, type_)

    base: Json = {"id": f"resp_{n}", "object": "response", "model": "scripted", "created_at": 1}
    yield event("response.created", response=base | {"status": "in_progress", "output": []})
    output: list[Json] = []
    for thought in script.reasoning:
        yield event(
            "response.reasoning_summary_text.delta", item_id="rs", output_index=0, summary_index=0, delta=thought
        )
    if script.reasoning:
        output.append({"type": "reasoning", "id": "rs", "summary": [], "encrypted_content": "sealed"})
        yield event("response.output_item.done", output_index=0, item=output[-1])
    for word in script.words:
        yield event(
            "response.output_text.delta", item_id="msg", output_index=1, content_index=0, delta=word, logprobs=[]
        )
    if script.words:
        content = [{"type": "output_text", "text": "".join(script.words), "annotations": []}]
        output.append(
            {"type": "message", "id": f"msg_{n}", "role": "assistant", "status": "completed", "content": content}
        )
        yield event("response.output_item.done", output_index=1, item=output[-1])
    if script.call is not None:
        name, args = script.call
        call = {"type": "function_call", "id": f"fc_{n}", "call_id": f"call_m{n}", "name": name, "status": "completed"}
        output.append(call | {"arguments": orjson.dumps(args).decode()})
        yield event("response.output_item.done", output_index=2, item=output[-1])
    into, out = script.usage
    usage = {
        "input_tokens": into,
        "output_tokens": out,
        "total_tokens": into + out,
        "input_tokens_details": {"cached_tokens": 3},
        "output_tokens_details": {"reasoning_tokens": 2},
    }
    yield event("response.completed", response=base | {"status": "completed", "output": output, "usage": usage})


# --- Messages ------------------------------------------------------------------------------------------------------------


def anthropic_asked(body: Json) -> Asked:
    messages: list[tuple[str, str]] = []
    images = 0
    calls: list[str] = []
    results: list[str] = []
    for message in body["messages"]:
        content = message["content"]
        blocks = content if isinstance(content, list) else [{"type": "text", "text": content}]
        for block in blocks:
            match block["type"]:
                case "text":
                    assert block["text"], "the API refuses empty texts"
                    messages.append((message["role"], block["text"]))
                case "tool_use":
                    calls.append(block["id"])
                case "tool_result":
                    results.append(block["tool_use_id"])
                    messages.append(("tool", _text(block["content"])))
                case "image":
                    images += 1
    assert body["messages"][0]["role"] == "user"
    _check_pairs(calls, results)
    return asked_of(messages, [t["name"] for t in body.get("tools") or ()], images)


def anthropic_written(script: Script, n: int, _body: Json) -> Iterator[bytes]:
    def event(type_: str, **fields: Any) -> bytes:
        return data({"type": type_, **fields}, type_)

    into, out = script.usage
    usage = {"input_tokens": into - 3, "cache_read_input_tokens": 3, "output_tokens": 1}
    start = {
        "id": f"msg_{n}",
        "type": "message",
        "role": "assistant",
        "model": "scripted",
        "content": [],
        "usage": usage,
    }
    yield event("message_start", message=start)
    yield event("ping")
    index = 0

    def block(begin: Json, deltas: Sequence[Json]) -> Iterator[bytes]:
        nonlocal index
        yield event("content_block_start", index=index, content_block=begin)
        for delta in deltas:
            yield event("content_block_delta", index=index, delta=delta)
        yield event("content_block_stop", index=index)
        index += 1

    if script.reasoning:
        thoughts: list[Json] = [{"type": "thinking_delta", "thinking": thought} for thought in script.reasoning]
        yield from block(
            {"type": "thinking", "thinking": ""}, [*thoughts, {"type": "signature_delta", "signature": "s"}]
        )
    if script.words:
        yield from block({"type": "text", "text": ""}, [{"type": "text_delta", "text": word} for word in script.words])
    if script.call is not None:
        name, args = script.call
        whole = orjson.dumps(args).decode()
        parts = [{"type": "input_json_delta", "partial_json": part} for part in ("", whole[:3], whole[3:])]
        yield from block({"type": "tool_use", "id": f"toolu_{n}", "name": name, "input": {}}, parts)
    reason = "end_turn" if script.call is None else "tool_use"
    yield event("message_delta", delta={"stop_reason": reason, "stop_sequence": None}, usage={"output_tokens": out})
    yield event("message_stop")


# --- AG-UI ---------------------------------------------------------------------------------------------------------------

_APPROVAL: Json = {
    "type": "object",
    "properties": {"approved": {"type": "boolean"}, "editedArgs": {"type": "object"}},
    "required": ["approved"],
}


def agui_asked(body: Json) -> Asked:
    """Checked by AG-UI's own model. A decision of a resume counts as a result of the call."""
    from ag_ui.core import RunAgentInput

    RunAgentInput.model_validate(body)
    pairs = [(m["role"], _text(m.get("content"))) for m in body["messages"]]
    parts = [p for m in body["messages"] if isinstance(m.get("content"), list) for p in m["content"]]
    calls = [c["id"] for m in body["messages"] for c in m.get("toolCalls") or ()]
    results = [m["toolCallId"] for m in body["messages"] if m["role"] == "tool"]
    if not body.get("resume"):
        _check_pairs(calls, results)
    tools = [t["name"] for t in body.get("tools") or ()]
    asked = asked_of(pairs, tools, sum(p["type"] == "image" for p in parts))
    if body.get("resume"):
        decided = body["resume"][0].get("payload") or {}
        return replace(asked, results=[orjson.dumps(decided).decode()])
    return asked


def agui_written(script: Script, n: int, body: Json) -> Iterator[bytes]:
    """Executes its own tools, asks before it deletes, and leaves those of the frontend to it."""
    run = {"threadId": body["threadId"], "runId": body["runId"]}
    yield data({"type": "RUN_STARTED", **run})
    yield data({"type": "STATE_SNAPSHOT", "snapshot": {"asked": n}})
    for thought in script.reasoning:
        yield data({"type": "REASONING_MESSAGE_CONTENT", "messageId": f"r{n}", "delta": thought})
    outcome: Json | None = None
    result = ""
    resumed = body.get("resume")
    if resumed:
        call = next(c for m in reversed(body["messages"]) for c in m.get("toolCalls") or ())
        decided = resumed[0].get("payload") or {}
        args = decided.get("editedArgs") or orjson.loads(call["function"]["arguments"])
        result = orjson.dumps({"deleted": args["file"]} if decided.get("approved") else {"error": "rejected"}).decode()
        yield data({"type": "TOOL_CALL_RESULT", "messageId": f"m{n}", "toolCallId": call["id"], "content": result})
    elif script.call is not None:
        name, args = script.call
        for event in _agui_call(f"call_m{n}", name, args):
            yield data(event)
        if name == "delete":
            interrupt = {"id": f"int{n}", "reason": "tool_call", "message": "Run delete?", "toolCallId": f"call_m{n}"}
            outcome = {"type": "interrupt", "interrupts": [interrupt | {"responseSchema": _APPROVAL}]}
        elif name not in {t["name"] for t in body.get("tools") or ()}:
            result = _agui_result(name, args)
            yield data(
                {"type": "TOOL_CALL_RESULT", "messageId": f"m{n}", "toolCallId": f"call_m{n}", "content": result}
            )
    words = [f"result: {result}"] if result else script.words
    if words:
        yield data({"type": "TEXT_MESSAGE_START", "messageId": f"t{n}", "role": "assistant"})
        for word in words:
            yield data({"type": "TEXT_MESSAGE_CONTENT", "messageId": f"t{n}", "delta": word})
        yield data({"type": "TEXT_MESSAGE_END", "messageId": f"t{n}"})
    into, out = script.usage
    usage = [{"provider": "scripted", "model": "scripted", "inputTokens": into, "outputTokens": out}]
    finished = {"type": "RUN_FINISHED", **run, "usage": usage}
    yield data(finished if outcome is None else finished | {"outcome": outcome})


def _agui_call(id_: str, name: str, args: Json) -> Iterator[Json]:
    whole = orjson.dumps(args).decode()
    yield {"type": "TOOL_CALL_START", "toolCallId": id_, "toolCallName": name}
    yield {"type": "TOOL_CALL_ARGS", "toolCallId": id_, "delta": whole[:3]}
    yield {"type": "TOOL_CALL_ARGS", "toolCallId": id_, "delta": whole[3:]}
    yield {"type": "TOOL_CALL_END", "toolCallId": id_}


def _agui_result(name: str, args: Json) -> str:
    match name, args:
        case "add", {"a": int(a), "b": int(b)}:
            return str(a + b)
        case "add", _:
            return '{"error":"arguments_invalid"}'
        case "breaks", _:
            return '{"error":"error","message":"RuntimeError"}'
        case _:
            return '{"error":"unknown_tool"}'
