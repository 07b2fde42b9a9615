"""A gateway's spans: of commands, whosever trace they are in, and of what live readers were given."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import orjson
import pytest

from broker.errors import ErrorCode, Refused, Unavailable
from broker.spans import NO_SPANS, Span
from broker.state import Lane, Run, SessionState
from broker.tracing import TraceContext
from gateway import plane, protocol
from gateway.fields import Writing
from gateway.protocol import InputSend, parse
from gateway.tracing import Deliveries, GatewayTracing, op_of

CLIENT = TraceContext("1" * 32, "2" * 16, 1)
RUN = TraceContext("1" * 32, "3" * 16, 1)
OTHER = TraceContext("9" * 32, "4" * 16, 1)
SEND = InputSend(1, "demo", "i1", "hi", None)


@dataclass
class Kept:
    """Spans in a list."""

    spans: list[Span] = field(default_factory=list)
    enabled: bool = True
    sampled: bool = True

    def sample(self) -> bool:
        return self.sampled

    def ended(self, span: Span) -> None:
        self.spans.append(span)

    def attached(self, context: TraceContext) -> AbstractContextManager[object]:
        return nullcontext()


def tracing(kept: Kept) -> GatewayTracing:
    return GatewayTracing("gw-1", kept)


def test_a_command_continues_the_clients_trace() -> None:
    kept = Kept()
    with tracing(kept).command(SEND, "demo", CLIENT) as trace:
        context = trace.context()
        with trace.append():
            pass
    append, command = kept.spans
    assert (context.trace_id, context.flags) == (CLIENT.trace_id, 1)
    assert (command.name, command.context, command.parent, command.kind) == ("input.send", context, CLIENT, "server")
    assert command.attributes == {"antiphon.input": "i1", "antiphon.session": "demo", "antiphon.gateway": "gw-1"}
    assert (append.name, append.parent) == ("append", context)
    assert command.start_ns <= append.start_ns <= append.end_ns <= command.end_ns


def test_without_one_it_continues_that_of_its_run_and_else_begins_one() -> None:
    kept = Kept()
    with tracing(kept).command(SEND, "demo", None) as trace:
        assert trace.context(RUN).trace_id == RUN.trace_id
        assert trace.context(OTHER).trace_id == RUN.trace_id, "a command has one span"
    with tracing(kept).command(SEND, "demo", None) as trace:
        begun = trace.context()
    assert [span.parent for span in kept.spans] == [RUN, None]
    assert begun.sampled
    assert begun.trace_id not in (RUN.trace_id, "0" * 32)


def test_a_client_with_a_trace_of_its_own_is_linked_to_the_run() -> None:
    kept = Kept()
    with tracing(kept).command(SEND, "demo", CLIENT) as trace:
        trace.context(OTHER)
    assert kept.spans[0].links == (OTHER,)


def test_what_is_not_to_be_recorded_is_not_but_goes_on() -> None:
    kept = Kept()
    quiet = TraceContext("1" * 32, "2" * 16, 0)
    with tracing(kept).command(SEND, "demo", quiet) as trace:
        assert trace.context().trace_id == quiet.trace_id
        assert not trace.context().sampled
        with trace.append():
            pass
    kept.sampled = False
    with tracing(kept).command(SEND, "demo", None) as trace:
        assert not trace.context().sampled
    assert not kept.spans


def test_without_a_collector_a_trace_that_begins_here_is_not_said_to_be_recorded() -> None:
    with GatewayTracing("gw-1", NO_SPANS).command(SEND, "demo", None) as trace:
        assert not trace.context().sampled
    assert GatewayTracing("gw-1", NO_SPANS).deliveries("demo") is None


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (Refused(ErrorCode.QUEUE_FULL, "full"), "queue_full"),
        (Unavailable("away"), "unavailable"),
        (TimeoutError(), "unavailable"),
        (KeyError("secret"), "KeyError"),
    ],
)
def test_a_failure_is_told_by_its_code(raised: Exception, said: str) -> None:
    kept = Kept()
    with pytest.raises(type(raised)), tracing(kept).command(SEND, "demo", CLIENT):
        raise raised
    assert [span.error for span in kept.spans] == [said]


def test_a_command_that_writes_nothing_leaves_a_span_only_in_a_clients_trace() -> None:
    kept = Kept()
    with tracing(kept).command(SEND, "demo", None):
        pass
    assert not kept.spans
    with tracing(kept).command(SEND, "demo", CLIENT):
        pass
    assert len(kept.spans) == 1


def test_spans_are_named_as_commands_are() -> None:
    writing = [cls for module in (plane, protocol) for cls in vars(module).values() if isinstance(cls, type)]
    names = {op_of(cls.__name__) for cls in writing if issubclass(cls, Writing) and cls is not Writing}
    assert names == (set(plane._PARSERS) - {"session.list", "handoff.list"}) | {
        "input.send",
        "input.cancel",
        "run.cancel",
    }


def test_the_clients_span_is_read_of_writing_commands_alone() -> None:
    fields = {"id": 1, "session": "demo", "traceparent": CLIENT.traceparent, "tracestate": "a=1"}
    command = parse(orjson.dumps({"op": "input.send", "inputId": "i", "content": "x", **fields}))
    assert isinstance(command, InputSend)
    assert command.trace == TraceContext(CLIENT.trace_id, CLIENT.span_id, 1, "a=1")
    malformed = parse(orjson.dumps({"op": "session.close", **fields, "traceparent": "none"}))
    assert isinstance(malformed, plane.SessionClose)
    assert malformed.trace is None
    parse(orjson.dumps({"op": "history", **fields}))


# --- deliveries ------------------------------------------------------------------------------------------------------------


def running(run_id: str | None, trace: TraceContext | None = RUN) -> SessionState:
    lane = Lane(1, run=run_id)
    runs = {} if run_id is None else {run_id: Run(run_id, "main", "i", 2, trace=trace)}
    return SessionState(lanes={"main": lane}, runs=runs)


def deliveries(kept: Kept) -> Deliveries:
    found = tracing(kept).deliveries("demo")
    assert found is not None
    return found


def test_a_run_that_was_read_live_is_told_of_once_it_is_over() -> None:
    kept = Kept()
    found = deliveries(kept)
    found.folded("main", running("run_i"))
    for readers in (0, 3, 2):
        found.delta("main")
        found.written(readers)
    found.written(2)
    assert not kept.spans
    found.folded("main", running(None))
    found.written(2)
    (span,) = kept.spans
    assert (span.name, span.parent, span.context.trace_id) == ("deliver", RUN, RUN.trace_id)
    assert (span.attributes["antiphon.readers"], span.attributes["antiphon.deltas"]) == (3, 3)
    assert 0 < span.start_ns < span.end_ns


def test_what_nobody_read_or_nobody_wants_recorded_is_not_told() -> None:
    kept = Kept()
    found = deliveries(kept)
    found.folded("main", running("run_i"))
    found.delta("main")
    found.written(0)
    found.folded("main", running("run_j", TraceContext("1" * 32, "5" * 16, 0)))
    found.delta("main")
    found.written(1)
    found.folded("main", running("run_k", None))
    found.delta("main")
    found.folded("main", running(None))
    found.written(1)
    assert not kept.spans


def test_a_run_that_follows_in_the_same_write_has_a_span_of_its_own() -> None:
    kept = Kept()
    found = deliveries(kept)
    found.folded("main", running("run_i"))
    found.delta("main")
    found.folded("main", running("run_j", OTHER))
    found.delta("main")
    found.written(1)
    found.folded("main", running(None))
    found.written(1)
    assert [span.parent for span in kept.spans] == [RUN, OTHER]


def test_a_takeover_is_linked() -> None:
    kept = Kept()
    found = deliveries(kept)
    found.loaded(running("run_i"))
    found.delta("main")
    found.written(1)
    later = RUN.with_span("6" * 16)
    found.folded("main", running("run_i", later))
    found.folded("main", running("run_i", later))
    found.folded("main", running(None))
    found.written(1)
    (span,) = kept.spans
    assert (span.parent, span.links) == (RUN, (later,))
