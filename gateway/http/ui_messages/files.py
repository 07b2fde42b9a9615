"""What is attached to a message, in the words of the AI SDK. Pure."""

from __future__ import annotations

from typing import Any

from broker.attachments import path_of, references_of


def file_parts(attachments: Any, session: str) -> list[dict[str, Any]]:
    """The parts of a message with these attachments."""
    return [
        {
            "type": "file",
            "mediaType": str(reference.get("mediaType", "")),
            "filename": str(reference.get("name", "")),
            "url": path_of(session, str(reference.get("id", ""))),
        }
        for reference in references_of(attachments)
    ]


def file_chunks(attachments: Any, session: str) -> list[dict[str, Any]]:
    """The chunks of a stream that bring them. No version takes a name there."""
    parts = file_parts(attachments, session)
    return [{"type": "file", "mediaType": part["mediaType"], "url": part["url"]} for part in parts]
