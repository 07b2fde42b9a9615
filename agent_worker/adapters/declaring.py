"""Tools as an author declares them: functions of the agent's own, tools that clients of the session execute, servers."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, overload, runtime_checkable

from agent_worker.approvals import Permission
from agent_worker.context import SessionContext
from agent_worker.tools import Invocation
from antiphon_client.signatures import parameters_of


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
        parameters, takes_call = parameters_of(function, Invocation)

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
