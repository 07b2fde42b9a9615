"""Refusals as HTTP says them: problem details (RFC 9457) with our codes, and the status that fits each code. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import orjson

from broker.errors import ErrorCode, Refused

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:antiphon:problem:"
"""`type` of a problem is this and its code."""


class HttpCode(StrEnum):
    """Codes that only HTTP has; all others are those of the WebSocket (PROTOCOL, section 9)."""

    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    NOT_ACCEPTABLE = "not_acceptable"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    UPLOAD_TIMEOUT = "upload_timeout"
    RANGE_NOT_SATISFIABLE = "range_not_satisfiable"
    NOT_SUPPORTED = "not_supported"
    DRAINING = "draining"
    OVERLOADED = "overloaded"
    HISTORY_CHANGED = "history_changed"


STATUS: Mapping[str, int] = {
    ErrorCode.BAD_JSON: 400,
    ErrorCode.BAD_COMMAND: 400,
    ErrorCode.BAD_NAME: 400,
    ErrorCode.CURSOR_BAD: 400,
    ErrorCode.UNAUTHORIZED: 401,
    ErrorCode.NOT_ALLOWED: 403,
    ErrorCode.ROLE_REQUIRED: 403,
    ErrorCode.MODE_NOT_ALLOWED: 403,
    ErrorCode.NOT_TARGETED: 403,
    HttpCode.NOT_FOUND: 404,
    ErrorCode.INPUT_NOT_FOUND: 404,
    ErrorCode.RUN_NOT_FOUND: 404,
    ErrorCode.CALL_NOT_FOUND: 404,
    ErrorCode.APPROVAL_NOT_FOUND: 404,
    ErrorCode.HANDOFF_NOT_FOUND: 404,
    ErrorCode.ATTACHMENT_NOT_FOUND: 404,
    HttpCode.METHOD_NOT_ALLOWED: 405,
    HttpCode.NOT_ACCEPTABLE: 406,
    HttpCode.UPLOAD_TIMEOUT: 408,
    ErrorCode.CURSOR_EPOCH: 410,
    ErrorCode.CURSOR_FUTURE: 410,
    ErrorCode.CONTENT_TOO_LARGE: 413,
    HttpCode.UNSUPPORTED_MEDIA_TYPE: 415,
    ErrorCode.MEDIA_TYPE_REFUSED: 415,
    HttpCode.RANGE_NOT_SATISFIABLE: 416,
    HttpCode.NOT_SUPPORTED: 422,
    ErrorCode.TOO_FAR_AHEAD: 422,
    ErrorCode.BAD_OPTION: 422,
    ErrorCode.ARGUMENTS_INVALID: 422,
    ErrorCode.RESULT_INVALID: 422,
    ErrorCode.PAYLOAD_INVALID: 422,
    ErrorCode.SCHEMA_INVALID: 422,
    ErrorCode.CONFIG_INVALID: 422,
    ErrorCode.RATE_LIMITED: 429,
    ErrorCode.QUEUE_FULL: 429,
    ErrorCode.TOO_MANY_CONNECTIONS: 429,
    ErrorCode.INTERNAL: 500,
    ErrorCode.UNAVAILABLE: 503,
    HttpCode.DRAINING: 503,
    HttpCode.OVERLOADED: 503,
}
"""What is not here is a conflict with how things stand by now: 409."""
CONFLICT = 409

RETRYABLE_HERE = frozenset({HttpCode.DRAINING, HttpCode.OVERLOADED, HttpCode.UPLOAD_TIMEOUT})

TITLES = {
    400: "The request is malformed",
    401: "A valid token is needed",
    403: "Not allowed",
    404: "Not found",
    405: "Method not allowed",
    406: "Not acceptable",
    408: "It took too long",
    409: "Conflict",
    410: "Gone",
    413: "Too large",
    415: "Unsupported media type",
    416: "There are no such bytes",
    422: "The content cannot be processed",
    429: "Too much",
    500: "A fault of the server",
    503: "Unavailable",
}


class Problem(Exception):
    """Ends a request. `headers` go with the answer, `data` is what belongs to the code."""

    def __init__(
        self,
        code: str,
        detail: str,
        data: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.code = code
        self.detail = detail
        self.data = data or {}
        self.headers = headers or {}
        super().__init__(f"{code}: {detail}")

    @property
    def status(self) -> int:
        return STATUS.get(self.code, CONFLICT)

    def wire(self) -> dict[str, Any]:
        """The problem's document."""
        retryable = self.code in RETRYABLE_HERE or Refused(_as_code(self.code), "").retryable
        wire: dict[str, Any] = {"type": TYPE_PREFIX + self.code, "title": TITLES[self.status], "status": self.status}
        # What belongs to the code keeps to itself: a call's `status` is not the problem's.
        more = {"data": dict(self.data)} if self.data else {}
        return wire | {"detail": self.detail, "code": self.code, "retryable": retryable} | more

    def body(self) -> bytes:
        return orjson.dumps(self.wire())

    def all_headers(self) -> dict[str, str]:
        headers = dict(self.headers)
        if self.status == 401:
            headers["WWW-Authenticate"] = 'Bearer realm="antiphon"'
        wait_ms = self.data.get("retry_after_ms")
        if isinstance(wait_ms, int):
            headers["Retry-After"] = str(max(1, math.ceil(wait_ms / 1000)))
        return headers


def problem_of(refusal: Refused) -> Problem:
    """The refusal of a command, for HTTP."""
    return Problem(refusal.code.value, refusal.message, refusal.data)


def _as_code(code: str) -> ErrorCode:
    """For the question whether it is retryable; codes of HTTP alone are none of the retryable ones."""
    return ErrorCode(code) if code in set(ErrorCode) else ErrorCode.BAD_COMMAND


def upload_first(part_type: str) -> Problem:
    """The refusal of a part of a message that is neither text nor an attachment of the session."""
    return Problem(
        HttpCode.NOT_SUPPORTED,
        f"a part of type {part_type[:40]!r} cannot be sent: upload the file to the session first "
        "(POST /v1/sessions/{session}/attachments), and send it as that attachment",
    )
