"""Faults that are planted in good histories: in what was written and acknowledged, or in what a reader saw."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

from hypothesis import reject

from tests.chaos.findings import Kind
from tests.chaos.history import Answer, EntrySeen, Gap, Joined, Logged, Record, Snapshot
from tests.unit.chaos_histories import SESSION, WORKER, Scene, frames, user

# --- in the log, or in what was told -------------------------------------------------------------------------------------


def lose_an_input(scene: Scene) -> None:
    logged = scene.remove("input.sent")
    # Nothing else of it may be odd: what it said stays.
    scene.told = [record for record in scene.told if not _is_cancel_of(record, logged.entry["id"])]


def _is_cancel_of(record: Record, input_id: str) -> bool:
    return getattr(record, "op", "") == "input.cancel" and input_id in str(record)


def double_an_input(scene: Scene) -> None:
    logged, event = scene.first("input.sent")
    scene.put(logged.entry["id"], dict(event), by=logged.entry["by"])


def apply_twice(scene: Scene) -> None:
    _, event = scene.first("input.applied")
    scene.write(dict(event))


def write_under_an_old_fence(scene: Scene) -> None:
    old = scene.first("session.owner")[0].seq
    scene.claim()
    scene.put(f"{old}-99", {"type": "STEP_STARTED", "stepName": "zombie"}, lane="main", by=WORKER)


def write_otherwise_under_the_same_id(scene: Scene) -> None:
    scene.write({"type": "STEP_STARTED", "stepName": "one"})
    scene.n -= 1
    scene.write({"type": "STEP_STARTED", "stepName": "two"})


def leave_a_run_open(scene: Scene) -> None:
    scene.start(scene.send("tool once x"))


def end_a_run_twice(scene: Scene) -> None:
    scene.finish()


def start_a_run_twice(scene: Scene) -> None:
    scene.write({"type": "RUN_STARTED", "threadId": SESSION, "runId": scene.run, "protocolVersion": "1.0"})
    scene.finish()


def lose_a_result(scene: Scene) -> None:
    scene.remove("tool.resolved")


def accept_two_results(scene: Scene) -> None:
    call = scene.first("tool.resolved")[1]["toolCallId"]
    resolved = {"type": "tool.resolved", "toolCallId": call, "claimId": "another", "result": {}}
    scene.put("result:another", resolved, by=user(0))
    given = next(
        f.fields["result"] for f in scene.told if getattr(f, "op", "") == "tool.result" and hasattr(f, "fields")
    )
    scene.command(0, "tool.result", {"status": "resolved"}, toolCallId=call, claimId="another", result=given)


def give_two_results(scene: Scene) -> None:
    _, event = scene.first("TOOL_CALL_RESULT")
    scene.write(dict(event))


def give_another_result(scene: Scene) -> None:
    scene.first("TOOL_CALL_RESULT")[1]["content"] = '{"by":"nobody"}'


def stop_a_run_while_its_result_comes(scene: Scene) -> None:
    """No fault: what the worker has not read, it cannot give."""
    logged, event = scene.first("TOOL_CALL_RESULT")
    event["content"] = '{"error":"outcome_unknown"}'
    end = next(e for _, e in scene.events("RUN_FINISHED") if e["runId"] == logged.entry["run"])
    end["outcome"] = {"type": "cancelled"}


def not_know_the_result_and_go_on(scene: Scene) -> None:
    scene.first("TOOL_CALL_RESULT")[1]["content"] = '{"error":"outcome_unknown"}'


def lose_a_decision(scene: Scene) -> None:
    scene.remove("approval.responded")


def accept_two_decisions(scene: Scene) -> None:
    logged, event = scene.first("approval.responded")
    who = next(n for n in range(3) if user(n) != logged.entry["by"])
    other = {"type": "approval.responded", "approvalId": event["approvalId"], "option": "reject_once"}
    scene.put("respond:another", other, by=user(who))
    reply = {"status": "resolved", "decision": "reject_once"}
    scene.command(who, "approval.respond", reply, approvalId=event["approvalId"], option="reject_once")


def run_what_was_cancelled(scene: Scene) -> None:
    input_id = scene.remove("input.cancel.requested").entry["events"][0]["inputId"]
    scene.start(input_id)
    scene.finish("cancelled")


def finish_what_was_cancelled(scene: Scene) -> None:
    scene.start(scene.send("tool once x"))
    scene.finish()
    scene.command(0, "run.cancel", {"runId": scene.run, "status": "cancelled"}, runId=scene.run)


def leave_an_input_waiting(scene: Scene) -> None:
    scene.send()


def say_something_else(scene: Scene) -> None:
    """Deltas and segment agree, but it is not what was to be said."""
    input_id = scene.send()
    scene.start(input_id)
    scene.say(f"m_{input_id}", scene.whole(input_id).replace(".1 ", ".7 "))
    scene.finish()


def tear_text_and_segment_apart(scene: Scene) -> None:
    _, segment = scene.first("message.segment", reason="complete")
    segment["text"] = "#" + segment["text"][1:]


def tell_another_place(scene: Scene) -> None:
    at = next(i for i, record in enumerate(scene.told) if isinstance(record, Answer) and record.op == "input.send")
    answer = scene.told[at]
    assert isinstance(answer, Answer)
    scene.told[at] = dataclasses.replace(answer, reply=answer.reply | {"seq": 1 << 40})


def let_a_copy_fall_behind(scene: Scene) -> None:
    scene.copies[1] = dataclasses.replace(scene.copies[1], messages=8)


IN_THE_LOG: dict[Callable[[Scene], None], set[Kind]] = {
    lose_an_input: {Kind.LOST_INPUT},
    double_an_input: {Kind.DOUBLED_INPUT},
    apply_twice: {Kind.APPLIED_TWICE},
    write_under_an_old_fence: {Kind.STALE_FENCE},
    write_otherwise_under_the_same_id: {Kind.REWRITTEN},
    leave_a_run_open: {Kind.OPEN_RUN},
    end_a_run_twice: {Kind.ENDED_TWICE},
    start_a_run_twice: {Kind.STARTED_TWICE, Kind.ENDED_TWICE},
    lose_a_result: {Kind.LOST_RESULT},
    accept_two_results: {Kind.RESULT_TWICE},
    give_two_results: {Kind.RESULT_TWICE},
    give_another_result: {Kind.WRONG_RESULT},
    stop_a_run_while_its_result_comes: set(),
    not_know_the_result_and_go_on: {Kind.WRONG_RESULT},
    lose_a_decision: {Kind.LOST_DECISION},
    accept_two_decisions: {Kind.DECIDED_TWICE},
    run_what_was_cancelled: {Kind.CANCEL_UNDONE},
    finish_what_was_cancelled: {Kind.CANCEL_UNDONE},
    leave_an_input_waiting: {Kind.WAITING},
    say_something_else: {Kind.TEXT_DIFFERS},
    tear_text_and_segment_apart: {Kind.TEXT_DIFFERS},
    tell_another_place: {Kind.WRONG_RECEIPT},
    let_a_copy_fall_behind: {Kind.LOST_BY_A_COPY},
}

# --- in what a reader saw ------------------------------------------------------------------------------------------------

READER = "user-0"
"""It takes every entry by itself."""
_TEXTS = {"TEXT_MESSAGE_START", "TEXT_MESSAGE_CONTENT", "TOOL_CALL_START", "TOOL_CALL_ARGS"}


def _seen(records: list[Record], type_: str) -> int:
    """Where it got its first entry with such an event: one without a text, not the last of all."""
    return next(
        i
        for i, record in enumerate(records)
        if isinstance(record, EntrySeen)
        and record.who == READER
        and record.frame["events"][0]["type"] == type_
        and _follows(records, i)
    )


def _follows(records: list[Record], i: int) -> bool:
    """The next thing that happens to it is another entry."""
    return isinstance(records[i + 1], EntrySeen)


def _changed(record: Record, **frame: Any) -> EntrySeen:
    assert isinstance(record, EntrySeen)
    return dataclasses.replace(record, frame=record.frame | frame)


def lose_an_entry(records: list[Record]) -> None:
    del records[_seen(records, "RUN_STARTED")]


def lose_an_entry_and_hide_it(records: list[Record]) -> None:
    at = _seen(records, "RUN_STARTED")
    lost = records.pop(at)
    assert isinstance(lost, EntrySeen)
    records[at] = _changed(records[at], prev=lost.frame["prev"])


def lose_an_entry_and_be_told(records: list[Record], *, of_all: bool = True) -> None:
    """The gateway finds out what it has missed, and says so: from there on everything comes again. No fault at all.

    Without `of_all` its gap begins behind what was missing, and it comes again only from there.
    """
    at = _seen(records, "RUN_STARTED")
    lost = records[at]
    lose_an_entry_and_hide_it(records)
    after = records[at]
    assert isinstance(lost, EntrySeen)
    assert isinstance(after, EntrySeen)
    log = [record for record in records if isinstance(record, Logged) and record.seq <= after.frame["seq"]]
    again = [EntrySeen(0, READER, after.sub, frame) for frame in frames(log, 0, merged=False, live=False)]
    begin = lost.frame["prev"] if of_all else after.frame["seq"]
    told: list[Record] = [Gap(0, READER, after.sub, begin, after.frame["seq"]), Snapshot(0, READER, after.sub, 0)]
    records[at + 1 : at + 1] = [*told, *again]


def lose_an_entry_and_be_told_of_another(records: list[Record]) -> None:
    lose_an_entry_and_be_told(records, of_all=False)


def get_an_entry_twice(records: list[Record]) -> None:
    at = _seen(records, "RUN_STARTED")
    records.insert(at, records[at])


def get_two_in_another_order(records: list[Record]) -> None:
    at = _seen(records, "input.sent")
    records[at], records[at + 1] = records[at + 1], records[at]


def get_an_entry_of_another_name(records: list[Record]) -> None:
    at = _seen(records, "RUN_STARTED")
    records[at] = _changed(records[at], id="from nowhere")


def get_an_entry_that_says_otherwise(records: list[Record]) -> None:
    at = _seen(records, "RUN_STARTED")
    records[at] = _changed(records[at], events=[{"type": "RUN_STARTED", "runId": "another"}])


def get_an_entry_before_a_place(records: list[Record]) -> None:
    at = next(i for i, record in enumerate(records) if isinstance(record, Joined) and record.who == READER)
    # Not the snapshot that says where it is.
    del records[at + 1]


def go_on_too_far(records: list[Record]) -> None:
    """It goes on after an entry that it has never got."""
    for at, (joined, seen) in enumerate(itertools.pairwise(records)):
        match joined, seen:
            case Joined(who=who, after=int()), EntrySeen(frame=frame) if who == READER and not _has_text(frame):
                records[at : at + 2] = [dataclasses.replace(joined, after=frame["seq"])]
                return
            case _:
                pass
    reject()


def _has_text(frame: dict[str, Any]) -> bool:
    return any(event["type"] in _TEXTS for event in frame["events"])


def get_no_end(records: list[Record]) -> None:
    at = [i for i, r in enumerate(records) if isinstance(r, EntrySeen) and r.who == READER][-1]
    del records[at]


def get_another_text(records: list[Record]) -> None:
    """Merged frames are not compared one by one: the text is."""
    at = [i for i, r in enumerate(records) if isinstance(r, EntrySeen) and r.who == READER and "off" in r.frame][-1]
    record = records[at]
    assert isinstance(record, EntrySeen)
    event = record.frame["events"][0]
    wrong = event | {"delta": "#" * len(event["delta"])}
    records[at] = _changed(record, events=[wrong], merged=1)


def refuse_a_cursor(records: list[Record]) -> None:
    records.append(Answer(0, READER, "subscribe", "subscribe-9", False, {"code": "cursor_future"}))


IN_A_VIEW: dict[Callable[[list[Record]], None], set[Kind]] = {
    lose_an_entry: {Kind.LOST_ENTRY},
    lose_an_entry_and_hide_it: {Kind.LOST_ENTRY},
    lose_an_entry_and_be_told: set(),
    lose_an_entry_and_be_told_of_another: {Kind.LOST_ENTRY},
    get_an_entry_twice: {Kind.DOUBLED_ENTRY},
    get_two_in_another_order: {Kind.LOST_ENTRY, Kind.DOUBLED_ENTRY},
    get_an_entry_of_another_name: {Kind.PHANTOM},
    get_an_entry_that_says_otherwise: {Kind.PHANTOM},
    get_an_entry_before_a_place: {Kind.PHANTOM},
    go_on_too_far: {Kind.LOST_ENTRY},
    get_no_end: {Kind.LOST_ENTRY},
    get_another_text: {Kind.TEXT_DIFFERS},
    refuse_a_cursor: {Kind.CURSOR_REFUSED},
}
