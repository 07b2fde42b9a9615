"""What becomes of a run that another worker has left: it goes on, or it is ended, with nothing left open."""

from __future__ import annotations

import contextlib

import structlog

from agent_worker.run import RunExecution, run_trace
from agent_worker.scope import LaneScope
from agent_worker.tracing import RunTrace
from broker.clock import now_ms
from broker.endings import abandoned, closing_events, in_records, run_cancelled, text_endings
from broker.errors import RunErrorCode, Unavailable
from broker.events import EndReason, Event, RunError, RunTakenOver
from broker.loading import Loaded
from broker.state import QueuedInput, Run
from broker.tracing import TraceContext

_log = structlog.get_logger("antiphon.run")


async def end_cancelled(scope: LaneScope, run: Run) -> None:
    """Ends a run that was cancelled while no worker was at work on it."""
    reason = "requested" if run.cancel is None else run.cancel.reason
    ending = run_cancelled(scope.subjects.session, run.run_id, reason)
    await _close(scope, run, "cancelled", ending)
    scope.services.metrics.runs.labels("cancelled").inc()


async def end_lost(scope: LaneScope, run: Run) -> None:
    """Ends a run that has had as many workers as it may, and lets operators know (`antiphon dead`)."""
    with contextlib.suppress(Unavailable):  # the directory is an aid
        await scope.services.directory.note("dead", "", scope.subjects.key, now_ms())
    _log.error("a run is given up", run=run.run_id, lost=run.lost)
    message = f"{run.lost} workers were lost in this run"
    await _close(scope, run, "worker_lost", RunError(message, RunErrorCode.WORKER_LOST.value))
    scope.services.metrics.runs.labels("worker_lost").inc()


async def _close(scope: LaneScope, run: Run, reason: EndReason, ending: Event) -> None:
    events = await closing_events(scope.services.log, scope.subjects, scope.state, scope.lane, scope.fence, reason)
    _tell_of_lost(scope, run, _trace(scope, run, run.attempt))
    await _write(scope, run, [*events, ending], run.trace)


async def take_over(execution: RunExecution, run: Run, attempt: int) -> None:
    """Closes what the former worker left open, says so, and goes on as the agent's author has chosen.

    Raises HandOver, LaneTaken, LogError.
    """
    scope = execution.scope
    scope.services.metrics.takeovers.inc()
    policy = scope.services.agent.on_takeover
    if policy == "fail":
        await end_lost(scope, run)
        return
    texts = await text_endings(scope.services.log, scope.subjects, scope.state, scope.lane, scope.fence, "worker_lost")
    events: list[Event] = [*texts, *_calls_lost(scope, run), RunTakenOver(run.run_id, attempt, policy)]
    trace = _trace(scope, run, attempt)
    _tell_of_lost(scope, run, trace)
    await _write(scope, run, events, trace.context)
    taken = scope.state.runs.get(run.run_id)
    if taken is None:
        return
    said = _said(scope.loaded, run.run_id) if policy == "continue" else ""
    await execution.execute(taken, _inputs_of(scope.loaded, run), said, trace)


def _trace(scope: LaneScope, run: Run, attempt: int) -> RunTrace:
    """Of a new attempt, in the trace of those before it."""
    links = () if run.trace is None else (run.trace,)
    return run_trace(scope, run.run_id, attempt, run.cause or run.trace, links)


def _tell_of_lost(scope: LaneScope, run: Run, trace: RunTrace) -> None:
    # A worker that handed its run over has made its span itself.
    if run.lost_fence == scope.fence:
        trace.lost(run)


def _calls_lost(scope: LaneScope, run: Run) -> list[Event]:
    """Ends the tools that the former worker itself was executing, and that may not be executed twice."""
    events: list[Event] = []
    for call in scope.state.calls.values():
        if call.run == run.run_id and call.status == "open" and call.executor == "agent" and not call.idempotent:
            events += abandoned(call)
    return events


async def _write(scope: LaneScope, run: Run, events: list[Event], trace: TraceContext | None) -> None:
    scope.writer.run_id, scope.writer.trace = run.run_id, trace
    for record in in_records(events):
        scope.writer.record(*record)
    await scope.stored()


def _said(loaded: Loaded, run_id: str) -> str:
    """The text that the run has put before the people so far."""
    return "".join(m.text for m in loaded.transcript.messages if m.run == run_id and m.role == "assistant")


def _inputs_of(loaded: Loaded, run: Run) -> list[QueuedInput]:
    """The inputs that the run began with, from the transcript: they have left the queue."""
    found = [
        QueuedInput(m.id.removeprefix("msg_"), m.seq, 0, m.by, m.text, lane=run.lane, trace=run.cause)
        for m in loaded.transcript.messages
        if m.run == run.run_id and m.role == "user" and m.seq <= run.started_seq
    ]
    # A run that was given several inputs was named by the first of them.
    return sorted(found, key=lambda i: i.input_id != run.input_id)
