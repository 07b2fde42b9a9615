"""The operations of the HTTP API, each declared once: they are routed, checked and documented from here. Pure."""

from __future__ import annotations

from broker.errors import ErrorCode
from gateway.http import schemas as s
from gateway.http.declarations import EVENT_STREAM, JSON, Answer, Operation, Parameter
from gateway.http.problems import HttpCode
from gateway.plane import LEASE_MS_DEFAULT, LEASE_MS_MAX, LEASE_MS_MIN, LIST_MAX
from gateway.protocol import HISTORY_MAX

PAGE_DEFAULT, PAGE_MAX = 256, 1024
"""Entries of a JSON page."""

BATCH_MAX = 16
"""Runs of a batch."""
RUN_STATUSES = (
    *("queued", "running", "requires_action"),
    *("applied", "success", "cancelled", "error", "failed", "ended"),
)
"""`applied`: a human has the session, so that there is no run; `ended`: how is long forgotten."""

_FORMAT = Parameter("format", s.one_of("json", "sse"), "what to answer, whatever `Accept` says")
_AFTER = Parameter(
    "after", s.CURSOR, "a cursor: what comes after it; without it the session's snapshot comes first", "after"
)
_LAST_EVENT_ID = Parameter(
    "Last-Event-ID", s.CURSOR, "as `after`, which counts if both are there", "after", place="header"
)
_REPLAY = Parameter("replay", s.one_of("merged", "every"), "`every`: each entry that the log holds, as it is", "replay")
_DEVICE = Parameter("device", s.DEVICE, "the device or tab, for presence and for tools that only one device has")
_WATCHING = Parameter("watching", s.FLAG, "false: nobody looks at it, so it is not presence", "watching")
_LIMIT_ENTRIES = Parameter("limit", s.whole(1, PAGE_MAX), f"entries of a JSON page; default {PAGE_DEFAULT}")
_IDEMPOTENCY_KEY = Parameter(
    "Idempotency-Key", s.CLIENT_ID, "the `inputId`; one that is sent again counts once", place="header"
)

_EVENTS_ANSWER = Answer(
    "The session's entries: one JSON page, or a stream of server-sent events that goes on until it is closed",
    s.thing(
        {
            "session": s.TEXT,
            "snapshot": s.maybe(s.SNAPSHOT),
            "entries": s.listed(s.ENTRY),
            "cursor": s.CURSOR,
            "caughtUp": s.FLAG,
        }
    ),
    also=(EVENT_STREAM,),
)
_CURSOR_REFUSALS = (ErrorCode.CURSOR_BAD, ErrorCode.CURSOR_EPOCH, ErrorCode.CURSOR_FUTURE)
_NO_ROOM = (HttpCode.DRAINING, HttpCode.OVERLOADED)
_LOCATION = (("Location", "where it is"),)
_TOOL = {
    "tool": s.thing({}, {"parameters": s.maybe(s.OBJECT), "result": s.maybe(s.OBJECT)}, description="its schemas"),
    "device": s.DEVICE,
}
_CLAIM = {"claimId": s.CLIENT_ID}
_CALL_REFUSALS = (
    ErrorCode.CALL_NOT_FOUND,
    ErrorCode.ALREADY_RESOLVED,
    ErrorCode.DEADLINE_PASSED,
)

SESSIONS = (
    Operation(
        "createSession",
        "POST",
        "/v1/sessions",
        "Creates a session, or says that its creator has done so before; without a name it gets one",
        {
            201: Answer(
                "It is created",
                s.thing({"session": s.TEXT, "seq": s.SEQ, "duplicate": s.FLAG}),
                headers=_LOCATION,
            ),
            200: Answer(
                "It was created by the same user before",
                s.thing({"session": s.TEXT, "seq": s.SEQ, "duplicate": s.FLAG}),
                headers=_LOCATION,
            ),
        },
        op="session.create",
        right="send",
        body=s.thing({}, {"session": s.SESSION, **s.ABOUT}),
        optional=True,
        refusals=(ErrorCode.SESSION_EXISTS, ErrorCode.CONFIG_INVALID),
    ),
    Operation(
        "listSessions",
        "GET",
        "/v1/sessions",
        "The sessions that the user has created or written to and may read, the newest activity first",
        {200: Answer("A page", s.thing({"sessions": s.listed(s.LISTED_SESSION), "after": s.maybe(s.TEXT)}))},
        op="session.list",
        parameters=(
            Parameter("limit", s.whole(1, LIST_MAX), "how many", "limit"),
            Parameter("after", {"type": "string", "pattern": "^[0-9]{1,16}$"}, "that of the page before", "after"),
        ),
    ),
    Operation(
        "getSession",
        "GET",
        "/v1/sessions/{session}",
        "The session's state as it is now, and the cursor that it is as of",
        {
            200: Answer(
                "The state",
                s.thing(
                    {
                        "session": s.TEXT,
                        "cursor": s.CURSOR,
                        "messages": s.SEQ,
                        "createdBy": s.maybe(s.BY),
                        "state": s.STATE,
                    }
                ),
            )
        },
        right="read",
        refusals=(HttpCode.NOT_FOUND,),
    ),
    Operation(
        "updateSession",
        "PATCH",
        "/v1/sessions/{session}",
        "Sets the title, the metadata, or fields of the config; for its creator and admins",
        {200: Answer("It is stored", s.thing({"session": s.TEXT, "seq": s.SEQ}))},
        op="session.update",
        body=s.thing({}, s.ABOUT),
        refusals=(ErrorCode.NOT_ALLOWED, ErrorCode.CONFIG_INVALID),
    ),
    Operation(
        "deleteSession",
        "DELETE",
        "/v1/sessions/{session}",
        "Deletes the session and all that is in it; for its creator and admins",
        {200: Answer("It is gone", s.thing({"session": s.TEXT}))},
        op="session.delete",
        refusals=(ErrorCode.NOT_ALLOWED,),
    ),
    Operation(
        "closeSession",
        "POST",
        "/v1/sessions/{session}/close",
        "The session takes no more inputs; for its creator and admins",
        {200: Answer("It is closed", s.thing({"session": s.TEXT, "closed": s.FLAG}))},
        op="session.close",
        refusals=(ErrorCode.NOT_ALLOWED,),
    ),
    Operation(
        "reopenSession",
        "POST",
        "/v1/sessions/{session}/reopen",
        "The session takes inputs again; for its creator and admins",
        {200: Answer("It is open", s.thing({"session": s.TEXT, "closed": s.FLAG}))},
        op="session.reopen",
        refusals=(ErrorCode.NOT_ALLOWED,),
    ),
    Operation(
        "forkSession",
        "POST",
        "/v1/sessions/{session}/fork",
        "Makes the session `to` with the config and the messages of this one, those added before `before`",
        {201: Answer("It is made", s.thing({"session": s.TEXT, "messages": s.SEQ}), headers=_LOCATION)},
        op="session.fork",
        right="read",
        body=s.thing({"to": s.SESSION}, {"before": s.maybe(s.SEQ)}),
        refusals=(ErrorCode.SESSION_EXISTS,),
    ),
)

_RUN = s.thing(
    {
        "session": s.TEXT,
        "runId": s.maybe(s.TEXT),
        "inputId": s.TEXT,
        "status": s.one_of(*RUN_STATUSES),
        "reason": s.maybe(s.TEXT),
        "error": s.maybe(s.thing({"code": s.maybe(s.TEXT), "message": s.maybe(s.TEXT)})),
        "text": s.maybe(s.TEXT),
        "messages": s.listed(s.MESSAGE),
    }
)
_WAIT = s.whole(0, 3600, description="seconds to wait for the answer, at most; the server has a limit of its own")
_ONE_SHOT = s.thing(
    {"content": s.CONTENT},
    {
        "session": s.SESSION,
        "inputId": s.CLIENT_ID,
        "mode": s.maybe(s.MODE),
        **s.ABOUT,
    },
)
_CREATE_RUN = {
    **_ONE_SHOT,
    "properties": {**_ONE_SHOT["properties"], "wait": _WAIT, "stream": s.one_of("entries", "text")},
}
_RUN_REFUSALS = (
    ErrorCode.SESSION_EXISTS,
    ErrorCode.CONFIG_INVALID,
    ErrorCode.QUEUE_FULL,
    ErrorCode.SESSION_FULL,
    ErrorCode.SESSION_CLOSED,
    ErrorCode.BUSY,
    ErrorCode.CANNOT_INJECT,
    ErrorCode.MODE_NOT_ALLOWED,
)
_CACHING = (("ETag", "of the answer"), ("Cache-Control", "how long it may be kept, if the agent says so"))

RUNS = (
    Operation(
        "createRun",
        "POST",
        "/v1/runs",
        "Sends an input, to a session of its own unless one is named, and waits for the answer",
        {
            200: Answer("The run is over", _RUN, also=(EVENT_STREAM,)),
            202: Answer("It takes longer: ask again where `Location` says", _RUN, headers=_LOCATION),
        },
        right="send",
        parameters=(_IDEMPOTENCY_KEY,),
        body=_CREATE_RUN,
        refusals=(*_RUN_REFUSALS, *_NO_ROOM),
    ),
    Operation(
        "createRuns",
        "POST",
        "/v1/runs/batch",
        "Several runs at once, each with an outcome of its own",
        {
            200: Answer(
                "What became of each, in order: `run`, or the `problem` it was refused with",
                s.thing(
                    {"outcomes": s.listed(s.thing({"status": s.whole(200, 599)}, {"run": _RUN, "problem": s.PROBLEM}))}
                ),
            )
        },
        body=s.thing({"requests": s.listed(_ONE_SHOT, minItems=1, maxItems=BATCH_MAX)}, {"wait": _WAIT}),
        batch=True,
    ),
    Operation(
        "getRun",
        "GET",
        "/v1/sessions/{session}/runs/{runId}",
        "What a run has come to. Of one that ended long ago only that it did is known here: its messages are there",
        {200: Answer("The run as it is now", _RUN), 304: Answer("It is what If-None-Match names", headers=_CACHING)},
        right="read",
        parameters=(Parameter("If-None-Match", s.TEXT, "the ETag of an answer that is here already", place="header"),),
        refusals=(ErrorCode.RUN_NOT_FOUND,),
    ),
)

READING = (
    Operation(
        "readEvents",
        "GET",
        "/v1/sessions/{session}/events",
        "The session's entries, as a JSON page or as server-sent events",
        {200: _EVENTS_ANSWER},
        right="read",
        parameters=(_FORMAT, _AFTER, _LAST_EVENT_ID, _REPLAY, _LIMIT_ENTRIES, _DEVICE, _WATCHING),
        refusals=(*_CURSOR_REFUSALS, *_NO_ROOM, HttpCode.NOT_ACCEPTABLE),
    ),
    Operation(
        "subscribe",
        "POST",
        "/v1/sessions/{session}/subscribe",
        "As readEvents with server-sent events, for who has more to say: the tools that this client executes",
        {200: Answer("A stream of server-sent events", also=(EVENT_STREAM,))},
        op="subscribe",
        right="read",
        body=s.thing(
            {},
            {
                "after": s.maybe(s.CURSOR),
                "replay": s.one_of("merged", "every"),
                "watching": s.FLAG,
                "device": s.DEVICE,
                "tools": s.maybe(s.TOOLS),
            },
        ),
        optional=True,
        refusals=(*_CURSOR_REFUSALS, *_NO_ROOM, ErrorCode.SCHEMA_INVALID),
    ),
    Operation(
        "listMessages",
        "GET",
        "/v1/sessions/{session}/messages",
        "Finished messages, a page of the newest ones before `before`, oldest first",
        {200: Answer("A page", s.thing({"messages": s.listed(s.MESSAGE), "before": s.maybe(s.SEQ)}))},
        op="history",
        right="read",
        parameters=(
            Parameter("before", s.SEQ, "that of the page before; without it the end of the log", "before"),
            Parameter("limit", s.whole(1, HISTORY_MAX), "how many", "limit"),
        ),
    ),
)

INPUTS = (
    Operation(
        "sendInput",
        "POST",
        "/v1/sessions/{session}/inputs",
        "Sends a message for the agent. Its id, which makes sending again safe, is `inputId` or Idempotency-Key",
        {
            201: Answer("It is stored", s.RECEIPT, headers=_LOCATION),
            200: Answer("It was stored before, under the same id", s.RECEIPT, headers=_LOCATION),
        },
        op="input.send",
        right="send",
        parameters=(_IDEMPOTENCY_KEY,),
        body=s.thing({"content": s.CONTENT}, {"inputId": s.CLIENT_ID, "mode": s.maybe(s.MODE)}),
        refusals=(
            ErrorCode.QUEUE_FULL,
            ErrorCode.SESSION_FULL,
            ErrorCode.SESSION_CLOSED,
            ErrorCode.BUSY,
            ErrorCode.CANNOT_INJECT,
            ErrorCode.MODE_NOT_ALLOWED,
        ),
    ),
    Operation(
        "cancelInput",
        "DELETE",
        "/v1/sessions/{session}/inputs/{inputId}",
        "Takes back an input that waits",
        {200: Answer("It is cancelled", s.thing({"inputId": s.TEXT, "status": s.one_of("cancelled")}))},
        op="input.cancel",
        right="send",
        refusals=(ErrorCode.INPUT_NOT_FOUND, ErrorCode.INPUT_ALREADY_APPLIED),
    ),
    Operation(
        "cancelRun",
        "POST",
        "/v1/sessions/{session}/runs/{runId}/cancel",
        "Stops a run, or keeps it from starting",
        {200: Answer("It stops", s.thing({"runId": s.TEXT, "status": s.one_of("cancelling", "cancelled")}))},
        op="run.cancel",
        right="cancel",
        body=s.thing({}, {"mode": s.one_of("immediate", "after_step")}),
        optional=True,
        refusals=(ErrorCode.RUN_NOT_FOUND, ErrorCode.RUN_ENDED),
    ),
)

TOOLS = (
    Operation(
        "claimCall",
        "POST",
        "/v1/sessions/{session}/calls/{toolCallId}/claim",
        "Says that this client is about to execute the call; again with the same `claimId` for more time",
        {
            200: Answer(
                "The call is claimed", s.thing({"toolCallId": s.TEXT, "claimId": s.TEXT, "expiresAt": s.TIME_MS})
            )
        },
        op="tool.claim",
        right="tools",
        body=s.thing(
            _CLAIM,
            {"leaseMs": s.maybe(s.whole(LEASE_MS_MIN, LEASE_MS_MAX, default=LEASE_MS_DEFAULT)), **_TOOL},
        ),
        refusals=(
            *_CALL_REFUSALS,
            ErrorCode.NOT_TARGETED,
            ErrorCode.ALREADY_CLAIMED,
            ErrorCode.ARGUMENTS_INVALID,
            ErrorCode.SCHEMA_INVALID,
        ),
    ),
    Operation(
        "showProgress",
        "POST",
        "/v1/sessions/{session}/calls/{toolCallId}/progress",
        "Shows what there is to show of the call so far",
        {200: Answer("It is stored", s.OBJECT)},
        op="tool.progress",
        right="tools",
        body=s.thing({**_CLAIM, "value": s.ANY}),
        refusals=(*_CALL_REFUSALS, ErrorCode.NOT_CLAIMED),
    ),
    Operation(
        "resolveCall",
        "POST",
        "/v1/sessions/{session}/calls/{toolCallId}/result",
        "Says what came of the call: a result, or an error",
        {200: Answer("It is resolved", s.thing({"toolCallId": s.TEXT, "status": s.one_of("resolved")}))},
        op="tool.result",
        right="tools",
        body=s.thing(_CLAIM, {"result": s.ANY, "error": s.maybe(s.TEXT), **_TOOL}),
        refusals=(*_CALL_REFUSALS, ErrorCode.NOT_CLAIMED, ErrorCode.RESULT_INVALID, ErrorCode.SCHEMA_INVALID),
    ),
    Operation(
        "releaseCall",
        "POST",
        "/v1/sessions/{session}/calls/{toolCallId}/release",
        "Says that this client has not executed the call and will not",
        {200: Answer("It is free again", s.thing({"toolCallId": s.TEXT}))},
        op="tool.release",
        right="tools",
        body=s.thing(_CLAIM),
        refusals=(*_CALL_REFUSALS, ErrorCode.NOT_CLAIMED),
    ),
)

PEOPLE = (
    Operation(
        "respondToApproval",
        "POST",
        "/v1/sessions/{session}/approvals/{approvalId}/respond",
        "Decides an approval, or answers a question",
        {
            200: Answer(
                "It is stored, and this is what became of it",
                s.thing(
                    {
                        "approvalId": s.TEXT,
                        "status": s.one_of("pending", "resolved"),
                        "decision": s.maybe(s.TEXT),
                        "votes": s.listed(s.thing({"by": s.BY, "option": s.TEXT})),
                    }
                ),
            )
        },
        op="approval.respond",
        right="approve",
        body=s.thing({"option": s.TEXT}, {"payload": s.ANY}),
        refusals=(
            ErrorCode.APPROVAL_NOT_FOUND,
            ErrorCode.ALREADY_RESOLVED,
            ErrorCode.ALREADY_VOTED,
            ErrorCode.ROLE_REQUIRED,
            ErrorCode.BAD_OPTION,
            ErrorCode.DEADLINE_PASSED,
            ErrorCode.PAYLOAD_INVALID,
        ),
    ),
    Operation(
        "revokeApproval",
        "POST",
        "/v1/sessions/{session}/approvals/revoke",
        "Has asked again what was decided for always under a key",
        {200: Answer("It is forgotten", s.thing({"key": s.TEXT}))},
        op="approval.revoke",
        right="approve",
        body=s.thing({"key": s.KEY}),
        refusals=(ErrorCode.KEY_NOT_FOUND,),
    ),
    Operation(
        "listHandoffs",
        "GET",
        "/v1/handoffs",
        "The hand-overs that wait for the token's roles, oldest first",
        {
            200: Answer(
                "What waits",
                s.thing({"handoffs": s.listed(s.thing({"session": s.TEXT, "since": s.TIME_MS, **s.HANDOFF_FIELDS}))}),
            )
        },
        op="handoff.list",
        parameters=(Parameter("limit", s.whole(1, LIST_MAX), "how many", "limit"),),
    ),
    Operation(
        "claimHandoff",
        "POST",
        "/v1/sessions/{session}/handoffs/{handoffId}/claim",
        "Takes the lane that an agent hands over",
        {200: Answer("The lane is yours", s.thing({"lane": s.TEXT, "fence": s.SEQ}))},
        op="handoff.claim",
        right="steer",
        refusals=(ErrorCode.HANDOFF_NOT_FOUND, ErrorCode.ROLE_REQUIRED, ErrorCode.ALREADY_CLAIMED),
    ),
    Operation(
        "takeLane",
        "POST",
        "/v1/sessions/{session}/lanes/{lane}/claim",
        "Takes a lane unasked; for admins",
        {200: Answer("The lane is yours", s.thing({"lane": s.TEXT, "fence": s.SEQ}))},
        op="handoff.claim",
        right="admin",
    ),
    Operation(
        "returnLane",
        "POST",
        "/v1/sessions/{session}/lanes/{lane}/return",
        "Gives a lane back; with a `note` the agent goes on with that as its input",
        {200: Answer("It is given back", s.thing({"lane": s.TEXT}))},
        op="handoff.return",
        right="steer",
        parameters=(_IDEMPOTENCY_KEY,),
        body=s.thing({}, {"inputId": s.CLIENT_ID, "note": s.maybe(s.TEXT)}),
        optional=True,
        refusals=(ErrorCode.NOT_OWNER,),
    ),
)

OPERATIONS: tuple[Operation, ...] = (*RUNS, *SESSIONS, *READING, *INPUTS, *TOOLS, *PEOPLE)

ACCEPTED_BODIES = (JSON, "application/merge-patch+json")
