"""Tools that a client executes, as it declares them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from broker.errors import ErrorCode, Refused
from broker.schema import Schema, SchemaInvalid

MAX_TOOLS = 64
MAX_TOOLS_BYTES = 65_536
"""Bytes that all declarations of a subscription may have together, as JSON."""
TOOL_NAME = r"[A-Za-z0-9_.-]{1,64}"
_NAME = re.compile(TOOL_NAME)


@dataclass(frozen=True, slots=True)
class ToolDeclaration:
    """A tool that a client executes.

    `parameters` and `result` are JSON Schemas of what it takes and gives (None: anything); `idempotent` says that it may
    be executed twice, `needs_permission` that a person must allow each call.
    """

    name: str
    description: str = ""
    parameters: Mapping[str, Any] | None = None
    result: Mapping[str, Any] | None = None
    idempotent: bool = False
    needs_permission: bool = False


def parse_tools(wire: Any) -> dict[str, ToolDeclaration]:
    """The declarations in `tools` of a subscription, by name; None is no tools.

    Raises Refused: bad_command for what is no declaration, schema_invalid for a schema that cannot be used.
    """
    if wire is None:
        return {}
    if not isinstance(wire, list) or len(wire) > MAX_TOOLS:
        raise _bad("tools", f"must be a list of at most {MAX_TOOLS} declarations")
    if _size(wire) > MAX_TOOLS_BYTES:
        raise _bad("tools", f"must have at most {MAX_TOOLS_BYTES} bytes")
    declared: dict[str, ToolDeclaration] = {}
    for index, item in enumerate(wire):
        tool = _declaration(item, f"tools/{index}")
        if tool.name in declared:
            raise _bad(f"tools/{index}/name", "must not be declared twice")
        declared[tool.name] = tool
    return declared


def _declaration(wire: Any, place: str) -> ToolDeclaration:
    if not isinstance(wire, dict):
        raise _bad(place, "must be an object")
    name = wire.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise _bad(f"{place}/name", "must be 1-64 of A-Z a-z 0-9 _ . -")
    description = wire.get("description", "")
    if not isinstance(description, str):
        raise _bad(f"{place}/description", "must be text")
    return ToolDeclaration(
        name,
        description,
        _schema(wire, "parameters", place),
        _schema(wire, "result", place),
        _flag(wire, "idempotent", place),
        _flag(wire, "needsPermission", place),
    )


def _schema(wire: Mapping[str, Any], field: str, place: str) -> Mapping[str, Any] | None:
    schema: Any = wire.get(field)
    if schema is None:
        return None
    if not isinstance(schema, dict):
        raise _bad(f"{place}/{field}", "must be a JSON Schema, an object")
    try:
        Schema(schema)
    except SchemaInvalid as error:
        raise Refused(ErrorCode.SCHEMA_INVALID, f"`{place}/{field}`: {error}", field=f"{place}/{field}") from None
    return schema


def _flag(wire: Mapping[str, Any], field: str, place: str) -> bool:
    value: Any = wire.get(field, False)
    if not isinstance(value, bool):
        raise _bad(f"{place}/{field}", "must be true or false")
    return value


def _size(wire: Any) -> int:
    try:
        return len(orjson.dumps(wire))
    except orjson.JSONEncodeError:
        raise _bad("tools", "must not be nested so deeply") from None


def _bad(field: str, what: str) -> Refused:
    return Refused(ErrorCode.BAD_COMMAND, f"`{field}` {what}", field=field)
