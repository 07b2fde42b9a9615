"""What a client asks for with a `RunAgentInput`: what in it is new, and what is there already. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from broker.errors import ErrorCode, Refused
from broker.subjects import SHORT_NAME
from gateway.agui.content import Json, attached, parts_of, text_of
from gateway.http.problems import HttpCode, Problem, upload_first

_INPUT_ID = re.compile(SHORT_NAME)


@dataclass(frozen=True, slots=True)
class Asked:
    """A run as its client asks for it. `modern`: it speaks AG-UI 1.0, for it says a `protocolVersion`."""

    session: str
    run_id: str
    modern: bool
    messages: tuple[Json, ...]
    tools: tuple[Json, ...]
    resume: tuple[Json, ...]

    @property
    def results(self) -> dict[str, Json]:
        """The client's tool messages, by the call that they answer."""
        return {m["toolCallId"]: m for m in self.messages if m["role"] == "tool" and "toolCallId" in m}

    @property
    def last_input(self) -> str | None:
        """The id of the last message of the user."""
        return next((str(m["id"]) for m in reversed(self.messages) if m["role"] == "user"), None)


def asked(fields: Mapping[str, Any]) -> Asked:
    """Reads a body that is as its schema says."""
    return Asked(
        fields["threadId"],
        fields["runId"],
        "protocolVersion" in fields,
        tuple(fields["messages"]),
        tuple(_declaration(tool) for tool in fields.get("tools") or ()),
        tuple(fields.get("resume") or ()),
    )


def _declaration(tool: Json) -> Json:
    wire = {"name": tool["name"], "description": tool.get("description") or ""}
    parameters = tool.get("parameters")
    return wire | ({"parameters": parameters} if parameters else {})


def fresh_messages(messages: Sequence[Json], is_known: Callable[[str], bool], session: str) -> list[Json]:
    """The user's messages that the log does not have: those at the end.

    Raises Problem (history_changed) for one before what is known or was said; Refused (bad_name, bad_command) or Problem
    (not_supported) for one that cannot be sent.
    """
    fresh: list[Json] = []
    for message in messages:
        if message["role"] == "user" and not is_known(message["id"]):
            fresh.append(message)
        elif fresh and message["role"] in ("user", "assistant", "tool"):
            raise history_changed(fresh[0]["id"], "stands before others that are older than it")
    for message in fresh:
        if not _INPUT_ID.fullmatch(message["id"]):
            text = "the `id` of a message to be sent must be 1-64 of A-Z a-z 0-9 _ -"
            raise Refused(ErrorCode.BAD_NAME, text, field="messages")
        parts = parts_of(message, session)
        foreign = next((kind for kind, attachment_id in parts if attachment_id is None), None)
        if foreign is not None:
            raise upload_first(foreign)
        if not parts and not text_of(message):
            raise Refused(
                ErrorCode.BAD_COMMAND, "a message to be sent must have text, or attachments", field="messages"
            )
    return fresh


def check_history(messages: Sequence[Json], shown: Sequence[Json], session: str) -> None:
    """Raises Problem (history_changed) if a message of the user is in the log with another text, or without what it has
    attached. A client may know less of it: its bytes instead of its name, or the text alone.
    """
    logged = {m["id"]: m for m in shown if m["role"] == "user"}
    for message in messages:
        known = logged.get(message["id"]) if message["role"] == "user" else None
        if known is None:
            continue
        if text_of(message) != text_of(known):
            raise history_changed(message["id"], "is in the log with another text")
        if not attached(message, session) <= attached(known, session):
            raise history_changed(message["id"], "is in the log with other attachments")


def history_changed(message_id: str, what: str) -> Problem:
    return Problem(
        HttpCode.HISTORY_CHANGED,
        f"the message {message_id[:64]!r} {what}; what is in a log stays: fork the session before it, and go on there",
        {"messageId": message_id[:64]},
    )


def result_of(message: Json) -> Json:
    """What a tool message says, as `tool.result` has it: JSON as the value that it is, other text as it is."""
    error = message.get("error")
    if isinstance(error, str) and error:
        return {"error": error}
    content = message.get("content")
    if not isinstance(content, str):
        return {"result": content}
    try:
        return {"result": orjson.loads(content)}
    except orjson.JSONDecodeError:
        return {"result": content}
