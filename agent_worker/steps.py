"""Steps: named parts of a run. What a step came to can be recorded, so that a new attempt of the run does not do it again."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from typing import Any, TypeVar, overload

import orjson

from agent_worker.calls import CallIds
from agent_worker.control import RunControl
from agent_worker.errors import ContentTooLarge, RunEnded, StepChanged, StepFailed, TooManySteps
from agent_worker.scope import LaneScope
from agent_worker.sizes import check_size
from agent_worker.speaking import Speaking
from agent_worker.tracing import RunTrace, label
from broker.errors import LogError
from broker.events import StepFinished, StepRecorded, StepStarted
from broker.state import MAX_STEPS, Step

RETRY_WAIT_S = 1.0
"""Seconds before a step that has failed is tried again; twice as many each time."""
RETRY_WAIT_S_MAX = 60.0
NAME_CHARS_MAX = 256
"""Characters of a step's name."""

_ONLY_JSON = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_SUBCLASS

T = TypeVar("T")


class Stepping(Speaking):
    """The part of a SessionContext that works in steps."""

    def __init__(self, scope: LaneScope, control: RunControl, run_id: str, attempt: int, trace: RunTrace) -> None:
        super().__init__(scope.writer, control, run_id, attempt, trace)
        self._scope = scope
        self._call_ids = CallIds(run_id)

    @overload
    def step(self, name: str) -> AbstractAsyncContextManager[None]: ...

    @overload
    def step(
        self, name: str, function: Callable[..., Awaitable[T]], *args: Any, key: str | None = None, retries: int = 0
    ) -> Coroutine[Any, Any, T]: ...

    def step(
        self,
        name: str,
        function: Callable[..., Awaitable[T]] | None = None,
        *args: Any,
        key: str | None = None,
        retries: int = 0,
    ) -> AbstractAsyncContextManager[None] | Coroutine[Any, Any, T]:
        """A named step of the run, shown to the people. At its beginning and its end the run may be held or stopped.

        `async with ctx.step(name)` only shows it. `await ctx.step(name, function, *args)` returns what
        `await function(*args)` returns, and records it: a new attempt of the run (after a crash) gets it from the log. A step
        that was cut short is done again. It is recognised by its name and how often the run had a step of that name before,
        or by a `key` of the author's. One that raises is tried again `retries` times, then recorded as failed.

        The result is JSON of at most 256 KiB, and is not shown to anybody. Raises StepFailed, StepChanged, TooManySteps,
        ContentTooLarge.
        """
        if len(name) > NAME_CHARS_MAX:
            raise ValueError(f"the name of a step has at most {NAME_CHARS_MAX} characters")
        if function is None:
            return self._shown(name)
        step_id = self._call_ids.name("step", [name], key)
        asked = None if key is not None else _digest(args)
        return self._recorded(name, step_id, asked, lambda: function(*args), retries)

    def idempotency_key(self, name: str) -> str:
        """A key for what the agent asks of a service: the same in every attempt of the run, another for every `name`."""
        return self._call_ids.idempotency_key(self._scope.subjects.key, name)

    @asynccontextmanager
    async def _shown(self, name: str) -> AsyncIterator[None]:
        await self._control.boundary()
        self._writer.record(StepStarted(name))
        await self._writer.room()
        try:
            with self._trace.span("step", step=label(name)):
                yield
        finally:
            if not self._control.ended:
                self._writer.record(StepFinished(name))
        await self._control.boundary()

    async def _recorded(
        self, name: str, step_id: str, asked: str | None, function: Callable[[], Awaitable[T]], retries: int
    ) -> T:
        await self._control.boundary()
        steps = self._steps()
        if (known := steps.get(step_id)) is not None:
            found: T = await self._found(name, step_id, asked, known)
            return found
        if len(steps) >= MAX_STEPS:
            raise TooManySteps(f"{name}: the run has {MAX_STEPS} recorded steps")
        self._writer.record(StepStarted(name))
        try:
            with self._trace.span("step", step=label(name)):
                recorded = _with_result(
                    StepRecorded(step_id, name, asked=asked), result := await _tried(function, retries)
                )
        except (LogError, RunEnded):
            raise
        except (ContentTooLarge, asyncio.CancelledError):
            # Nothing of it is kept: a new attempt does it again.
            if not self._control.ended:
                self._writer.record(StepFinished(name))
            raise
        except Exception as error:
            kind = type(error).__name__
            await self._keep(StepRecorded(step_id, name, error=kind, asked=asked))
            raise StepFailed(name, kind) from error
        await self._keep(recorded)
        await self._control.boundary()
        return result

    async def _keep(self, recorded: StepRecorded) -> None:
        """Returns when the step is stored, and known to the fold."""
        self._control.check()
        self._writer.record(recorded, StepFinished(recorded.name))
        await self._scope.stored()
        if self.run_id in self._scope.state.runs and recorded.step_id not in self._steps():
            # Others that were under way at the same time were first.
            raise TooManySteps(f"{recorded.name}: the run has {MAX_STEPS} recorded steps")

    async def _found(self, name: str, step_id: str, asked: str | None, step: Step) -> Any:
        """What an earlier attempt came to."""
        if step.asked != asked:
            raise StepChanged(name)
        if step.error is not None:
            raise StepFailed(name, step.error)
        entry = await self._scope.entry(step.seq)
        found = (e for e in entry.events if isinstance(e, StepRecorded) and e.step_id == step_id)
        result: Any = next(found).result
        await self._control.boundary()
        return result

    def _steps(self) -> Mapping[str, Step]:
        run = self._scope.state.runs.get(self.run_id)
        return {} if run is None else run.steps


async def _tried(function: Callable[[], Awaitable[T]], retries: int) -> T:
    for failures in range(retries):
        try:
            return await function()
        except (LogError, RunEnded):
            raise
        except Exception:  # noqa: BLE001 (whatever it is, its author wants it tried again)
            await asyncio.sleep(min(RETRY_WAIT_S * 2**failures, RETRY_WAIT_S_MAX))
    return await function()


def _with_result(recorded: StepRecorded, result: Any) -> StepRecorded:
    """Raises ContentTooLarge for what a new attempt would not get as it is: it must not find another thing."""
    try:
        body = orjson.dumps(result, option=_ONLY_JSON)
    except orjson.JSONEncodeError as error:
        raise ContentTooLarge(f"the result of the step {recorded.name!r} is no JSON: {error}") from None
    if orjson.loads(body) != result:
        raise ContentTooLarge(f"the result of the step {recorded.name!r} is not the same as JSON (a tuple, or NaN?)")
    complete = replace(recorded, result=result)
    check_size(complete)
    return complete


def _digest(args: tuple[Any, ...]) -> str | None:
    """Of what a step is called with; None if that is no JSON, and cannot be compared."""
    if not args:
        return None
    try:
        body = orjson.dumps(args, option=_ONLY_JSON | orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError:
        return None
    return hashlib.blake2b(body, digest_size=8).hexdigest()
