"""One run: from its start, or its takeover, to its end. The agent's function is called here, watched, and ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Literal

import structlog

from agent_worker.context import Agent, SessionContext
from agent_worker.control import RunControl
from agent_worker.errors import ContentTooLarge, ModelFailed, StepFailed
from agent_worker.scope import LaneScope
from agent_worker.tasks import RunTasks, counted_as, name_of
from agent_worker.tracing import RunTrace
from agent_worker.watching import CostControl, RunPresence
from broker.endings import call_endings, in_records, run_cancelled
from broker.errors import LogError, RunErrorCode
from broker.events import AGUI_PROTOCOL_VERSION, Event, InputApplied, RunError, RunFinished, RunStarted
from broker.loading import read_messages
from broker.spans import Attribute
from broker.state import Cancel, QueuedInput, Run
from broker.subjects import run_id_of
from broker.tracing import TraceContext
from broker.transcript import Message, message_id_of

_log = structlog.get_logger("antiphon.run")


_NAMES_MAX = 5
"""Names of tasks that a line of the log tells."""

StopReason = Literal["cancelled", "leaving", "taken", "unwatched", "timeout"]


class HandOver(Exception):
    """This worker is leaving: the run is left as it is, for another worker."""


class LaneTaken(Exception):
    """Somebody else has the lane: nothing more can be written in it."""


@dataclass(frozen=True, slots=True)
class RunExecution:
    """What it takes to execute a run in a lane that is owned. `stopped` returns when the run is to be stopped."""

    scope: LaneScope
    stopped: Callable[[str], Coroutine[Any, Any, StopReason]]

    async def start(self, inputs: Sequence[QueuedInput], free_ms: int) -> None:
        """Applies inputs and runs the agent on them; the lane's run before ended here at `free_ms` (0: there was none).

        Raises HandOver, LaneTaken, LogError.
        """
        run_id = run_id_of(inputs[0].input_id)
        scope = self.scope
        trace = run_trace(scope, run_id, 1, inputs[0].trace)
        trace.link(inputs[1:])
        scope.writer.run_id, scope.writer.trace = run_id, trace.context
        scope.writer.await_first_text()
        scope.writer.record(
            RunStarted(scope.subjects.session, run_id, AGUI_PROTOCOL_VERSION),
            *(InputApplied(i.input_id, run_id, message_id_of(i.input_id)) for i in inputs),
        )
        # The input may have been taken back a moment before: the fold of our own record says so.
        await scope.stored()
        run = scope.state.runs.get(run_id)
        if run is not None:
            trace.waited(inputs[0], free_ms)
            await self.execute(run, inputs, "", trace)

    async def execute(self, run: Run, inputs: Sequence[QueuedInput], said: str, trace: RunTrace) -> None:
        """Runs the agent until it returns, fails, or is stopped, and writes how the run ended.

        Raises HandOver, LaneTaken, LogError.
        """
        ids = {"run": run.run_id, "attempt": run.attempt, "trace": trace.context.trace_id}
        with structlog.contextvars.bound_contextvars(**ids):
            _log.info("run started")
            self.scope.writer.on_first_delta = trace.first_token if run.attempt == 1 else None
            # A worker that has lost the lane (LogError) says nothing: whoever takes the run over does.
            try:
                end = await self._execute(run, inputs, said, trace)
            except (HandOver, LaneTaken) as left:
                _ended(trace, "handed_over" if isinstance(left, HandOver) else "taken")
                raise
            _ended(trace, end)

    async def _execute(self, run: Run, inputs: Sequence[QueuedInput], said: str, trace: RunTrace) -> str:
        """Returns how the run ended."""
        control = RunControl(lambda: self._cancel_of(run))
        tasks = RunTasks(self.scope.subjects.key, run.run_id, self.scope.services.agent.name)
        try:
            end_reason, ending = await self._attended(run, inputs, said, control, tasks, trace)
        finally:
            control.ended = True
            self._let_go_of(tasks)
        await self._finish(run, control, ending, end_reason)
        await self.scope.writer.flush()
        return _how(ending)

    async def _attended(
        self,
        run: Run,
        inputs: Sequence[QueuedInput],
        said: str,
        control: RunControl,
        tasks: RunTasks,
        trace: RunTrace,
    ) -> tuple[str, Event]:
        """Calls the agent, with what it needs around it."""
        async with AsyncExitStack() as stack:
            stack.enter_context(self.scope.services.metrics.executing(control))
            presence = RunPresence(self.scope, stack)
            ctx = SessionContext(
                self.scope,
                control,
                presence,
                run_id=run.run_id,
                attempt=run.attempt,
                inputs=inputs,
                said=said,
                history=self._history,
                trace=trace,
            )
            return await self._watched(run, ctx, control, presence, tasks, trace)

    def _let_go_of(self, tasks: RunTasks) -> None:
        """Ends what the agent has started and left: it can say nothing more, and would use the worker for nothing."""
        agent = self.scope.services.agent
        left = [] if agent.keeps_tasks else tasks.left()
        if not left:
            return
        names = sorted({name_of(task) for task in left})[:_NAMES_MAX]
        _log.warning("the agent leaves tasks behind", agent=agent.name, count=len(left), tasks=names)
        self.scope.services.metrics.tasks_leaked.inc(len(left))
        for task in left:
            task.cancel()

    def _cancel_of(self, run: Run) -> Cancel | None:
        current = self.scope.state.runs.get(run.run_id)
        return None if current is None else current.cancel

    async def _history(self, want: int) -> list[Message]:
        loaded = self.scope.loaded
        messages = loaded.transcript.messages
        if len(messages) >= want or not loaded.checkpoint.state.as_of:
            return list(messages)
        end = loaded.checkpoint.state.as_of + 1
        log, subjects = self.scope.services.log, self.scope.subjects
        return await read_messages(log, subjects, end, want - len(messages)) + messages

    async def _watched(
        self,
        run: Run,
        ctx: SessionContext,
        control: RunControl,
        presence: RunPresence,
        tasks: RunTasks,
        trace: RunTrace,
    ) -> tuple[str, Event]:
        """Runs the agent's function; returns how its open texts ended, and the event that ends the run."""
        # Not in a TaskGroup: a function that ignores its cancellation must not hold the worker.
        call = _call(self.scope.services.agent, ctx, tasks, trace)
        agent = asyncio.create_task(call, name=f"agent-{run.run_id}")  # noqa: TID251
        tasks.main = agent
        try:
            stop = await self._first(agent, run, control, presence)
        finally:
            if not agent.done():
                await self._stop(agent, ctx, control, run)
        match stop:
            case None:
                return self._agent_returned(agent, run, ctx)
            case "leaving":
                raise HandOver
            case "taken":
                raise LaneTaken
            case "timeout":
                message = f"the run took longer than {self.scope.services.settings.run_timeout_s:g} s"
                return "error", self._end("timeout", RunError(message, RunErrorCode.RUN_TIMEOUT.value))
            case "unwatched":
                return self._cancelled(run, "unwatched")
            case "cancelled":
                cancel = self._cancel_of(run)
                return self._cancelled(run, "requested" if cancel is None else cancel.reason)

    def _cancelled(self, run: Run, reason: str) -> tuple[str, Event]:
        return "cancelled", self._end("cancelled", run_cancelled(self.scope.subjects.session, run.run_id, reason))

    async def _first(
        self, agent: asyncio.Task[None], run: Run, control: RunControl, presence: RunPresence
    ) -> StopReason | None:
        """Why the run is to be stopped, or None once the agent has returned."""
        cost = CostControl(self.scope, control, presence)
        waits: tuple[Coroutine[Any, Any, StopReason], ...] = (
            self.stopped(run.run_id),
            _then("cancelled", control.at_boundary.wait()),
            _then("unwatched", cost.run()),
            _then("timeout", control.worked(self.scope.services.settings.run_timeout_s)),
        )
        async with asyncio.TaskGroup() as tasks:
            stops = [tasks.create_task(wait) for wait in waits]
            await asyncio.wait({agent, *stops}, return_when=asyncio.FIRST_COMPLETED)
            done = [stop for stop in stops if stop.done()]
            for stop in stops:
                stop.cancel()
        return None if agent.done() else done[0].result()

    def _agent_returned(self, agent: asyncio.Task[None], run: Run, ctx: SessionContext) -> tuple[str, Event]:
        error = asyncio.CancelledError() if agent.cancelled() else agent.exception()
        cancel = self._cancel_of(run)
        if cancel is not None and cancel.mode == "immediate" and not isinstance(error, LogError):
            # The stop came first in the log, though the agent returned before it was told.
            return self._cancelled(run, cancel.reason)
        if error is None:
            run_id = self.scope.writer.run_id or ""
            usage = ctx.usage or None
            finished = RunFinished(self.scope.subjects.session, run_id, {"type": "success"}, usage)
            return "complete", self._end("success", finished)
        if isinstance(error, LogError):
            raise error
        if isinstance(error, ContentTooLarge):
            return "error", self._end("error", RunError(str(error), RunErrorCode.CONTENT_TOO_LARGE.value))
        if isinstance(error, ModelFailed):
            _log.warning("the model gave no answer", code=error.code.value, status=error.status)
            return "error", self._end("error", RunError(str(error), error.code.value))
        # The text of an author's exception may hold what people said: clients get its type, the worker's log the place.
        kind = error.error if isinstance(error, StepFailed) else type(error).__name__
        _log.error("the agent raised", error=kind)
        message = f"the agent raised {kind}"
        return "error", self._end("error", RunError(message, RunErrorCode.AGENT_ERROR.value))

    def _end(self, end: str, event: Event) -> Event:
        self.scope.services.metrics.runs.labels(end).inc()
        return event

    async def _stop(self, agent: asyncio.Task[None], ctx: SessionContext, control: RunControl, run: Run) -> None:
        """Cancels the agent's function. One that does not return is left alone, and can say nothing more."""
        ctx.cancel_reason = self._cancel_of(run)
        services = self.scope.services
        control.stopping = True
        control.go_on()
        agent.cancel()
        _, pending = await asyncio.wait({agent}, timeout=services.settings.cancel_grace_s)
        control.ended = True
        if pending:
            services.metrics.abandoned.inc()
            _log.error("the agent does not return after being cancelled", agent=services.agent.name)
            agent.add_done_callback(_retrieve)
            # At its end the event loop waits for every task that it knows of, and this one may never end.
            asyncio._unregister_task(agent)  # noqa: SLF001 (documented, in "Extending")
        elif not agent.cancelled() and (error := agent.exception()) is not None and not isinstance(error, LogError):
            _log.error("the agent raised while it was stopped", agent=services.agent.name, error=type(error).__name__)

    async def _finish(self, run: Run, control: RunControl, ending: Event, end_reason: str) -> None:
        """Ends what is open, and the run. No call is left without a result."""
        scope = self.scope
        results: list[Event] = []
        if control.called or any(call.run == run.run_id for call in scope.state.calls.values()):
            await scope.stored()
            results = await call_endings(scope.services.log, scope.subjects, scope.state, scope.lane)
        for id_ in scope.writer.open_streams():
            scope.writer.close(id_, end_reason)
        for record in in_records([*results, ending]):
            scope.writer.record(*record)


def run_trace(
    scope: LaneScope, run_id: str, attempt: int, cause: TraceContext | None, links: Sequence[TraceContext] = ()
) -> RunTrace:
    """The span of a new attempt of a run; `cause` is the span that its input came in."""
    services = scope.services
    version = services.me.version
    ids: dict[str, Attribute] = {
        **({} if version is None else {"version": version}),
        "session": scope.subjects.key,
        "lane": scope.lane,
        "run": run_id,
        "attempt": attempt,
        "agent": services.agent.name,
        "worker": services.me.id,
        "fence": scope.fence,
    }
    return RunTrace(services.spans, cause, links, ids)


def _how(ending: Event) -> str:
    match ending:
        case RunFinished():
            return str((ending.outcome or {}).get("type", "success"))
        case RunError(code=RunErrorCode.RUN_TIMEOUT.value):
            return "timeout"
        case _:
            return "error"


def _ended(trace: RunTrace, end: str) -> None:
    trace.end(end)
    _log.info("run ended", end=end)


async def _then(reason: StopReason, wait: Coroutine[Any, Any, Any]) -> StopReason:
    await wait
    return reason


async def _call(agent: Agent, ctx: SessionContext, tasks: RunTasks, trace: RunTrace) -> None:
    with trace.attached(), counted_as(tasks):
        await agent.run(ctx)


def _retrieve(task: asyncio.Task[None]) -> None:
    """Takes note of how a cancelled task ended, so that nothing is reported as lost."""
    if not task.cancelled():
        task.exception()
