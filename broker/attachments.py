"""Attachments: files that belong to a session. What one is, what it may be called, and how the log refers to it. Pure.

The bytes are beside the log (`broker.interfaces.AttachmentStore`); the log says which of them belong to which message, with
name, type, size and digest, so that it tells all but the bytes.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from broker import reading
from broker.subjects import SHORT_NAME

INPUT_ATTACHMENTS_MAX = 16
"""Attachments of one message."""
NAME_CHARS = 255
"""Characters of a name; most file systems take no longer ones."""
DEFAULT_NAME = "attachment"

_UNFIT = frozenset({"Cc", "Cs", "Zl", "Zp"})
_DIRECTIONS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c")
"""Characters that change the direction of text: by them a name looks as if it ended otherwise than it does."""
_MEDIA_TYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,126}/[a-z0-9][a-z0-9!#$&^_.+-]{0,126}")
"""RFC 6838, section 4.2."""


@dataclass(frozen=True, slots=True)
class Attachment:
    """An attachment that is there, whole. `sha256` is in hexadecimal digits; `by` is who has stored it, at `at` (ms since
    1970). One that is `used` belongs to a message, and is kept for as long as the session; any other is not kept for long.

    `upload`, `pieces` and `revision` say where the bytes are, for the store alone.
    """

    id: str
    name: str
    media_type: str
    size: int
    sha256: str
    by: str = ""
    at: int = 0
    used: bool = False
    upload: str = ""
    pieces: tuple[int, ...] = ()
    revision: int = 0

    def reference(self) -> dict[str, Any]:
        """As events and messages have it."""
        return {
            "id": self.id,
            "name": self.name,
            "mediaType": self.media_type,
            "size": self.size,
            "sha256": self.sha256,
        }

    def as_dict(self) -> dict[str, Any]:
        """As clients see it."""
        return self.reference() | {"by": self.by, "at": self.at, "used": self.used}


def to_wire(attachment: Attachment) -> dict[str, Any]:
    """What the store keeps of it. Most pieces follow each other, so what is kept are the steps between them."""
    steps = [b - a for a, b in zip((0, *attachment.pieces), attachment.pieces, strict=False)]
    return attachment.as_dict() | {"upload": attachment.upload, "pieces": steps}


def from_wire(wire: Mapping[str, Any], revision: int) -> Attachment:
    """The inverse of `to_wire`. Raises KeyError, TypeError, ValueError."""
    pieces: list[int] = []
    for step in wire["pieces"]:
        pieces.append((pieces[-1] if pieces else 0) + reading.whole(step))
    return Attachment(
        id=reading.text(wire["id"]),
        name=reading.text(wire["name"]),
        media_type=reading.text(wire["mediaType"]),
        size=reading.whole(wire["size"]),
        sha256=reading.text(wire["sha256"]),
        by=reading.text(wire["by"]),
        at=reading.whole(wire["at"]),
        used=reading.flag(wire["used"]),
        upload=reading.text(wire["upload"]),
        pieces=tuple(pieces),
        revision=revision,
    )


def name_problem(name: str) -> str | None:
    """What is wrong with a file's name, None if it is one: it must be safe to show, and to save a file under."""
    if not name or len(name) > NAME_CHARS:
        return f"must have 1 to {NAME_CHARS} characters"
    if any(unicodedata.category(char) in _UNFIT or char in _DIRECTIONS for char in name):
        return "must have no control characters"
    if "/" in name or "\\" in name or name in (".", ".."):
        return "must be a name, not a path"
    return None


def parse_media_type(value: str) -> str | None:
    """The type and subtype of a `Content-Type`, in small letters; None if it is none."""
    essence = value.partition(";")[0].strip().lower()
    return essence if _MEDIA_TYPE.fullmatch(essence) else None


def references_of(value: Any) -> tuple[Mapping[str, Any], ...]:
    """The attachments that a message of a log, or of a history, says it has."""
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return tuple(item for item in value if isinstance(item, Mapping))
    return ()


def path_of(session: str, attachment_id: str) -> str:
    """Where gateways have an attachment, below their address. To ask for it takes a token."""
    return f"/v1/sessions/{session}/attachments/{attachment_id}"


def id_in_path(session: str, path: str) -> str | None:
    """The id of the session's attachment that a path is that of; None if it is that of none."""
    start = path_of(session, "")
    id_ = path.removeprefix(start)
    return id_ if path.startswith(start) and re.fullmatch(SHORT_NAME, id_) else None
