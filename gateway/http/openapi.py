"""The OpenAPI 3.1 document of the HTTP API, made of the declarations that requests are routed and checked by. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.http import schemas as s
from gateway.http.declarations import EVENT_STREAM, JSON, Answer, Operation, Parameter
from gateway.http.operations import OPERATIONS
from gateway.http.problems import CONFLICT, MEDIA_TYPE, STATUS, TITLES

_COMPONENTS: Mapping[str, Any] = {
    "Attachment": s.ATTACHMENT,
    "By": s.BY,
    "Config": s.CONFIG,
    "Entry": s.ENTRY,
    "ListedSession": s.LISTED_SESSION,
    "Message": s.MESSAGE,
    "Problem": s.PROBLEM,
    "Receipt": s.RECEIPT,
    "Snapshot": s.SNAPSHOT,
    "State": s.STATE,
    "Tool": s.TOOL,
}
_NAMES = {id(schema): name for name, schema in _COMPONENTS.items()}

_EVENT = {
    "type": "object",
    "description": "An event of the stream; its data is JSON",
    "properties": {
        "event": {"type": "string"},
        "id": {"type": "string"},
        "data": {"type": "string", "contentMediaType": JSON},
    },
}

_BYTES = {"type": "string", "format": "binary"}

_TEXT = (
    "The sessions of an Antiphon gateway over HTTP. What commands mean, and what entries say, is in PROTOCOL.md; how "
    "they go over HTTP, in HTTP.md."
)


def document(version: str) -> dict[str, Any]:
    """`version` is the server's."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation)
    schemas = {name: _plain(schema, top=True) for name, schema in _COMPONENTS.items()}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Antiphon",
            "version": version,
            "description": _TEXT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
        },
    }


def _operation(operation: Operation) -> dict[str, Any]:
    parameters = [_place(name) for name in operation.places] + [_parameter(p) for p in operation.parameters]
    wire: dict[str, Any] = {"operationId": operation.name, "summary": operation.meaning}
    if operation.right:
        wire["description"] = f"Needs the right `{operation.right}` in the session."
    if parameters:
        wire["parameters"] = parameters
    if operation.body is not None:
        content = {JSON: {"schema": _plain(operation.body)}}
        wire["requestBody"] = {"required": not operation.optional, "content": content}
    if operation.takes:
        wire["requestBody"] = {"required": True, "content": {operation.takes: {"schema": _BYTES}}}
    answers = {str(status): _answer(answer, operation) for status, answer in sorted(operation.answers.items())}
    return wire | {"responses": answers | _problems(operation)}


def _place(name: str) -> dict[str, Any]:
    schema, meaning = s.PATH_PARTS[name]
    return {"name": name, "in": "path", "required": True, "description": meaning, "schema": _plain(schema)}


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": parameter.place,
        "description": parameter.meaning,
        "schema": _plain(parameter.schema),
    }


def _answer(answer: Answer, operation: Operation) -> dict[str, Any]:
    wire: dict[str, Any] = {"description": answer.meaning}
    if answer.headers:
        wire["headers"] = {
            name: {"description": meaning, "required": True, "schema": {"type": "string"}}
            for name, meaning in answer.headers
        }
    content: dict[str, Any] = {} if answer.schema is None else {JSON: {"schema": _plain(answer.schema)}}
    for media in answer.also:
        content[media] = {"schema": _EVENT if media == EVENT_STREAM else _BYTES}
    links = {name: _link(name, operation) for name in answer.leads_to}
    return wire | ({"content": content} if content else {}) | ({"links": links} if links else {})


def _link(name: str, operation: Operation) -> dict[str, Any]:
    """The path's parts of the operation that it leads to are those of this one's path, or fields of its answer."""
    (target,) = (o for o in OPERATIONS if o.name == name)
    parts = {
        part: f"$request.path.{part}" if part in operation.places else f"$response.body#/{part}"
        for part in target.places
    }
    return {"operationId": name, "parameters": parts}


def _problems(operation: Operation) -> dict[str, Any]:
    """What it may be refused with, by status; each answer names its codes."""
    by_status: dict[int, list[str]] = {}
    for code in operation.codes():
        by_status.setdefault(STATUS.get(code, CONFLICT), []).append(str(code))
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        str(status): {"description": f"{TITLES[status]}: {', '.join(f'`{c}`' for c in codes)}", "content": content}
        for status, codes in sorted(by_status.items())
    }


def _plain(node: Any, *, top: bool = False) -> Any:
    """The schema with references for the parts that have a name."""
    if isinstance(node, Mapping):
        if not top and id(node) in _NAMES:
            return {"$ref": f"#/components/schemas/{_NAMES[id(node)]}"}
        return {key: _plain(value) for key, value in node.items()}
    if isinstance(node, (list, tuple)):
        return [_plain(item) for item in node]
    return node
