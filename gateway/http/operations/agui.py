"""Runs for clients of AG-UI. Pure."""

from __future__ import annotations

from broker.errors import ErrorCode
from gateway.http import schemas as s
from gateway.http.declarations import EVENT_STREAM, Answer, Operation
from gateway.http.operations.parts import NO_ROOM, QUOTA
from gateway.http.problems import HttpCode

_ROLES = s.one_of("developer", "system", "assistant", "user", "tool", "activity", "reasoning")
_FUNCTION = s.thing({"name": s.TEXT, "arguments": s.TEXT})
_TOOL_CALL = s.thing({"id": s.TEXT, "function": _FUNCTION})
_MESSAGE = s.thing(
    {"id": s.TEXT, "role": _ROLES},
    {
        "content": {"type": ["string", "array", "object", "null"], "items": s.thing({"type": s.TEXT})},
        "toolCalls": s.maybe(s.listed(_TOOL_CALL)),
        "toolCallId": s.TEXT,
        "error": s.maybe(s.TEXT),
    },
)
_TOOL = s.thing({"name": s.TEXT}, {"description": s.maybe(s.TEXT), "parameters": s.maybe(s.OBJECT)})
_RESUME = s.thing({"interruptId": s.WORKER_ID, "status": s.one_of("resolved", "cancelled")}, {"payload": s.ANY})
AGUI = (
    Operation(
        "runAgent",
        "POST",
        "/v1/ag-ui",
        "A run for a client of AG-UI, as the events of AG-UI; `threadId` is the session",
        {200: Answer("The events of the run, up to RUN_FINISHED or RUN_ERROR", also=(EVENT_STREAM,))},
        body=s.thing(
            {"threadId": s.SESSION, "runId": s.TEXT, "messages": s.listed(_MESSAGE)},
            {
                "protocolVersion": s.TEXT,
                "parentRunId": s.maybe(s.TEXT),
                "tools": s.maybe(s.listed(_TOOL)),
                "context": s.maybe(s.listed(s.OBJECT)),
                "state": s.ANY,
                "forwardedProps": s.ANY,
                "resume": s.maybe(s.listed(_RESUME)),
            },
        ),
        right="read",
        large=True,
        refusals=(
            ErrorCode.BAD_NAME,
            ErrorCode.QUEUE_FULL,
            ErrorCode.SESSION_FULL,
            ErrorCode.SESSION_CLOSED,
            ErrorCode.BUSY,
            ErrorCode.CANNOT_INJECT,
            ErrorCode.MODE_NOT_ALLOWED,
            ErrorCode.APPROVAL_NOT_FOUND,
            ErrorCode.ROLE_REQUIRED,
            ErrorCode.BAD_OPTION,
            ErrorCode.PAYLOAD_INVALID,
            ErrorCode.SCHEMA_INVALID,
            ErrorCode.ATTACHMENT_NOT_FOUND,
            HttpCode.HISTORY_CHANGED,
            HttpCode.NOT_SUPPORTED,
            *NO_ROOM,
            *QUOTA,
        ),
    ),
)
