"""The AsyncAPI 3 document of what is not request and answer: the WebSocket, and streams of server-sent events. Pure.

Commands come from the declarations of the HTTP API, whose fields they share; events from the codec's classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.http import schemas as s
from gateway.http.declarations import Operation
from gateway.http.event_schemas import any_event, event_schemas
from gateway.http.operations import OPERATIONS
from gateway.protocol import PROTOCOL_VERSION, SUBPROTOCOL

_ID = s.whole(0, 2**53 - 1, description="chosen by the client; the reply has the same")
_NOT_ON_A_WEBSOCKET = frozenset({"tool", "device"})
"""Fields of HTTP, where no connection says who executes."""
_REQUIRED = {"session.create": ["session"], "input.send": ["inputId"], "handoff.return": ["inputId"]}
"""What a command must say itself, and HTTP may leave to a header or to the server."""

_CONNECTION: Mapping[str, Any] = {
    "hello": s.thing({}, {"token": s.TEXT, "client": s.TEXT, "device": s.DEVICE}),
    "auth.refresh": s.thing({"token": s.TEXT}),
    "ping": s.thing({}),
    "unsubscribe": s.thing({"session": s.SESSION}),
    "presence.set": s.thing({"session": s.SESSION, "state": s.PRESENCE_STATES}),
}
"""Commands about the connection that they come on."""

_PEOPLE = s.listed(
    s.thing(
        {
            "kind": s.TEXT,
            "id": s.TEXT,
            "name": s.maybe(s.TEXT),
            "roles": s.listed(s.TEXT),
            "state": s.PRESENCE_STATES,
            "devices": s.listed(s.thing({"device": s.TEXT, "state": s.PRESENCE_STATES, "tools": s.listed(s.TEXT)})),
        }
    )
)
_IN_SESSION = {"session": s.TEXT}
_SESSION_FRAMES: Mapping[str, Any] = {
    "entry": {
        **s.ENTRY,
        "properties": {**s.ENTRY["properties"], "events": s.listed({"$ref": "#/components/schemas/Event"}, minItems=1)},
    },
    "session.snapshot": s.SNAPSHOT,
    "session.caught_up": s.thing({**_IN_SESSION, "seq": s.SEQ, "cursor": s.CURSOR}),
    "session.gap": s.thing({**_IN_SESSION, "from": s.SEQ, "to": s.SEQ}),
    "session.mark": s.thing({**_IN_SESSION, "seq": s.SEQ}),
    "session.presence": s.thing({**_IN_SESSION, "participants": _PEOPLE}, {"more": s.whole(1, 2**31)}),
    "log.away": s.thing({}),
    "log.back": s.thing({}),
}
"""What readers of a session get, on either wire."""
_ANY_NUMBER = s.whole(0, 2**53)
_RATE = {"type": "number", "minimum": 0}
_LIMITS = s.thing(
    {
        **dict.fromkeys(("frame_bytes", "input_bytes", "subscriptions", "command_queue"), _ANY_NUMBER),
        **dict.fromkeys(("scheduled_inputs", "scheduled_bytes"), _ANY_NUMBER),
        "schedule_ahead_s": {"type": "number", "minimum": 1},
        **{
            f"{what}_{how}": schema
            for what in ("commands", "bytes", "inputs", "joins", "requests")
            for how, schema in (("per_second", _RATE), ("burst", _ANY_NUMBER))
        },
        **dict.fromkeys(
            ("user_connections", "address_connections", "tenant_sessions", "tenant_bytes"),
            s.whole(0, 2**53, description="0: as many as there is room for"),
        ),
        **dict.fromkeys(("pace_factor", "user_frames_per_second", "address_frames_per_second"), _RATE),
    }
)
"""What the client may do, by the names of the settings."""
_REPLIES: Mapping[str, Any] = {
    "welcome": s.thing(
        {
            "id": _ID,
            "protocol": {"const": PROTOCOL_VERSION},
            "server": s.TEXT,
            "gateway": s.TEXT,
            "connection": s.TEXT,
            "user": s.thing({"id": s.TEXT, "name": s.maybe(s.TEXT)}),
            "token_expires_at": s.whole(0, 2**53),
            "limits": _LIMITS,
            "heartbeat_ms": s.whole(0, 2**53),
        }
    ),
    "ok": s.thing({"id": _ID}),
    "error": s.thing({"id": s.maybe(_ID), "code": s.TEXT, "message": s.TEXT, "retryable": s.FLAG}),
    "pong": s.thing({"id": _ID, "ts": s.TIME_MS}),
}
_ENDED: Mapping[str, Any] = {
    "session.unsubscribed": s.thing({**_IN_SESSION, "code": s.TEXT, "message": s.TEXT}, {"right": s.TEXT})
}
"""What only a connection with several sessions is told: a stream of one session just ends."""
_CLOSING = s.thing({"code": s.TEXT}, {"retry_after_ms": s.whole(0, 2**53)})


def commands() -> dict[str, Any]:
    """The schema of each command, by its `op`."""
    found = dict(_CONNECTION)
    for operation in OPERATIONS:
        if operation.op and operation.op not in found:
            found[operation.op] = _command(operation)
    # One command, two operations of HTTP: with a hand-over, and without.
    found["handoff.claim"] = s.thing({"session": s.SESSION}, {"lane": s.LANE, "handoffId": s.WORKER_ID})
    return found


def _command(operation: Operation) -> dict[str, Any]:
    parts = {name: s.PATH_PARTS[name][0] for name in operation.places}
    given = {p.field: p.schema for p in operation.parameters if p.field and p.place == "query"}
    body = operation.body or {}
    fields = {n: schema for n, schema in body.get("properties", {}).items() if n not in _NOT_ON_A_WEBSOCKET}
    # A hand-over's lane is the main one unless it is given.
    required = [*(n for n in parts if n != "lane"), *body.get("required", ()), *_REQUIRED.get(operation.op, ())]
    return {
        "type": "object",
        "description": operation.meaning,
        "properties": {**parts, **given, **fields},
        "required": list(dict.fromkeys(required)),
    }


def frames() -> dict[str, Any]:
    """The schema of each frame of the server, by its `op`."""
    return {**_REPLIES, **_SESSION_FRAMES, **_ENDED}


def document(version: str) -> dict[str, Any]:
    """`version` is the server's."""
    own = commands()
    messages = {
        **{f"command:{op}": _message(op, _with_op(op, schema, id_=True)) for op, schema in own.items()},
        **{f"frame:{op}": _message(op, _with_op(op, schema)) for op, schema in frames().items()},
        "frame:closing": _message("closing", _with_op("closing", _CLOSING)),
    }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Antiphon",
            "version": version,
            "description": "Sessions of an Antiphon gateway, live. PROTOCOL.md says what it means.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": _channels([*(f"command:{op}" for op in own), *(f"frame:{op}" for op in frames())]),
        "operations": _operations([f"command:{op}" for op in own]),
        "components": {
            "messages": messages,
            "schemas": {"Event": any_event("#/components/schemas/"), **event_schemas()},
        },
    }


_TOLD = [f"frame:{op}" for op in _SESSION_FRAMES]
_STREAMED = [*_TOLD, "frame:closing"]


def _channels(on_socket: list[str]) -> dict[str, Any]:
    return {
        "socket": {
            "address": "/v1/connect",
            "description": f"A WebSocket with the subprotocol {SUBPROTOCOL}",
            "messages": _listed(on_socket),
            "bindings": {"ws": {"method": "GET"}},
        },
        "stream": {
            "address": "/v1/sessions/{session}/events",
            "description": "Server-sent events: the name is the frame's `op`, the id a cursor, the data the frame",
            "parameters": {"session": {"description": "the session"}},
            "messages": _listed(_STREAMED),
            "bindings": {"http": {}},
        },
    }


def _operations(own: list[str]) -> dict[str, Any]:
    """As the gateway sees them: it receives commands, and sends what is in the log."""
    socket, stream = {"$ref": "#/channels/socket"}, {"$ref": "#/channels/stream"}
    replies = [f"frame:{op}" for op in _REPLIES]
    return {
        "command": {
            "action": "receive",
            "channel": socket,
            "messages": _refs("socket", own),
            "reply": {"channel": socket, "messages": _refs("socket", replies)},
        },
        "tell": {
            "action": "send",
            "channel": socket,
            "messages": _refs("socket", [*_TOLD, "frame:session.unsubscribed"]),
        },
        "stream": {"action": "send", "channel": stream, "messages": _refs("stream", _STREAMED)},
    }


def _with_op(op: str, schema: Mapping[str, Any], *, id_: bool = False) -> dict[str, Any]:
    own = {"op": {"const": op}, **({"id": _ID} if id_ else {})}
    return {
        **schema,
        "properties": {**own, **schema["properties"]},
        "required": list(dict.fromkeys([*own, *schema.get("required", ())])),
    }


def _message(op: str, payload: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": op, "contentType": "application/json", "payload": payload}


def _listed(names: list[str]) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/messages/{name}"} for name in names}


def _refs(channel: str, names: list[str]) -> list[dict[str, Any]]:
    return [{"$ref": f"#/channels/{channel}/messages/{name}"} for name in names]
