"""The parts of the HTTP API that need no gateway: framings, CORS, what is accepted, limits, texts of runs."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_worker.speaking import Speaking
from agent_worker.tracing import RunTrace
from broker.codec import frame
from broker.events import Event, RunCacheable
from broker.spans import NO_SPANS
from broker.tracing import TraceContext
from gateway import protocol
from gateway.framing import LINES, WEBSOCKET, event_stream, framed
from gateway.http.cors import Cors
from gateway.http.requests import accepted
from gateway.http.run_streams import RunText
from gateway.limits import CallerLimits, Limit
from gateway.origins import Origins

# --- framing -------------------------------------------------------------------------------------------------------------

FRAMES: list[tuple[bytes, bytes]] = [
    (frame("demo", 7, 5, b'{"id":"x","ts":1,"events":[]}'), b"id: e:7\nevent: entry\n"),
    (frame("s" * 128, 10**15, 5, b'{"id":"x","seq":3}'), b"id: e:1000000000000000\nevent: entry\n"),
    (protocol.snapshot("demo", 12, 3, {}), b"id: e:12\nevent: session.snapshot\n"),
    (protocol.caught_up("demo", 12, "e"), b"id: e:12\nevent: session.caught_up\n"),
    (protocol.gap("demo", 1, 2), b"id\nevent: session.gap\n"),
    (protocol.presence("demo", (), 0), b"event: session.presence\n"),
    (protocol.log_status(False), b"event: log.away\n"),
]


@pytest.mark.parametrize(("payload", "head"), FRAMES, ids=lambda v: v[:30].decode() if isinstance(v, bytes) else "")
def test_events_are_named_and_have_their_cursors(payload: bytes, head: bytes) -> None:
    assert event_stream("e").message(payload) == head + b"data: " + payload + b"\n\n"


def test_an_entry_of_a_foreign_worker_is_one_line_of_data() -> None:
    payload = frame("demo", 7, 5, b'{"id":"x",\r\n "ts":1,\n"events":[]}')
    for message in (event_stream("e").message(payload), LINES.message(payload)):
        line = next(line for line in message.split(b"\n") if b"{" in line).removeprefix(b"data: ")
        assert orjson.loads(line) == orjson.loads(payload)


def test_framings_of_one_epoch_are_one() -> None:
    assert event_stream("a") is event_stream("a")
    assert event_stream("a") is not event_stream("b")
    assert framed(WEBSOCKET, [b"{}", b"[]"]) == b"\x81\x02{}\x81\x02[]"


# --- CORS ------------------------------------------------------------------------------------------------------------------


def test_nobody_is_allowed_unless_named() -> None:
    assert Cors(Origins("")).headers("https://a.example") == {}
    assert Cors(Origins(" , ")).preflight("https://a.example", "GET") == {}
    named = Cors(Origins("https://a.example/, https://b.example"))
    assert named.headers("https://a.example")["Access-Control-Allow-Origin"] == "https://a.example"
    for origin in (None, "null", "http://a.example", "https://a.example.evil", "https://A.example"):
        assert named.headers(origin) == {"Vary": "Origin"}
        assert named.preflight(origin, "GET") == {"Vary": "Origin"}
    assert Cors(Origins("*")).headers(None)["Access-Control-Allow-Origin"] == "*"


# --- Accept ------------------------------------------------------------------------------------------------------------------

JSON, STREAM = "application/json", "text/event-stream"


@pytest.mark.parametrize(
    ("header", "chosen"),
    [
        (None, JSON),
        ("", JSON),
        ("*/*", JSON),
        (STREAM, STREAM),
        ("TEXT/Event-Stream", STREAM),
        (f"{STREAM}, {JSON}", STREAM),
        (f"{JSON}, {STREAM}", JSON),
        (f"{STREAM};q=0.5, {JSON};q=0.9", JSON),
        (f"{STREAM};q=0, */*;q=0.1", JSON),
        ("text/*", STREAM),
        ("text/html", None),
        (f"{JSON};q=0", None),
        (f"{JSON};q=nonsense", None),
        (f"{JSON};q=²", None),
        (",;,", None),
    ],
)
def test_what_is_accepted(header: str | None, chosen: str | None) -> None:
    assert accepted(header, (JSON, STREAM)) == chosen


@given(st.text(max_size=60))
def test_any_header_has_an_answer(header: str) -> None:
    assert accepted(header, (JSON, STREAM)) in (JSON, STREAM, None)


# --- limits ------------------------------------------------------------------------------------------------------------------


def test_each_caller_has_a_limit_of_their_own() -> None:
    limits = CallerLimits(Limit.REQUESTS, rate=1.0, burst=2)
    assert [limits.take("a", 0.0) for _ in range(3)] == [0.0, 0.0, 1.0]
    assert limits.take("b", 0.0) == 0.0
    assert limits.take("a", 1.0) == 0.0
    assert limits.take("a", 1.5) == 0.5


def test_who_was_away_longest_is_forgotten() -> None:
    limits = CallerLimits(Limit.REQUESTS, rate=0.001, burst=1, kept=2)
    for caller in ("a", "b", "a", "c"):
        limits.take(caller, 0.0)
    assert limits.take("b", 0.0) == 0.0, "b was forgotten for c, and a for b"
    assert limits.take("c", 0.0) > 0


# --- texts of runs -----------------------------------------------------------------------------------------------------------


def entry(*events: dict[str, Any], run: str | None = "run_i", off: int | None = None) -> dict[str, Any]:
    return {"run": run, "events": list(events)} | ({} if off is None else {"off": off})


START = {"type": "TEXT_MESSAGE_START", "messageId": "m", "role": "assistant"}


@given(st.text(max_size=40), st.lists(st.tuples(st.booleans(), st.integers(0, 40), st.integers(0, 40)), max_size=12))
def test_text_comes_once_whatever_the_log_gives(text: str, pieces: list[tuple[bool, int, int]]) -> None:
    run = RunText("run_i")
    assert run.added(entry(START)) == []
    said = ""
    for segment, start, size in [*pieces, (True, 0, len(text))]:
        start = min(start, len(text))  # noqa: PLW2901
        part = text[start : start + size]
        if segment:
            given_ = entry({"type": "message.segment", "messageId": "m", "offset": start, "text": part})
        else:
            delta = {"type": "TEXT_MESSAGE_CONTENT", "messageId": "m", "delta": part}
            given_ = entry(delta, run=None, off=start)
        said += "".join(piece["delta"] for piece in run.added(given_))
        assert text.startswith(said)
    assert said == text


def test_what_is_not_the_answer_is_left_out() -> None:
    run = RunText("run_i")
    content = {"type": "TEXT_MESSAGE_CONTENT", "messageId": "m", "delta": "x"}
    for other in (
        entry(START, run="run_other"),
        entry({"type": "REASONING_MESSAGE_START", "messageId": "m"}),
        entry({**START, "role": "user"}),
        entry({"type": "CUSTOM"}),
        entry({"type": "message.segment", "messageId": "m", "offset": 0, "length": 1}),
    ):
        assert run.added(other) == []
        assert run.added(entry(content, run=None, off=0)) == []


# --- what agents say of caching ----------------------------------------------------------------------------------------------


class Recorder:
    """A lane's writer, and a run's control, that only take note."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def check(self) -> None:
        return

    def record(self, *events: Event) -> None:
        self.events += events

    async def room(self) -> None:
        return


async def test_an_agent_says_how_long_its_answer_may_be_kept() -> None:
    recorder = Recorder()
    trace = RunTrace(NO_SPANS, TraceContext("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"), (), {})
    speaking = Speaking(recorder, recorder, "run_i", 1, trace)  # type: ignore[arg-type]
    for seconds in (0, 60, 31_536_000):
        await speaking.cacheable(seconds)
    for seconds in (-1, 31_536_001):
        with pytest.raises(ValueError, match="max_age_s"):
            await speaking.cacheable(seconds)
    assert recorder.events == [RunCacheable("run_i", seconds) for seconds in (0, 60, 31_536_000)]
