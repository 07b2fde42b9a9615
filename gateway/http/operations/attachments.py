"""Attachments: bytes in and out. Pure."""

from __future__ import annotations

from broker.attachments import NAME_CHARS
from broker.errors import ErrorCode
from gateway.http import schemas as s
from gateway.http.declarations import ANY_MEDIA, Answer, Operation, Parameter
from gateway.http.operations.parts import LOCATION
from gateway.http.problems import HttpCode

_ID = Parameter(
    "Idempotency-Key", s.CLIENT_ID, "its id; one that is sent again is stored once. Else it gets one", place="header"
)
_STORED = s.thing({"session": s.TEXT, **s.STORED_ATTACHMENT["properties"], "duplicate": s.FLAG})
_ABOUT_BYTES = (
    ("ETag", "of the content"),
    ("Content-Disposition", "its name"),
    ("Cache-Control", "that a cache has to ask each time"),
)
ATTACHMENTS = (
    Operation(
        "uploadAttachment",
        "POST",
        "/v1/sessions/{session}/attachments",
        "Stores a file, for inputs to refer to. The body is the file, Content-Type its type, and its name is in `name` or "
        "in Content-Disposition",
        {
            201: Answer("It is stored", _STORED, headers=LOCATION, leads_to=("downloadAttachment", "deleteAttachment")),
            200: Answer("It was stored before, under the same id", _STORED, headers=LOCATION),
        },
        right="send",
        parameters=(
            _ID,
            Parameter("name", {"type": "string", "minLength": 1, "maxLength": NAME_CHARS}, "the file's name"),
        ),
        takes=ANY_MEDIA,
        refusals=(
            ErrorCode.ATTACHMENT_EXISTS,
            ErrorCode.ATTACHMENTS_FULL,
            ErrorCode.CONTENT_TOO_LARGE,
            ErrorCode.MEDIA_TYPE_REFUSED,
            ErrorCode.SESSION_CLOSED,
            ErrorCode.STORAGE_FULL,
            HttpCode.UPLOAD_TIMEOUT,
            HttpCode.OVERLOADED,
        ),
    ),
    Operation(
        "listAttachments",
        "GET",
        "/v1/sessions/{session}/attachments",
        "The attachments of the session, oldest first",
        {200: Answer("What there is", s.thing({"session": s.TEXT, "attachments": s.listed(s.STORED_ATTACHMENT)}))},
        right="read",
    ),
    Operation(
        "downloadAttachment",
        "GET",
        "/v1/sessions/{session}/attachments/{id}",
        "An attachment's content, or a range of it",
        {
            200: Answer("The content", also=(ANY_MEDIA,), headers=_ABOUT_BYTES),
            206: Answer(
                "What Range names",
                also=(ANY_MEDIA,),
                headers=(*_ABOUT_BYTES, ("Content-Range", "which bytes these are")),
            ),
            304: Answer("It is what If-None-Match names", headers=_ABOUT_BYTES),
        },
        right="read",
        parameters=(
            Parameter("Range", s.TEXT, "which bytes; one range of them", place="header"),
            Parameter("If-None-Match", s.TEXT, "the ETag of a content that is here already", place="header"),
            Parameter("If-Range", s.TEXT, "the ETag of the content that Range is about", place="header"),
        ),
        refusals=(ErrorCode.ATTACHMENT_NOT_FOUND, HttpCode.RANGE_NOT_SATISFIABLE, HttpCode.OVERLOADED),
    ),
    Operation(
        "deleteAttachment",
        "DELETE",
        "/v1/sessions/{session}/attachments/{id}",
        "Deletes one that no message refers to, for who has uploaded it; any, for admins",
        {200: Answer("It is gone", s.thing({"session": s.TEXT, "id": s.TEXT}))},
        right="send",
        refusals=(ErrorCode.ATTACHMENT_NOT_FOUND, ErrorCode.ATTACHMENT_IN_USE),
    ),
)
