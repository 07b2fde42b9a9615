"""The messages of a session as AG-UI has them, and what of them a client has already. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from broker.subjects import MAIN_LANE
from broker.transcript import Message, message_id_of
from gateway.agui.content import Json, agent_metadata, attached, text_of, user_content

_PREFIX = message_id_of("")
_OWN = ("system", "developer")
"""Roles of messages that a client keeps for itself: no log has them."""
STREAMED_ROLES = ("assistant", "user", "system", "developer")
"""Roles that a streamed text may have in AG-UI."""


@dataclass(frozen=True, slots=True)
class Reader:
    """Who is shown a session. `modern`: it speaks AG-UI 1.0; `results` are what it calls its own tool messages, by the call
    that they answer.
    """

    session: str
    modern: bool
    results: Mapping[str, str] = field(default_factory=dict)


def subagent_of(lane: str | None, run: str | None) -> str | None:
    """The subagent that a message is of: the run of an agent that another one asked; None: the main one."""
    return None if lane in (None, MAIN_LANE) else run


def shown_id(message: Message) -> str:
    """The id of a message in AG-UI: that of an input is the one that its sender gave it."""
    return message.id.removeprefix(_PREFIX) if message.role == "user" else message.id


def role_of(message: Message) -> str:
    """The role of a text; one that AG-UI does not know is the agent's."""
    return message.role if message.role in STREAMED_ROLES else "assistant"


def is_question(message: Message) -> bool:
    """What one agent asks another: it stands in the description of the subagent, and is nobody's message."""
    return message.role == "user" and subagent_of(message.lane, message.run) is not None


def conversation(messages: Iterable[Message], reader: Reader) -> list[Json]:
    """The messages in the order in which a client's own reducer puts them: results stand behind their calls."""
    groups: list[list[Json]] = []
    calls: dict[str, list[Json]] = {}
    for message in messages:
        if message.rolled_back or is_question(message):
            continue
        shown = _shown(message, reader)
        group = calls.get(message.tool_call_id or "") if message.role == "tool" else None
        if group is not None:
            group.append(shown)
            continue
        groups.append([shown])
        if message.role == "tool_call":
            calls[message.id] = groups[-1]
    return [shown for group in groups for shown in group]


def _shown(message: Message, reader: Reader) -> Json:
    tag = subagent_of(message.lane, message.run)
    of: Json = {} if tag is None else {"subagentRunId": tag}
    if message.role == "user":
        content = user_content(message.text, message.attachments, reader.session, modern=reader.modern)
        return {"id": shown_id(message), "role": "user", "content": content, **of}
    if message.attachments and reader.modern:
        of["metadata"] = agent_metadata(message.attachments)
    match message.role:
        case "tool_call":
            function = {"name": message.name or "", "arguments": message.text}
            call = {"id": message.id, "type": "function", "function": function}
            return {"id": message.id, "role": "assistant", "toolCalls": [call], **of}
        case "tool":
            call_id = message.tool_call_id or ""
            id_ = reader.results.get(call_id, message.id)
            return {"id": id_, "role": "tool", "toolCallId": call_id, "content": message.text, **of}
        case "reasoning":
            return {"id": message.id, "role": "reasoning", "content": message.text, **of}
        case _:
            return {"id": message.id, "role": role_of(message), "content": message.text, **of}


def lacks(client: Sequence[Json], shown: Sequence[Json], session: str) -> bool:
    """Whether a client with these messages lacks something of what the log shows, or has it otherwise.

    Reasoning that it lacks is left out: clients need not keep it.
    """
    texts, calls, answered = _index(client)
    files = {m["id"]: attached(m, session) for m in client}
    for message in shown:
        if not attached(message, session) <= files.get(message["id"], set()):
            return True
        match message["role"]:
            case "reasoning" if message["id"] not in texts:
                continue
            case "tool":
                if message["toolCallId"] not in answered:
                    return True
            case _ if "toolCalls" in message:
                call = message["toolCalls"][0]
                if calls.get(call["id"]) != call["function"]["arguments"]:
                    return True
            case _:
                if texts.get(message["id"]) != text_of(message):
                    return True
    return False


def _index(client: Sequence[Json]) -> tuple[dict[str, str], dict[str, str], set[str]]:
    texts: dict[str, str] = {}
    calls: dict[str, str] = {}
    answered: set[str] = set()
    for message in client:
        texts[message["id"]] = text_of(message)
        for call in message.get("toolCalls") or ():
            calls[call["id"]] = call["function"]["arguments"]
        if message["role"] == "tool":
            answered.add(str(message.get("toolCallId")))
    return texts, calls, answered


def snapshot(client: Sequence[Json], shown: Sequence[Json], fresh: Sequence[Json]) -> list[Json]:
    """What a MESSAGES_SNAPSHOT must hold for a client to lose nothing: its own, the log's, and what it is about to say."""
    return [*(m for m in client if m["role"] in _OWN), *shown, *fresh]


def older_than(client: Sequence[Json], shown: Sequence[Json]) -> list[Json]:
    """What a client has from before what it is shown."""
    there = {m["id"] for m in shown}
    first = next((n for n, m in enumerate(client) if m["id"] in there), 0)
    return [m for m in client[:first] if m["role"] not in _OWN]


def in_place(client: Sequence[Json], whole: Sequence[Json]) -> list[Json] | None:
    """What a client must be left with before it is given `whole`, so that it has it in its order; None: all it has.

    Reducers leave a message where it is, and put new ones behind: a client that has just added its own message, and gets
    what others said before it, would have it in front of that.
    """
    ids = [m["id"] for m in whole]
    kept = [m["id"] for m in client if m["id"] in set(ids)]
    same = next((n for n, id_ in enumerate(kept) if id_ != ids[n]), len(kept))
    return None if same == len(kept) else list(whole[:same])
