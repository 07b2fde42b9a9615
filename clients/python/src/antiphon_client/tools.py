"""Tools that this client executes for agents (PROTOCOL, section 7), as a program declares them."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from ._json import JsonObject, check_json, encode
from .threads import Threads

MAX_TOOLS: Final = 64
MAX_DECLARATION_BYTES: Final = 65_536

_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_ANYTHING: Final[JsonObject] = {"type": "object"}


@dataclass(frozen=True, slots=True)
class Execution:
    """One call, as `Tool.execute` gets it beside the arguments.

    `deadline` is in ms since 1970 by the clock of the agent's worker, None without one. `trace` has the
    headers (`traceparent`, `tracestate`) by which requests that the tool makes continue the run's trace.
    """

    tool_call_id: str
    run_id: str
    deadline: int | None
    report: Callable[[object], Awaitable[None]] = field(repr=False)
    trace: Mapping[str, str] = field(default_factory=dict)
    threads: Threads = field(default_factory=lambda: Threads(1), repr=False)

    async def progress(self, value: object) -> None:
        """Show everybody in the session how far it has come; returns once that is stored.

        Raises ValueError for what is no JSON, and `CommandRefused`: `ContentTooLarge`, or that the
        call is not this client's any more (then the execution is about to be cancelled).
        """
        check_json(value, "progress")
        await self.report(value)


class ThreadExecution:
    """One call, as a plain function in a thread gets it beside the arguments; see `threaded`."""

    def __init__(self, execution: Execution) -> None:
        self._execution = execution
        self._loop = asyncio.get_running_loop()
        self._over = threading.Event()

    @property
    def tool_call_id(self) -> str:
        """The id of the call."""
        return self._execution.tool_call_id

    @property
    def run_id(self) -> str:
        """The run that waits for it."""
        return self._execution.run_id

    @property
    def deadline(self) -> int | None:
        """As in `Execution.deadline`."""
        return self._execution.deadline

    @property
    def trace(self) -> Mapping[str, str]:
        """As in `Execution.trace`."""
        return self._execution.trace

    @property
    def cancelled(self) -> bool:
        """Whether the call is over, so that nobody waits for the result. Look at it now and then, and return."""
        return self._over.is_set()

    def cancel(self) -> None:
        """The call is over."""
        self._over.set()

    def progress(self, value: object) -> None:
        """Show everybody in the session how far it has come; returns once that is stored.

        Raises as `Execution.progress`, and RuntimeError once the call is over.
        """
        if self.cancelled:
            raise RuntimeError("the call is over")
        asyncio.run_coroutine_threadsafe(self._execution.progress(value), self._loop).result()


Execute: TypeAlias = Callable[[JsonObject, Execution], Awaitable[object]]
"""Takes the arguments and the call; returns the result, as JSON. What it raises is the call's error:
its text goes to the agent. It is cancelled when the call is over before it returns."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool that this client executes.

    `parameters` and `result` are JSON Schemas (2020-12, without references to other documents); the
    gateway checks arguments and results against them. `idempotent` must be true only of what may be
    executed twice: if a client is lost in the middle, such a call is offered again, any other ends as
    `outcome_unknown`. With `needs_permission` the agent asks for an approval first.

    Raises ValueError for a name that is not 1 to 64 of `A-Z a-z 0-9 _ . -`, and for schemas that are
    no JSON.
    """

    name: str
    parameters: JsonObject = field(default_factory=lambda: dict(_ANYTHING))
    execute: Execute = field(kw_only=True)
    description: str = ""
    result: JsonObject | None = None
    idempotent: bool = False
    needs_permission: bool = False

    def __post_init__(self) -> None:
        if _NAME.fullmatch(self.name) is None:
            raise ValueError(f"not the name of a tool: {self.name!r}")
        check_json(self.as_dict(), f"tool {self.name}")

    def as_dict(self) -> dict[str, object]:
        """As it is declared."""
        said = {"name": self.name, "description": self.description, "parameters": self.parameters}
        flags = {"idempotent": self.idempotent, "needsPermission": self.needs_permission}
        return {**said, **flags} if self.result is None else {**said, **flags, "result": self.result}


NO_TOOLS: Final[Mapping[str, Tool]] = {}


def declared(tools: Iterable[Tool]) -> Mapping[str, Tool]:
    """The tools by name. Raises ValueError for more, or larger ones, than a subscription may declare."""
    given = list(tools)
    found = {tool.name: tool for tool in given}
    if len(found) < len(given):
        raise ValueError("two tools have the same name")
    if len(found) > MAX_TOOLS:
        raise ValueError(f"at most {MAX_TOOLS} tools may be declared")
    if len(encode({"tools": [tool.as_dict() for tool in given]}).encode()) > MAX_DECLARATION_BYTES:
        raise ValueError(f"the declarations of tools have more than {MAX_DECLARATION_BYTES} bytes")
    return found


def how(*, every: bool, tools: Iterable[Tool], watching: bool) -> JsonObject:
    """What a subscription says besides its place: how to replay, which tools, whether somebody looks; and `acks`."""
    fields = {
        "acks": True,
        "replay": "every" if every else None,
        "tools": [tool.as_dict() for tool in tools] or None,
        "watching": None if watching else False,
    }
    return {name: value for name, value in fields.items() if value is not None}


def threaded(function: Callable[[JsonObject, ThreadExecution], object]) -> Execute:
    """A plain function as `Tool.execute`: each call is executed in a thread of its own.

    A thread cannot be stopped: when the call is over before it returns, `ThreadExecution.cancelled`
    becomes true, and what it returns later counts as nothing. Until it ends it counts for
    `Settings.tool_executions`.
    """

    async def execute(args: JsonObject, execution: Execution) -> object:
        call = ThreadExecution(execution)
        try:
            return await execution.threads.run(lambda: function(args, call))
        finally:
            call.cancel()

    return execute
