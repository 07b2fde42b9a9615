"""A request's way, from its log alone: what belongs to it, and what does not."""

from __future__ import annotations

from typing import Any

import pytest

from antiphon.timeline import Moment, Timeline, as_lines, as_wire, with_text
from broker.events import (
    Entry,
    Event,
    InputApplied,
    InputSent,
    MessageSegment,
    Participant,
    RunFinished,
    RunRequested,
    RunStarted,
    SessionOwner,
    StepStarted,
    ToolClaimed,
    ToolRequested,
    ToolResolved,
)
from broker.tracing import TraceContext

USER = Participant("user", "user-1")
TRACES = {"a": TraceContext("a" * 32, "1" * 16, 1), "b": TraceContext("b" * 32, "2" * 16, 1)}


class Log:
    """A session of two requests, of which the first asks another agent."""

    def __init__(self) -> None:
        self.entries: list[tuple[int, Entry]] = []
        self.fence: dict[str, int] = {}
        self.sent(InputSent("a", "hello"), "a")
        self.sent(InputSent("b", "secret"), "b")
        self.claim("main")
        self.run("main", "run_a", RunStarted("s", "run_a", "1.0"), InputApplied("a", "run_a", "m"))
        self.run("main", "run_a", StepStarted("think"))
        self.run("main", "run_a", ToolRequested("call_1", "pick", {"kind": "secret"}, "client"))
        self.sent(ToolClaimed("call_1", "c", 10**14), None)
        self.sent(ToolResolved("call_1", "c", "secret"), None)
        self.run("main", "run_a", RunRequested("c", "run_a", "helper", "helper", "helper", "secret"))
        self.claim("helper")
        self.run("helper", "run_c", RunStarted("s", "run_c", "1.0"), InputApplied("c", "run_c", "m2"))
        self.run("helper", "run_c", RunFinished("s", "run_c", {"type": "success"}))
        self.run("main", "run_a", MessageSegment("m", 0, 6, "secret", True, "complete"))
        self.run("main", "run_a", RunFinished("s", "run_a", {"type": "success"}))
        self.run("main", "run_b", RunStarted("s", "run_b", "1.0"), InputApplied("b", "run_b", "m3"))

    def sent(self, event: Event, trace: str | None) -> None:
        self._store(str(len(self.entries)), event, by=USER, trace=TRACES.get(trace or ""), via="gw-1")

    def claim(self, lane: str) -> None:
        self._store(f"own{len(self.entries)}", SessionOwner(lane, "agent", "w-1"), lane=lane)
        self.fence[lane] = len(self.entries)

    def run(self, lane: str, run: str, *events: Event) -> None:
        self._store(f"{self.fence[lane]}-{len(self.entries)}", *events, lane=lane, run=run)

    def _store(self, id_: str, *events: Event, **fields: Any) -> None:
        seq = len(self.entries) + 1
        self.entries.append((seq, Entry(id_, 1000 * seq, events, **fields)))


def follow(id_: str) -> Timeline:
    timeline = Timeline(id_)
    for seq, entry in Log().entries:
        timeline.take(seq, entry)
    return timeline


@pytest.mark.parametrize("id_", ["a", "run_a", "a" * 32])
def test_a_request_is_followed_by_any_of_its_ids(id_: str) -> None:
    timeline = follow(id_)
    assert [(moment.what, moment.lane) for moment in timeline.moments] == [
        ("input stored", None),
        ("lane claimed", "main"),
        ("run started", "main"),
        ("input applied", "main"),
        ("step started", "main"),
        ("tool requested", "main"),
        ("tool claimed", None),
        ("tool resolved", None),
        ("asks an agent", "main"),
        ("lane claimed", "helper"),
        ("run started", "helper"),
        ("input applied", "helper"),
        ("run ended", "helper"),
        ("text ended", "main"),
        ("run ended", "main"),
    ]
    assert timeline.ended
    assert list(timeline.trace_ids) == ["a" * 32]
    assert {(span.run, span.start, span.end) for span in timeline.text} == {("run_a", 4, 14), ("run_c", 11, 12)}


def test_a_child_alone_is_followed_too() -> None:
    assert [m.what for m in follow("run_c").moments] == [
        "lane claimed",
        "run started",
        "input applied",
        "run ended",
    ]


def test_a_run_that_goes_on_has_no_end() -> None:
    timeline = follow("b")
    assert not timeline.ended
    assert [(span.run, span.end) for span in timeline.text] == [("run_b", None)]
    assert [m.what for m in timeline.moments] == ["input stored", "lane claimed", "run started", "input applied"]


def test_who_is_not_there_has_nothing() -> None:
    timeline = follow("nobody")
    assert timeline.moments == []
    assert not timeline.ended


def test_ids_are_told_and_no_content() -> None:
    timeline = follow("a")
    first, _, started, *_ = timeline.moments
    assert first.ids == {"by": "user-1", "gateway": "gw-1", "input": "a", "characters": 5}
    assert started.ids == {"worker": "w-1", "fence": 3}
    text = "\n".join(as_lines(timeline.moments)) + str(as_wire(timeline.moments))
    assert "secret" not in text
    assert "hello" not in text


def test_times_between() -> None:
    moments = with_text([Moment(1, 1000, "a"), Moment(5, 4500, "c")], [Moment(3, 2000, "b", "main", "r", {"n": 1})])
    assert list(as_lines(moments)) == [
        "     0.000 s    +0.000               a",
        "     1.000 s    +1.000  main         b                    n 1",
        "     3.500 s    +2.500               c",
    ]
    assert [(m["sinceMs"], m["afterMs"]) for m in as_wire(moments)] == [(0, 0), (1000, 1000), (3500, 2500)]
    assert list(as_lines([])) == as_wire([]) == []
