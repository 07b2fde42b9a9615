"""What a worker counts, for Prometheus. One object for each process, passed down."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from broker.metrics import LogMetrics, ProcessMetrics, counter, powers

JOB_ENDS = ("done", "settled", "handed_over", "taken", "contended", "second", "fenced", "lost", "failed")
RUN_ENDS = ("success", "cancelled", "error", "timeout", "worker_lost")
RUN_STATES = ("working", "waiting", "paused")
MODEL_CALL_ENDS = ("done", "stopped", "failed")
TOKEN_KINDS = ("input", "output", "cached_input", "reasoning")
"""`cached_input` is a part of `input`, `reasoning` one of `output`."""
WAITS = ("client_tool", "agent_tool", "approval", "question", "handoff", "agent")
"""What a run may wait for."""


class Activity(Protocol):
    """A run that is being executed, as the metrics see it."""

    @property
    def state(self) -> str:
        """One of RUN_STATES."""
        ...

    @property
    def said(self) -> int:
        """Pieces of text said so far; only grows."""
        ...


class WorkerMetrics:
    """Metrics of one worker, in a registry of their own. What is only looked at when scraped is set by `sample`."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.process = ProcessMetrics(self.registry, "worker")
        self.log = LogMetrics(self.registry)
        self._executing: dict[Activity, int] = {}
        self._waiting: dict[object, tuple[str, float]] = {}
        self._lanes()
        self._runs()
        self._waits()
        self.sample()

    def _lanes(self) -> None:
        self.info = Gauge(
            "antiphon_worker_info",
            "1, for the pool and the agent of this worker, and the label of its version",
            ("pool", "agent", "version"),
            registry=self.registry,
        )
        self.sessions = self._gauge("sessions", "Sessions being worked on")
        self.capacity = self._gauge("capacity", "Sessions that may be worked on at once")
        self.parked = self._gauge("parked", "Lanes that wait for people or other agents, without a slot")
        self.draining = self._gauge("draining", "1 while this worker takes no new job because it is to leave")
        self.drained = self._gauge(
            "drained", "Pools whose jobs this worker does not take because its version is drained"
        )
        self.jobs = self._counter("jobs", "Jobs taken, by what came of them", end=JOB_ENDS)
        self.job_wait = self._histogram(
            "job_wait_seconds",
            "From when NATS stored a job (its clock) to when this worker had it (its own clock); first deliveries",
            (-9, 11),
        )
        self.fence_refusals = self._counter("fence_refusals", "Lanes lost at a write that the fence refused")
        self.renewals_failed = self._counter("lease_renewals_failed", "Times a job's lease could not be renewed")
        self.appends = self._counter("appends", "Entries stored, by kind", kind=("record", "delta"))

    def _runs(self) -> None:
        self.active = Gauge(
            "antiphon_worker_runs_active",
            "Runs that are being executed: `working`, `waiting` (for people, tools or agents), or `paused`",
            ("state",),
            registry=self.registry,
        )
        self.runs = self._counter("runs", "Runs ended here, by how", end=RUN_ENDS)
        self.run_seconds = self._histogram(
            "run_seconds", "From when this worker began with a run to when it ended or was left", (-6, 14)
        )
        self.first_text = self._histogram(
            "first_text_seconds", "From the start of a run to the first piece of its text in the log", (-8, 8)
        )
        self.takeovers = self._counter("takeovers", "Runs taken over from another worker")
        self.text_pieces = self._counter("text_pieces", "Pieces of text (tokens, with most models) that runs have said")
        self.paused = self._gauge("paused", "Runs held because nobody watches")
        self.paused_seconds = counter(
            self.registry, "antiphon_paused_seconds", "Time that runs were held because nobody watched"
        )
        self.pieces_saved = counter(
            self.registry,
            "antiphon_paused_tokens_estimate",
            "Pieces of text (tokens, with most models) that held runs would have said at their pace before",
        )
        self.model_calls = self._counter("model_calls", "Calls of models, by how they ended", end=MODEL_CALL_ENDS)
        self.model_retries = self._counter("model_retries", "Times that a model was asked again after a failure")
        self.model_tokens = self._counter("model_tokens", "Tokens that models have counted", kind=TOKEN_KINDS)
        self.abandoned = self._counter("agents_abandoned", "Agents that did not return after being cancelled")
        self.tasks_leaked = self._counter("tasks_leaked", "Tasks that agents had started and that outlived their run")
        self.loop_blocked = self._counter(
            "loop_blocked", "Times that the event loop stood still for longer than is logged", by=("agent", "other")
        )

    def _waits(self) -> None:
        self.waits = Gauge(
            "antiphon_worker_waits", "Waits of runs that are going on, by what for", ("kind",), registry=self.registry
        )
        self.oldest_wait = Gauge(
            "antiphon_worker_oldest_wait_seconds",
            "How long the longest of them has waited at this worker",
            ("kind",),
            registry=self.registry,
        )
        self.wait = Histogram(
            "antiphon_worker_wait_seconds",
            "How long runs waited, by what for; waits of runs that were stopped meanwhile are left out",
            ("kind",),
            buckets=powers(-6, 16, 2),
            registry=self.registry,
        )
        for kind in WAITS:
            self.wait.labels(kind)

    @contextmanager
    def executing(self, run: Activity) -> Iterator[None]:
        """For the time that a run is executed."""
        begun = time.monotonic()
        self._executing[run] = 0
        try:
            yield
        finally:
            self._count(run)
            del self._executing[run]
            self.run_seconds.observe(time.monotonic() - begun)

    @contextmanager
    def waiting(self, kind: str) -> Iterator[None]:
        """For the time of a wait; `kind` is one of WAITS."""
        key, begun, cut_short = object(), time.monotonic(), True
        self._waiting[key] = kind, begun
        try:
            yield
            cut_short = False
        except Exception:
            cut_short = False
            raise
        finally:
            del self._waiting[key]
            if not cut_short:
                self.wait.labels(kind).observe(time.monotonic() - begun)

    def sample(self) -> None:
        """Looks at what is going on. For who is about to expose the registry."""
        states = [run.state for run in self._executing]
        for state in RUN_STATES:
            self.active.labels(state).set(states.count(state))
        now, waits = time.monotonic(), list(self._waiting.values())
        for kind in WAITS:
            ages = [now - begun for what, begun in waits if what == kind]
            self.waits.labels(kind).set(len(ages))
            self.oldest_wait.labels(kind).set(max(ages, default=0.0))
        for run in self._executing:
            self._count(run)

    def _count(self, run: Activity) -> None:
        self.text_pieces.inc(run.said - self._executing[run])
        self._executing[run] = run.said

    def _counter(self, name: str, meaning: str, **labels: tuple[str, ...]) -> Counter:
        return counter(self.registry, f"antiphon_worker_{name}", meaning, **labels)

    def _gauge(self, name: str, meaning: str) -> Gauge:
        return Gauge(f"antiphon_worker_{name}", meaning, registry=self.registry)

    def _histogram(self, name: str, meaning: str, bounds: tuple[int, int]) -> Histogram:
        return Histogram(f"antiphon_worker_{name}", meaning, buckets=powers(*bounds), registry=self.registry)
