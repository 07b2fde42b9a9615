"""A worker's spans: an attempt of a run, what it does and waits for, and the attempt of a worker that died."""

from __future__ import annotations

import subprocess
import sys

import pytest
from prometheus_client import CollectorRegistry

from agent_worker.errors import ToolFailed
from agent_worker.tracing import RunTrace, label
from antiphon.processes import spans_of
from broker.config import TraceSettings
from broker.errors import ConfigError
from broker.spans import NO_SPANS
from broker.state import QueuedInput, Run
from broker.tracing import TraceContext
from tests.unit.test_gateway_tracing import Kept

CAUSE = TraceContext("1" * 32, "2" * 16, 1, "vendor=abc")
MS = 1_000_000


def attempt(kept: Kept, cause: TraceContext | None = CAUSE, links: tuple[TraceContext, ...] = ()) -> RunTrace:
    return RunTrace(kept, cause, links, {"run": "run_i", "attempt": 2, "worker": "w-2"})


def test_an_attempt_is_a_child_of_what_caused_it() -> None:
    kept, former = Kept(), CAUSE.with_span("3" * 16)
    trace = attempt(kept, links=(former,))
    more = CAUSE.with_span("4" * 16)
    trace.link([QueuedInput("j", 1, 1, None, "hi", trace=more), QueuedInput("k", 1, 1, None, "hi")])
    trace.end("success")
    (span,) = kept.spans
    assert (span.name, span.parent, span.links, span.error) == ("run", CAUSE, (former, more), None)
    assert (span.context.trace_id, span.context.state) == (CAUSE.trace_id, "vendor=abc")
    assert span.attributes["antiphon.end"] == "success"


def test_what_a_run_does_is_below_it() -> None:
    kept = Kept()
    trace = attempt(kept)
    with trace.span("step", step="think"), trace.span("tool", tool="pick"):
        pass
    trace.first_token()
    assert [(span.name, span.parent) for span in kept.spans] == [
        ("tool", trace.context),
        ("step", trace.context),
        ("first_token", trace.context),
    ]
    assert kept.spans[0].attributes == {
        "antiphon.run": "run_i",
        "antiphon.attempt": 2,
        "antiphon.worker": "w-2",
        "antiphon.tool": "pick",
    }


@pytest.mark.parametrize(("raised", "said"), [(ToolFailed("t", "deadline"), "deadline"), (KeyError("x"), "KeyError")])
def test_a_failure_is_told_by_its_code_or_type(raised: Exception, said: str) -> None:
    kept = Kept()
    trace = attempt(kept)
    with pytest.raises(type(raised)), trace.span("tool"):
        raise raised
    assert kept.spans[0].error == said


def test_how_long_an_input_waited_and_for_what() -> None:
    kept = Kept()
    queued = QueuedInput("i", 1, 1000, None, "hi")
    attempt(kept).waited(queued, free_ms=0)
    attempt(kept).waited(queued, free_ms=3000)
    dispatch, queue, later = kept.spans
    assert (dispatch.name, dispatch.start_ns, dispatch.parent) == ("dispatch", 1000 * MS, CAUSE)
    assert (queue.name, queue.start_ns, queue.end_ns) == ("queue", 1000 * MS, 3000 * MS)
    assert (later.name, later.start_ns) == ("dispatch", 3000 * MS)
    early = QueuedInput("i", 1, 10**14, None, "hi")
    attempt(kept).waited(early, free_ms=0)
    assert kept.spans[-1].start_ns == kept.spans[-1].end_ns, "clocks differ: no wait is negative"


def test_the_span_of_a_worker_that_died_is_made_of_the_log() -> None:
    kept = Kept()
    was = CAUSE.with_span("5" * 16)
    attempt(kept).lost(Run("run_i", "main", "i", 3, cause=CAUSE, trace=was, since=2000))
    (span,) = kept.spans
    assert (span.context, span.parent, span.start_ns, span.error) == (was, CAUSE, 2000 * MS, "worker_lost")
    assert "antiphon.worker" not in span.attributes, "the log does not say whose it was"
    attempt(kept).lost(Run("run_i", "main", "i", 3))
    assert len(kept.spans) == 1, "an older worker has left no trace"


def test_what_is_not_wanted_is_not_made() -> None:
    for trace in (
        attempt(kept := Kept(), TraceContext("1" * 32, "2" * 16, 0)),
        RunTrace(NO_SPANS, CAUSE, (), {}),
    ):
        with trace.span("step"):
            pass
        trace.first_token()
        trace.waited(QueuedInput("i", 1, 1, None, "hi"), 0)
        trace.end("success")
        assert trace.context.trace_id == CAUSE.trace_id
    assert not kept.spans


def test_a_name_that_reads_like_a_sentence_is_no_label() -> None:
    assert label("look_up.v2") == "look_up.v2"
    assert label("Tell Ann that she is fired") == ""
    assert label("x" * 65) == ""


# --- OpenTelemetry -----------------------------------------------------------------------------------------------------------


def test_nothing_of_opentelemetry_is_imported_unless_it_is_wanted() -> None:
    code = (
        "import sys, antiphon.gateway_process, antiphon.worker_process, agent_worker.run\n"
        "assert not [name for name in sys.modules if name.startswith(('opentelemetry', 'requests', 'google'))]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with spans_of(TraceSettings(), "s", "i", CollectorRegistry()) as spans:
        assert spans is NO_SPANS


def test_an_endpoint_without_the_extra_says_how_to_get_it() -> None:
    code = (
        "import sys\nsys.modules['opentelemetry'] = None\n"
        "from broker.errors import ConfigError\n"
        "try:\n    import antiphon.otlp\nexcept ConfigError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "ANTIPHON_OTLP_ENDPOINT needs the extra `otel`: pip install 'antiphon[otel]'\n"
    assert issubclass(ConfigError, Exception)
