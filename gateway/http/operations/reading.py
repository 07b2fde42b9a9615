"""Reading sessions. Pure."""

from __future__ import annotations

from broker.errors import ErrorCode
from gateway.http import schemas as s
from gateway.http.declarations import EVENT_STREAM, Answer, Operation, Parameter
from gateway.http.operations.parts import CURSOR_REFUSALS, NO_ROOM
from gateway.http.problems import HttpCode
from gateway.protocol import HISTORY_MAX

PAGE_DEFAULT, PAGE_MAX = 256, 1024
"""Entries of a JSON page."""

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
READING = (
    Operation(
        "readEvents",
        "GET",
        "/v1/sessions/{session}/events",
        "The session's entries, as a JSON page or as server-sent events",
        {200: _EVENTS_ANSWER},
        right="read",
        parameters=(_FORMAT, _AFTER, _LAST_EVENT_ID, _REPLAY, _LIMIT_ENTRIES, _DEVICE, _WATCHING),
        refusals=(*CURSOR_REFUSALS, *NO_ROOM, HttpCode.NOT_ACCEPTABLE),
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
        refusals=(*CURSOR_REFUSALS, *NO_ROOM, ErrorCode.SCHEMA_INVALID),
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
