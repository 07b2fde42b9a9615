"""What a gateway counts, for Prometheus. One object for each process, passed down."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from broker.errors import CloseCode, ErrorCode, Refused
from broker.metrics import HotHistogram, LogMetrics, ProcessMetrics, QueueMetrics, counter, powers
from gateway.dues import Tally
from gateway.limits import Limit
from gateway.pacing import Held
from gateway.protocol import Command, InputSend, Subscribe

_LIMITS = tuple(limit.value for limit in Limit)
JOINS = ("snapshot", "ring", "log")
CATCH_UPS = (*JOINS, "held_back", "gap")
CAUGHT_UP = ("frame", "merged", "left_out", "superseded", "unread")
_CAUGHT_UP_IN = ("frames", "merged", "left_out", "superseded", "unread")
"""Where `gateway.dues.Tally` has them."""
REFUSED_UPLOADS = (
    *("cut_short", "upload_timeout", "overloaded", "content_too_large", "media_type_refused", "bad_name"),
    *("attachment_exists", "attachments_full", "storage_full", "session_closed", "not_allowed", "unavailable"),
)
"""Why uploads end without an attachment."""
UPGRADES = (
    *("accepted", "draining", "overloaded", "too_many_connections", "unsupported_protocol", "origin_not_allowed"),
)
SCHEDULED = ("sent", "waits", "given_up", "early", "void", "unknown")
COMMANDS: dict[type[Command], str] = {InputSend: "input.send", Subscribe: "subscribe"}
"""Commands that have a histogram of their own; the rest is `other`."""


class GatewayMetrics:
    """Metrics of one gateway, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.process = ProcessMetrics(self.registry, "gateway")
        self.log = LogMetrics(self.registry)
        self.queue = QueueMetrics(self.registry)
        self.tally = Tally()
        """What becomes of entries: counted here, and put into the counters by `sample`."""
        self._told: dict[str, int] = {}
        self._connections()
        self._reading()
        self._entries()
        self._attachments()
        self._writing()

    def _connections(self) -> None:
        self.connections = self._gauge("connections", "Open client connections")
        self.connection_limit = self._gauge("connection_limit", "Connections that this gateway takes at most")
        self.sockets = self._gauge("sockets", "Open sockets of clients, also those that have asked for nothing yet")
        self.sockets_cut = self._counter(
            "sockets_cut",
            "Sockets that were ended: there were `too_many`, no whole request came in time, or what was to be taken was "
            "not (`stalled`)",
            reason=("too_many", "no_request", "stalled"),
        )
        self.sockets_held = Gauge(
            "antiphon_gateway_sockets_held",
            "Sockets that are not read for a while, and HTTP requests that wait: more came than what a `connection` may "
            "send, than what a user's connections or an address's may together (`shared`), or than `newcomers` may",
            ["by"],
            registry=self.registry,
        )
        for by in Held:
            self.sockets_held.labels(by)
        self.upgrades = self._counter(
            "upgrades",
            "Answers to those who want to connect",
            outcome=UPGRADES,
        )
        self.closes = self._counter("closes", "Connections closed by this gateway", code=_names(CloseCode))
        self.key_fetches = self._counter(
            "key_fetches", "Fetches of the key sets that issuers publish", outcome=("ok", "failed")
        )
        self.revocations = self._gauge("revocations", "Revocations of tokens, users and grants that are in force")
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
        self.rewinds = self._counter("rewinds", "Times a session was read afresh because entries had been missed")
        self.fan_out = HotHistogram(
            "antiphon_gateway_fan_out_lag_seconds",
            "From when NATS stored an entry (the clock of the stream's leader) to when it was written to the sockets of "
            "all live readers (this gateway's clock); for each write the oldest entry in it",
            powers(-11, 5),
            self.registry,
        )
        self.end_to_end = self._histogram(
            "end_to_end_lag_seconds",
            "From when an entry was published (its `ts`, the clock of the worker or gateway that wrote it) to when a "
            "client said that it had handled it (this gateway's clock); a sample",
            (-11, 6),
        )
        self.marks = self._counter("marks", "Times a client was asked to say when it has handled an entry")

    def _entries(self) -> None:
        self.in_flight = self._gauge("entries_in_flight", "Entries that are due to readers and not dealt with yet")
        self._taken = self._counter("entries_taken", "Entries that came to sessions that are open here")
        self._due = self._counter(
            "entries_due", "Entries that came, each once for each reader that had been live before and was there"
        )
        self._delivered = self._counter("entries_delivered", "Of those that were due: written to live readers")
        self._caught_up = self._counter(
            "entries_caught_up",
            "Of those that were due: what became of them for readers that were held back. `frame`: given as a frame; "
            "`merged`: as a further part of a merged one; `left_out`: a record that was given says the same; "
            "`superseded`: a gap, and a new snapshot; `unread`: the reader left before",
            how=CAUGHT_UP,
        )
        self._replayed = self._counter(
            "entries_replayed",
            "Entries given to readers until they were live for the first time, which were not due: `frame`, or `merged` "
            "into one as a further part",
            how=("frame", "merged"),
        )

    def sample(self, in_flight: int) -> None:
        """What became of entries until now. For who is about to expose the registry, with nothing awaited in between."""
        tally, told = self.tally, self._told
        for counter_of, name in (
            (self._taken, "taken"),
            (self._due, "due"),
            (self._delivered, "live"),
            *((self._caught_up.labels(how), name) for how, name in zip(CAUGHT_UP, _CAUGHT_UP_IN, strict=True)),
            (self._replayed.labels("frame"), "replayed"),
            (self._replayed.labels("merged"), "replayed_merged"),
        ):
            # A counter cannot go back; should a number of these, which is a fault, the sums show it.
            counter_of.inc(max(0, getattr(tally, name) - told.get(name, 0)))
            told[name] = getattr(tally, name)
        self.in_flight.set(in_flight)

    def _attachments(self) -> None:
        self.attachment_bytes = counter(
            self.registry,
            "antiphon_attachments_bytes",
            "Bytes of attachments that came `up` from clients, or went `down` to them",
            direction=("up", "down"),
        )
        self.attachments_refused = counter(
            self.registry,
            "antiphon_attachments_refused",
            "Uploads that were refused, by code; `cut_short`: those, and downloads, that ended before their end",
            reason=REFUSED_UPLOADS,
        )
        self.attachments_swept = counter(
            self.registry, "antiphon_attachments_swept", "Uploads that were cut short, and whose bytes were deleted"
        )

    def _writing(self) -> None:
        self.commands = self._histogram(
            "command_seconds", "From when a command's turn came to its reply or refusal", (-11, 4), "command"
        )
        for command in (*COMMANDS.values(), "other"):
            self.commands.labels(command)
        self.refusals = self._counter("refusals", "Refused commands and frames", code=_names(ErrorCode))
        self.limited = self._counter(
            "limited", "Commands, requests and connections that were refused, by the limit that they met", limit=_LIMITS
        )
        self.inputs = self._counter("inputs", "Inputs stored, new and duplicate", kind=("new", "duplicate"))
        self.scheduled = self._counter(
            "scheduled",
            "Alarms of scheduled inputs by what came of them: `sent`; `waits` (the session is closed, or its queue full); "
            "`given_up` after that; `early` by this gateway's clock; `void` or `unknown` (the session has no such input)",
            outcome=SCHEDULED,
        )
        self.schedule_late = self._histogram(
            "schedule_late_seconds",
            "From the time that an input was scheduled for to when it was sent (this gateway's clock)",
            (-8, 12),
        )
        self.jobs_repaired = self._counter("jobs_repaired", "Jobs offered again for sessions with work and no job")

    def refused(self, refusal: Refused) -> None:
        """A command, a frame or a request has been refused."""
        self.refusals.labels(refusal.code.value).inc()
        if (limit := refusal.data.get("exceeded")) is not None:
            self.limited.labels(limit).inc()

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
