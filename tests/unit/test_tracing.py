"""W3C trace context: what is taken, what is not, and how it goes from an input to its run and to the next attempt."""

from __future__ import annotations

from dataclasses import replace

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.codec import decode, decode_at, encode
from broker.events import (
    Entry,
    InputApplied,
    InputSent,
    Participant,
    RunRequested,
    RunStarted,
    RunTakenOver,
    SessionOwner,
    TextMessageContent,
)
from broker.session import fold
from broker.state import SessionState
from broker.subjects import Kind, Place
from broker.tracing import TRACESTATE_CHARS, TraceContext, begun, parse_context

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GOOD = f"00-{TRACE}-{SPAN}-01"
USER = Participant("user", "user-1")

hexes = st.text("0123456789abcdef", min_size=32, max_size=32).filter(lambda text: set(text) != {"0"})
contexts = st.builds(
    TraceContext,
    hexes,
    hexes.map(lambda text: text[:16]).filter(lambda text: set(text) != {"0"}),
    st.integers(0, 3),
    st.none() | st.just("vendor=abc") | st.just("a=1,b@c=2"),
)


def span(n: int) -> TraceContext:
    return TraceContext(TRACE, f"{n:016x}", 1, "vendor=abc")


def test_a_context_is_read_and_written() -> None:
    context = parse_context(GOOD, "vendor=abc")
    assert context == TraceContext(TRACE, SPAN, 1, "vendor=abc")
    assert context.sampled
    assert context.headers == {"traceparent": GOOD, "tracestate": "vendor=abc"}
    assert context.with_span("1" * 16).traceparent == f"00-{TRACE}-{'1' * 16}-01"


@given(contexts)
def test_a_context_survives_a_round_trip(context: TraceContext) -> None:
    assert parse_context(context.headers["traceparent"], context.headers.get("tracestate")) == context


@pytest.mark.parametrize(
    "bad",
    [
        None,
        1,
        "",
        "00",
        GOOD.upper(),
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"ff-{TRACE}-{SPAN}-01",
        f"{GOOD}-more",
        f"{GOOD} ",
        f"00-{TRACE[1:]}-{SPAN}-01",
        f"0-{TRACE}-{SPAN}-01",
    ],
)
def test_a_malformed_context_is_none(bad: object) -> None:
    assert parse_context(bad, "vendor=abc") is None


def test_a_newer_version_is_read_as_far_as_it_is_known() -> None:
    assert parse_context(f"01-{TRACE}-{SPAN}-09-more") == TraceContext(TRACE, SPAN, 1)
    assert parse_context(f"00-{TRACE}-{SPAN}-ff") == TraceContext(TRACE, SPAN, 3)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("a=1", "a=1"),
        (" a=1 ,, b=2\t", "a=1,b=2"),
        ("tenant@vendor=x y", "tenant@vendor=x y"),
        ("", None),
        (",", None),
        ("a", None),
        ("A=1", None),
        ("a=1\n", None),
        ("a=é", None),
        (1, None),
        (",".join(f"k{n}=1" for n in range(33)), None),
        ("a=" + "x" * TRACESTATE_CHARS, None),
    ],
)
def test_a_tracestate_is_kept_if_it_is_one(text: object, kept: str | None) -> None:
    context = parse_context(GOOD, text)
    assert context is not None
    assert context.state == kept


def test_a_trace_that_begins_here() -> None:
    assert begun(TRACE, SPAN, sampled=True).traceparent.endswith("-03")
    assert not begun(TRACE, SPAN, sampled=False).sampled


# --- in entries ------------------------------------------------------------------------------------------------------------


@given(contexts)
def test_an_entry_keeps_its_trace_and_its_gateway(context: TraceContext) -> None:
    entry = Entry("i1", 1, (InputSent("i1", "hi"),), by=USER, trace=context, via="gw-1")
    assert decode(encode(entry)) == entry
    assert decode_at(Place(Kind.INPUT, ""), encode(entry)) == (entry, True)


def test_what_is_malformed_in_an_entry_counts_as_absent() -> None:
    wire = orjson.loads(encode(Entry("i1", 1, (InputSent("i1", "hi"),), by=USER)))
    entry, faithful = decode_at(Place(Kind.INPUT, ""), orjson.dumps({**wire, "traceparent": 7, "via": 1}))
    assert faithful, "clients get it as it is stored"
    assert (entry.trace, entry.via) == (None, None)


def test_a_delta_is_as_lean_as_before() -> None:
    body = encode(Entry("1-1", 1, (TextMessageContent("m", "x"),), lane="main", off=0))
    assert set(orjson.loads(body)) == {"id", "lane", "ts", "off", "events"}


# --- through the fold ------------------------------------------------------------------------------------------------------


class Log:
    """Entries, folded as they come."""

    def __init__(self) -> None:
        self.state, self.seq, self.n, self.fences = SessionState(), 0, 0, dict[str, int]()

    def sent(self, input_id: str, trace: TraceContext | None) -> None:
        self._store(Entry(input_id, self.seq, (InputSent(input_id, "hi"),), by=USER, trace=trace))

    def claimed(self, lane: str = "main") -> None:
        self._store(Entry(f"o{self.seq}", 1, (SessionOwner(lane, "agent", "w"),), lane, by=Participant("agent", "w")))
        self.fences[lane] = self.seq

    def wrote(self, *events: object, trace: TraceContext | None, lane: str = "main", ts: int = 1) -> None:
        self.n += 1
        id_ = f"{self.fences[lane]}-{self.n}"
        self._store(Entry(id_, ts, events, lane, by=Participant("agent", "a"), trace=trace))  # type: ignore[arg-type]

    def _store(self, entry: Entry) -> None:
        self.seq += 1
        self.state = fold(self.state, self.seq, decode(encode(entry)))


def test_a_run_knows_what_caused_it_and_the_span_of_its_attempt() -> None:
    log = Log()
    log.sent("i", span(1))
    assert log.state.trace_of("run_i") == span(1)
    log.claimed()
    log.wrote(RunStarted("s", "run_i", "1.0"), InputApplied("i", "run_i", "m"), trace=span(2), ts=7)
    run = log.state.runs["run_i"]
    assert (run.cause, run.trace, run.since, run.lost_fence) == (span(1), span(2), 7, 0)
    assert log.state.trace_of("run_i") == span(2)
    log.claimed()
    assert log.state.runs["run_i"].lost_fence == log.fences["main"], "its worker was lost"
    log.wrote(RunTakenOver("run_i", 2, "continue"), trace=span(3), ts=9)
    run = log.state.runs["run_i"]
    assert (run.cause, run.trace, run.since) == (span(1), span(3), 9)
    assert log.state.trace_of("run_x") is None


def test_a_run_that_was_handed_over_was_not_lost() -> None:
    log = Log()
    log.sent("i", None)
    log.claimed()
    log.wrote(RunStarted("s", "run_i", "1.0"), InputApplied("i", "run_i", "m"), trace=span(2))
    log._store(Entry("r", 1, (SessionOwner("main", "none"),), "main", by=Participant("agent", "w")))
    log.claimed()
    assert log.state.runs["run_i"].lost_fence == 0


def test_a_child_run_is_caused_by_the_run_that_asks() -> None:
    log = Log()
    log.sent("i", span(1))
    log.claimed()
    log.wrote(RunStarted("s", "run_i", "1.0"), InputApplied("i", "run_i", "m"), trace=span(2))
    log.wrote(RunRequested("c", "run_i", "helper", "helper", "helper", "hi"), trace=span(2))
    (queued,) = log.state.inputs
    assert queued.trace == span(2)
    log.claimed("helper")
    log.wrote(RunStarted("s", "run_c", "1.0"), InputApplied("c", "run_c", "m2"), trace=span(4), lane="helper")
    assert log.state.runs["run_c"].cause == span(2)


def test_the_trace_is_no_part_of_what_an_entry_means() -> None:
    traced, bare = Log(), Log()
    for log, trace in ((traced, span(1)), (bare, None)):
        log.sent("i", trace)
        log.claimed()
        log.wrote(RunStarted("s", "run_i", "1.0"), InputApplied("i", "run_i", "m"), trace=trace)
    run = replace(traced.state.runs["run_i"], cause=None, trace=None)
    assert replace(traced.state, runs={"run_i": run}) == bare.state
