"""What the AI SDK's default transport asks for. Pure."""

from __future__ import annotations

from broker.errors import ErrorCode
from gateway.http import schemas as s
from gateway.http.declarations import EVENT_STREAM, Answer, Operation, Parameter
from gateway.http.operations.parts import NO_ROOM, QUOTA
from gateway.http.problems import HttpCode
from gateway.protocol import HISTORY_MAX

_UI_MESSAGE = s.thing(
    {"id": s.TEXT, "role": s.one_of("system", "user", "assistant"), "parts": s.listed(s.thing({"type": s.TEXT}))},
    {"metadata": s.ANY},
)
_TRIGGER = s.one_of("submit-message", "regenerate-message")
_STREAM = "The answer as a UI message stream, which ends when the answer does, or when it waits for this user"

CHATS = (
    Operation(
        "sendChat",
        "POST",
        "/v1/ai-sdk/{major}",
        "What `useChat` sends: a new message, or the outputs and approvals in the last one. The chat's id is the session",
        {200: Answer(_STREAM, also=(EVENT_STREAM,))},
        right="send",
        body=s.thing(
            {"id": s.SESSION, "messages": s.listed(_UI_MESSAGE, minItems=1)},
            {"trigger": _TRIGGER, "messageId": s.maybe(s.TEXT), "mode": s.maybe(s.MODE)},
        ),
        large=True,
        refusals=(
            HttpCode.NOT_SUPPORTED,
            ErrorCode.ATTACHMENT_NOT_FOUND,
            ErrorCode.QUEUE_FULL,
            ErrorCode.SESSION_FULL,
            ErrorCode.SESSION_CLOSED,
            ErrorCode.BUSY,
            ErrorCode.CANNOT_INJECT,
            ErrorCode.MODE_NOT_ALLOWED,
            ErrorCode.CURSOR_EPOCH,
            ErrorCode.NOT_TARGETED,
            ErrorCode.ALREADY_CLAIMED,
            ErrorCode.RESULT_INVALID,
            ErrorCode.ROLE_REQUIRED,
            ErrorCode.BAD_OPTION,
            ErrorCode.PAYLOAD_INVALID,
            *NO_ROOM,
            *QUOTA,
        ),
    ),
    Operation(
        "resumeChat",
        "GET",
        "/v1/ai-sdk/{major}/{session}/stream",
        "What `useChat` resumes: the answer that is being given, or was given within the last minute, from its start",
        {200: Answer(_STREAM, also=(EVENT_STREAM,)), 204: Answer("No answer is being given")},
        right="read",
        refusals=NO_ROOM,
    ),
    Operation(
        "listChatMessages",
        "GET",
        "/v1/ai-sdk/{major}/{session}/messages",
        "Finished messages as UI messages, which a chat can begin with; pages as of listMessages",
        {200: Answer("A page", s.thing({"messages": s.listed(_UI_MESSAGE), "before": s.maybe(s.SEQ)}))},
        right="read",
        parameters=(
            Parameter("before", s.SEQ, "that of the page before; without it the end of the log", "before"),
            Parameter("limit", s.whole(1, HISTORY_MAX), "how many messages of the transcript, at most", "limit"),
        ),
    ),
)
