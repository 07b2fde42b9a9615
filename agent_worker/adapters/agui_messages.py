"""Messages as AG-UI has them: what a server is told of the conversation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agent_worker.adapters import conversation
from agent_worker.adapters.conversation import Image, Limits
from agent_worker.context import SessionContext
from broker.transcript import Message

Json = dict[str, Any]


async def history(ctx: SessionContext, limits: Limits) -> list[Json]:
    """The conversation up to now. What an earlier attempt of this run had said is left out: the server says it again."""
    messages = [m for m in await conversation.fitting(ctx, limits) if m.run != ctx.run_id or m.role == "user"]
    show = await conversation.shown_images(ctx, messages, limits)
    named = conversation.several_speak(messages)
    results = {m.tool_call_id: m for m in messages if m.role == "tool"}
    told: list[Json] = []
    for message in messages:
        match message.role:
            case "user":
                text = conversation.said_by(message, named)
                told.append({"id": message.id, "role": "user", "content": _content(text, show.get(message.id, ()))})
            case "assistant":
                told.append({"id": message.id, "role": "assistant", "content": message.text})
            case "tool_call":
                told += [asked(message.id, message.name or "", message.text), _answered(message, results, limits)]
    return told


def _answered(call: Message, results: Mapping[str | None, Message], limits: Limits) -> Json:
    found = results.get(call.id)
    text = conversation.NO_RESULT if found is None else conversation.clip(found.text, limits.result_chars)
    return gave(call.id, text)


def _content(text: str, images: Sequence[Image]) -> str | list[Json]:
    if not images:
        return text
    return [{"type": "text", "text": text}, *map(_shown, images)]


def _shown(image: Image) -> Json:
    return {"type": "image", "source": {"type": "data", "value": image.data, "mimeType": image.media_type}}


def asked(id_: str, name: str, arguments: str) -> Json:
    call = {"id": id_, "type": "function", "function": {"name": name, "arguments": arguments}}
    return {"id": f"ask-{id_}", "role": "assistant", "toolCalls": [call]}


def gave(id_: str, text: str) -> Json:
    return {"id": f"res-{id_}", "role": "tool", "toolCallId": id_, "content": text}
