"""What a page of the AI SDK asks for with a POST, which carries its whole conversation. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from broker.attachments import id_in_path
from broker.state import Approval, SessionState
from broker.subjects import RUN_NAME, SHORT_NAME
from gateway.http.problems import HttpCode, Problem, upload_first

_APPROVING = ("allow_once", "allow_always")
_REJECTING = ("reject_once", "reject_always", "decline")
_ANSWERED = ("output-available", "output-error")


@dataclass(frozen=True, slots=True)
class NewInput:
    """The last message is a user's. Its id is that of the input."""

    input_id: str
    content: str
    attachments: tuple[str, ...] = ()
    """The ids of those that its parts of type `file` are."""


@dataclass(frozen=True, slots=True)
class Continuation:
    """The last message is an answer with outputs and approvals in its parts; it shows the log up to entry `shown`."""

    input_id: str
    epoch: str
    shown: int
    parts: tuple[Mapping[str, Any], ...]


Command = tuple[str, str, dict[str, Any]]
"""The id of a part, the op of a command, and its fields."""


def turn_of(fields: Mapping[str, Any]) -> NewInput | Continuation:
    """The chat's `id` is the session. Raises Problem (not_supported)."""
    if fields.get("trigger") == "regenerate-message":
        raise _unsupported(
            "an answer cannot be given again in the same session: fork the session before its input, and send that there"
        )
    last = fields["messages"][-1]
    if last["role"] == "assistant":
        return _continuation(last)
    if last["role"] != "user":
        raise _unsupported("the last message must be the user's, or an answer with outputs in its parts")
    if fields.get("messageId") is not None:
        raise _unsupported(
            "a message that was sent cannot be edited: fork the session before it, and send the new one there"
        )
    return _new_input(last, fields["id"])


def _new_input(message: Mapping[str, Any], session: str) -> NewInput:
    if not re.fullmatch(SHORT_NAME, message["id"]):
        raise _unsupported("the message's `id` is that of the input: 1 to 64 of A-Z a-z 0-9 _ -")
    texts, attachments = [], []
    for part in message["parts"]:
        if part.get("type") == "text":
            texts.append(part.get("text"))
        else:
            attachments.append(_attachment(part, session))
    if not all(isinstance(text, str) for text in texts) or not (any(texts) or attachments):
        raise _unsupported("the message has no text")
    return NewInput(message["id"], "\n".join(texts), tuple(attachments))


def _attachment(part: Mapping[str, Any], session: str) -> str:
    url = part.get("url") if part.get("type") == "file" else None
    attachment_id = id_in_path(session, url) if isinstance(url, str) else None
    if attachment_id is None:
        raise upload_first(str(part.get("type")))
    return attachment_id


def _continuation(message: Mapping[str, Any]) -> Continuation:
    metadata = message.get("metadata")
    cursor = metadata.get("cursor") if isinstance(metadata, dict) else None
    epoch, _, seq = cursor.partition(":") if isinstance(cursor, str) else ("", "", "")
    if not re.fullmatch(RUN_NAME, message["id"]) or not re.fullmatch("[0-9]{1,16}", seq):
        raise _unsupported("the last message is no answer that waits: it has no `metadata.cursor` of this server")
    return Continuation(message["id"].removeprefix("run_"), epoch, int(seq), tuple(message["parts"]))


def _unsupported(text: str) -> Problem:
    return Problem(HttpCode.NOT_SUPPORTED, text)


def commands_of(turn: Continuation, state: SessionState) -> Iterator[Command]:
    """What the outputs and approvals in the message's parts do, as far as somebody waits for them."""
    for part in turn.parts:
        id_ = str(part.get("toolCallId"))
        approval, call = state.approvals.get(id_), state.calls.get(id_)
        if approval is not None and approval.status == "pending":
            decision = _decision(part, approval)
            if decision is not None:
                yield id_, "approval.respond", {"approvalId": approval.id, **decision}
        elif call is not None and (call.status, call.executor) == ("open", "client") and part.get("state") in _ANSWERED:
            claim = {"toolCallId": call.id, "claimId": _claim_id(call.id)}
            yield id_, "tool.claim", claim
            yield id_, "tool.result", claim | _outcome(part)


def _claim_id(call_id: str) -> str:
    """The same each time, so that what is sent again counts once."""
    return f"ui-{hashlib.blake2b(call_id.encode(), digest_size=12).hexdigest()}"


def _outcome(part: Mapping[str, Any]) -> dict[str, Any]:
    if part["state"] == "output-error":
        return {"error": str(part.get("errorText") or "error")}
    return {"result": part.get("output")}


def _decision(part: Mapping[str, Any], approval: Approval) -> dict[str, Any] | None:
    """The option, and the payload with it; None if the part says nothing of it."""
    match part.get("state"), part.get("output"):
        case "approval-responded", _:
            about = part.get("approval")
            approved = isinstance(about, dict) and about.get("approved") is True
            return {"option": _first(approval, _APPROVING if approved else _REJECTING)}
        case "output-error", _:
            return {"option": _first(approval, _REJECTING)}
        case "output-available", str(option) if option in approval.options:
            return {"option": option}
        case "output-available", {"option": str(option), **rest}:
            return {"option": option} | ({"payload": rest["payload"]} if "payload" in rest else {})
        case "output-available", payload:
            # To a question anything is an answer; of an approval it is refused as no option.
            return {"option": "answer", "payload": payload}
    return None


def _first(approval: Approval, wanted: tuple[str, ...]) -> str:
    return next((option for option in wanted if option in approval.options), wanted[0])
