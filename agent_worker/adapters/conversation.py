"""A session's transcript as models take it: turns of users, of the assistant with its calls, and of results."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from agent_worker.context import SessionContext
from agent_worker.errors import AttachmentNotFound, ContentTooLarge
from broker.errors import ToolErrorCode
from broker.state import QueuedInput
from broker.transcript import Message

IMAGE_TYPES = ("image/jpeg", "image/png", "image/gif", "image/webp")
"""What models of all providers take."""
NO_RESULT = orjson.dumps({"error": ToolErrorCode.OUTCOME_UNKNOWN.value}).decode()


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of a conversation a model is given: the newest `messages` that have at most `chars` characters.

    A result of a tool is cut after `result_chars`. Of the images that people have attached, the newest `images` of at
    most `image_bytes` bytes each are shown; 0: none, for models that take none.
    """

    messages: int = 200
    chars: int = 200_000
    result_chars: int = 20_000
    images: int = 8
    image_bytes: int = 5_000_000


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class ToolUse:
    """A call that the model asks for. `id` is the model's, or the log's for one that the log tells of."""

    id: str
    name: str
    args: Mapping[str, Any]
    invalid: bool = False
    """What the model gave as arguments is no JSON object; `args` is empty."""


def tool_use(id_: str, name: str, arguments: str) -> ToolUse:
    """A call as the model wrote it."""
    try:
        args = orjson.loads(arguments or "{}")
    except orjson.JSONDecodeError:
        args = None
    return ToolUse(id_, name, args) if isinstance(args, dict) else ToolUse(id_, name, {}, invalid=True)


@dataclass(frozen=True, slots=True)
class Image:
    media_type: str
    data: str
    """In base64."""


@dataclass(frozen=True, slots=True)
class UserTurn:
    text: str
    images: tuple[Image, ...] = ()


@dataclass(frozen=True, slots=True)
class AssistantTurn:
    """What the model said. `native` is the same in the provider's own form, with what only it understands, if it was said
    in this attempt; `partial`: it was cut off, and is to be gone on with.
    """

    text: str = ""
    calls: tuple[ToolUse, ...] = ()
    native: Any = None
    partial: bool = False


@dataclass(frozen=True, slots=True)
class ToolTurn:
    """Results, by the call's id: name, content."""

    results: Mapping[str, tuple[str, str]]


Turn = UserTurn | AssistantTurn | ToolTurn


@dataclass(slots=True)
class Past:
    """What was before this attempt: the turns, and the calls of this run that have no result yet."""

    turns: list[Turn]
    unfinished: list[ToolUse] = field(default_factory=list)
    answered: bool = False
    """The run's answer was whole when its worker died: nothing is left to be said."""


async def fitting(ctx: SessionContext, limits: Limits) -> list[Message]:
    """The messages that a model is given, oldest first."""
    return _fitting([m for m in await ctx.history(limits.messages) if m.role != "reasoning"], limits)


async def read(ctx: SessionContext, limits: Limits, *, own: bool = True) -> Past:
    """The conversation up to now, the run's own inputs included, and, if `own`, what earlier attempts of it said and did."""
    messages = await fitting(ctx, limits)
    if not own:
        messages = [m for m in messages if m.run != ctx.run_id or m.role == "user"]
    show = await shown_images(ctx, messages, limits)
    results = {m.tool_call_id: m.text for m in messages if m.role == "tool"}
    past = Past([])
    named = several_speak(messages)
    for group in _groups(messages):
        _add(past, group, ctx.run_id, named, show, results, limits)
    last = messages[-1] if messages else None
    if last is not None and last.run == ctx.run_id and last.role == "assistant":
        past.answered = last.reason == "complete"
    if not past.turns and ctx.input is not None:
        past.turns.append(UserTurn(ctx.input.content))
    return past


def _add(
    past: Past,
    group: Sequence[Message],
    run_id: str,
    named: bool,
    show: Mapping[str, Sequence[Image]],
    results: Mapping[str | None, str],
    limits: Limits,
) -> None:
    first = group[0]
    match first.role:
        case "user":
            text = "\n\n".join(said_by(m, named) for m in group)
            append(past.turns, UserTurn(text, tuple(image for m in group for image in show.get(m.id, ()))))
        case "assistant":
            partial = first.run == run_id and group[-1].reason != "complete"
            append(past.turns, AssistantTurn("".join(m.text for m in group), partial=partial))
        case "tool_call":
            uses = [(m, ToolUse(m.id, m.name or "", _args_of(m))) for m in group]
            open_ = [use for m, use in uses if m.run == run_id and m.id not in results]
            past.unfinished += open_
            done = [use for _, use in uses if use not in open_]
            if done:
                cut = {use.id: (use.name, clip(results.get(use.id, NO_RESULT), limits.result_chars)) for use in done}
                append(past.turns, AssistantTurn(calls=tuple(done)))
                past.turns.append(ToolTurn(cut))


def append(turns: list[Turn], turn: Turn) -> None:
    """Turns of one side in a row are one turn: some models take no others."""
    match (turns[-1] if turns else None), turn:
        case UserTurn() as last, UserTurn():
            turns[-1] = UserTurn(f"{last.text}\n\n{turn.text}", last.images + turn.images)
        case AssistantTurn(calls=()) as last, AssistantTurn():
            turns[-1] = AssistantTurn(last.text + turn.text, turn.calls, partial=turn.partial)
        case _:
            turns.append(turn)


def _groups(messages: Iterable[Message]) -> list[list[Message]]:
    """Messages of one role in a row. Results stand with their calls, not where they came."""
    groups: list[list[Message]] = []
    before = ""
    for message in messages:
        if message.role in ("user", "assistant", "tool_call"):
            if groups and before == message.role:
                groups[-1].append(message)
            else:
                groups.append([message])
        before = message.role
    return groups


def _fitting(messages: list[Message], limits: Limits) -> list[Message]:
    """The newest that fit, from a user's word on; the last user's word is there in any case, cut if it must be."""
    room = limits.chars
    begin = len(messages)
    for index in range(len(messages) - 1, -1, -1):
        size = messages[index].length
        room -= min(size, limits.result_chars) if messages[index].role == "tool" else size
        if room < 0:
            break
        if messages[index].role == "user":
            begin = index
    if begin < len(messages):
        return messages[begin:]
    last = max((i for i, m in enumerate(messages) if m.role == "user"), default=0)
    return messages[last:]


def several_speak(messages: Sequence[Message]) -> bool:
    """Whether several people speak, so that it must be said who."""
    return len({m.by.id for m in messages if m.role == "user" and m.by is not None}) > 1


def said_by(message: Message, named: bool) -> str:
    text = message.text
    if message.attachments:
        text = "\n".join([text, *(_mention(reference) for reference in message.attachments)]).lstrip("\n")
    if not named or message.by is None:
        return text
    return f"{message.by.name or message.by.id}: {text}"


def _mention(reference: Mapping[str, Any]) -> str:
    return f"[attached: {reference.get('name')}, {reference.get('mediaType')}, {reference.get('size')} bytes]"


def _args_of(message: Message) -> Mapping[str, Any]:
    try:
        args = orjson.loads(message.text)
    except orjson.JSONDecodeError:
        return {}
    return args if isinstance(args, dict) else {}


async def shown_images(ctx: SessionContext, messages: Sequence[Message], limits: Limits) -> dict[str, list[Image]]:
    """The newest images, by the message that they are attached to."""
    found: dict[str, list[Image]] = {}
    left = limits.images
    for message in reversed(messages):
        if message.role == "user" and left > 0:
            images = await images_of(ctx, message.attachments, limits, left)
            left -= len(images)
            found[message.id] = images
    return found


async def images_of(
    ctx: SessionContext, references: Iterable[Mapping[str, Any]], limits: Limits, most: int
) -> list[Image]:
    """Attached images that a model may be shown; one that is too large or gone is left out, its name stays."""
    images: list[Image] = []
    for reference in references:
        if len(images) == most or reference.get("mediaType") not in IMAGE_TYPES:
            continue
        try:
            file = await ctx.attachment(reference["id"])
            data = await file.read(limits.image_bytes)
        except (AttachmentNotFound, ContentTooLarge):
            continue
        images.append(Image(file.media_type, base64.b64encode(data).decode()))
    return images


async def steered(ctx: SessionContext, inputs: Sequence[QueuedInput], limits: Limits) -> list[UserTurn]:
    """Inputs that came in mid-run, as a turn."""
    if not inputs:
        return []
    images: list[Image] = []
    parts: list[str] = []
    for queued in inputs:
        images += await images_of(ctx, queued.attachments, limits, limits.images - len(images))
        parts.append("\n".join([queued.content, *map(_mention, queued.attachments)]).lstrip("\n"))
    return [UserTurn("\n\n".join(parts), tuple(images))]


def clip(text: str, chars: int) -> str:
    """The text, or its beginning and how much is left out."""
    return text if len(text) <= chars else f"{text[:chars]}\n[{len(text) - chars} more characters were left out]"
