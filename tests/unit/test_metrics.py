"""What is counted without a process: times, marks, and what a worker's runs are doing when it is scraped."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram

from agent_worker.control import RunControl
from agent_worker.metrics import RUN_STATES, WAITS, WorkerMetrics
from broker.clock import age_s
from broker.codec import published_at
from broker.errors import ErrorCode
from broker.metrics import HotHistogram, LogMetrics, QueueMetrics, QueueSeen, exposition, powers
from broker.queues import Priority, Queue
from gateway.fields import BadFrame
from gateway.metrics import GatewayMetrics
from gateway.protocol import Ack, Subscribe, parse


@dataclass(eq=False)
class Run:
    """A run, as the metrics see it."""

    state: str = "working"
    said: int = 0


def value(metrics: WorkerMetrics, name: str, **labels: str) -> float:
    found = metrics.registry.get_sample_value(name, labels)
    assert found is not None, name
    return found


def test_runs_are_looked_at_when_they_are_sampled() -> None:
    metrics = WorkerMetrics()
    working, waiting = Run(), Run("waiting", said=3)
    with metrics.executing(working):
        with metrics.executing(waiting):
            working.said = 10
            metrics.sample()
            assert {state: value(metrics, "antiphon_worker_runs_active", state=state) for state in RUN_STATES} == {
                "working": 1,
                "waiting": 1,
                "paused": 0,
            }
            assert value(metrics, "antiphon_worker_text_pieces_total") == 13
            waiting.said = 5
        working.said = 11
    metrics.sample()
    assert value(metrics, "antiphon_worker_text_pieces_total") == 16
    assert value(metrics, "antiphon_worker_runs_active", state="working") == 0
    assert value(metrics, "antiphon_worker_run_seconds_count") == 2


def test_waits_have_an_age_while_they_go_on_and_a_length_at_their_end(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("agent_worker.metrics.time.monotonic", lambda: now)
    metrics = WorkerMetrics()
    with metrics.waiting("approval"):
        now = 104.0
        with metrics.waiting("approval"):
            now = 105.0
            metrics.sample()
            assert value(metrics, "antiphon_worker_waits", kind="approval") == 2
            assert value(metrics, "antiphon_worker_oldest_wait_seconds", kind="approval") == 5
            assert value(metrics, "antiphon_worker_oldest_wait_seconds", kind="handoff") == 0
    metrics.sample()
    assert value(metrics, "antiphon_worker_waits", kind="approval") == 0
    assert value(metrics, "antiphon_worker_wait_seconds_count", kind="approval") == 2
    assert value(metrics, "antiphon_worker_wait_seconds_sum", kind="approval") == 6


@pytest.mark.parametrize(("error", "counted"), [(ValueError, 1), (asyncio.CancelledError, 0)])
def test_a_wait_that_failed_has_an_end_and_one_that_was_stopped_has_none(
    error: type[BaseException], counted: int
) -> None:
    metrics = WorkerMetrics()
    with pytest.raises(error), metrics.waiting("client_tool"):
        raise error
    assert value(metrics, "antiphon_worker_wait_seconds_count", kind="client_tool") == counted
    metrics.sample()
    assert value(metrics, "antiphon_worker_waits", kind="client_tool") == 0


def test_the_state_of_a_run_is_that_of_its_control() -> None:
    control = RunControl(lambda: None)
    assert control.state == "working"
    with control.waiting():
        assert control.state == "waiting"
        control.hold()
        assert control.state == "paused"
    control.go_on()
    assert control.state == "working"


def test_what_nobody_has_looked_at_is_not_a_number() -> None:
    registry = CollectorRegistry()
    LogMetrics(registry)
    queue = QueueMetrics(registry)
    queue.bytes.set(5)
    queue.jobs.labels("default", "waiting").set(1)
    queue.forget()
    assert math.isnan(registry.get_sample_value("antiphon_log_bytes") or 0)
    assert math.isnan(registry.get_sample_value("antiphon_nats_round_trip_seconds") or 0)
    assert registry.get_sample_value("antiphon_pool_jobs", {"pool": "default", "state": "waiting"}) is None


def test_the_queues_of_a_pool_are_counted_together() -> None:
    registry = CollectorRegistry()
    queue = QueueMetrics(registry)
    plain, share, high = Queue("default"), Queue("default", Priority.NORMAL, 2), Queue("default", Priority.HIGH)
    seen = [QueueSeen(plain, 5, 1, 3, 9.0), QueueSeen(share, 2, 2, 2, 20.0), QueueSeen(high, 1, 4, 3, 1.0)]
    queue.see([*seen, QueueSeen(Queue("other"), 7, 0, 0, 3.0)])

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"antiphon_pool_{name}", labels)

    assert [value("jobs", pool="default", state=state) for state in ("waiting", "leased")] == [8, 7]
    assert value("workers_asking", pool="default") == 3, "each asks at all queues"
    assert value("oldest_job_seconds", pool="default") == 20.0
    assert [value("waiting_jobs", pool="default", priority=p) for p in ("high", "normal")] == [1, 7]
    assert [value("oldest_waiting_job_seconds", pool="default", priority=p) for p in ("high", "normal")] == [1.0, 20.0]
    queue.see([QueueSeen(plain, 0, 0, 1, 0.0)])
    assert value("jobs", pool="other", state="waiting") is None
    assert value("waiting_jobs", pool="default", priority="high") is None


def test_counters_whose_labels_are_known_begin_at_nought() -> None:
    registry = GatewayMetrics().registry
    for code in ErrorCode:
        assert registry.get_sample_value("antiphon_gateway_refusals_total", {"code": code.value}) == 0
    for kind in WAITS:
        assert value(WorkerMetrics(), "antiphon_worker_wait_seconds_count", kind=kind) == 0
    assert b"_created" not in exposition(registry)


def test_bounds_are_those_of_native_histograms() -> None:
    assert powers(-2, 2) == (0.25, 0.5, 1.0, 2.0, 4.0)
    assert powers(-4, 4, 4) == (0.0625, 1.0, 16.0)


@pytest.mark.parametrize(
    ("stored", "age"),
    [
        ("1970-01-01T00:00:09.500000000Z", 0.5),
        ("1970-01-01T00:00:09Z", 1.0),
        ("1970-01-01T00:00:11Z", 0.0),
        ("", None),
        ("yesterday", None),
    ],
)
def test_the_age_of_what_nats_has_stored(stored: str, age: float | None) -> None:
    assert age_s(stored, 10.0) == age


@pytest.mark.parametrize(
    ("body", "ts"), [(b'{"id":"1-1","ts":12}', 12), (b'{"id":"1-1"}', None), (b"[]", None), (b"{", None)]
)
def test_when_a_body_says_that_it_was_published(body: bytes, ts: int | None) -> None:
    assert published_at(body) == ts


def test_acknowledging_is_asked_for_and_done() -> None:
    subscribe = parse('{"op":"subscribe","id":1,"session":"demo","acks":true}')
    assert isinstance(subscribe, Subscribe)
    assert subscribe.acks
    assert parse('{"op":"ack","id":2,"session":"demo","seq":7}') == Ack(2, "demo", 7)
    for frame in ('{"op":"ack","id":2,"session":"demo"}', '{"op":"ack","id":2,"session":"demo","seq":"7"}'):
        with pytest.raises(BadFrame, match="seq"):
            parse(frame)
    with pytest.raises(BadFrame, match="acks"):
        parse('{"op":"subscribe","id":1,"session":"demo","acks":1}')


BOUNDS = powers(-3, 3)


@given(st.lists(st.sampled_from(BOUNDS) | st.floats(-1, 100)))
def test_a_hot_histogram_says_what_the_librarys_own_says(observed: list[float]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    hot = HotHistogram("lag_seconds", "Meaning", BOUNDS, ours)
    usual = Histogram("lag_seconds", "Meaning", (), buckets=BOUNDS, registry=theirs)
    for each in observed:
        hot.observe(each)
        usual.observe(each)
    assert exposition(ours) == exposition(theirs)
