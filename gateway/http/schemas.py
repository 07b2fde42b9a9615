"""JSON Schemas of what goes over HTTP, made of the names and limits that the code checks by. Pure."""

from __future__ import annotations

from typing import Any

from broker.attachments import INPUT_ATTACHMENTS_MAX
from broker.presence import STATES
from broker.session_config import (
    APPROVAL_ON_INPUT,
    COALESCE,
    GRACE_MS_LIMIT,
    MAX_QUEUE_LIMIT,
    MAX_ROLES,
    ON_BUSY,
    POOL_NAME,
    PRIORITIES,
    WHEN_UNWATCHED,
)
from broker.subjects import LONG_NAME, RUN_NAME, SHORT_NAME
from broker.tools import MAX_TOOLS, TOOL_NAME
from gateway.http.declarations import JsonSchema
from gateway.plane import KEY_CHARS, TITLE_CHARS

STATUSES = ("idle", "running", "requires_action", "paused", "human", "closed")


def name(pattern: str) -> JsonSchema:
    return {"type": "string", "pattern": f"^{pattern}$"}


def one_of(*values: str) -> JsonSchema:
    return {"type": "string", "enum": list(values)}


def whole(low: int, high: int, **more: Any) -> JsonSchema:
    return {"type": "integer", "minimum": low, "maximum": high, **more}


def maybe(schema: JsonSchema) -> JsonSchema:
    """The schema, or null."""
    # One schema, not two to choose from, so that what is wrong is told at its own place.
    more = {"enum": [*schema["enum"], None]} if "enum" in schema else {}
    return {**schema, "type": [schema["type"], "null"], **more}


def listed(items: JsonSchema, **more: Any) -> JsonSchema:
    return {"type": "array", "items": items, **more}


def thing(required: dict[str, JsonSchema], optional: dict[str, JsonSchema] | None = None, **more: Any) -> JsonSchema:
    """An object; what it has beside is allowed and says nothing."""
    schema = {"type": "object", "properties": {**required, **(optional or {})}, **more}
    return schema | ({"required": list(required)} if required else {})


TEXT: JsonSchema = {"type": "string"}
FLAG: JsonSchema = {"type": "boolean"}
ANY: JsonSchema = {}
OBJECT: JsonSchema = {"type": "object"}
SEQ = whole(0, 2**53)
TIME_MS = whole(0, 2**53, description="ms since 1970")

SESSION = name(LONG_NAME)
WORKER_ID = name(LONG_NAME)
CLIENT_ID = name(SHORT_NAME)
LANE = name(SHORT_NAME)
RUN_ID = name(RUN_NAME)
CURSOR: JsonSchema = {"type": "string", "pattern": "^[0-9a-z]+:[0-9]{1,16}$", "description": "<epoch>:<seq>"}
SOMETHING_SAID: dict[str, JsonSchema] = {
    "if": {"not": {"required": ["attachments"], "properties": {"attachments": {"minItems": 1}}}},
    "then": {"properties": {"content": {"minLength": 1}}},
}
"""Of an input: its text may be empty only if something is attached."""
_NUMBER: JsonSchema = {"type": "integer"}
ONE_TIME: dict[str, JsonSchema] = {
    "not": {"required": ["at", "delayMs"], "properties": {"at": _NUMBER, "delayMs": _NUMBER}},
}
"""Of an input that is sent later: `at`, or `delayMs`."""
MODE = one_of(*ON_BUSY)
DEVICE = name(SHORT_NAME)

PATH_PARTS: dict[str, tuple[JsonSchema, str]] = {
    "session": (SESSION, "the session"),
    "inputId": (CLIENT_ID, "the input"),
    "runId": (RUN_ID, "the run"),
    "toolCallId": (WORKER_ID, "the tool call"),
    "approvalId": (WORKER_ID, "the approval, or question"),
    "handoffId": (WORKER_ID, "the hand-over"),
    "lane": (LANE, "the lane"),
    "id": (CLIENT_ID, "the attachment"),
    "major": (one_of("5", "6", "7"), "the major version of the page's AI SDK"),
}

ATTACHMENT = thing(
    {
        "id": TEXT,
        "name": TEXT,
        "mediaType": TEXT,
        "size": SEQ,
        "sha256": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
    }
)
STORED_ATTACHMENT = thing(
    {
        **ATTACHMENT["properties"],
        "by": {"type": "string", "description": "the user, or the agent's worker, that has stored it"},
        "at": TIME_MS,
        "used": {"type": "boolean", "description": "a message refers to it, so that it stays"},
    }
)
ATTACHMENTS = listed(thing({"id": CLIENT_ID}), maxItems=INPUT_ATTACHMENTS_MAX)
"""What an input refers to."""

BY = thing({"kind": TEXT, "id": TEXT}, {"name": TEXT, "roles": listed(TEXT), "version": TEXT})

CONFIG: JsonSchema = {
    "type": "object",
    "properties": {
        "onBusy": MODE,
        "coalesce": one_of(*COALESCE),
        "maxQueue": whole(1, MAX_QUEUE_LIMIT),
        "approvalOnInput": one_of(*APPROVAL_ON_INPUT),
        "whenUnwatched": one_of(*WHEN_UNWATCHED),
        "unwatchedGraceMs": whole(0, GRACE_MS_LIMIT),
        "pool": maybe(name(POOL_NAME)),
        "priority": one_of(*PRIORITIES),
        "roles": {
            "type": "object",
            "maxProperties": MAX_ROLES,
            "additionalProperties": {
                "type": "object",
                "properties": {
                    "modes": maybe(listed(MODE)),
                    "maxQueue": maybe(whole(0, MAX_QUEUE_LIMIT)),
                    "cancel": FLAG,
                },
            },
        },
    },
    "additionalProperties": False,
}
ABOUT: dict[str, JsonSchema] = {
    "title": maybe({"type": "string", "maxLength": TITLE_CHARS}),
    "metadata": maybe(OBJECT),
    "config": maybe(CONFIG),
}

TOOL = thing(
    {"name": name(TOOL_NAME)},
    {
        "description": TEXT,
        "parameters": maybe(OBJECT),
        "result": maybe(OBJECT),
        "idempotent": FLAG,
        "needsPermission": FLAG,
    },
)
TOOLS = listed(TOOL, maxItems=MAX_TOOLS)
KEY: JsonSchema = {"type": "string", "minLength": 1, "maxLength": KEY_CHARS}

_ID_OR_NONE = maybe(TEXT)
_TIME_OR_NONE = maybe(TIME_MS)
HANDOFF_FIELDS: dict[str, JsonSchema] = {
    "handoffId": TEXT,
    "lane": TEXT,
    "runId": TEXT,
    "to": TEXT,
    "reason": TEXT,
    "summary": TEXT,
    "expiresAt": _TIME_OR_NONE,
}
_CANCEL = thing({"mode": TEXT, "by": maybe(BY), "reason": TEXT})
_VOTE = thing({"by": BY, "option": TEXT})
SCHEDULED_INPUT = thing(
    {
        "inputId": TEXT,
        "seq": SEQ,
        "ts": TIME_MS,
        "by": maybe(BY),
        "content": TEXT,
        "at": TIME_MS,
        "mode": maybe(MODE),
    },
    {"attachments": listed(ATTACHMENT)},
)
STATE = thing(
    {
        "status": one_of(*STATUSES),
        "title": _ID_OR_NONE,
        "metadata": OBJECT,
        "config": {**CONFIG, "additionalProperties": True},
        "lanes": {
            "type": "object",
            "additionalProperties": thing(
                {
                    "owner": maybe(thing({"kind": TEXT, "id": TEXT})),
                    "fence": SEQ,
                    "run": _ID_OR_NONE,
                    "can": listed(TEXT),
                    "paused": _ID_OR_NONE,
                }
            ),
        },
        "runs": listed(
            thing(
                {
                    "runId": TEXT,
                    "lane": TEXT,
                    "inputId": TEXT,
                    "attempt": whole(1, 2**31),
                    "cancel": maybe(_CANCEL),
                    "parent": _ID_OR_NONE,
                    "agent": _ID_OR_NONE,
                }
            )
        ),
        "inputs": listed(
            thing(
                {
                    "inputId": TEXT,
                    "seq": SEQ,
                    "ts": TIME_MS,
                    "by": maybe(BY),
                    "content": TEXT,
                    "mode": MODE,
                    "lane": TEXT,
                    "parent": _ID_OR_NONE,
                },
                {"attachments": listed(ATTACHMENT)},
            )
        ),
        "scheduled": listed(SCHEDULED_INPUT),
        "calls": listed(
            thing(
                {
                    "toolCallId": TEXT,
                    "lane": TEXT,
                    "runId": TEXT,
                    "name": TEXT,
                    "args": maybe(OBJECT),
                    "executor": TEXT,
                    "idempotent": FLAG,
                    "participant": _ID_OR_NONE,
                    "device": _ID_OR_NONE,
                    "anyAfter": _TIME_OR_NONE,
                    "deadline": _TIME_OR_NONE,
                    "claim": maybe(OBJECT),
                }
            )
        ),
        "approvals": listed(
            thing(
                {
                    "approvalId": TEXT,
                    "kind": one_of("approval", "question"),
                    "lane": TEXT,
                    "runId": TEXT,
                    "message": TEXT,
                    "options": listed(TEXT),
                    "default": TEXT,
                    "expiresAt": _TIME_OR_NONE,
                    "toolCallId": _ID_OR_NONE,
                    "key": _ID_OR_NONE,
                    "roles": listed(TEXT),
                    "quorum": whole(1, 2**31),
                    "responseSchema": maybe(OBJECT),
                    "details": maybe(OBJECT),
                    "votes": listed(_VOTE),
                }
            )
        ),
        "handoffs": listed(thing(HANDOFF_FIELDS)),
        "remembered": {"type": "object", "additionalProperties": thing({"option": TEXT, "by": maybe(BY)})},
    }
)
MESSAGE = thing(
    {
        "id": TEXT,
        "role": TEXT,
        "seq": SEQ,
        "text": TEXT,
        "status": one_of("streaming", "done"),
        "reason": _ID_OR_NONE,
        "lane": _ID_OR_NONE,
        "run": _ID_OR_NONE,
        "by": maybe(BY),
    },
    {"name": TEXT, "toolCallId": TEXT, "rolledBack": FLAG, "attachments": listed(ATTACHMENT)},
)
LISTED_SESSION = thing(
    {
        "session": TEXT,
        "title": _ID_OR_NONE,
        "metadata": OBJECT,
        "createdBy": maybe(BY),
        "updatedAt": TIME_MS,
        "status": one_of(*STATUSES),
    }
)
RECEIPT = thing(
    {
        "inputId": TEXT,
        "runId": _ID_OR_NONE,
        "seq": maybe(SEQ),
        "status": one_of("scheduled", "queued", "pending", "applied", "ended", "failed", "cancelled"),
        "mode": _ID_OR_NONE,
        "position": maybe(whole(1, 2**31)),
        "reason": _ID_OR_NONE,
        "duplicate": FLAG,
    },
    {"at": TIME_MS},
)
EVENT = thing({"type": TEXT})
ENTRY = thing(
    {
        "op": {"const": "entry"},
        "session": TEXT,
        "seq": SEQ,
        "prev": SEQ,
        "id": TEXT,
        "ts": {"type": "integer"},
        "events": listed(EVENT),
    },
    {"lane": TEXT, "run": TEXT, "by": BY, "off": SEQ, "merged": whole(2, 2**31)},
)
SNAPSHOT = thing(
    {"op": {"const": "session.snapshot"}, "session": TEXT, "asOf": SEQ, "messagesBefore": SEQ, "state": STATE}
)
PRESENCE_STATES = one_of(*STATES)
PROBLEM = thing(
    {
        "type": TEXT,
        "title": TEXT,
        "status": whole(400, 599),
        "detail": TEXT,
        "code": TEXT,
        "retryable": FLAG,
    },
    {"data": OBJECT},
)
