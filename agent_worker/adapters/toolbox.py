"""Tools that a model may call: functions of the author's, and tools that clients of the session execute.

Both go through the log (`ctx.tool`, `ctx.client_tool`): people see each call, it may need permission, and a new attempt of
the run finds what was called before.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import (
    Any,
    TypeVar,
)

import orjson
import structlog

from agent_worker.adapters.conversation import ToolUse
from agent_worker.adapters.declaring import AnyTool, ClientTool, Tool, ToolSource, check_names
from agent_worker.approvals import Permission
from agent_worker.calls import CallIds
from agent_worker.context import SessionContext
from agent_worker.errors import ArgumentsInvalid, RunEnded, ToolFailed, TooManyCalls
from agent_worker.tools import Invocation
from broker.errors import AntiphonError, LogError, ToolErrorCode
from broker.schema import Schema, SchemaInvalid
from broker.state import Approval

T = TypeVar("T")

CALLS_A_TURN = 32
"""Calls of one answer that are executed; a model that asks for more is told so."""
_KEYS_LOOKED_AT = 2000
"""Calls that a run may have had, and more: a run may have 1,000."""


_log = structlog.get_logger("antiphon.adapters")


@asynccontextmanager
async def opened(
    ctx: SessionContext, tools: Sequence[AnyTool], sources: Sequence[ToolSource]
) -> AsyncIterator[Toolbox]:
    """The tools of one run, those of connected sources included."""
    async with AsyncExitStack() as stack:
        found = list(tools)
        for source in sources:
            found += await stack.enter_async_context(source.tools(ctx))
        check_names(found)
        yield Toolbox(ctx, found)


# --- executed ------------------------------------------------------------------------------------------------------------


_current: ContextVar[Toolbox] = ContextVar("antiphon_toolbox")


def current() -> Toolbox:
    """The toolbox of the run that this is called in: for frameworks that call tools by themselves. Raises LookupError."""
    return _current.get()


@contextmanager
def running(toolbox: Toolbox) -> Iterator[None]:
    """Within, and in tasks that are made within, `current` gives this one."""
    token = _current.set(toolbox)
    try:
        yield
    finally:
        _current.reset(token)


class CallNumbers:
    """The calls of one run, counted. The n-th has a key made of n, so that a new attempt finds it whatever the model says."""

    def __init__(self, ctx: SessionContext) -> None:
        self._ctx = ctx
        self._numbers = {id_of_number(ctx.run_id, n): n for n in range(_KEYS_LOOKED_AT)} if ctx.attempt > 1 else {}
        known = [self._numbers[id_] for id_ in self._known_ids() if id_ in self._numbers]
        self._next = max(known, default=-1) + 1

    def _known_ids(self) -> list[str]:
        state, run = self._ctx.state, self._ctx.run_id
        asked = [a.tool_call_id for a in state.approvals.values() if a.run == run and a.tool_call_id is not None]
        return [*(call.id for call in state.calls.values() if call.run == run), *asked]

    def next(self, known_id: str = "") -> int:
        """The number of a new call; or of one that an earlier attempt has made, by its id in the log."""
        if known_id in self._numbers:
            return self._numbers[known_id]
        self._next += 1
        return self._next - 1

    def left_open(self, unfinished: Sequence[ToolUse]) -> list[ToolUse]:
        """What an earlier attempt began: calls without a result, and calls that wait for permission."""
        waiting = [self._asked(a) for a in self._ctx.state.approvals.values() if self._is_open(a)]
        known = {use.id for use in unfinished}
        uses = [*unfinished, *(use for use in waiting if use is not None and use.id not in known)]
        return [use for use in uses if use.id in self._numbers]

    def _is_open(self, approval: Approval) -> bool:
        """It was asked about a call of this run that has not been made."""
        return approval.run == self._ctx.run_id and approval.tool_call_id not in self._ctx.state.calls

    def _asked(self, approval: Approval) -> ToolUse | None:
        details: Any = approval.details
        if approval.tool_call_id not in self._numbers or not isinstance(details, Mapping):
            return None
        return ToolUse(approval.tool_call_id, str(details.get("name")), details.get("args") or {})


class Toolbox:
    """Executes what a model asks for in one run."""

    def __init__(self, ctx: SessionContext, tools: Sequence[AnyTool], numbers: CallNumbers | None = None) -> None:
        self.ctx = self._ctx = ctx
        self.tools = {each.name: each for each in tools}
        self._numbers = numbers or CallNumbers(ctx)

    def having(self, tool: AnyTool) -> Toolbox:
        """The same run's, with this tool alone."""
        return Toolbox(self._ctx, [tool], self._numbers)

    async def next(self, use: ToolUse) -> str:
        """Executes one call, as the next of the run."""
        return await self.result(use, key_of(self._numbers.next()))

    async def left_open(self, unfinished: Sequence[ToolUse]) -> list[tuple[ToolUse, str]]:
        """Brings what an earlier attempt began to its end. Returns each with its result."""
        uses = self._numbers.left_open(unfinished)
        return await together([self._execute(use, self._numbers.next(use.id)) for use in uses])

    async def run(self, uses: Sequence[ToolUse]) -> list[tuple[ToolUse, str]]:
        """Executes the calls of one answer, all at once. Returns each with its result: text that the model is given."""
        done = await together([self._execute(use, self._numbers.next()) for use in uses[:CALLS_A_TURN]])
        return [
            *done,
            *((use, error_text("too_many_calls", f"at most {CALLS_A_TURN} at once")) for use in uses[CALLS_A_TURN:]),
        ]

    async def _execute(self, use: ToolUse, number: int) -> tuple[ToolUse, str]:
        return use, await self.result(use, key_of(number))

    async def result(self, use: ToolUse, key: str | None = None) -> str:
        """Executes one call. Without a `key` it is recognised by what it asks."""
        found = self.tools.get(use.name)
        if use.invalid:
            return error_text("arguments_invalid", "the arguments are no JSON object")
        try:
            match found:
                case None:
                    return error_text("unknown_tool", f"there is no tool {use.name[:64]!r}")
                case Tool():
                    return await self._own(found, use, key)
                case ClientTool():
                    result = await self._ctx.client_tool(
                        found.name,
                        use.args,
                        deadline_s=found.deadline_s,
                        idempotent=found.idempotent,
                        needs_permission=found.needs_permission,
                        key=key,
                    )
                    return content_of(result)
        except ToolFailed as error:
            return error_text(error.code)
        except ArgumentsInvalid as error:
            return error_text("arguments_invalid", str(error))
        except (LogError, RunEnded, TooManyCalls):
            raise
        except Exception as error:  # noqa: BLE001 (what an author's tool raises, the model is told the kind of, as people are)
            _log.warning("a tool raised", tool=use.name, error=type(error).__name__)
            return error_text(ToolErrorCode.ERROR.value, type(error).__name__)

    async def _own(self, found: Tool, use: ToolUse, key: str | None) -> str:
        used: list[Mapping[str, Any]] = []

        async def call(invocation: Invocation) -> Any:
            used.append(invocation.args)
            check(found, invocation.args)
            return await found.function(invocation)

        permission = found.needs_permission
        if permission is True:
            permission = Permission(schema=found.parameters)
        elif isinstance(permission, Permission) and permission.schema is None:
            permission = replace(permission, schema=found.parameters)
        if permission:
            # Nobody is to be asked about a call that cannot be made.
            check(found, use.args)
        result = content_of(
            await self._ctx.tool(
                found.name, use.args, call, idempotent=found.idempotent, needs_permission=permission, key=key
            )
        )
        if used and dict(used[0]) != dict(use.args):
            return orjson.dumps({"argumentsChangedByUser": used[0], "result": result}).decode()
        return result


def key_of(number: int) -> str:
    """What the n-th call of a run is recognised by."""
    return f"call:{number}"


def id_of_number(run_id: str, number: int) -> str:
    """The id in the log of the n-th call of a run."""
    return CallIds(run_id).name("call", None, key_of(number))


def check(found: Tool, args: Mapping[str, Any]) -> None:
    """Raises ArgumentsInvalid for arguments that are not as the tool's schema says."""
    try:
        problem = Schema(found.parameters).problem(args)
    except SchemaInvalid as error:
        raise ArgumentsInvalid(found.name, "", str(error)) from None
    if problem is not None:
        raise ArgumentsInvalid(found.name, problem.path, problem.message)


def content_of(result: Any) -> str:
    """What a tool gave back, as a model reads it: text as it is, anything else as JSON."""
    return result if isinstance(result, str) else orjson.dumps(result).decode()


def error_text(code: str, message: str | None = None) -> str:
    """What a model reads instead of a result."""
    return orjson.dumps({"error": code} | ({} if message is None else {"message": message})).decode()


async def together(work: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """All of these at once, in order. Raises the first failure itself, not a group: a lost lane must be seen as such."""
    try:
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(each) for each in work]
    except BaseExceptionGroup as group:
        raise first_of(group) from None
    return [task.result() for task in running]


def first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """What matters most among failures at once: that the lane is lost, then the first of ours, then the first."""
    leaves = list(_leaves(group))
    for kind in (LogError, AntiphonError):
        found = next((leaf for leaf in leaves if isinstance(leaf, kind)), None)
        if found is not None:
            return found
    return leaves[0]


def _leaves(error: BaseException) -> Iterable[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _leaves(each)
    else:
        yield error
