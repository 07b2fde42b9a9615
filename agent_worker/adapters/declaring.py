"""Tools as an author declares them: functions of the agent's own, tools that clients of the session execute, servers."""

from __future__ import annotations

import inspect
import types
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, Union, get_args, get_origin, get_type_hints, overload, runtime_checkable

from agent_worker.approvals import Permission
from agent_worker.context import SessionContext
from agent_worker.tools import Invocation

_PLAIN: Mapping[object, str] = {str: "string", int: "integer", float: "number", bool: "boolean"}


def _any_object() -> Mapping[str, Any]:
    return {"type": "object"}


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool of the agent's own: `function` is given the call and returns JSON or text.

    `idempotent`: it may be called again after a crash, with the same `idempotency_key`. With `needs_permission` people
    are asked before each call.
    """

    name: str
    function: Callable[[Invocation], Awaitable[Any]]
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=_any_object)
    idempotent: bool = False
    needs_permission: bool | Permission = False


@dataclass(frozen=True, slots=True)
class ClientTool:
    """A tool that a client of the session executes: see `SessionContext.client_tool`."""

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=_any_object)
    deadline_s: float = 120.0
    idempotent: bool | None = None
    needs_permission: bool | Permission | None = None


@runtime_checkable
class ToolSource(Protocol):
    """Tools that are known only once something is connected, for the time of one run."""

    def tools(self, ctx: SessionContext) -> Any:
        """An async context manager that gives a sequence of tools."""
        ...


AnyTool = Tool | ClientTool
Offered = AnyTool | ToolSource | Callable[..., Coroutine[Any, Any, Any]]


# --- made of functions ---------------------------------------------------------------------------------------------------


AsyncFunction = Callable[..., Coroutine[Any, Any, Any]]


@overload
def tool(function: AsyncFunction, /) -> Tool: ...


@overload
def tool(
    *,
    name: str | None = None,
    description: str | None = None,
    idempotent: bool = False,
    needs_permission: bool | Permission = False,
) -> Callable[[AsyncFunction], Tool]: ...


def tool(
    function: AsyncFunction | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    idempotent: bool = False,
    needs_permission: bool | Permission = False,
) -> Tool | Callable[[AsyncFunction], Tool]:
    """Makes a `Tool` of an async function: its name, its docstring, and the schema of its parameters.

    Parameters are `str`, `int`, `float`, `bool`, `None`, `list[…]`, `dict[str, …]`, `Literal[…]`, unions of these, and
    `Any`; one that is annotated `Invocation` gets the call. Raises TypeError for any other.
    """

    def made(function: AsyncFunction) -> Tool:
        if not inspect.iscoroutinefunction(function):
            raise TypeError(f"{getattr(function, '__name__', function)}: a tool must be an async function")
        parameters, takes_call = _parameters(function)

        async def call(invocation: Invocation) -> Any:
            return await function(**invocation.args, **({} if takes_call is None else {takes_call: invocation}))

        told = (inspect.getdoc(function) or "") if description is None else description
        return Tool(name or function.__name__, call, told, parameters, idempotent, needs_permission)

    return made if function is None else made(function)


def client_tool(
    name: str, description: str = "", parameters: Mapping[str, Any] | None = None, **options: Any
) -> ClientTool:
    """A tool that a client executes; options are those of `ClientTool`."""
    return ClientTool(name, description, parameters or _any_object(), **options)


def _parameters(function: Callable[..., Any]) -> tuple[dict[str, Any], str | None]:
    hints = get_type_hints(function)
    properties: dict[str, Any] = {}
    required: list[str] = []
    takes_call = None
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind not in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD) or name not in hints:
            raise TypeError(f"parameter {name}: a tool's parameters have names and annotations")
        if hints[name] is Invocation:
            takes_call = name
            continue
        properties[name] = _schema_of(hints[name], name)
        if parameter.default is parameter.empty:
            required.append(name)
    schema = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    return schema, takes_call


def _schema_of(hint: object, name: str) -> dict[str, Any]:
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
        return {"anyOf": [_schema_of(each, name) for each in args]}
    if hint is list or origin is list:
        return {"type": "array"} | ({"items": _schema_of(args[0], name)} if args else {})
    if hint is dict or (origin is dict and args[0] is str):
        return {"type": "object"} | ({"additionalProperties": _schema_of(args[1], name)} if args else {})
    raise TypeError(f"parameter {name}: {hint} has no JSON Schema here; make a `Tool` with one")


def as_tools(offered: Iterable[Offered]) -> tuple[list[AnyTool], list[ToolSource]]:
    """Plain async functions become tools. Raises TypeError for anything else, ValueError for a name that is there twice."""
    tools: list[AnyTool] = []
    sources: list[ToolSource] = []
    for each in offered:
        match each:
            case Tool() | ClientTool():
                tools.append(each)
            case ToolSource():
                sources.append(each)
            case _:
                tools.append(tool(each))
    check_names(tools)
    return tools, sources


def check_names(tools: Sequence[AnyTool]) -> None:
    names = [each.name for each in tools]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ValueError(f"tools must have different names: {', '.join(sorted(twice))}")
