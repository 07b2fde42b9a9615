"""The OpenAPI document says what the gateway routes, and nothing else."""

from __future__ import annotations

import re
from typing import Any

import jsonschema_rs
import orjson
import pytest
from aiohttp import web

from broker.errors import ErrorCode
from broker.schema import Schema
from gateway.http import schemas
from gateway.http.asyncapi import commands
from gateway.http.openapi import document
from gateway.http.operations import OPERATIONS
from gateway.http.problems import CONFLICT, STATUS, TITLES, HttpCode
from gateway.http.routing import routes

DOCUMENT: dict[str, Any] = orjson.loads(orjson.dumps(document("1.0.0")))
ELSEWHERE = {"hello_required", "not_subscribed", "already_subscribed", "too_many_subscriptions", "not_declared"}
"""Codes of the WebSocket alone: they are about its connection."""


def nodes(node: Any) -> list[dict[str, Any]]:
    if isinstance(node, dict):
        return [node, *(found for value in node.values() for found in nodes(value))]
    return [found for value in node for found in nodes(value)] if isinstance(node, list) else []


def test_every_route_is_in_it() -> None:
    async def nothing(_: web.Request) -> web.Response:
        raise AssertionError

    app = web.Application()
    routes(app, lambda _: nothing)
    routed = {
        (route.method, route.resource.canonical)
        for route in app.router.routes()
        if route.resource is not None and route.method != "HEAD"
    }
    told = {(method.upper(), path) for path, methods in DOCUMENT["paths"].items() for method in methods}
    assert routed == told
    assert len(told) == len(OPERATIONS)


def test_names_are_unique_and_paths_have_their_parts() -> None:
    names = [operation.name for operation in OPERATIONS]
    assert len(set(names)) == len(names)
    assert {part for operation in OPERATIONS for part in operation.places} == set(schemas.PATH_PARTS)


def test_its_references_lead_somewhere_and_all_parts_are_used() -> None:
    references = set(re.findall(r'"\$ref":"#/components/schemas/(\w+)"', orjson.dumps(DOCUMENT).decode()))
    assert references <= set(DOCUMENT["components"]["schemas"])


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_its_schemas_can_be_used(operation: Any) -> None:
    if operation.body is not None:
        Schema(operation.body)
    for parameter in operation.parameters:
        Schema(parameter.schema)
    for answer in operation.answers.values():
        if answer.schema is not None:
            Schema(answer.schema)
            jsonschema_rs.meta.validate(answer.schema)


def test_every_code_has_a_status_and_every_status_a_title() -> None:
    told = {code for operation in OPERATIONS for code in operation.codes()}
    everywhere = {HttpCode.NOT_FOUND, HttpCode.METHOD_NOT_ALLOWED}
    assert {*ErrorCode, *HttpCode} - told - everywhere == ELSEWHERE
    assert {STATUS.get(code, CONFLICT) for code in told | everywhere} == set(TITLES)


def test_operations_that_are_commands_are_of_the_protocol() -> None:
    assert {operation.op for operation in OPERATIONS} - {""} <= set(commands())
    without = set(commands()) - {operation.op for operation in OPERATIONS}
    assert without == {"hello", "auth.refresh", "ping", "unsubscribe", "presence.set"}
