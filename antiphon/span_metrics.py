"""What a process that exports spans counts."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter


class SpanMetrics:
    """Spans that left the process, and those that did not, in the process's registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.exported = Counter("antiphon_spans_exported", "Spans that the collector took", registry=registry)
        self.dropped = Counter(
            "antiphon_spans_dropped",
            "Spans that were dropped: there was no room (queue_full), or the collector did not take them (failed)",
            ["reason"],
            registry=registry,
        )
