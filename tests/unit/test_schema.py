"""Schemas: what they let through, what they are refused for, and what a check may cost."""

from __future__ import annotations

import time
from typing import Any

import pytest

from broker.errors import ErrorCode, Refused
from broker.schema import SCHEMA_BYTES, Problem, Schema, SchemaInvalid, Schemas
from broker.tools import MAX_TOOLS, MAX_TOOLS_BYTES, ToolDeclaration, parse_tools

QUICK_S = 2.0
"""Far more than any check may take, far less than what an unbounded one would."""


def test_a_problem_says_where_and_what() -> None:
    schema = Schema({"properties": {"a/b": {"items": {"type": "integer"}}}, "required": ["x"]})
    assert schema.problem({"x": 1, "a/b": [1, 2]}) is None
    missing, wrong = schema.problem({"a/b": []}), schema.problem({"x": 1, "a/b": [1, "secret"]})
    assert missing is not None
    assert missing.path == ""
    assert "x" in missing.message
    assert wrong is not None
    assert wrong.path == "/a~1b/1"
    assert "secret" not in wrong.message


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "wrong"},
        {"properties": {"a": {"minLength": -1}}},
        {"$ref": "https://example.com/schema.json"},
        {"$ref": "https://json-schema.org/draft/2020-12/schema"},
        {"$ref": "file:///etc/passwd"},
        {"$ref": "#anchor", "$defs": {"a": {"$anchor": "anchor"}}},
        {"$ref": "#/$defs/none"},
        {"$ref": 5},
        {"$dynamicRef": "#a"},
        {"properties": {"a": {"$id": "https://example.com/a"}}},
        {"pattern": "(?=a)b"},
        {"pattern": "(a)\\1"},
        {"pattern": "(?:a{1000}){1000}"},
        {"description": "x" * SCHEMA_BYTES},
    ],
    ids=lambda schema: str(schema)[:40],
)
def test_what_is_no_schema_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(SchemaInvalid):
        Schema(schema)


def nested(levels: int, inner: Any) -> Any:
    for _ in range(levels):
        inner = {"not": inner}
    return inner


def test_nesting_has_an_end() -> None:
    assert Schema(nested(50, {})).problem(1) is None
    for levels in (201, 400):
        with pytest.raises(SchemaInvalid, match="nested"):
            Schema(nested(levels, {}))
    chain = {f"d{n}": {"$ref": f"#/$defs/d{n + 1}"} for n in range(300)} | {"d300": {}}
    with pytest.raises(SchemaInvalid, match="nested"):
        Schema({"$ref": "#/$defs/d0", "$defs": chain})


def test_names_of_properties_are_no_keywords() -> None:
    schema = Schema({"properties": {"$ref": {"type": "string"}, "$id": {"type": "string"}, "enum": {"minimum": 1}}})
    assert schema.problem({"$ref": "x", "$id": "y", "enum": 2}) is None
    assert schema.problem({"enum": 0}) is not None
    assert Schema({"const": {"$ref": "https://example.com"}}).problem({"$ref": "https://example.com"}) is None


def test_references_that_double_and_double_are_refused() -> None:
    twice = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(40)} | {"d40": {}}
    with pytest.raises(SchemaInvalid, match="unfolded"):
        Schema({"$ref": "#/$defs/d0", "$defs": twice})


def test_a_schema_may_refer_to_itself_at_no_great_cost() -> None:
    node = {"properties": {"x": {"$ref": "#"}}}
    schema = Schema({"allOf": [node, node, {"properties": {"y": {"type": "integer"}}}]})
    value: dict[str, Any] = {"y": "no integer"}
    for _ in range(100):
        value = {"x": value}
    began = time.monotonic()
    assert schema.problem(value) == Problem("", "is not as the schema says")
    assert time.monotonic() - began < QUICK_S


@pytest.mark.parametrize("schema", [{"pattern": "^(a+)+$"}, {"pattern": "^(a|a)*$"}, {"pattern": "(.*)*b$"}], ids=str)
def test_patterns_do_not_backtrack(schema: dict[str, Any]) -> None:
    began = time.monotonic()
    assert Schema(schema).problem("a" * 60_000 + "!") is not None
    assert time.monotonic() - began < QUICK_S


def test_a_check_that_would_cost_too_much_is_not_made() -> None:
    schema = Schema({"items": {"enum": [{"a": n} for n in range(3000)]}})
    assert schema.problem([{"a": 1}]) is None
    problem = schema.problem([{"a": -1}] * 5000)
    assert problem is not None
    assert "too large" in problem.message


def test_values_that_are_no_json_are_a_problem() -> None:
    assert Schema({}).problem({1}) is not None
    deep: Any = 1
    for _ in range(300):
        deep = [deep]
    assert Schema({}).problem(deep) is not None


def test_schemas_are_kept_by_what_they_say() -> None:
    schemas = Schemas(kept=2)
    first = schemas.ready({"type": "string"})
    schemas.ready({"type": "integer"})
    assert schemas.ready({"type": "string"}) is first
    schemas.ready({"type": "null"})
    assert schemas.ready({"type": "string"}) is first, "used last"
    assert schemas.problem(None, object()) is None
    with pytest.raises(SchemaInvalid):
        schemas.problem({"type": "wrong"}, 1)


# --- declarations ----------------------------------------------------------------------------------------------------


def test_declarations() -> None:
    tool = {"name": "t", "description": "d", "parameters": {}, "result": {"type": "object"}, "idempotent": True}
    assert parse_tools(None) == {}
    assert parse_tools([tool, {"name": "u"}]) == {
        "t": ToolDeclaration("t", "d", {}, {"type": "object"}, True, False),
        "u": ToolDeclaration("u"),
    }


@pytest.mark.parametrize(
    ("wire", "field"),
    [
        ({}, "tools"),
        ([{"name": f"t{n}"} for n in range(MAX_TOOLS + 1)], "tools"),
        ([{"name": "t", "description": "x" * MAX_TOOLS_BYTES}], "tools"),
        ([5], "tools/0"),
        ([{}], "tools/0/name"),
        ([{"name": "a b"}], "tools/0/name"),
        ([{"name": "x" * 65}], "tools/0/name"),
        ([{"name": "t"}, {"name": "t"}], "tools/1/name"),
        ([{"name": "t", "description": 5}], "tools/0/description"),
        ([{"name": "t", "parameters": []}], "tools/0/parameters"),
        ([{"name": "t", "idempotent": "yes"}], "tools/0/idempotent"),
        ([{"name": "t", "needsPermission": None}], "tools/0/needsPermission"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_declaration_is_named(wire: Any, field: str) -> None:
    with pytest.raises(Refused) as caught:
        parse_tools(wire)
    assert (caught.value.code, caught.value.data["field"]) == (ErrorCode.BAD_COMMAND, field)


def test_a_schema_of_a_tool_that_cannot_be_used_is_named() -> None:
    with pytest.raises(Refused) as caught:
        parse_tools([{"name": "t"}, {"name": "u", "result": {"type": "wrong"}}])
    assert (caught.value.code, caught.value.data["field"]) == (ErrorCode.SCHEMA_INVALID, "tools/1/result")
