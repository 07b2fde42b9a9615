"""What participants do: inputs, tools, approvals, hand-overs. Pure."""

from __future__ import annotations

from broker.errors import ErrorCode
from gateway.http import schemas as s
from gateway.http.declarations import Answer, Operation, Parameter
from gateway.http.operations.parts import IDEMPOTENCY_KEY, LOCATION, QUOTA
from gateway.plane import LEASE_MS_DEFAULT, LEASE_MS_MAX, LEASE_MS_MIN, LIST_MAX
from gateway.protocol import TIME_MAX_MS

_TOOL = {
    "tool": s.thing({}, {"parameters": s.maybe(s.OBJECT), "result": s.maybe(s.OBJECT)}, description="its schemas"),
    "device": s.DEVICE,
}
_CLAIM = {"claimId": s.CLIENT_ID}
_RESULT_OR_ERROR = [
    {"required": ["result"], "properties": {"error": {"type": "null"}}},
    {"required": ["error"], "properties": {"error": s.TEXT}, "not": {"required": ["result"]}},
]
_CALL_REFUSALS = (
    ErrorCode.CALL_NOT_FOUND,
    ErrorCode.ALREADY_RESOLVED,
    ErrorCode.DEADLINE_PASSED,
)
INPUTS = (
    Operation(
        "sendInput",
        "POST",
        "/v1/sessions/{session}/inputs",
        "Sends a message for the agent, now or at a time. Its id, which makes sending again safe, is `inputId` or Idempotency-Key",
        {
            201: Answer("It is stored", s.RECEIPT, headers=LOCATION, leads_to=("cancelInput", "getRun", "cancelRun")),
            200: Answer("It was stored before, under the same id", s.RECEIPT, headers=LOCATION),
        },
        op="input.send",
        right="send",
        parameters=(IDEMPOTENCY_KEY,),
        body=s.thing(
            {"content": s.TEXT},
            {
                "inputId": s.CLIENT_ID,
                "mode": s.maybe(s.MODE),
                "attachments": s.ATTACHMENTS,
                "at": s.maybe(s.TIME_MS),
                "delayMs": s.maybe(s.whole(0, TIME_MAX_MS, description="ms from now on, in place of `at`")),
            },
            **s.SOMETHING_SAID,
            **s.ONE_TIME,
        ),
        refusals=(
            ErrorCode.ATTACHMENT_NOT_FOUND,
            ErrorCode.QUEUE_FULL,
            ErrorCode.SESSION_FULL,
            ErrorCode.SCHEDULE_FULL,
            ErrorCode.TOO_FAR_AHEAD,
            ErrorCode.SESSION_CLOSED,
            ErrorCode.BUSY,
            ErrorCode.CANNOT_INJECT,
            ErrorCode.MODE_NOT_ALLOWED,
            *QUOTA,
        ),
    ),
    Operation(
        "cancelInput",
        "DELETE",
        "/v1/sessions/{session}/inputs/{inputId}",
        "Takes back an input that waits, or is scheduled",
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
        body=s.thing(_CLAIM, {"result": s.ANY, "error": s.maybe(s.TEXT), **_TOOL}, oneOf=_RESULT_OR_ERROR),
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
        parameters=(IDEMPOTENCY_KEY,),
        body=s.thing({}, {"inputId": s.CLIENT_ID, "note": s.maybe(s.TEXT)}),
        optional=True,
        refusals=(ErrorCode.NOT_OWNER,),
    ),
)
