"""Inputs that are sent later: what the fold makes of them, what is kept of them, and what commands may say."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from broker.checkpoint import START, Checkpoint, decode_checkpoint, encode_checkpoint
from broker.codec import decode_at, encode
from broker.events import (
    Entry,
    Event,
    InputApplied,
    InputCancelRequested,
    InputScheduled,
    InputSent,
    InputUnscheduled,
    OtherEvent,
    Participant,
    RunCancelRequested,
    RunStarted,
    SessionClosed,
    SessionCreated,
    SessionDeleted,
    SessionOwner,
    SessionReopened,
)
from broker.permissions import Role, User, access
from broker.state import MAX_SCHEDULED, MAX_SCHEDULED_BYTES, SessionState
from broker.subjects import AlarmPlace, Kind, Place, SessionKey, alarm_place, session_key
from broker.transcript import Transcript
from gateway.fields import BadFrame
from gateway.protocol import InputSend, parse

USER = Participant("user", "user-1", "A user", ("lead",))
OTHER = Participant("user", "user-2")
AGENT = Participant("agent", "echo")
AT = 5_000


class Log:
    """Folds as it writes."""

    def __init__(self) -> None:
        self.transcript = Transcript()
        self._fence = self._n = 0

    @property
    def state(self) -> SessionState:
        return self.transcript.state

    def said(self, event: Event, by: Participant = USER) -> SessionState:
        self.transcript.apply(self.state.as_of + 1, Entry("x", 1, (event,), by=by))
        return self.state

    def scheduled(self, id_: str = "i1", at: int = AT, content: str = "later", **more: Any) -> SessionState:
        return self.said(InputScheduled(id_, content, at, **more))

    def due(self, id_: str = "i1", at: int = AT, content: str = "later", **more: Any) -> SessionState:
        return self.said(InputSent(id_, content, at=at, **more))

    def owned(self, kind: str = "agent", id_: str = "w1") -> None:
        self._fence, self._n = self.state.as_of + 1, 0
        self.transcript.apply(self._fence, Entry("own", 1, (SessionOwner("main", kind, id_),), "main"))

    def wrote(self, *events: Event) -> SessionState:
        self._n += 1
        entry = Entry(f"{self._fence}-{self._n}", 1, events, "main", by=AGENT)
        self.transcript.apply(self.state.as_of + 1, entry)
        return self.state

    def status(self, id_: str = "i1") -> str:
        fate = self.state.fate(id_)
        if self.state.planned(id_) is not None:
            assert fate is None
            return "scheduled"
        if self.state.queued(id_) is not None:
            return "queued"
        return "unknown" if fate is None else f"{fate.status} {fate.code or ''}".strip()


# --- the fold --------------------------------------------------------------------------------------------------------------


def test_an_input_is_scheduled_and_then_as_any_other() -> None:
    log = Log()
    log.scheduled(mode="enqueue", attachments=[{"id": "a1"}])
    assert (log.status(), log.state.status, log.state.idle, log.state.inputs) == ("scheduled", "idle", True, ())
    (planned,) = log.state.scheduled
    assert (planned.by, planned.content, planned.at, planned.mode, planned.seq) == (USER, "later", AT, "enqueue", 1)
    assert planned.attachments == ({"id": "a1"},)
    log.due()
    assert (log.status(), log.state.scheduled) == ("queued", ())
    assert log.state.inputs[0].seq == 2, "its place is where it becomes due"


def test_the_next_one_comes_first() -> None:
    log = Log()
    for id_, at in (("c", 30), ("a", 10), ("d", 30), ("b", 20)):
        log.scheduled(id_, at)
    assert [planned.input_id for planned in log.state.scheduled] == ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    "event",
    [InputScheduled("i1", "again", 9), InputSent("i1", "again"), InputSent("i1", "again", at=AT + 1)],
    ids=["scheduled", "sent", "sent with another time"],
)
def test_an_id_counts_once(event: Event) -> None:
    log = Log()
    log.scheduled()
    log.said(event, OTHER)
    assert [planned.content for planned in log.state.scheduled] == ["later"]
    assert not log.state.inputs


def test_it_is_due_once() -> None:
    log = Log()
    log.scheduled()
    log.due()
    log.due()
    assert len(log.state.inputs) == 1
    log.owned()
    log.wrote(RunStarted("s", "run_i1"), InputApplied("i1", "run_i1", "msg_i1"))
    log.due()
    assert not log.state.inputs
    assert [message.text for message in log.transcript.messages] == ["later"]


def test_what_was_never_scheduled_is_due_as_any_other() -> None:
    """As for a reader of before there were schedules."""
    log = Log()
    log.due()
    assert log.status() == "queued"


@pytest.mark.parametrize(
    ("event", "by"),
    [(InputCancelRequested("i1"), USER), (RunCancelRequested("run_i1"), OTHER)],
    ids=["the input", "its run"],
)
def test_it_is_taken_back(event: Event, by: Participant) -> None:
    log = Log()
    log.scheduled()
    log.said(event, by)
    assert log.status() == "cancelled"
    assert log.state.fate("i1").by == by  # type: ignore[union-attr]
    log.due()
    assert (log.status(), log.state.inputs) == ("cancelled", ())


def test_who_may_not_cancel_runs_does_not_take_it_back_so() -> None:
    log = Log()
    log.said(SessionCreated(config={"roles": {"*": {"cancel": False}}}))
    log.scheduled()
    log.said(RunCancelRequested("run_i1"), OTHER)
    assert log.status() == "scheduled"


def test_of_a_cancel_and_its_time_the_first_counts() -> None:
    log = Log()
    log.scheduled()
    log.due()
    log.said(InputCancelRequested("i1"))
    assert log.status() == "cancelled", "it waited in the queue"
    log.scheduled("i2")
    log.due("i2")
    log.owned()
    log.wrote(RunStarted("s", "run_i2"), InputApplied("i2", "run_i2", "msg_i2"))
    log.said(InputCancelRequested("i2"))
    assert log.status("i2") == "applied"


def test_an_agent_schedules_and_takes_back() -> None:
    log = Log()
    log.owned()
    log.wrote(InputScheduled("s1", "look again", AT), InputScheduled("s2", "and again", AT))
    log.scheduled("i1")
    assert [planned.by for planned in log.state.scheduled] == [AGENT, AGENT, USER]
    log.wrote(InputUnscheduled("s1"), InputUnscheduled("i1"), InputUnscheduled("none"))
    assert [planned.input_id for planned in log.state.scheduled] == ["s2"]
    log.said(InputSent("s2", "and again", at=AT), AGENT)
    assert [(queued.input_id, queued.by, queued.lane) for queued in log.state.inputs] == [("s2", AGENT, "main")]
    log.wrote(InputUnscheduled("s2"))
    assert log.status("s2") == "queued", "it is not scheduled any more"


def test_a_stale_owner_schedules_nothing() -> None:
    log = Log()
    log.owned()
    stale = Entry("0-9", 1, (InputScheduled("s1", "x", AT), InputUnscheduled("i1")), "main", by=AGENT)
    log.scheduled()
    log.transcript.apply(log.state.as_of + 1, stale)
    assert [planned.input_id for planned in log.state.scheduled] == ["i1"]


def test_what_is_due_in_a_closed_session_waits_until_it_is_opened() -> None:
    log = Log()
    log.scheduled()
    log.said(SessionClosed())
    before = log.state
    log.due()
    assert (log.status(), log.state.fates) == ("scheduled", before.fates)
    log.said(SessionReopened())
    log.due()
    assert log.status() == "queued"


def test_what_is_due_in_a_full_session_waits_for_room() -> None:
    log = Log()
    log.said(SessionCreated(config={"maxQueue": 1}))
    log.scheduled()
    log.said(InputSent("q", "first"))
    log.due()
    assert log.status() == "scheduled"
    log.said(InputCancelRequested("q"))
    log.due()
    assert log.status() == "queued"


@pytest.mark.parametrize(
    ("mode", "config", "code"),
    [
        ("reject", {}, "busy"),
        ("inject", {}, "cannot_inject"),
        (None, {"roles": {"lead": {"modes": ["interrupt"]}}}, "mode_not_allowed"),
    ],
)
def test_other_refusals_are_final(mode: str | None, config: dict[str, Any], code: str) -> None:
    log = Log()
    log.scheduled(mode=mode)
    log.said(InputSent("q", "first"), OTHER)
    log.owned()
    log.wrote(RunStarted("s", "run_q"), InputApplied("q", "run_q", "msg_q"))
    log.said(SessionCreated(config=config))
    log.due(mode=mode)
    assert log.status() == f"refused {code}"
    log.due(mode=mode)
    assert not log.state.scheduled


def test_it_interrupts_as_one_that_is_sent_then() -> None:
    log = Log()
    log.scheduled(mode="interrupt")
    log.said(InputSent("q", "first"))
    log.owned()
    log.wrote(RunStarted("s", "run_q"), InputApplied("q", "run_q", "msg_q"))
    log.due(mode="interrupt")
    run = log.state.runs["run_q"]
    assert run.cancel is not None
    assert (run.cancel.reason, run.cancel.by) == ("interrupt", USER)


def test_a_human_who_has_the_lane_reads_it_at_once() -> None:
    log = Log()
    log.scheduled()
    log.owned("user", "user-9")
    log.due()
    assert (log.status(), log.state.messages) == ("applied", 1)
    (message,) = log.transcript.messages
    assert (message.id, message.role, message.text, message.by) == ("msg_i1", "user", "later", USER)


def test_limits() -> None:
    log = Log()
    for n in range(MAX_SCHEDULED):
        log.scheduled(f"i{n}")
    log.scheduled("more")
    assert (len(log.state.scheduled), log.status("more")) == (MAX_SCHEDULED, "refused schedule_full")
    log = Log()
    log.scheduled("half", content="é" * (MAX_SCHEDULED_BYTES // 4))
    log.scheduled("rest", content="x" * (MAX_SCHEDULED_BYTES // 2 + 1))
    assert log.status("rest") == "refused schedule_full"
    log.scheduled("fits", content="x" * (MAX_SCHEDULED_BYTES // 2))
    assert log.status("fits") == "scheduled"
    log.said(SessionClosed())
    log.scheduled("late")
    assert log.status("late") == "refused session_closed"


def test_it_goes_with_its_session() -> None:
    log = Log()
    log.scheduled()
    log.said(SessionDeleted())
    assert not log.state.scheduled
    log.due()
    assert log.status() == "queued", "the id is free again"


# --- what is kept ------------------------------------------------------------------------------------------------------------


def test_a_checkpoint_has_what_is_scheduled() -> None:
    log = Log()
    log.scheduled(mode="enqueue", attachments=[{"id": "a1", "size": 3}])
    log.scheduled("i2", 4)
    again = decode_checkpoint(encode_checkpoint(Checkpoint(log.state))).state
    assert again.scheduled == log.state.scheduled
    assert again.planned("i1") is not None


def test_a_checkpoint_of_a_version_that_knows_no_schedules_is_none() -> None:
    """It may have been written by a worker that folded them to nothing."""
    body = orjson.loads(encode_checkpoint(Checkpoint(SessionState(as_of=7))))
    del body["scheduled"]
    assert decode_checkpoint(orjson.dumps(body | {"version": 3})) == START
    assert decode_checkpoint(orjson.dumps(body)) == START


def test_where_it_may_be_said() -> None:
    planned, back = InputScheduled("i1", "later", AT), InputUnscheduled("i1")
    body = encode(Entry("x", 1, (planned, back), "main", by=AGENT))
    assert decode_at(Place(Kind.EVENT, "main"), body)[0].events == (planned, back)
    assert decode_at(Place(Kind.INPUT), body)[0].events == (planned,)
    assert decode_at(Place(Kind.OWNER, "main"), body)[0].events == ()
    odd = OtherEvent("input.scheduled", {"type": "input.scheduled", "inputId": "i1", "content": "x", "at": "soon"})
    assert decode_at(Place(Kind.INPUT), encode(Entry("x", 1, (odd,))))[0].events == ()


# --- alarms --------------------------------------------------------------------------------------------------------------------


def test_the_place_of_an_alarm() -> None:
    place = AlarmPlace(session_key("acme", "demo"), 12, "i-1")
    assert place.at == "alarm.at.acme~demo.12.i-1"
    assert alarm_place(place.at) == alarm_place(place.due) == place
    with pytest.raises(ValueError, match="unpack"):
        alarm_place("alarm.due.demo")


def test_a_worker_for_some_sessions_sets_no_alarms() -> None:
    """A header could take off those of other sessions."""
    assert access(User(Role.WORKER), 4).may_publish("alarm.at.acme~demo.0.i1")
    narrow = access(User(Role.WORKER, sessions=(SessionKey("acme~demo"),)), 4)
    assert not narrow.may_publish("alarm.at.acme~demo.0.i1")


@pytest.mark.parametrize("role", Role)
def test_who_may_say_that_something_is_due(role: Role) -> None:
    """The server alone. And a consumer's alarms are taken by gateways alone."""
    allowed = access(User(role), 4)
    assert not allowed.may_publish("alarm.due.demo.0.i1")
    assert allowed.may_publish("$JS.API.CONSUMER.MSG.NEXT.ALARMS.due") is (role is Role.GATEWAY)


# --- the command -----------------------------------------------------------------------------------------------------------------


def sending(**more: Any) -> InputSend:
    frame = {"op": "input.send", "id": 1, "session": "demo", "inputId": "i1", "content": "x", **more}
    command = parse(orjson.dumps(frame))
    assert isinstance(command, InputSend)
    return command


def test_when_an_input_is_to_be_sent() -> None:
    assert (sending().at, sending().delay_ms) == (None, None)
    assert sending(at=1_763_904_000_000).at == 1_763_904_000_000
    assert sending(delayMs=0).delay_ms == 0
    assert sending(at=None, delayMs=None).at is None


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"at": -1}, "at"),
        ({"at": "2026-11-30"}, "at"),
        ({"at": 2**60}, "at"),
        ({"at": True}, "at"),
        ({"delayMs": 1.5}, "delayMs"),
        ({"at": 1, "delayMs": 1}, "delayMs"),
    ],
)
def test_a_time_that_is_none(more: dict[str, Any], field: str) -> None:
    with pytest.raises(BadFrame) as caught:
        sending(**more)
    assert caught.value.data["field"] == field
