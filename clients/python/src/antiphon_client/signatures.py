"""A tool made of a function: its JSON Schema is read from the signature."""

from __future__ import annotations

import inspect
import types
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Literal, Union, get_args, get_origin, get_type_hints, overload

from ._json import JsonObject
from .threads import is_async
from .tools import Execute, Execution, ThreadExecution, Tool, threaded

Function = Callable[..., Awaitable[object] | object]

_PLAIN: Final[Mapping[object, str]] = {str: "string", int: "integer", float: "number", bool: "boolean"}


@overload
def tool(function: Function, /) -> Tool: ...


@overload
def tool(
    *,
    name: str | None = None,
    description: str | None = None,
    result: JsonObject | None = None,
    idempotent: bool = False,
    needs_permission: bool = False,
) -> Callable[[Function], Tool]: ...


def tool(
    function: Function | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    result: JsonObject | None = None,
    idempotent: bool = False,
    needs_permission: bool = False,
) -> Tool | Callable[[Function], Tool]:
    """Make a `Tool` of a function, with its name, its docstring, and the schema of its parameters.

    ::

        @tool
        def word_count(path: str) -> int:
            "How many words a file of this machine has."
            return len(Path(path).read_text().split())

    A coroutine function is executed in the event loop, any other in a thread (see `threaded`). A
    parameter that is annotated `Execution` (of a plain function: `ThreadExecution`) gets the call.
    Parameters are `str`, `int`, `float`, `bool`, `None`, `list[…]`, `dict[str, …]`, `Literal[…]`,
    unions of these, and `Any` or `object` for any JSON; what has a default need not be given.
    Raises TypeError for any other parameter, and ValueError as `Tool` does.
    """

    def made(function: Function) -> Tool:
        parameters, takes_call = parameters_of(function, Execution if is_async(function) else ThreadExecution)
        return Tool(
            name or str(getattr(function, "__name__", "")),
            parameters,
            execute=_execute(function, takes_call),
            description=(inspect.getdoc(function) or "") if description is None else description,
            result=result,
            idempotent=idempotent,
            needs_permission=needs_permission,
        )

    return made if function is None else made(function)


def _execute(function: Function, takes_call: str | None) -> Execute:
    def bound(args: JsonObject, call: object) -> Any:
        return function(**args, **({} if takes_call is None else {takes_call: call}))

    if not is_async(function):
        return threaded(bound)

    async def execute(args: JsonObject, execution: Execution) -> object:
        found: object = await bound(args, execution)
        return found

    return execute


def parameters_of(function: Callable[..., object], call: type) -> tuple[JsonObject, str | None]:
    """The schema of a function's parameters, and the name of the one that is annotated `call`.

    Raises TypeError for what has no name, no annotation, or a type that is no JSON.
    """
    hints = get_type_hints(function)
    properties: dict[str, object] = {}
    required: list[str] = []
    takes_call = None
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind not in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD) or name not in hints:
            raise TypeError(f"parameter {name}: a tool's parameters have names and annotations")
        if hints[name] is call:
            takes_call = name
            continue
        properties[name] = schema_of(hints[name], name)
        if parameter.default is parameter.empty:
            required.append(name)
    schema = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    return schema, takes_call


def schema_of(hint: object, name: str) -> JsonObject:
    """The JSON Schema of a type. Raises TypeError for what is no JSON."""
    origin, args = get_origin(hint), get_args(hint)
    if hint in (Any, object):
        return {}
    if hint in (None, type(None)):
        return {"type": "null"}
    if hint in _PLAIN:
        return {"type": _PLAIN[hint]}
    if origin is Literal:
        return {"enum": list(args)}
    if origin in (Union, types.UnionType):
        return {"anyOf": [schema_of(each, name) for each in args]}
    if hint is list or origin is list:
        return {"type": "array"} | ({"items": schema_of(args[0], name)} if args else {})
    if hint is dict or (origin is dict and args[0] is str):
        return {"type": "object"} | ({"additionalProperties": schema_of(args[1], name)} if args else {})
    raise TypeError(f"parameter {name}: {hint} has no JSON Schema here; give one with `Tool`")
