"""What an operation of the HTTP API is declared by: it is routed, checked and documented from the same words. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from broker.errors import ErrorCode
from gateway.http.problems import HttpCode

JSON = "application/json"
EVENT_STREAM = "text/event-stream"
ANY_MEDIA = "*/*"
"""Content of any type."""

JsonSchema = Mapping[str, Any]

_PLACES = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter in the query or in a header. `field` is the command's field that it gives; "": none."""

    name: str
    schema: JsonSchema
    meaning: str
    field: str = ""
    place: str = "query"


@dataclass(frozen=True, slots=True)
class Answer:
    """What an operation answers if all goes well: the schema of its JSON, and the headers that it has then.

    `also` are other media types that it comes in; `schema` None: there is no JSON. `leads_to` are operations whose path
    takes what this answer, or its request's path, names.
    """

    meaning: str
    schema: JsonSchema | None = None
    also: tuple[str, ...] = ()
    headers: tuple[tuple[str, str], ...] = ()
    leads_to: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation: one method of one path.

    `op` is the command of the protocol that it is ("": HTTP alone has it); `right` what the token must give in the
    session ("": it depends). `refusals` are the codes of its own, beyond those of every operation. `body` is the schema
    of a JSON object, which may be left out if `optional`; one that is `large` brings a conversation, and may have
    `chat_bytes`. `takes` is the media type of another body, which its handler reads as it comes. What the parts of a
    `batch` are refused with is in its answer.
    """

    name: str
    method: str
    path: str
    meaning: str
    answers: Mapping[int, Answer]
    op: str = ""
    right: str = ""
    parameters: tuple[Parameter, ...] = ()
    body: JsonSchema | None = None
    optional: bool = False
    large: bool = False
    takes: str = ""
    batch: bool = False
    refusals: tuple[str, ...] = ()

    @property
    def places(self) -> tuple[str, ...]:
        """The parameters in the path, in order."""
        return tuple(_PLACES.findall(self.path))

    def codes(self) -> tuple[str, ...]:
        """All codes that it may be refused with."""
        codes: list[str] = [ErrorCode.UNAUTHORIZED, ErrorCode.RATE_LIMITED, ErrorCode.INTERNAL]
        if not self.batch:
            codes.append(ErrorCode.UNAVAILABLE)
        if self.places:
            codes.append(ErrorCode.BAD_NAME)
        # A parameter that may be any text is never wrong.
        if self.body is not None or any(p.schema.keys() > {"type"} for p in self.parameters):
            codes.append(ErrorCode.BAD_COMMAND)
        if self.body is not None:
            codes += [ErrorCode.BAD_JSON, ErrorCode.CONTENT_TOO_LARGE, HttpCode.UNSUPPORTED_MEDIA_TYPE]
        if self.right:
            codes.append(ErrorCode.NOT_ALLOWED)
        return tuple(dict.fromkeys([*codes, *self.refusals]))
