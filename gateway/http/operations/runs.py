"""One-shot runs. Pure."""

from __future__ import annotations

from broker.errors import ErrorCode
from gateway.http import schemas as s
from gateway.http.declarations import EVENT_STREAM, Answer, Operation, Parameter
from gateway.http.operations.parts import IDEMPOTENCY_KEY, LOCATION, NO_ROOM, QUOTA

BATCH_MAX = 16
"""Runs of a batch."""

RUN_STATUSES = (
    *("scheduled", "queued", "running", "requires_action"),
    *("applied", "success", "cancelled", "error", "failed", "ended"),
)
"""`applied`: a human has the session, so that there is no run; `ended`: how is long forgotten."""

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
    {"content": s.TEXT},
    {
        "session": s.SESSION,
        "inputId": s.CLIENT_ID,
        "mode": s.maybe(s.MODE),
        "attachments": s.ATTACHMENTS,
        **s.ABOUT,
    },
    **s.SOMETHING_SAID,
)
_CREATE_RUN = {
    **_ONE_SHOT,
    "properties": {**_ONE_SHOT["properties"], "wait": _WAIT, "stream": s.one_of("entries", "text")},
}
_RUN_REFUSALS = (
    ErrorCode.ATTACHMENT_NOT_FOUND,
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
            200: Answer("The run is over", _RUN, also=(EVENT_STREAM,), leads_to=("getRun", "listMessages")),
            202: Answer(
                "It takes longer: ask again where `Location` says",
                _RUN,
                headers=LOCATION,
                leads_to=("getRun", "cancelRun"),
            ),
        },
        right="send",
        parameters=(IDEMPOTENCY_KEY,),
        body=_CREATE_RUN,
        refusals=(*_RUN_REFUSALS, *NO_ROOM, *QUOTA),
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
