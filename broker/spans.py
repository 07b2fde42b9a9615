"""Spans: what a process tells a tracing backend of its part in a request. Ids, sizes and times; never content.

A span is a value that is made once its end is known. Whoever exports spans (`antiphon.otlp`, with the extra `otel`) is
handed to gateways and workers by the composition root; without it `NO_SPANS` is, and nothing is made.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Literal, Protocol

from broker.tracing import TraceContext, begun

Attribute = str | int | bool
SpanKind = Literal["internal", "server", "client", "producer", "consumer"]
"""As OpenTelemetry has them; the parent of a `server` or a `consumer` is another process's span."""


@dataclass(frozen=True, slots=True)
class Span:
    """A span that has ended. Times are ns since 1970. `error` names what went wrong: a code or the type of an error."""

    name: str
    context: TraceContext
    parent: TraceContext | None
    start_ns: int
    end_ns: int
    kind: SpanKind = "internal"
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    links: tuple[TraceContext, ...] = ()
    error: str | None = None


class Spans(Protocol):
    """Where spans go."""

    @property
    def enabled(self) -> bool:
        """Somebody takes them."""
        ...

    def sample(self) -> bool:
        """Whether a trace that begins here is to be recorded."""
        ...

    def ended(self, span: Span) -> None:
        """Takes a span. Never waits and never raises: one for which there is no room is dropped, and counted."""
        ...

    def attached(self, context: TraceContext) -> AbstractContextManager[object]:
        """Within it, spans that an author's own instrumentation makes are children of `context`."""
        ...


class NoSpans:
    """Nobody takes them."""

    enabled = False

    def sample(self) -> bool:
        return False

    def ended(self, span: Span) -> None:
        pass

    def attached(self, context: TraceContext) -> AbstractContextManager[object]:  # noqa: ARG002 (see Spans)
        return nullcontext()


NO_SPANS: Spans = NoSpans()


def new_span_id() -> str:
    return secrets.token_hex(8)


def child_of(parent: TraceContext | None, spans: Spans) -> TraceContext:
    """A new span: of the parent's trace, or the first of a new one."""
    if parent is not None:
        return parent.with_span(new_span_id())
    return begun(secrets.token_hex(16), new_span_id(), sampled=spans.sample())


def now_ns() -> int:
    """Nanoseconds since 1970."""
    return time.time_ns()
