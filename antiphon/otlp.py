"""Spans to an OpenTelemetry collector, over OTLP/HTTP: the extra `otel`. Imported only where an endpoint is set.

Spans are handed to a thread of the SDK's, which sends them in batches. A collector that is slow, hangs or is away costs
spans beyond `span_queue`, which are counted, and nothing else.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Self

import structlog
from prometheus_client import CollectorRegistry

from antiphon.span_metrics import SpanMetrics
from broker.config import TraceSettings
from broker.errors import ConfigError
from broker.spans import Span, SpanKind, Spans
from broker.tracing import TraceContext

try:
    from opentelemetry import context as otel_context
    from opentelemetry import trace as otel
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
except ImportError:
    raise ConfigError("ANTIPHON_OTLP_ENDPOINT needs the extra `otel`: pip install 'antiphon[otel]'") from None

_log = structlog.get_logger("antiphon.spans")

_BATCH = 512
_LEAVE_S = 2.0
"""How long a process that ends waits for the collector to take what is left."""
_KINDS: Mapping[SpanKind, otel.SpanKind] = {
    "internal": otel.SpanKind.INTERNAL,
    "server": otel.SpanKind.SERVER,
    "client": otel.SpanKind.CLIENT,
    "producer": otel.SpanKind.PRODUCER,
    "consumer": otel.SpanKind.CONSUMER,
}
_SCOPE = InstrumentationScope("antiphon", "0.1.0")


class OtlpSpans:
    """`broker.spans.Spans` with a collector behind it. A context: `with OtlpSpans(…) as spans`."""

    enabled = True

    def __init__(self, settings: TraceSettings, service: str, instance: str, registry: CollectorRegistry) -> None:
        self._ratio = settings.trace_sample
        self._resource = Resource.create({"service.name": service, "service.instance.id": instance})
        exporter = OTLPSpanExporter(
            endpoint=settings.otlp_endpoint.rstrip("/") + "/v1/traces", timeout=settings.otlp_timeout_s
        )
        self._processor = _Bounded(exporter, settings, registry)
        # Of failures it would say each one; `_Counted` says when they begin.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        leaving = threading.Thread(target=self._processor.shutdown, daemon=True, name="spans-leaving")
        leaving.start()
        leaving.join(_LEAVE_S)

    def sample(self) -> bool:
        return random.random() < self._ratio

    def ended(self, span: Span) -> None:
        status = otel.Status(otel.StatusCode.UNSET if span.error is None else otel.StatusCode.ERROR, span.error)
        attributes = dict(span.attributes) if span.error is None else {**span.attributes, "error.type": span.error}
        remote = span.kind in ("server", "consumer")
        readable = ReadableSpan(
            span.name,
            context=_otel(span.context),
            parent=None if span.parent is None else _otel(span.parent, remote=remote),
            resource=self._resource,
            attributes=attributes,
            links=[otel.Link(_otel(link, remote=True)) for link in span.links],
            kind=_KINDS[span.kind],
            status=status,
            start_time=span.start_ns,
            end_time=span.end_ns,
            instrumentation_scope=_SCOPE,
        )
        self._processor.on_end(readable)

    def attached(self, context: TraceContext) -> AbstractContextManager[object]:
        return _attached(context)

    def serve_authors(self) -> None:
        """What an agent's author instruments with OpenTelemetry's API goes the same way, unless it has a way already."""
        if isinstance(otel.get_tracer_provider(), otel.ProxyTracerProvider):
            provider = TracerProvider(resource=self._resource, shutdown_on_exit=False)
            provider.add_span_processor(self._processor)
            otel.set_tracer_provider(provider)


@contextmanager
def spans_to(
    settings: TraceSettings, service: str, instance: str, registry: CollectorRegistry, *, authors: bool = False
) -> Iterator[Spans]:
    """Spans of this process, for as long as the context is open; `registry` counts them. `authors`: those of agents too."""
    with OtlpSpans(settings, service, instance, registry) as spans:
        if authors:
            spans.serve_authors()
        yield spans


@contextmanager
def _attached(context: TraceContext) -> Iterator[None]:
    span = otel.NonRecordingSpan(_otel(context))
    token = otel_context.attach(otel.set_span_in_context(span))
    try:
        yield
    finally:
        otel_context.detach(token)


def _otel(context: TraceContext, *, remote: bool = False) -> otel.SpanContext:
    state = None if context.state is None else otel.TraceState.from_header([context.state])
    flags = otel.TraceFlags(context.flags)
    return otel.SpanContext(int(context.trace_id, 16), int(context.span_id, 16), remote, flags, state)


class _Bounded(SpanProcessor):
    """Passes spans on to the SDK's batches, while there is room. May be used from any thread."""

    def __init__(self, exporter: SpanExporter, settings: TraceSettings, registry: CollectorRegistry) -> None:
        metrics = SpanMetrics(registry)
        self._dropped = metrics.dropped.labels("queue_full")
        self._room = settings.span_queue
        self._held = 0
        self._lock = threading.Lock()
        self._batches = BatchSpanProcessor(
            _Counted(exporter, self._left, metrics),
            max_queue_size=settings.span_queue,
            schedule_delay_millis=settings.span_export_s * 1000,
            max_export_batch_size=min(_BATCH, settings.span_queue),
        )

    def on_end(self, span: ReadableSpan) -> None:
        if span.context is None or not span.context.trace_flags.sampled:
            return
        with self._lock:
            room = self._held < self._room
            self._held += room
        if room:
            self._batches.on_end(span)
        else:
            self._dropped.inc()

    def _left(self, count: int) -> None:
        with self._lock:
            self._held -= count

    def shutdown(self) -> None:
        self._batches.shutdown()  # type: ignore[no-untyped-call]

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._batches.force_flush(timeout_millis)


class _Counted(SpanExporter):
    """An exporter whose outcomes are counted, and whose failures are said once. Used by one thread."""

    def __init__(self, exporter: SpanExporter, left: Callable[[int], None], metrics: SpanMetrics) -> None:
        self._exporter = exporter
        self._left = left
        self._failing = False
        self._metrics = metrics

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = SpanExportResult.FAILURE
        try:
            result = self._exporter.export(spans)
        finally:
            self._left(len(spans))
            self._tell(result is SpanExportResult.SUCCESS, len(spans))
        return result

    def _tell(self, taken: bool, count: int) -> None:
        (self._metrics.exported if taken else self._metrics.dropped.labels("failed")).inc(count)
        if self._failing is taken:
            self._failing = not taken
            if taken:
                _log.info("spans are exported again")
            else:
                _log.warning("spans cannot be exported", spans=count)

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)
