"""A worker's part in the trace of a request: a span for each attempt of a run, and those of what the run did.

A run's attempt is the only span here that has others below it, and the log holds all that it takes to make it: its
context is in the records that the attempt wrote. So whoever takes a run over makes the span of a worker that died, and no
span of a trace ever lacks its parent.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

from agent_worker.errors import ToolFailed
from broker.clock import now_ms
from broker.spans import Attribute, Span, SpanKind, Spans, child_of, now_ns
from broker.state import QueuedInput, Run
from broker.tracing import TraceContext

_NS_PER_MS = 1_000_000
_LABEL = re.compile(r"[\w.-]{1,64}", re.ASCII)


def label(name: str) -> str:
    """An author's name for a step or a tool, if it looks like one: a sentence may say what people said."""
    return name if _LABEL.fullmatch(name) else ""


class RunTrace:
    """The span of one attempt of a run. `ids` are told with each of its spans."""

    def __init__(
        self, spans: Spans, cause: TraceContext | None, links: Sequence[TraceContext], ids: dict[str, Attribute]
    ) -> None:
        self._spans = spans
        self._cause = cause
        self._links = list(links)
        self._ids = {f"antiphon.{name}": value for name, value in ids.items()}
        self._start_ns = now_ns()
        self.context = child_of(cause, spans)

    @property
    def cause(self) -> TraceContext | None:
        """The span that the run's input came in."""
        return self._cause

    @property
    def wanted(self) -> bool:
        return self._spans.enabled and self.context.sampled

    def attached(self) -> AbstractContextManager[object]:
        """Within it, spans of an author's own instrumentation belong to the run."""
        return self._spans.attached(self.context)

    def link(self, inputs: Sequence[QueuedInput]) -> None:
        """More inputs have come into the run, each of a trace of its own."""
        self._links += [i.trace for i in inputs if i.trace is not None]

    def waited(self, queued: QueuedInput, free_ms: int) -> None:
        """What the input waited for: the run before it in the lane, which ended at `free_ms`, and then a worker."""
        if self._cause is None or not self.wanted:
            return
        stored_ns, free_ns = queued.ts * _NS_PER_MS, free_ms * _NS_PER_MS
        if free_ns > stored_ns:
            self._add("queue", stored_ns, free_ns, parent=self._cause)
        begin_ns = max(stored_ns, free_ns)
        # Clocks of a gateway and a worker differ: a wait is never negative.
        self._add("dispatch", begin_ns, max(begin_ns, now_ns()), parent=self._cause)

    def first_token(self) -> None:
        """The first of the run's text is stored."""
        if self.wanted:
            self._add("first_token", self._start_ns, now_ns())

    @contextmanager
    def span(self, name: str, span_kind: SpanKind = "internal", **ids: Attribute) -> Iterator[None]:
        """Something that the run does, or waits for."""
        if not self.wanted:
            yield
            return
        start_ns = now_ns()
        error: str | None = None
        try:
            yield
        except BaseException as failed:
            error = failed.code if isinstance(failed, ToolFailed) else type(failed).__name__
            raise
        finally:
            more = {f"antiphon.{key}": value for key, value in ids.items()}
            self._add(name, start_ns, now_ns(), kind=span_kind, more=more, error=error)

    def end(self, end: str) -> None:
        """The attempt is over: `end` is how, as metrics have it, or `handed_over` or `taken`."""
        if self.wanted:
            error = end if end in ("error", "timeout", "worker_lost") else None
            self._ended(self.context, self._start_ns, self._ids | {"antiphon.end": end}, self._links, error)

    def lost(self, run: Run) -> None:
        """Makes the span of the attempt before this one, whose worker cannot any more."""
        if run.trace is not None and self._spans.enabled and run.trace.sampled:
            ids: dict[str, Attribute] = {"antiphon.attempt": run.attempt, "antiphon.end": "worker_lost"}
            ids = {name: value for name, value in self._ids.items() if name != "antiphon.worker"} | ids
            self._ended(run.trace, run.since * _NS_PER_MS, ids, (), "worker_lost", end_ns=now_ms() * _NS_PER_MS)

    def _ended(
        self,
        context: TraceContext,
        start_ns: int,
        ids: dict[str, Attribute],
        links: Sequence[TraceContext],
        error: str | None,
        end_ns: int | None = None,
    ) -> None:
        end_ns = now_ns() if end_ns is None else end_ns
        self._spans.ended(Span("run", context, self._cause, start_ns, end_ns, "consumer", ids, tuple(links), error))

    def _add(
        self,
        name: str,
        start_ns: int,
        end_ns: int,
        *,
        parent: TraceContext | None = None,
        kind: SpanKind = "internal",
        more: dict[str, Attribute] | None = None,
        error: str | None = None,
    ) -> None:
        above = parent or self.context
        context = child_of(above, self._spans)
        self._spans.ended(Span(name, context, above, start_ns, end_ns, kind, self._ids | (more or {}), error=error))
