"""Files in the messages of AG-UI: what is attached to a message, as its reader has it, and back. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from broker.attachments import id_in_path, path_of
from broker.subjects import SHORT_NAME

Json = dict[str, Any]
_PROVIDER = "antiphon"
_ID = re.compile(SHORT_NAME)


def user_content(text: str, references: Sequence[Mapping[str, Any]], session: str, *, modern: bool) -> str | list[Json]:
    """The `content` of a user's message with these attachments: its text alone, or parts, each file one.

    In AG-UI 1.0 a file's source names it by its id, with the provider "antiphon"; 0.0.59 refuses such a source, and gets the
    path where the gateway has it. Either way the bytes are asked for there. Name, size and digest are in the part's
    metadata, which AG-UI leaves to applications.
    """
    if not references:
        return text
    parts: list[Json] = [{"type": "text", "text": text}] if text else []
    return parts + [_part(reference, session, modern=modern) for reference in references]


def _part(reference: Mapping[str, Any], session: str, *, modern: bool) -> Json:
    id_, media_type = str(reference.get("id", "")), str(reference.get("mediaType", ""))
    kind = media_type.partition("/")[0]
    source: Json = {"type": "url", "value": path_of(session, id_)}
    if modern:
        source = {"type": "file", "value": id_, "provider": _PROVIDER}
    metadata = {name: reference[name] for name in ("name", "size", "sha256") if name in reference}
    return {
        "type": kind if kind in ("image", "audio", "video") else "document",
        "source": source | {"mimeType": media_type},
        "metadata": metadata,
    }


def agent_metadata(references: Sequence[Mapping[str, Any]]) -> Json:
    """What an agent's message has beside its content, which in AG-UI is text: the attachments as the log has them."""
    return {"antiphon": {"attachments": [dict(reference) for reference in references]}}


def text_of(message: Json) -> str:
    """The text of a message, whatever else it has."""
    content = message.get("content")
    if not isinstance(content, list):
        return content if isinstance(content, str) else ""
    return "\n".join(str(part.get("text", "")) for part in content if part.get("type") == "text")


def parts_of(message: Json, session: str) -> list[tuple[str, str | None]]:
    """The parts that are no text: the type of each, and the attachment of the session that it is, None if it is none."""
    content = message.get("content")
    parts = content if isinstance(content, list) else []
    return [(str(part.get("type")), _attachment(part, session)) for part in parts if part.get("type") != "text"]


def attached(message: Json, session: str) -> set[str]:
    """The ids of the session's attachments that a message shows."""
    about = message.get("metadata")
    own = about.get("antiphon") if isinstance(about, dict) else None
    listed = own.get("attachments") if isinstance(own, dict) else None
    references = [r for r in listed if isinstance(r, dict)] if isinstance(listed, list) else []
    return {id_ for _, id_ in parts_of(message, session) if id_ is not None} | {str(r.get("id")) for r in references}


def _attachment(part: Json, session: str) -> str | None:
    source = part.get("source")
    value = source.get("value") if isinstance(source, dict) else None
    if not isinstance(source, dict) or not isinstance(value, str):
        return None
    if source.get("type") == "url":
        return id_in_path(session, value)
    is_ours = (source.get("type"), source.get("provider")) == ("file", _PROVIDER)
    return value if is_ours and _ID.fullmatch(value) else None
