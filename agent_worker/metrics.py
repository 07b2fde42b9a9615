"""What a worker counts, for Prometheus. One object for each process, passed down."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge


class WorkerMetrics:
    """Metrics of one worker, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.sessions = Gauge("antiphon_worker_sessions", "Sessions being worked on", registry=self.registry)
        self.capacity = Gauge(
            "antiphon_worker_capacity", "Sessions that may be worked on at once", registry=self.registry
        )
        self.jobs = self._counter("jobs", "Jobs taken, by what came of them", "end")
        self.runs = self._counter("runs", "Runs ended here, by how", "end")
        self.takeovers = self._counter("takeovers", "Runs taken over from another worker")
        self.fence_refusals = self._counter("fence_refusals", "Lanes lost to another owner while at work")
        self.appends = self._counter("appends", "Entries stored, by kind", "kind")
        self.parked = Gauge(
            "antiphon_worker_parked",
            "Lanes that wait for people or other agents, without a slot",
            registry=self.registry,
        )
        self.paused = Gauge("antiphon_worker_paused", "Runs held because nobody watches", registry=self.registry)
        self.paused_seconds = Counter(
            "antiphon_paused_seconds", "Time that runs were held because nobody watched", registry=self.registry
        )
        self.pieces_saved = Counter(
            "antiphon_paused_tokens_estimate",
            "Pieces of text (tokens, with most models) that held runs would have said at their pace before",
            registry=self.registry,
        )
        self.abandoned = self._counter("agents_abandoned", "Agents that did not return after being cancelled")

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(f"antiphon_worker_{name}", meaning, labels, registry=self.registry)
