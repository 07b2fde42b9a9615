"""What a gateway counts, for Prometheus. One object for each process, passed down."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge


class GatewayMetrics:
    """Metrics of one gateway, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.connections = Gauge("antiphon_gateway_connections", "Open client connections", registry=self.registry)
        self.sessions = Gauge("antiphon_gateway_sessions", "Sessions open in this gateway", registry=self.registry)
        self.subscriptions = Gauge("antiphon_gateway_subscriptions", "Session subscriptions", registry=self.registry)
        self.participants = Gauge(
            "antiphon_gateway_participants", "Users present in a session through this gateway", registry=self.registry
        )
        self.joins = self._counter("joins", "Joins by where they were served from: snapshot, ring or log", "kind")
        self.entries_delivered = self._counter("entries_delivered", "Entries written to live readers")
        self.held_back = self._counter("readers_held_back", "Times a reader fell behind and was held back")
        self.refusals = self._counter("refusals", "Refused commands and frames", "code")
        self.closes = self._counter("closes", "Connections closed by this gateway", "code")
        self.inputs = self._counter("inputs", "Inputs stored, new and duplicate", "kind")
        self.rewinds = self._counter("rewinds", "Times a session was read afresh because entries had been missed")
        self.jobs_repaired = self._counter("jobs_repaired", "Jobs offered again for sessions with work and no job")

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(f"antiphon_gateway_{name}", meaning, labels, registry=self.registry)
