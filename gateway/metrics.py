"""What a gateway counts, for Prometheus. One object for each process, passed down."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from broker.errors import CloseCode, ErrorCode
from broker.metrics import LogMetrics, ProcessMetrics, QueueMetrics, counter, powers
from gateway.protocol import Command, InputSend, Subscribe

JOINS = ("snapshot", "ring", "log")
CATCH_UPS = (*JOINS, "held_back", "gap")
COMMANDS: dict[type[Command], str] = {InputSend: "input.send", Subscribe: "subscribe"}
"""Commands that have a histogram of their own; the rest is `other`."""


class GatewayMetrics:
    """Metrics of one gateway, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.process = ProcessMetrics(self.registry, "gateway")
        self.log = LogMetrics(self.registry)
        self.queue = QueueMetrics(self.registry)
        self._connections()
        self._reading()
        self._writing()

    def _connections(self) -> None:
        self.connections = self._gauge("connections", "Open client connections")
        self.connection_limit = self._gauge("connection_limit", "Connections that this gateway takes at most")
        self.upgrades = self._counter(
            "upgrades",
            "Answers to those who want to connect",
            outcome=("accepted", "draining", "overloaded", "unsupported_protocol"),
        )
        self.closes = self._counter("closes", "Connections closed by this gateway", code=_names(CloseCode))
        self.draining = self._gauge("draining", "1 while this gateway sends its clients elsewhere")
        self.outbox = self._gauge("outbox_bytes", "Bytes that wait to be taken by clients, of all connections")
        self.outbox_largest = self._gauge("outbox_largest_bytes", "The same, of the connection with most of them")

    def _reading(self) -> None:
        self.sessions = self._gauge("sessions", "Sessions open in this gateway")
        self.subscriptions = self._gauge("subscriptions", "Session subscriptions")
        self.participants = self._gauge("participants", "Users present in a session through this gateway")
        self.joins = self._counter("joins", "Joins by where they were served from: snapshot, ring or log", kind=JOINS)
        self.catch_up = self._histogram(
            "catch_up_seconds",
            "Until a reader was live: from its join (`snapshot`, `ring`, `log`), from when it was `held_back`, or from "
            "a `gap`",
            (-11, 6),
            "kind",
        )
        for kind in CATCH_UPS:
            self.catch_up.labels(kind)
        self.behind = self._gauge("readers_behind", "Readers that are held back now")
        self.held_back = self._counter("readers_held_back", "Times a reader fell behind and was held back")
        self.entries_delivered = self._counter("entries_delivered", "Entries written to live readers")
        self.rewinds = self._counter("rewinds", "Times a session was read afresh because entries had been missed")
        self.fan_out = self._histogram(
            "fan_out_lag_seconds",
            "From when NATS stored an entry (the clock of the stream's leader) to when it was written to the sockets of "
            "all live readers (this gateway's clock); for each write the oldest entry in it",
            (-11, 5),
        )
        self.end_to_end = self._histogram(
            "end_to_end_lag_seconds",
            "From when an entry was published (its `ts`, the clock of the worker or gateway that wrote it) to when a "
            "client said that it had handled it (this gateway's clock); a sample",
            (-11, 6),
        )
        self.marks = self._counter("marks", "Times a client was asked to say when it has handled an entry")

    def _writing(self) -> None:
        self.commands = self._histogram(
            "command_seconds", "From when a command's turn came to its reply or refusal", (-11, 4), "command"
        )
        for command in (*COMMANDS.values(), "other"):
            self.commands.labels(command)
        self.refusals = self._counter("refusals", "Refused commands and frames", code=_names(ErrorCode))
        self.inputs = self._counter("inputs", "Inputs stored, new and duplicate", kind=("new", "duplicate"))
        self.jobs_repaired = self._counter("jobs_repaired", "Jobs offered again for sessions with work and no job")

    def carried_out(self, command: Command, took_s: float) -> None:
        """A command has had its answer."""
        self.commands.labels(COMMANDS.get(type(command), "other")).observe(took_s)

    def _counter(self, name: str, meaning: str, **labels: tuple[str, ...]) -> Counter:
        return counter(self.registry, f"antiphon_gateway_{name}", meaning, **labels)

    def _gauge(self, name: str, meaning: str) -> Gauge:
        return Gauge(f"antiphon_gateway_{name}", meaning, registry=self.registry)

    def _histogram(self, name: str, meaning: str, bounds: tuple[int, int], *labels: str) -> Histogram:
        return Histogram(f"antiphon_gateway_{name}", meaning, labels, buckets=powers(*bounds), registry=self.registry)


def _names(codes: type[CloseCode | ErrorCode]) -> tuple[str, ...]:
    return tuple(str(code.value) for code in codes)
