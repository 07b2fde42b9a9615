"""What every process of ours counts, for Prometheus: itself, its connection to NATS, and the log as it meets it.

Histograms have powers of two as bounds: those are bounds of native histograms too (schema 0), so one can be turned into
the other without loss. No label names a session, a user or a connection. Counters whose label values are known begin at
0, for Prometheus does not see the first step of a series that begins at 1.
"""

from __future__ import annotations

import asyncio
import math
import platform
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import accumulate

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_1_0_0
from prometheus_client.metrics_core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from broker.queues import Queue

# A time of creation beside each counter would double the number of series, and Prometheus has no use for it.
prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]

CONTENT_TYPE = CONTENT_TYPE_PLAIN_1_0_0


def powers(first: int, last: int, step: int = 1) -> tuple[float, ...]:
    """Bounds of a histogram: 2 to the power of `first`, and so on to that of `last`, in seconds."""
    return tuple(2.0**exponent for exponent in range(first, last + 1, step))


def counter(registry: CollectorRegistry, name: str, meaning: str, **labels: tuple[str, ...]) -> Counter:
    """A counter with at most one label, whose values, as far as they are given, are there from the beginning."""
    made = Counter(name, meaning, tuple(labels), registry=registry)
    for values in labels.values():
        for value in values:
            made.labels(value)
    return made


class HotHistogram(Collector):
    """A histogram without labels of what happens for every token, counted in one thread.

    prometheus-client's own takes a lock for each value, and looks at one bound after the other: 2 µs where this takes 0.3.
    """

    def __init__(self, name: str, meaning: str, bounds: Sequence[float], registry: CollectorRegistry) -> None:
        self.name = name
        self._meaning = meaning
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0
        registry.register(self)

    def observe(self, value: float) -> None:
        """Counts a value, which is in the bucket of the first bound that it is not above."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def collect(self) -> Iterator[Metric]:
        """For the registry."""
        bounds = (*map(floatToGoString, self._bounds), "+Inf")
        family = HistogramMetricFamily(self.name, self._meaning)
        family.add_metric((), buckets=[*zip(bounds, accumulate(self._counts), strict=True)], sum_value=self._sum)
        yield family

    def describe(self) -> Iterator[Metric]:
        """Likewise: so that no other metric can have its name."""
        return self.collect()


def exposition(registry: CollectorRegistry) -> bytes:
    """All metrics of a registry, as Prometheus reads them (`CONTENT_TYPE`)."""
    return generate_latest(registry)


class ProcessMetrics:
    """What is asked of any process; `component` is `gateway` or `worker`. On Linux also CPU, memory and open files."""

    def __init__(self, registry: CollectorRegistry, component: str) -> None:
        build = Gauge(
            "antiphon_build_info",
            "1, for each process and what it is",
            ("component", "version", "python"),
            registry=registry,
        )
        build.labels(component, version("antiphon"), platform.python_version()).set(1)
        self.loop_lag = Histogram(
            "antiphon_event_loop_lag_seconds",
            "By how much the event loop was late for a timer, looked at once a second",
            buckets=powers(-10, 4),
            registry=registry,
        )
        tasks = Gauge("antiphon_tasks", "Tasks of the event loop that have not ended", registry=registry)
        tasks.set_function(_tasks)
        ProcessCollector(registry=registry)


class LogMetrics:
    """What a process sees of NATS and of the log. Gauges that nobody has looked at yet are NaN."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.connected = Gauge("antiphon_nats_connected", "Whether NATS is reached: 1 or 0", registry=registry)
        self.reconnects = counter(registry, "antiphon_nats_reconnects", "Times the connection to NATS came back")
        self.round_trip = _unknown(registry, "antiphon_nats_round_trip_seconds", "One ping to NATS and back")
        self.clock_offset = _unknown(
            registry,
            "antiphon_nats_clock_offset_seconds",
            "By how much the clock of a NATS server is ahead of this process's, to half a round trip",
        )
        self.slow_consumer = counter(
            registry, "antiphon_nats_slow_consumer", "Times NATS messages were dropped because this process was slow"
        )
        self.refused = counter(
            registry,
            "antiphon_nats_permission_violations",
            "Times NATS did not let this process publish or subscribe: its user lacks what its role needs",
            operation=("publish", "subscribe"),
        )
        self.append = Histogram(
            "antiphon_log_append_seconds",
            "From sending a write to its acknowledgement by JetStream, this process's clock; refused ones left out",
            buckets=powers(-12, 3),
            registry=registry,
        )
        self.stored = counter(
            registry,
            "antiphon_log_messages_stored",
            "Messages that this process stored in the streams of sessions: an `entry`, or a `checkpoint`; `duplicate`: "
            "one that was there already, and was not stored again",
            kind=("entry", "checkpoint", "duplicate"),
        )
        self.retries = counter(
            registry,
            "antiphon_log_append_retries",
            "Writes sent again: `contended` (one under the same fence was in flight), or `unknown` (its outcome was)",
            reason=("contended", "unknown"),
        )
        self.unknown = counter(registry, "antiphon_log_unknown_outcomes", "Writes to which NATS did not answer")
        self.full = counter(registry, "antiphon_log_full_refusals", "Writes refused because the log's storage is full")
        self.gaps = counter(
            registry, "antiphon_log_gaps_repaired", "Live messages that were lost and read from the log"
        )
        self.duplicates = counter(
            registry, "antiphon_log_duplicates_dropped", "Live messages that had come before, and were dropped"
        )


@dataclass(frozen=True, slots=True)
class QueueSeen:
    """What NATS says of a queue: jobs that wait, jobs that are leased, requests of workers, and how long the first job that
    waits has waited.
    """

    queue: Queue
    waiting: int
    leased: int
    asking: int
    oldest_s: float


class QueueMetrics:
    """What a gateway learns of the whole log when it is scraped: each tells the same, so take the maximum, not the sum."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.jobs = Gauge(
            "antiphon_pool_jobs",
            "Jobs of a pool by state: `waiting` (no worker has them) or `leased`; each gateway tells the same",
            ("pool", "state"),
            registry=registry,
        )
        self.oldest = Gauge(
            "antiphon_pool_oldest_job_seconds",
            "How long the first waiting job of a pool has waited, by the clock of NATS; each gateway tells the same",
            ("pool",),
            registry=registry,
        )
        self.asking = Gauge(
            "antiphon_pool_workers_asking",
            "Workers of a pool that ask for a job now; each gateway tells the same",
            ("pool",),
            registry=registry,
        )
        self.waiting = Gauge(
            "antiphon_pool_waiting_jobs",
            "Jobs of a pool that wait, by priority; each gateway tells the same",
            ("pool", "priority"),
            registry=registry,
        )
        self.oldest_of = Gauge(
            "antiphon_pool_oldest_waiting_job_seconds",
            "How long the first waiting job of a pool has waited, by priority, by the clock of NATS; each gateway tells the "
            "same",
            ("pool", "priority"),
            registry=registry,
        )
        self._streams(registry)
        self.asked_at = Gauge(
            "antiphon_log_asked_timestamp_seconds",
            "When this gateway last learnt all of this, since 1970; 0: never",
            registry=registry,
        )

    def _streams(self, registry: CollectorRegistry) -> None:
        self.bytes = _unknown(
            registry, "antiphon_log_bytes", "Bytes that the streams hold; each gateway tells the same"
        )
        self.entries = _unknown(
            registry, "antiphon_log_entries", "Messages that they hold; each gateway tells the same"
        )
        self.attachments = _unknown(
            registry,
            "antiphon_attachments_stored_bytes",
            "Bytes that the stream of attachments holds; each gateway tells the same",
        )
        self.replica_lag = _unknown(
            registry,
            "antiphon_log_replica_lag_entries",
            "By how many operations the slowest replica of any stream is behind its leader",
        )
        self.replicas_offline = _unknown(
            registry, "antiphon_log_replicas_offline", "Replicas of streams that their leader has not heard of for 15 s"
        )
        self.silent = _unknown(
            registry, "antiphon_log_streams_silent", "Streams of the log that did not answer: without a leader, or gone"
        )

    def forget(self) -> None:
        """Nothing is known now: old figures must not look like new ones."""
        self.forget_pools()
        known = (self.bytes, self.entries, self.attachments, self.replica_lag, self.replicas_offline, self.silent)
        for gauge in known:
            gauge.set(math.nan)

    def forget_pools(self) -> None:
        """A pool that is gone must not stay."""
        for family in (self.jobs, self.oldest, self.asking, self.waiting, self.oldest_of):
            family.clear()

    def see(self, queues: Sequence[QueueSeen]) -> None:
        """Takes what is said of all queues of all pools, in place of what was said before."""
        self.forget_pools()
        for seen in queues:
            pool, priority = seen.queue.pool, seen.queue.priority.value
            self.jobs.labels(pool, "waiting").inc(seen.waiting)
            self.jobs.labels(pool, "leased").inc(seen.leased)
            self.waiting.labels(pool, priority).inc(seen.waiting)
        for pool in {seen.queue.pool for seen in queues}:
            own = [seen for seen in queues if seen.queue.pool == pool]
            # A worker asks at all queues of its pool.
            self.asking.labels(pool).set(max(seen.asking for seen in own))
            self.oldest.labels(pool).set(max(seen.oldest_s for seen in own))
            for priority in {seen.queue.priority for seen in own}:
                oldest_s = max(seen.oldest_s for seen in own if seen.queue.priority is priority)
                self.oldest_of.labels(pool, priority.value).set(oldest_s)


def _tasks() -> float:
    """NaN outside of an event loop."""
    try:
        return len(asyncio.all_tasks())
    except RuntimeError:
        return math.nan


def _unknown(registry: CollectorRegistry, name: str, meaning: str) -> Gauge:
    made = Gauge(name, meaning, registry=registry)
    made.set(math.nan)
    return made
