"""What the process that sends webhooks counts, for Prometheus. Endpoints are few and named by the operator."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from broker.metrics import LogMetrics, ProcessMetrics, counter, powers

REASONS = ("address", "connection", "name", "redirect", "refused", "server_error", "throttled", "timeout", "tls")
"""Why a request failed."""


class WebhookMetrics:
    """In a registry of their own. What is only looked at when scraped is set by `sample`."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.process = ProcessMetrics(self.registry, "webhooks")
        self.log = LogMetrics(self.registry)
        self.on_sample: Callable[[], None] = lambda: None
        self.leading = self._gauge("leading", "1 while this process is the one that sends, else 0")
        self.file_valid = self._gauge("file_valid", "1 if the file of endpoints could be used when it was last read")
        self.lag = self._gauge("lag_seconds", "How long ago the oldest entry was stored that was not looked at yet")
        self.backlog = self._of_endpoints("backlog", "Events in memory that wait for an endpoint")
        self.oldest = self._of_endpoints("oldest_seconds", "How long ago the oldest event in memory happened")
        self.disabled = self._of_endpoints("disabled", "1 if the endpoint has said 410 Gone and is sent nothing")
        self.events = counter(self.registry, "antiphon_webhook_events", "Events that were made, for endpoints")
        self.delivered = self._counted("delivered", "Events that an endpoint has taken")
        self.skipped = self._counted("skipped", "Events that were not sent because somebody who is meant watches")
        self.retries = self._counted("retries", "Requests that sent an event once more")
        self.given_up = self._counted("given_up", "Events that were given up")
        self.failures = Counter(
            "antiphon_webhook_failures",
            "Requests that failed, by why",
            ("endpoint", "reason"),
            registry=self.registry,
        )
        self.request = Histogram(
            "antiphon_webhook_request_seconds",
            "How long an endpoint took to answer",
            ("endpoint",),
            buckets=powers(-8, 5),
            registry=self.registry,
        )
        self.delay = Histogram(
            "antiphon_webhook_delay_seconds",
            "From when something happened (its writer's clock) to when an endpoint had taken the event",
            buckets=powers(-6, 17),
            registry=self.registry,
        )

    def sample(self) -> None:
        """Looks at what waits. For who is about to expose the registry."""
        self.on_sample()

    def know(self, endpoint: str) -> None:
        """Lets the endpoint's counters begin at 0."""
        for counted in (self.delivered, self.skipped, self.retries, self.given_up):
            counted.labels(endpoint)
        for reason in REASONS:
            self.failures.labels(endpoint, reason)
        self.disabled.labels(endpoint)

    def forget(self, endpoint: str) -> None:
        """The endpoint is no longer in the file: what is said of it now would stay for ever."""
        for gauge in (self.backlog, self.oldest, self.disabled):
            if (endpoint,) in gauge._metrics:  # noqa: SLF001 (`remove` warns of what is not there)
                gauge.remove(endpoint)

    def _gauge(self, name: str, meaning: str) -> Gauge:
        return Gauge(f"antiphon_webhook_{name}", meaning, registry=self.registry)

    def _of_endpoints(self, name: str, meaning: str) -> Gauge:
        return Gauge(f"antiphon_webhook_{name}", meaning, ("endpoint",), registry=self.registry)

    def _counted(self, name: str, meaning: str) -> Counter:
        return Counter(f"antiphon_webhook_{name}", meaning, ("endpoint",), registry=self.registry)
