"""The codec: AG-UI stays AG-UI, nothing that is not known is lost, nothing forged gets through."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import ag_ui.core
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter

from broker import codec
from broker.depth import STORED_DEPTH_MAX
from broker.errors import CodecError
from broker.events import (
    ApprovalRequested,
    ApprovalResolved,
    ApprovalResponded,
    ApprovalRevoked,
    Delta,
    Entry,
    Event,
    HandoffExpired,
    HandoffRequested,
    HandoffReturned,
    InputApplied,
    InputCancelRequested,
    InputFailed,
    InputScheduled,
    InputSent,
    InputUnscheduled,
    MessageAttached,
    MessageSegment,
    MessagesImported,
    OtherEvent,
    Participant,
    ReasoningMessageContent,
    ReasoningMessageEnd,
    ReasoningMessageStart,
    RunCacheable,
    RunCancelRequested,
    RunDropped,
    RunError,
    RunFinished,
    RunRequested,
    RunStarted,
    RunTakenOver,
    SessionClosed,
    SessionCreated,
    SessionDeleted,
    SessionOwner,
    SessionReopened,
    SessionStateChanged,
    SessionUpdated,
    StepFinished,
    StepRecorded,
    StepStarted,
    TextMessageContent,
    TextMessageEnd,
    TextMessageStart,
    ToolCallArgs,
    ToolCallEnd,
    ToolCallResult,
    ToolCallStart,
    ToolClaimed,
    ToolFailed,
    ToolLapsed,
    ToolReleased,
    ToolRequested,
    ToolResolved,
    stream_id,
)
from broker.subjects import Kind, Place
from tests.unit.strategies import USER, json_values, sessions, texts
from tests.unit.strategies import SessionModel as Model

AGENT_PLANE: list[Event] = [
    RunStarted("s", "run_i1", "1.0"),
    RunStarted("s", "run_i1"),
    RunFinished("s", "run_i1", {"type": "success"}),
    RunFinished("s", "run_i1", {"type": "cancelled"}),
    RunFinished("s", "run_i1", None, [{"provider": "p", "model": "m", "inputTokens": 1, "outputTokens": 2}]),
    RunError("it broke", "agent_error"),
    RunError("it broke"),
    StepStarted("search"),
    StepFinished("search"),
    TextMessageStart("m1"),
    TextMessageContent("m1", "Hello 😀"),
    TextMessageEnd("m1"),
    ReasoningMessageStart("r1"),
    ReasoningMessageContent("r1", "Hm"),
    ReasoningMessageEnd("r1"),
    ToolCallStart("t1", "look_up"),
    ToolCallStart("t1", "look_up", "m1"),
    ToolCallArgs("t1", '{"a":'),
    ToolCallEnd("t1"),
    ToolCallResult("m2", "t1", "42"),
    ToolCallResult("m2", "t1", "42", "tool"),
]
SESSION_PLANE: list[Event] = [
    InputSent("i1", "Hello"),
    InputSent("i1", "Hello", "enqueue"),
    InputSent("i1", "Hello", at=1),
    InputScheduled("i1", "Hello", 1),
    InputScheduled("i1", "", 1, "enqueue", [{"id": "a1"}]),
    InputUnscheduled("i1"),
    InputSent("i1", "", None, [{"id": "a1", "name": "a.png", "mediaType": "image/png", "size": 1, "sha256": "00"}]),
    InputCancelRequested("i1"),
    RunCancelRequested("run_i1"),
    RunCancelRequested("run_i1", "after_step"),
    ToolClaimed("call_1", "c1", 15),
    ToolClaimed("call_1", "c1", 15, "phone"),
    ToolReleased("call_1", "c1"),
    ToolResolved("call_1", "c1", {"path": "/tmp"}),
    ToolResolved("call_1", "c1", error="no such file"),
    ApprovalResponded("apr_1", "allow_once"),
    ApprovalResponded("apr_1", "answer", {"name": "x"}),
    ApprovalRevoked("tool:delete"),
    HandoffReturned("main", "i9"),
    HandoffReturned("main", "i9", "all is well"),
    SessionCreated(),
    SessionCreated("Trip", {"ticket": 7}, {"onBusy": "enqueue"}),
    SessionUpdated("Trip", {}, {}),
    SessionClosed(),
    SessionReopened(),
    SessionDeleted(),
    MessagesImported([{"text": "Hello"}]),
    MessagesImported([], "demo"),
    SessionOwner("main", "agent", "w1"),
    SessionOwner("main", "agent", "w1", ["inject"]),
    SessionOwner("main", "none"),
    InputApplied("i1", "run_i1", "msg_i1"),
    InputFailed("i1", "bad_input"),
    RunTakenOver("run_i1", 2, "continue"),
    RunCacheable("run_i1", 3600),
    StepRecorded("step_1", "fetch"),
    StepRecorded("step_1", "fetch", {"rows": [1]}, asked="ab"),
    StepRecorded("step_1", "fetch", error="OSError", asked="ab"),
    RunRequested("i5", "run_i1", "helper", "helper", "default", "Look it up"),
    RunRequested("i5", "run_i1", "helper", "helper", "default", "Look it up", detached=True),
    RunDropped("i5"),
    ToolRequested("call_1", "pick_file", {}, "client"),
    ToolRequested("call_1", "pick_file", {"a": 1}, "client", True, "user-1", "phone", 5, 9, {"type": "object"}),
    ToolFailed("call_1", "no_executor"),
    ToolLapsed("call_1", "c1"),
    ApprovalRequested("apr_1", "approval", "Delete?", ["allow_once", "reject_once"], "reject_once"),
    ApprovalRequested("q_1", "question", "Who?", ["answer"], "answer", 9, "call_1", "k", ["lead"], 2, {}, {"a": 1}),
    ApprovalResolved("apr_1", "expired"),
    HandoffRequested("ho_1", "support", "refund"),
    HandoffRequested("ho_1", "support", "refund", "They want their money back", 9),
    HandoffExpired("ho_1"),
    SessionStateChanged("paused", "unwatched"),
    SessionStateChanged("running"),
    MessageSegment("m1", 0, 5, "Hello"),
    MessageSegment("m1", 5, 0, "", True, "complete"),
    MessageSegment("m1", 0, 5),
    MessageAttached("m1", [{"id": "a1", "name": "a.png", "mediaType": "image/png", "size": 1, "sha256": "00"}]),
]
OTHER = OtherEvent("CUSTOM", {"type": "CUSTOM", "name": "n", "value": None})
AG_UI: TypeAdapter[BaseModel] = TypeAdapter(ag_ui.core.Event)


def test_every_kind_of_event_has_an_example() -> None:
    assert {type(event) for event in [*AGENT_PLANE, *SESSION_PLANE, OTHER]} == set(get_args(Event))


@pytest.mark.parametrize("event", AGENT_PLANE, ids=lambda e: e.TYPE)
def test_what_we_write_is_ag_ui(event: Event) -> None:
    """The official models take every field for what it is: none is foreign, none is lost."""
    wire = codec.event_to_wire(event)
    parsed = AG_UI.validate_json(orjson.dumps(wire))
    assert not parsed.model_extra
    assert parsed.model_dump(mode="json", by_alias=True, exclude_unset=True) == wire


@pytest.mark.parametrize("event", [*AGENT_PLANE, *SESSION_PLANE, OTHER], ids=lambda e: type(e).__name__)
def test_events_survive_a_round_trip(event: Event) -> None:
    assert codec.event_from_wire(codec.event_to_wire(event)) == event


@pytest.mark.parametrize("event", SESSION_PLANE, ids=lambda e: type(e).__name__)
def test_session_events_are_named_apart_from_ag_ui(event: Event) -> None:
    assert "." in codec.event_to_wire(event)["type"]


# --- what is not known ---------------------------------------------------------------------------------------------

known_kinds = [codec.event_to_wire(event)["type"] for event in [*AGENT_PLANE, *SESSION_PLANE]]
field_names = ["messageId", "delta", "inputId", "content", "runId", "offset", "length", "final", "outcome", "role", "x"]
wire_events = st.builds(
    lambda kind, fields: {"type": kind, **fields},
    st.one_of(st.sampled_from(known_kinds), st.text(max_size=5)),
    st.dictionaries(
        st.one_of(st.sampled_from(field_names), texts.filter(lambda t: t != "type")), json_values, max_size=6
    ),
)


def meaning(wire: dict[str, Any]) -> dict[str, Any]:
    """An absent optional field says the same as null, and as false; roles of messages have a default."""
    defaults = {"TEXT_MESSAGE_START": {"role": "assistant"}, "REASONING_MESSAGE_START": {"role": "reasoning"}}
    defaults |= {"run.cancel.requested": {"mode": "immediate"}, "session.owner": {"id": ""}}
    defaults |= {"handoff.returned": {"note": ""}, "handoff.requested": {"summary": ""}}
    defaults |= {"approval.requested": {"quorum": 1}}
    full = defaults.get(wire["type"], {}) | wire
    return {key: value for key, value in full.items() if value is not None and value is not False}


@given(wire_events)
def test_unknown_kinds_and_fields_and_wrong_types_survive(wire: dict[str, Any]) -> None:
    event = codec.event_from_wire(wire)
    again = codec.event_to_wire(event)
    if isinstance(event, OtherEvent):
        assert again == wire
    else:
        assert meaning(again) == meaning(wire)
    assert codec.event_from_wire(again) == event


@pytest.mark.parametrize(
    "wire",
    [
        {"type": "TEXT_MESSAGE_CONTENT", "messageId": 7, "delta": "x"},
        {"type": "TEXT_MESSAGE_CONTENT", "messageId": "m"},
        {"type": "message.segment", "messageId": "m", "offset": True, "length": 1},
        {"type": "message.segment", "messageId": "m", "offset": 0, "length": 1.0},
        {"type": "message.segment", "messageId": "m", "offset": 0, "length": 1, "final": 1},
        {"type": "input.sent", "inputId": "i1", "content": ["x"]},
        {"type": "RUN_FINISHED", "threadId": "s", "runId": "r", "outcome": "success"},
        {"type": "input.from.the.future", "inputId": "i1"},
    ],
)
def test_what_is_not_as_it_should_be_is_kept_and_not_acted_on(wire: dict[str, Any]) -> None:
    assert codec.event_from_wire(wire) == OtherEvent(wire["type"], wire)


def test_unknown_fields_of_known_events_are_kept_beside_them() -> None:
    wire = {"type": "TEXT_MESSAGE_END", "messageId": "m", "rawEvent": {"a": [1]}, "timestamp": 5}
    event = codec.event_from_wire(wire)
    assert event == TextMessageEnd("m", {"rawEvent": {"a": [1]}, "timestamp": 5})
    assert codec.event_to_wire(event) == wire


def test_a_required_field_is_written_also_when_it_is_null() -> None:
    event = ToolCallResult("m", "t", None)
    assert codec.event_from_wire(codec.event_to_wire(event)) == event


@pytest.mark.parametrize("wire", [{}, {"type": None}, {"type": 1}])
def test_an_event_needs_a_type(wire: dict[str, Any]) -> None:
    with pytest.raises(CodecError):
        codec.event_from_wire(wire)


# --- entries -------------------------------------------------------------------------------------------------------


@given(sessions(max_size=20))
def test_entries_survive_a_round_trip(model: Model) -> None:
    for _, entry in model.log:
        assert codec.decode(codec.encode(entry)) == entry


def test_the_body_of_a_delta() -> None:
    entry = Entry("5-3", 17, (TextMessageContent("m", "日"),), lane="main", off=4)
    assert orjson.loads(codec.encode(entry)) == {
        "id": "5-3",
        "lane": "main",
        "ts": 17,
        "off": 4,
        "events": [{"type": "TEXT_MESSAGE_CONTENT", "messageId": "m", "delta": "日"}],
    }


BAD_BODIES = [b"", b"{", b"null", b"[]", b"7", b"\xff", b'{"id":"x","ts":1}', b'{"id":1,"ts":1,"events":[]}']
BAD_BODIES += [b'{"id":"x","ts":true,"events":[]}', b'{"id":"x","ts":1,"events":{}}', b'{"id":"x","ts":1,"events":[1]}']
BAD_BODIES += [b'{"id":"x","ts":1,"events":[{}]}', b'{"id":"x","ts":1,"events":[{"type":"\\ud800"}]}']


@pytest.mark.parametrize("body", BAD_BODIES)
def test_what_is_no_entry_keeps_its_place_and_says_nothing(body: bytes) -> None:
    with pytest.raises(CodecError):
        codec.decode(body)
    assert codec.decode_at(Place(Kind.EVENT, "main"), body) == (codec.VOID, False)


@given(st.binary(max_size=40) | json_values.map(orjson.dumps))
def test_bytes_of_any_kind_do_no_harm(body: bytes) -> None:
    entry, faithful = codec.decode_at(Place(Kind.INPUT), body)
    assert orjson.loads(codec.frame("s", 2, 1, body if faithful else codec.encode(entry)))["seq"] == 2


@pytest.mark.parametrize("by", [None, 7, "user-1", {"kind": "user"}, {"id": "x", "kind": 1}, []])
def test_who_wrote_it_is_said_well_or_not_at_all(by: Any) -> None:
    assert codec.decode(orjson.dumps({"id": "x", "ts": 1, "events": [], "by": by})).by is None


def test_a_name_that_is_no_text_is_left_out() -> None:
    assert codec.participant_from_wire({"kind": "user", "id": "u", "name": 7}) == Participant("user", "u")


# --- what is forged ------------------------------------------------------------------------------------------------

RIGHTS = {
    Kind.INPUT: {
        *(InputSent, InputScheduled, InputCancelRequested, RunCancelRequested),
        *(ToolClaimed, ToolReleased, ToolResolved, ApprovalResponded, ApprovalRevoked, HandoffReturned),
        *(SessionCreated, SessionUpdated, SessionClosed, SessionReopened),
        *(SessionDeleted, MessagesImported, OtherEvent),
    },
    Kind.OWNER: {SessionOwner},
    Kind.DELTA: set(get_args(Delta)),
}
RIGHTS[Kind.EVENT] = set(get_args(Event)) - RIGHTS[Kind.INPUT] - RIGHTS[Kind.OWNER] - RIGHTS[Kind.DELTA]
RIGHTS[Kind.EVENT] |= {OtherEvent, InputScheduled}
"""An unknown event, and what both may say."""


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("event", [*AGENT_PLANE, *SESSION_PLANE, OTHER], ids=lambda e: type(e).__name__)
def test_writers_say_only_what_they_may(kind: Kind, event: Event) -> None:
    place = Place(kind, "" if kind is Kind.INPUT else "main")
    honest = Entry("5-1", 1, (event,), lane=place.lane or None, off=0 if kind is Kind.DELTA else None)
    entry, faithful = codec.decode_at(place, codec.encode(honest))
    assert faithful == (type(event) in RIGHTS[kind])
    assert entry == (honest if faithful else replace(honest, events=()))


def test_only_the_forged_events_are_dropped() -> None:
    mixed = Entry("5-1", 1, (TextMessageEnd("m"), InputSent("i", "x"), OTHER), lane="main")
    entry, faithful = codec.decode_at(Place(Kind.EVENT, "main"), codec.encode(mixed))
    assert (entry.events, faithful) == ((TextMessageEnd("m"), OTHER), False)


def test_nobody_claims_another_lane() -> None:
    claim = Entry("own", 1, (SessionOwner("other", "agent", "w"),), lane="main")
    assert codec.decode_at(Place(Kind.OWNER, "main"), codec.encode(claim)) == (replace(claim, events=()), False)


@pytest.mark.parametrize(
    ("place", "said", "meant"),
    [
        (Place(Kind.EVENT, "main"), {"lane": "other"}, {"lane": "main"}),
        (Place(Kind.EVENT, "main"), {"lane": None}, {"lane": "main"}),
        (Place(Kind.INPUT), {"lane": "main"}, {"lane": None}),
        (Place(Kind.EVENT, "main"), {"lane": "main", "off": 3}, {"lane": "main", "off": None}),
        (Place(Kind.INPUT), {"off": 0}, {"off": None}),
    ],
)
def test_lane_and_offset_go_by_the_subject(place: Place, said: dict[str, Any], meant: dict[str, Any]) -> None:
    body = codec.encode(replace(Entry("5-1", 1, (OTHER,)), **said))
    entry, faithful = codec.decode_at(place, body)
    assert not faithful
    assert {name: getattr(entry, name) for name in meant} == meant
    assert entry.events == (OTHER,)


def test_a_delta_without_an_offset_says_nothing() -> None:
    body = codec.encode(Entry("5-1", 1, (TextMessageContent("m", "x"),), lane="main"))
    entry, faithful = codec.decode_at(Place(Kind.DELTA, "main"), body)
    assert (entry.events, faithful) == ((), False)


@pytest.mark.parametrize("name", ["op", "session", "seq", "prev", "merged"])
def test_a_body_does_not_speak_for_the_gateway(name: str) -> None:
    """The frame is put around the body: a field of its own there would override it in most parsers."""
    wire = codec.entry_to_wire(Entry("i1", 1, (InputSent("i1", "x"),), by=USER)) | {name: 1}
    entry, faithful = codec.decode_at(Place(Kind.INPUT), orjson.dumps(wire))
    assert not faithful
    assert name not in orjson.loads(codec.encode(entry))


def test_a_body_with_blanks_before_it_is_written_anew() -> None:
    honest = Entry("i1", 1, (InputSent("i1", "x"),), by=USER)
    assert codec.decode_at(Place(Kind.INPUT), b" " + codec.encode(honest)) == (honest, False)


# --- frames --------------------------------------------------------------------------------------------------------


@given(sessions(max_size=10))
def test_a_frame_is_the_body_with_the_fields_of_the_log_before_it(model: Model) -> None:
    for seq, entry in model.log:
        frame = orjson.loads(codec.frame("demo", seq, seq - 1, codec.encode(entry)))
        head = {"op": "entry", "session": "demo", "seq": seq, "prev": seq - 1}
        assert frame == head | codec.entry_to_wire(entry)


@pytest.mark.parametrize(
    "event", [TextMessageContent("a", ""), ReasoningMessageContent("a", ""), ToolCallArgs("a", "")]
)
def test_the_stream_of_a_delta(event: Delta) -> None:
    assert stream_id(event) == "a"


# --- what not all readers would take for the same --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "wire"),
    [
        (Place(Kind.INPUT), {"type": "input.sent", "inputId": "i1", "content": "x", "mode": 7}),
        (Place(Kind.INPUT), {"type": "tool.claimed", "toolCallId": "c", "claimId": "c", "expiresAt": 1, "device": 7}),
        (Place(Kind.EVENT, "main"), {"type": "message.segment", "messageId": "m", "offset": -1, "length": 1}),
        (Place(Kind.EVENT, "main"), {"type": "message.segment", "messageId": "m", "offset": 0, "length": 2**53}),
        (Place(Kind.EVENT, "main"), {"type": "run.taken_over", "runId": "r", "attempt": -1, "policy": "continue"}),
        (Place(Kind.EVENT, "main"), {"type": "RUN_STARTED", "threadId": "s", "runId": ["r"]}),
        (Place(Kind.OWNER, "main"), {"type": "session.owner", "lane": "main", "kind": "user"}),
    ],
)
def test_a_malformed_event_is_left_out_and_an_unknown_one_is_not(place: Place, wire: dict[str, Any]) -> None:
    later = {"type": "from.the.future", "mode": 7}
    body = orjson.dumps({"id": "5-1", "ts": 1, "lane": place.lane or None, "events": [wire, later]})
    entry, faithful = codec.decode_at(place, body)
    kept = () if place.kind is Kind.OWNER else (OtherEvent("from.the.future", later),)
    assert (entry.events, faithful) == (kept, False)


@pytest.mark.parametrize(
    "by", [{"kind": "user"}, {"kind": "user", "id": "u", "more": 1}, {"kind": "user", "id": "u", "name": 7}, "u", []]
)
def test_who_wrote_it_is_said_in_one_way(by: Any) -> None:
    body = orjson.dumps({"id": "i1", "ts": 1, "by": by, "events": []})
    entry, faithful = codec.decode_at(Place(Kind.INPUT), body)
    assert not faithful
    assert orjson.loads(codec.encode(entry)).get("by") == codec.by_to_wire(entry.by)


def test_imported_messages_and_configs_are_said_in_one_way() -> None:
    events = [
        {"type": "messages.imported", "messages": [{"text": "a", "by": {"kind": "user", "id": 7}}, {"text": "b"}]},
        {"type": "session.updated", "config": {"maxQueue": 4.0, "onBusy": "enqueue", "later": 1}},
    ]
    entry, faithful = codec.decode_at(Place(Kind.INPUT), orjson.dumps({"id": "i1", "ts": 1, "events": events}))
    assert not faithful
    imported, updated = codec.entry_to_wire(entry)["events"]
    assert imported["messages"] == [{"text": "a", "by": None}, {"text": "b"}]
    assert updated["config"] == {"onBusy": "enqueue", "later": 1}


def test_an_entry_that_is_nested_too_deeply_or_has_too_many_events_says_nothing() -> None:
    deep = b"[" * STORED_DEPTH_MAX + b"]" * STORED_DEPTH_MAX
    many = b",".join([b'{"type":"CUSTOM"}'] * (codec.EVENTS_MAX + 1))
    for events in (b'{"type":"CUSTOM","value":' + deep + b"}", many):
        body = b'{"id":"i1","ts":1,"events":[' + events + b"]}"
        assert codec.decode_at(Place(Kind.INPUT), body) == (codec.VOID, False)


# --- tokens ----------------------------------------------------------------------------------------------------------

TOKEN = {"id": "5-1", "lane": "main", "ts": 1, "off": 0}
SAID = {"type": "TEXT_MESSAGE_CONTENT", "messageId": "m", "delta": "x"}


@pytest.mark.parametrize(
    ("changed", "plain"),
    [
        ({}, True),
        ({"later": [1]}, True),
        ({"events": [SAID | {"metadata": {"p": 0.5}}]}, True),
        *(({name: 1}, False) for name in ("op", "session", "seq", "prev", "merged")),
        ({"off": None}, False),
        ({"off": -1}, False),
        ({"off": True}, False),
        ({"off": 0.0}, False),
        ({"off": 2**53}, False),
        ({"ts": "1"}, False),
        ({"id": 5}, False),
        ({"lane": "other"}, False),
        ({"lane": None}, False),
        ({"by": {"kind": "user", "id": "u"}}, False),
        ({"events": []}, False),
        ({"events": [SAID, SAID]}, False),
        ({"events": [SAID | {"delta": 1}]}, False),
        ({"events": [SAID | {"messageId": None}]}, False),
        ({"events": [SAID | {"type": "TOOL_CALL_ARGS"}]}, False),
        ({"events": [SAID | {"type": ["x"]}]}, False),
        ({"events": [{"type": "RUN_FINISHED", "threadId": "s", "runId": "r"}]}, False),
    ],
)
def test_a_plain_delta_is_a_delta_and_nothing_else(changed: dict[str, Any], plain: bool) -> None:
    body = orjson.dumps({**TOKEN, "events": [SAID], **changed})
    place = Place(Kind.DELTA, "main")
    assert codec.is_plain_delta(place, body) is plain
    assert not plain or codec.decode_at(place, body)[1]


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"7", b"{", b'"x"', b"\xff", b" " + orjson.dumps({**TOKEN, "events": [SAID]})]
)
def test_what_is_no_object_is_no_plain_delta(body: bytes) -> None:
    assert not codec.is_plain_delta(Place(Kind.DELTA, "main"), body)
