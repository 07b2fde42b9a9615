"""JSON Schemas (2020-12) of tools and questions: made ready once, and values checked against them.

Schemas come from clients and agents, and a gateway checks them in its event loop, so what a check may cost is bounded
before it is made: patterns run on an engine without backtracking, nothing is fetched, and a schema's size with its
references unfolded, times the value's, has a limit.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from broker.errors import AntiphonError

SCHEMA_BYTES = 65_536
"""Bytes that a schema may have as JSON."""
UNFOLDED_NODES = 20_000
"""Subschemas that it may have with its references unfolded: a few that each name the next twice are millions."""
WORK_MAX = 10_000_000
"""What checking a value may cost: the schema's nodes times the value's. About 0.2 s at worst."""
SCHEMAS_KEPT = 256
_DEPTH_MAX = 200
_MESSAGE_CHARS = 300
_PATTERN_BYTES = 1 << 20
_BYTES_A_NODE = 32
"""Text of a value counts too: patterns read it."""
_MAPS = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
"""Keywords that hold schemas by name; any other name in them is no keyword."""
_VALUES = frozenset({"const", "enum", "default", "examples"})


class SchemaInvalid(AntiphonError):
    """A schema that cannot be used; the message says why."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Where a value is not as its schema says (a JSON pointer, "" for the whole), and what is wrong there."""

    path: str
    message: str


class Schema:
    """A schema that is ready to check values."""

    def __init__(self, wire: Mapping[str, Any]) -> None:
        """Raises SchemaInvalid."""
        import jsonschema_rs  # 4 MB, for the processes that meet a schema

        _size(wire)
        self._nodes, self._recursive = _unfold(wire)
        try:
            self._validator = jsonschema_rs.Draft202012Validator(
                dict(wire),
                offline=True,
                mask="the value",
                pattern_options=jsonschema_rs.RegexOptions(size_limit=_PATTERN_BYTES, dfa_size_limit=_PATTERN_BYTES),
            )
        except jsonschema_rs.ValidationError as error:
            place = "".join(f"/{step}" for step in error.instance_path)
            raise SchemaInvalid(f"not a JSON Schema, at {place or 'its root'}: {_short(error.message)}") from None
        except (ValueError, jsonschema_rs.ReferencingError) as error:
            raise SchemaInvalid(f"not a JSON Schema: {_short(str(error))}") from None

    def problem(self, value: Any) -> Problem | None:
        """The first thing that is wrong with a JSON value; None if it is as it should be."""
        import jsonschema_rs

        try:
            body = orjson.dumps(value)
        except orjson.JSONEncodeError:
            return Problem("", "no JSON, or nested too deeply")
        if self._nodes * _nodes_at_most(body) > WORK_MAX:
            return Problem("", "too large to be checked against its schema")
        try:
            if self._validator.is_valid(value):
                return None
            if self._recursive:
                # Of a schema that refers to itself, only the plain check is sure to take no more than its share.
                return Problem("", "is not as the schema says")
            self._validator.validate(value)
        except jsonschema_rs.ValidationError as error:
            return Problem("".join(f"/{_escaped(step)}" for step in error.instance_path), _short(error.message))
        except ValueError:
            return Problem("", "nested too deeply")
        return None


class Schemas:
    """Schemas by what they say; the `kept` used last are kept."""

    def __init__(self, kept: int = SCHEMAS_KEPT) -> None:
        self._kept = kept
        self._ready: OrderedDict[bytes, Schema] = OrderedDict()

    def problem(self, schema: Mapping[str, Any] | None, value: Any) -> Problem | None:
        """What is wrong with `value`; None if nothing is, or there is no schema. Raises SchemaInvalid."""
        return None if schema is None else self.ready(schema).problem(value)

    def ready(self, schema: Mapping[str, Any]) -> Schema:
        """Raises SchemaInvalid."""
        key = _size(schema)
        known = self._ready.pop(key, None)
        self._ready[key] = known or Schema(schema)
        while len(self._ready) > self._kept:
            self._ready.popitem(last=False)
        return self._ready[key]


def _size(schema: Mapping[str, Any]) -> bytes:
    try:
        body = orjson.dumps(schema)
    except orjson.JSONEncodeError:
        raise SchemaInvalid("the schema is no JSON, or nested too deeply") from None
    if len(body) > SCHEMA_BYTES:
        raise SchemaInvalid(f"the schema has {len(body)} bytes, the limit is {SCHEMA_BYTES}")
    return body


def _nodes_at_most(body: bytes) -> int:
    return 1 + body.count(b",") + body.count(b":") + body.count(b"[") + len(body) // _BYTES_A_NODE


def _unfold(root: Mapping[str, Any]) -> tuple[int, bool]:
    """How many nodes the schema has with its references unfolded (each recursion once), and whether it is recursive."""
    unfolding = _Unfolding(root)
    nodes = unfolding.schema(root, 0)
    return nodes, unfolding.recursive


class _Unfolding:
    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._known: dict[str, int] = {}
        self._under_way: set[str] = {"#"}
        self.recursive = False

    def schema(self, node: Any, depth: int) -> int:
        if depth > _DEPTH_MAX:
            raise SchemaInvalid("the schema is nested too deeply")
        if isinstance(node, list):
            return 1 + sum(self.schema(item, depth + 1) for item in node)
        if not isinstance(node, dict):
            return 1
        nodes = 1
        for key, value in node.items():
            nodes += self._keyword(key, value, depth, is_root=node is self._root)
            if nodes > UNFOLDED_NODES:
                raise SchemaInvalid(f"the schema has more than {UNFOLDED_NODES} parts with its references unfolded")
        return nodes

    def _keyword(self, key: str, value: Any, depth: int, *, is_root: bool) -> int:
        if key in _MAPS and isinstance(value, dict):
            return 1 + sum(self.schema(item, depth + 1) for item in value.values())
        if key in _VALUES:
            return _nodes_at_most(orjson.dumps(value))
        if key in ("$dynamicRef", "$recursiveRef") or (key == "$id" and not is_root):
            raise SchemaInvalid(f"`{key}` is not supported: refer to a part of the schema as #/$defs/name")
        return self._reference(value, depth) if key == "$ref" else self.schema(value, depth + 1)

    def _reference(self, pointer: Any, depth: int) -> int:
        if not isinstance(pointer, str) or not (pointer == "#" or pointer.startswith("#/")):
            raise SchemaInvalid("`$ref` must be a JSON pointer into the schema itself, as #/$defs/name")
        if pointer in self._under_way:
            self.recursive = True
            return 1
        if pointer not in self._known:
            self._under_way.add(pointer)
            self._known[pointer] = self.schema(self._target(pointer), depth + 1)
            self._under_way.discard(pointer)
        return self._known[pointer]

    def _target(self, pointer: str) -> Any:
        node: Any = self._root
        for step in pointer.split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            if isinstance(node, dict) and name in node:
                node = node[name]
            elif isinstance(node, list) and name.isascii() and name.isdigit() and int(name) < len(node):
                node = node[int(name)]
            else:
                raise SchemaInvalid(f"there is nothing at `$ref` {_short(pointer)}")
        return node


def _escaped(step: str | int) -> str:
    return str(step).replace("~", "~0").replace("/", "~1")


def _short(text: str) -> str:
    return text if len(text) <= _MESSAGE_CHARS else text[:_MESSAGE_CHARS] + "…"
