"""Sessions themselves. Pure."""

from __future__ import annotations

from broker.errors import ErrorCode
from gateway.http import schemas as s
from gateway.http.declarations import Answer, Operation, Parameter
from gateway.http.operations.parts import LOCATION, QUOTA
from gateway.http.problems import HttpCode
from gateway.plane import LIST_MAX

_SOMETHING = [
    {"required": [name], "properties": {name: {"type": type_}}}
    for name, type_ in (("title", "string"), ("metadata", "object"), ("config", "object"))
]
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
                headers=LOCATION,
                leads_to=("getSession", "readEvents", "sendInput", "deleteSession"),
            ),
            200: Answer(
                "It was created by the same user before",
                s.thing({"session": s.TEXT, "seq": s.SEQ, "duplicate": s.FLAG}),
                headers=LOCATION,
                leads_to=("getSession", "readEvents", "sendInput", "deleteSession"),
            ),
        },
        op="session.create",
        right="send",
        body=s.thing({}, {"session": s.SESSION, **s.ABOUT}),
        optional=True,
        refusals=(ErrorCode.SESSION_EXISTS, ErrorCode.CONFIG_INVALID, *QUOTA),
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
        body=s.thing({}, s.ABOUT, anyOf=_SOMETHING),
        refusals=(ErrorCode.NOT_ALLOWED, ErrorCode.CONFIG_INVALID, ErrorCode.STORAGE_FULL),
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
        {201: Answer("It is made", s.thing({"session": s.TEXT, "messages": s.SEQ}), headers=LOCATION)},
        op="session.fork",
        right="read",
        body=s.thing({"to": s.SESSION}, {"before": s.maybe(s.SEQ)}),
        refusals=(ErrorCode.SESSION_EXISTS, *QUOTA),
    ),
)
