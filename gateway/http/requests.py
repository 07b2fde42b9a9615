"""A request, read by the declaration of its operation: what the command's fields are, or what is wrong with them."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import Any

import orjson
from aiohttp import web

from broker.depth import SENT_DEPTH_MAX, is_deeper
from broker.errors import ErrorCode, Refused
from broker.schema import Schema
from broker.subjects import SessionKey
from gateway.auth import Identity
from gateway.http.declarations import Operation, Parameter
from gateway.http.operations import ACCEPTED_BODIES
from gateway.http.problems import HttpCode, Problem
from gateway.http.schemas import CURSOR, PATH_PARTS

_QUALITY = re.compile(r"[01](\.[0-9]{0,3})?")
"""RFC 9110, section 12.4.2."""
_BODY_TIMEOUT_S = 30.0
"""How long a body may take to come."""

_CODES = {
    "/config": ErrorCode.CONFIG_INVALID,
    "/title": ErrorCode.CONTENT_TOO_LARGE,
    "/after": ErrorCode.CURSOR_BAD,
}
"""Parts of bodies whose refusal has a code of its own, as it has on the WebSocket."""


_TRACE_CONTEXT = ("traceparent", "tracestate")
"""Headers of W3C Trace Context, and the fields of a command that they are."""


@dataclass(frozen=True, slots=True)
class Call:
    """A request that is well-formed, and whose it is. `fields` are the command's; `extra` what HTTP alone has."""

    operation: Operation
    request: web.Request
    who: Identity
    fields: dict[str, Any]
    extra: dict[str, Any]

    @property
    def session(self) -> str:
        return str(self.fields["session"])

    @property
    def key(self) -> SessionKey:
        """The session among those of all tenants."""
        return self.who.key(self.session)


class Checks:
    """Checks values by the schemas of the declarations, each made ready when it is first needed."""

    def __init__(self) -> None:
        self._ready: dict[int, Schema] = {}

    def problem(self, schema: Any, value: Any) -> tuple[str, str] | None:
        """Where a value is not as the schema says, and what is wrong there. `schema` must live as long as this."""
        ready = self._ready.get(id(schema))
        if ready is None:
            ready = self._ready[id(schema)] = Schema(schema)
        found = ready.problem(value)
        return None if found is None else (found.path, found.message)


async def read_call(operation: Operation, request: web.Request, who: Identity, checks: Checks, body_bytes: int) -> Call:
    """Raises Refused, Problem."""
    _check_encoding(operation, request)
    body = {} if operation.body is None else await _body(operation, request, checks, body_bytes)
    extra: dict[str, Any] = {}
    fields: dict[str, Any] = {}
    for parameter in operation.parameters:
        # Of two that give the same field the first counts, and the other is not looked at.
        value = None if parameter.field in fields else _value(parameter, request, checks)
        if value is not None:
            (fields if parameter.field else extra)[parameter.field or parameter.name] = value
    parts = dict(request.match_info)
    for name, value in parts.items():
        found = checks.problem(PATH_PARTS[name][0], value)
        if found is not None:
            raise Refused(ErrorCode.BAD_NAME, f"`{name}` in the path: {found[1]}", field=name)
    traced = {name: request.headers[name] for name in _TRACE_CONTEXT if name in request.headers}
    # What the path says counts, whatever a body says.
    return Call(operation, request, who, body | traced | fields | parts, extra)


def _check_encoding(operation: Operation, request: web.Request) -> None:
    """A body is as it is: what it would be when unpacked has no bound. Raises Refused, Problem."""
    if request.headers.get("Content-Encoding", "identity").strip().lower() == "identity":
        return
    text = "send the body as it is, without a `Content-Encoding`"
    if operation.body is not None:
        raise Problem(HttpCode.UNSUPPORTED_MEDIA_TYPE, text, headers={"Accept-Encoding": "identity"})
    if operation.takes:
        raise Refused(ErrorCode.MEDIA_TYPE_REFUSED, text)


def _value(parameter: Parameter, request: web.Request, checks: Checks) -> Any:
    """The value of a parameter, as its schema says; None if it is absent."""
    if parameter.place == "header":
        # Several lines of a header are one list (RFC 9110, section 5.3).
        values = [", ".join(lines)] if (lines := request.headers.getall(parameter.name, [])) else []
    else:
        values = request.query.getall(parameter.name, [])
    if not values:
        return None
    if len(values) > 1:
        raise _bad(parameter.name, "must be there once")
    value = _converted(values[0], parameter)
    found = checks.problem(parameter.schema, value)
    if found is not None:
        code = ErrorCode.CURSOR_BAD if parameter.schema is CURSOR else ErrorCode.BAD_COMMAND
        raise _bad(parameter.name, found[1], code)
    return value


def _converted(text: str, parameter: Parameter) -> Any:
    match parameter.schema.get("type"):
        case "integer" if text.isascii() and text.removeprefix("-").isdigit() and len(text) <= 20:
            return int(text)
        case "boolean" if text in ("true", "false"):
            return text == "true"
        case _:
            return text


async def _body(operation: Operation, request: web.Request, checks: Checks, limit: int) -> dict[str, Any]:
    data = await _read(request, limit)
    if not data and operation.optional:
        return {}
    if request.content_type not in ACCEPTED_BODIES:
        text = "the body must be JSON: say `Content-Type: application/json`"
        raise Problem(HttpCode.UNSUPPORTED_MEDIA_TYPE, text, headers={"Accept-Post": ACCEPTED_BODIES[0]})
    return body_of(operation, data, checks)


def body_of(operation: Operation, data: bytes, checks: Checks) -> dict[str, Any]:
    """What a body says, which is as the operation's schema wants it. Raises Refused."""
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        raise Refused(ErrorCode.BAD_JSON, "the body is not JSON in UTF-8") from None
    if not isinstance(value, dict):
        raise Refused(ErrorCode.BAD_JSON, "the body is not a JSON object")
    if is_deeper(value, data, SENT_DEPTH_MAX):
        raise Refused(ErrorCode.BAD_JSON, f"the body is nested in more than {SENT_DEPTH_MAX} levels")
    found = checks.problem(operation.body, value)
    if found is not None:
        path, message = found
        code = next((code for part, code in _CODES.items() if path.startswith(part)), ErrorCode.BAD_COMMAND)
        raise _bad(path.removeprefix("/") or "the body", message, code)
    checked: dict[str, Any] = _whole(operation.body, value)
    return checked


def _whole(schema: Any, value: Any) -> Any:
    """The value with its whole numbers as such: to JSON Schema, 5.0 is one."""
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        return {name: _whole(properties[name], item) if name in properties else item for name, item in value.items()}
    if isinstance(value, list) and "items" in schema:
        return [_whole(schema["items"], item) for item in value]
    return int(value) if isinstance(value, float) and "integer" in schema.get("type", ()) else value


async def _read(request: web.Request, limit: int) -> bytes:
    """Raises Refused (content_too_large), Problem for one that does not come."""
    if (request.content_length or 0) > limit:
        raise _too_large(limit)
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(_BODY_TIMEOUT_S):
            async for part in request.content.iter_any():
                size += len(part)
                if size > limit:
                    raise _too_large(limit)
                parts.append(part)
    except TimeoutError:
        raise Problem(ErrorCode.BAD_JSON, "the body did not come in time", headers={"Connection": "close"}) from None
    return b"".join(parts)


def _too_large(limit: int) -> Refused:
    return Refused(ErrorCode.CONTENT_TOO_LARGE, f"the body has more than {limit} bytes", limit=limit)


def _bad(name: str, what: str, code: ErrorCode = ErrorCode.BAD_COMMAND) -> Refused:
    return Refused(code, f"`{name}`: {what}", field=name)


def accepted(header: str | None, offers: tuple[str, ...]) -> str | None:
    """Which of the offered media types an `Accept` header likes most; the first of them if it does not say."""
    if not header:
        return offers[0]
    best, best_q = None, 0.0
    for item in header.split(","):
        media, *parameters = (part.strip() for part in item.split(";"))
        quality = next((p[2:] for p in parameters if p.startswith("q=")), "1")
        q = float(quality) if _QUALITY.fullmatch(quality) else 0.0
        offer = next((o for o in offers if media.lower() in (o, f"{o.split('/')[0]}/*", "*/*")), None)
        if offer is not None and q > best_q:
            best, best_q = offer, q
    return best
