"""What those who run it do: taking back what tokens allow, and reading who did what. Pure."""

from __future__ import annotations

from gateway.http import schemas as s
from gateway.http.declarations import Answer, JsonSchema, Operation, Parameter

REVOCATION_TTL_S = 30 * 86_400
"""How long a revocation is in force unless it says otherwise: give the longest life of a token."""
REVOCATION_TTL_MAX_S = 3650 * 86_400

AUDIT_PAGE = 100
AUDIT_PAGE_MAX = 1000
_AUDIT_RECORD: dict[str, JsonSchema] = {
    "id": {"type": "string", "description": "the same in both records of an action"},
    "ts": s.TIME_MS,
    "action": {"type": "string", "description": "such as session.delete"},
    "target": {"type": "string", "description": "to what: a session's name, or a few words"},
    "outcome": {
        "type": "string",
        "description": "asked: about to be done; done; or the code with which it was refused",
    },
    "kind": s.one_of("user", "operator"),
    "by": {"type": "string", "description": "the user's id, or the account that ran a command"},
    "address": {"type": "string", "description": "from where, as far as that is known"},
    "process": {"type": "string", "description": "which gateway; antiphon: a command"},
}
AUDIT_FIELDS = tuple(_AUDIT_RECORD)
_ID = {"type": "string", "minLength": 1, "maxLength": 256}
_REVOCATION = s.thing(
    {
        "kind": s.one_of("token", "user", "session"),
        "whose": s.TEXT,
        "user": s.maybe(s.TEXT),
        "before": s.whole(0, 2**53, description="tokens issued up to that second are meant"),
        "until": s.whole(0, 2**53, description="the second at which it is forgotten"),
    }
)
_ONLY_IN_A_SESSION: JsonSchema = {
    "if": {"properties": {"kind": {"enum": ["token", "user"]}}},
    "then": {"properties": {"user": {"type": "null"}}},
}
"""Whose grants are meant is a question of a session alone."""
ADMINISTRATION = (
    Operation(
        "createRevocation",
        "POST",
        "/v1/revocations",
        "Takes back a token (by its `jti`), all tokens that a user has by now, or what they allow in one session",
        {201: Answer("It is in force, at every gateway within a second", _REVOCATION)},
        right="admin",
        body=s.thing(
            {"kind": s.one_of("token", "user", "session"), "whose": _ID},
            {
                "user": s.maybe({**_ID, "maxLength": 128}),
                "ttl": s.whole(1, REVOCATION_TTL_MAX_S, default=REVOCATION_TTL_S),
            },
            **_ONLY_IN_A_SESSION,
        ),
    ),
    Operation(
        "listRevocations",
        "GET",
        "/v1/revocations",
        "What is revoked",
        {200: Answer("All that is in force", s.thing({"revocations": s.listed(_REVOCATION)}))},
        right="admin",
    ),
    Operation(
        "readAudit",
        "GET",
        "/v1/audit",
        "The audit log of the token's tenant, in the order in which it was written: two records for each action, one before "
        "it and one with its outcome",
        {
            200: Answer(
                "A page. `after` is where the next one begins, also if there is none yet",
                s.thing({"records": s.listed(s.thing(_AUDIT_RECORD)), "after": s.TEXT, "end": s.FLAG}),
            )
        },
        right="admin",
        parameters=(
            Parameter("limit", s.whole(1, AUDIT_PAGE_MAX, default=AUDIT_PAGE), "how many"),
            Parameter("after", {"type": "string", "pattern": "^[0-9]{1,16}$"}, "that of the page before"),
        ),
    ),
)
