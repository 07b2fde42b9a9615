"""One run: from its start, or its takeover, to its end. The agent's function is called here, watched, and ended."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Literal

import structlog

from agent_worker.config import WorkerSettings
from agent_worker.context import Agent, ContentTooLarge, SessionContext
from agent_worker.lane import StreamKind, end_event
from agent_worker.metrics import WorkerMetrics
from agent_worker.writer import LaneWriter
from broker.codec import decode_at
from broker.errors import LogError, RunErrorCode
from broker.events import (
    AGUI_PROTOCOL_VERSION,
    Event,
    InputApplied,
    MessageSegment,
    RunError,
    RunFinished,
    RunStarted,
    RunTakenOver,
)
from broker.interfaces import SessionLog
from broker.lease import parse_write_id
from broker.loading import Loaded, read_messages
from broker.state import OpenStream, QueuedInput, Run
from broker.subjects import SessionSubjects, place_of, run_id_of
from broker.transcript import Message

_log = structlog.get_logger("antiphon.run")


StopReason = Literal["cancelled", "leaving"]


class HandOver(Exception):
    """This worker is leaving: the run is left as it is, for another worker."""


@dataclass(frozen=True, slots=True)
class RunExecution:
    """What it takes to execute a run in a lane that is owned."""

    agent: Agent
    settings: WorkerSettings
    metrics: WorkerMetrics
    log: SessionLog
    subjects: SessionSubjects
    lane: str
    fence: int
    writer: LaneWriter
    loaded: Loaded
    reached: Callable[[int], Awaitable[None]]
    stopped: Callable[[str], Coroutine[Any, Any, StopReason]]

    async def start(self, queued: QueuedInput) -> None:
        """Applies an input and runs the agent on it. Raises HandOver, LogError."""
        run_id = run_id_of(queued.input_id)
        self.writer.run_id = run_id
        self.writer.record(
            RunStarted(self.subjects.session, run_id, AGUI_PROTOCOL_VERSION),
            InputApplied(queued.input_id, run_id, f"msg_{queued.input_id}"),
        )
        # The input may have been taken back a moment before: the fold of our own record says so.
        await self.reached(await self.writer.flush())
        run = self.loaded.state.runs.get(run_id)
        if run is not None:
            await self.execute(run, queued, said="")

    async def execute(self, run: Run, queued: QueuedInput | None, said: str) -> None:
        """Runs the agent until it returns, fails, or is stopped, and writes how the run ended."""
        ctx = SessionContext(
            self.writer,
            session=self.subjects.session,
            lane=self.lane,
            run_id=run.run_id,
            attempt=run.attempt,
            started_by=queued,
            said=said,
            history=self._history,
        )
        reason, ending = await self._watched(run, ctx)
        ctx.end()
        self._finish(ending, reason)
        await self.writer.flush()

    async def _history(self, want: int) -> list[Message]:
        messages = self.loaded.transcript.messages
        if len(messages) >= want or not self.loaded.checkpoint.state.as_of:
            return list(messages)
        end = self.loaded.checkpoint.state.as_of + 1
        return await read_messages(self.log, self.subjects, end, want - len(messages)) + messages

    async def _watched(self, run: Run, ctx: SessionContext) -> tuple[str, Event]:
        """Runs the agent's function; returns how its open texts ended, and the event that ends the run."""
        # Not in a TaskGroup: a function that ignores its cancellation must not hold the worker.
        agent = asyncio.create_task(_call(self.agent, ctx), name=f"agent-{run.run_id}")  # noqa: TID251
        try:
            async with asyncio.timeout(self.settings.run_timeout_s):
                stop = await self._first(agent, run)
        except TimeoutError:
            message = f"the run took longer than {self.settings.run_timeout_s:g} s"
            return "error", self._end("timeout", RunError(message, RunErrorCode.RUN_TIMEOUT.value))
        finally:
            if not agent.done():
                await self._stop(agent, ctx, run)
        match stop:
            case None:
                return self._agent_returned(agent)
            case "leaving":
                raise HandOver
            case "cancelled":
                finished = RunFinished(self.subjects.session, run.run_id, {"type": "cancelled"})
                return "cancelled", self._end("cancelled", finished)

    async def _first(self, agent: asyncio.Task[None], run: Run) -> StopReason | None:
        """Why the run is to be stopped, or None once the agent has returned."""
        async with asyncio.TaskGroup() as tasks:
            stopped = tasks.create_task(self.stopped(run.run_id))
            await asyncio.wait({agent, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if agent.done():
                stopped.cancel()
                return None
        return stopped.result()

    def _agent_returned(self, agent: asyncio.Task[None]) -> tuple[str, Event]:
        error = asyncio.CancelledError() if agent.cancelled() else agent.exception()
        if error is None:
            run_id = self.writer.run_id or ""
            return "complete", self._end("success", RunFinished(self.subjects.session, run_id, {"type": "success"}))
        if isinstance(error, LogError):
            raise error
        if isinstance(error, ContentTooLarge):
            return "error", self._end("error", RunError(str(error), RunErrorCode.CONTENT_TOO_LARGE.value))
        # The text of an author's exception may hold what people said: clients get its type, the worker's log the place.
        _log.error(
            "the agent raised", session=self.subjects.session, run=self.writer.run_id, error=type(error).__name__
        )
        message = f"the agent raised {type(error).__name__}"
        return "error", self._end("error", RunError(message, RunErrorCode.AGENT_ERROR.value))

    def _end(self, end: str, event: Event) -> Event:
        self.metrics.runs.labels(end).inc()
        return event

    async def _stop(self, agent: asyncio.Task[None], ctx: SessionContext, run: Run) -> None:
        """Cancels the agent's function. One that does not return is left alone, and can say nothing more."""
        current = self.loaded.state.runs.get(run.run_id)
        ctx.cancel_reason = None if current is None else current.cancel
        agent.cancel()
        _, pending = await asyncio.wait({agent}, timeout=self.settings.cancel_grace_s)
        ctx.end()
        if pending:
            self.metrics.abandoned.inc()
            _log.error("the agent does not return after being cancelled", agent=self.agent.name, run=ctx.run_id)
            agent.add_done_callback(_retrieve)
            # At its end the event loop waits for every task that it knows of, and this one may never end.
            asyncio._unregister_task(agent)  # noqa: SLF001 (documented, in "Extending")
        else:
            _retrieve(agent)

    def _finish(self, ending: Event, reason: str) -> None:
        for id_ in self.writer.open_streams():
            self.writer.close(id_, reason)
        self.writer.record(ending)


async def _call(agent: Agent, ctx: SessionContext) -> None:
    await agent.run(ctx)


def _retrieve(task: asyncio.Task[None]) -> None:
    """Takes note of how a cancelled task ended, so that nothing is reported as lost."""
    if not task.cancelled():
        task.exception()


async def finish_cancelled(execution: RunExecution, run: Run) -> None:
    """Ends a run that was cancelled while no worker was at work on it."""
    partial = await _partial_events(execution, run, "cancelled")
    ending = RunFinished(execution.subjects.session, run.run_id, {"type": "cancelled"})
    await _write(execution, run, [*partial, ending])
    execution.metrics.runs.labels("cancelled").inc()


async def finish_lost(execution: RunExecution, run: Run) -> None:
    """Ends a run that has had as many workers as it may."""
    partial = await _partial_events(execution, run, "worker_lost")
    message = f"{run.lost} workers were lost in this run"
    await _write(execution, run, [*partial, RunError(message, RunErrorCode.WORKER_LOST.value)])
    execution.metrics.runs.labels("worker_lost").inc()


async def take_over(execution: RunExecution, run: Run, attempt: int) -> None:
    """Closes what the former worker left open, says so, and goes on as the agent's author has chosen."""
    execution.metrics.takeovers.inc()
    policy = execution.agent.on_takeover
    if policy == "fail":
        await finish_lost(execution, run)
        return
    partial = await _partial_events(execution, run, "worker_lost")
    await _write(execution, run, [*partial, RunTakenOver(run.run_id, attempt, policy)])
    taken = execution.loaded.state.runs.get(run.run_id)
    if taken is None:
        return
    said = _said(execution.loaded, run.run_id) if policy == "continue" else ""
    await execution.execute(taken, _input_of(execution.loaded, run), said)


async def _write(execution: RunExecution, run: Run, events: list[Event]) -> None:
    execution.writer.run_id = run.run_id
    execution.writer.record(*events)
    await execution.reached(await execution.writer.flush())


def _said(loaded: Loaded, run_id: str) -> str:
    """The text that the run has put before the people so far."""
    return "".join(m.text for m in loaded.transcript.messages if m.run == run_id and m.role == "assistant")


def _input_of(loaded: Loaded, run: Run) -> QueuedInput | None:
    """The run's input, from the transcript: it has left the queue."""
    message = loaded.transcript.message(f"msg_{run.input_id}")
    if message is None:
        return None
    return QueuedInput(run.input_id, message.seq, 0, message.by, message.text)


async def _partial_events(execution: RunExecution, run: Run, reason: str) -> list[Event]:
    """Ends the texts that the former worker left open, with all that it had stored of them."""
    events: list[Event] = []
    for stream in execution.loaded.state.lane(run.lane).streams.values():
        rest = await _unsettled_text(execution, stream)
        events.append(MessageSegment(stream.id, stream.settled, len(rest), rest, True, reason))
        events.append(end_event(_kind(stream), stream.id))
    return events


def _kind(stream: OpenStream) -> StreamKind:
    match stream.kind:
        case "reasoning":
            return "reasoning"
        case "tool_call":
            return "tool_call"
        case _:
            return "text"


async def _unsettled_text(execution: RunExecution, stream: OpenStream) -> str:
    """The text of a stream that is in deltas alone, written before this owner's fence."""
    text = Message(stream.id, "partial", 0)
    position, end = stream.settled_seq, False
    while not end:
        entries, end = await execution.log.read_deltas(execution.subjects, execution.lane, position)
        for stored in entries:
            position = stored.seq
            place = place_of(stored.subject)
            if place is None:
                continue
            entry, _ = decode_at(place, stored.body)
            write = parse_write_id(entry.id)
            if write is None or write.fence >= execution.fence or entry.off is None:
                continue
            for event in entry.events:
                if getattr(event, "message_id", None) == stream.id or getattr(event, "tool_call_id", None) == stream.id:
                    text.put(entry.off - stream.settled, getattr(event, "delta", ""))
    return text.text
