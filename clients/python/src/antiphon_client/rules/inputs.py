"""Rules 4 to 7: inputs, of participants and of runs that ask other agents."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from antiphon_client._json import JsonObject, as_int, as_objects, as_str
from antiphon_client.changes import InputApplied, InputDropped, InputDue, InputSpoken
from antiphon_client.config import MODES
from antiphon_client.ledger import MAIN, Ledger
from antiphon_client.model import Input
from antiphon_client.protocol import Entry

from .cancelling import stop, withdraw
from .names import MAX_INPUTS, same_sender

WAITS_FOR: Final = ("session_closed", "queue_full")
"""Refusals of an input that is due, after which it stays scheduled."""
URGENT: Final = ("interrupt", "rollback")
"""The modes that go in front of the others and stop the run."""


def sent(ledger: Ledger, entry: Entry, event: JsonObject) -> None:
    """Rule 4."""
    input_id, content = as_str(event.get("inputId")), as_str(event.get("content"))
    if input_id is None or content is None:
        return
    planned = ledger.scheduled.get(input_id)
    due = planned is not None and planned.at == as_int(event.get("at"))
    if input_id in ledger.seen and not due:
        return
    mode = as_str(event.get("mode"))
    asked = mode if mode in MODES else ledger.config.on_busy
    attachments = as_objects(event.get("attachments"))
    coming = Input(input_id, entry.seq, entry.ts, entry.by, content, _mode(ledger, asked), attachments=attachments)
    superseded = _superseded(ledger, coming)
    code = _refusal(ledger, coming, asked, superseded, is_new=not due)
    if due and code in WAITS_FOR:
        return
    ledger.seen.add(input_id)
    if due:
        del ledger.scheduled[input_id]
        ledger.changes.append(InputDue(input_id))
    if code is not None:
        _refuse(ledger, input_id, code)
    else:
        _take(ledger, coming, superseded)


def _mode(ledger: Ledger, asked: str) -> str:
    """Rule 5: the mode that an input gets."""
    if asked in URGENT:
        return asked
    run = ledger.running_in(MAIN)
    joins = asked in ("auto", "inject") and run is not None and run.cancel is None
    return "inject" if joins and "inject" in ledger.lanes[MAIN].can else "enqueue"


def _superseded(ledger: Ledger, coming: Input) -> list[Input]:
    """Rule 6: what the input takes away."""
    if ledger.config.coalesce != "latest" or coming.mode in URGENT:
        return []
    waiting = ledger.waiting_in(MAIN)
    return [each for each in waiting if each.mode == "enqueue" and same_sender(each.by, coming.by)]


def _refusal(ledger: Ledger, coming: Input, asked: str, superseded: list[Input], *, is_new: bool) -> str | None:
    """Rule 4: the code of the first reason to refuse. What was scheduled is not new: its id has been seen."""
    config, lane = ledger.config, ledger.lanes.get(MAIN)
    running = ledger.running_in(MAIN) is not None
    waiting = [each for each in ledger.waiting_in(MAIN) if each not in superseded]
    own, own_limit = [each for each in waiting if same_sender(each.by, coming.by)], config.queue_of(coming.by)
    waits = lane is None or lane.human is None  # else it is a message at once
    reasons = {
        "session_full": is_new and len(ledger.seen) >= MAX_INPUTS,
        "session_closed": ledger.closed,
        "mode_not_allowed": waits and not config.allows_mode(coming.by, asked),
        "queue_full": waits and (len(waiting) >= config.max_queue or (own_limit is not None and len(own) >= own_limit)),
        "busy": waits and asked == "reject" and (running or bool(waiting)),
        "cannot_inject": waits and asked == "inject" and running and lane is not None and "inject" not in lane.can,
    }
    return next((code for code, true in reasons.items() if true), None)


def _take(ledger: Ledger, coming: Input, superseded: list[Input]) -> None:
    """Rules 5 and 6."""
    if ledger.config.approval_on_input == "cancel":
        for approval in [each for each in ledger.approvals.values() if each.lane == MAIN]:
            del ledger.approvals[approval.approval_id]
    lane = ledger.lanes.get(MAIN)
    if lane is not None and lane.human is not None:
        speak(ledger, coming)
        return
    for each in superseded:
        withdraw(ledger, each.input_id, coming.by, "superseded")
    if coming.mode in URGENT:
        _push_in(ledger, coming)
        stop(ledger, ledger.running_in(MAIN), "immediate", coming.by, coming.mode)
    else:
        ledger.queue[coming.input_id] = coming


def _push_in(ledger: Ledger, coming: Input) -> None:
    """In front of all that wait, behind those that did the same."""
    waiting = list(ledger.queue.values())
    place = sum(each.mode in URGENT for each in waiting)
    ledger.queue = {each.input_id: each for each in [*waiting[:place], coming, *waiting[place:]]}


def speak(ledger: Ledger, said: Input) -> None:
    """The input is a message at once; who has the lane stands for the agent."""
    lane, by = ledger.lanes[said.lane], said.by or {}
    ledger.ended.append((said.input_id, None, False))
    is_owner = by.get("kind") == "user" and by.get("id") == lane.human
    ledger.changes.append(InputSpoken(said, "assistant" if is_owner else "user"))


def cancel_requested(ledger: Ledger, entry: Entry, event: JsonObject) -> None:
    """Rule 7."""
    withdraw(ledger, as_str(event.get("inputId")), entry.by, "cancelled")


def applied(ledger: Ledger, entry: Entry, event: JsonObject) -> None:
    """Rule 7."""
    input_id = as_str(event.get("inputId"))
    if input_id is not None:
        source = _pop(ledger, input_id)
        run_id = as_str(event.get("runId")) or entry.run
        ledger.changes.append(InputApplied(input_id, run_id, as_str(event.get("messageId")), source))


def failed(ledger: Ledger, _entry: Entry, event: JsonObject) -> None:
    """Rule 7."""
    input_id = as_str(event.get("inputId"))
    if input_id is not None:
        _pop(ledger, input_id)
        ledger.changes.append(InputDropped(input_id, as_str(event.get("code")) or "failed"))


def _pop(ledger: Ledger, input_id: str) -> Input | None:
    waiting = ledger.queue.pop(input_id, None)
    if waiting is not None:
        ledger.ended.append((input_id, None, False))
    return waiting


def _refuse(ledger: Ledger, input_id: str, code: str) -> None:
    ledger.ended.append((input_id, None, False))
    ledger.changes.append(InputDropped(input_id, code))


def requested(ledger: Ledger, entry: Entry, event: JsonObject) -> None:
    """Rule 7: a run asks another agent."""
    input_id, content, child_lane = (as_str(event.get(name)) for name in ("inputId", "content", "childLane"))
    parent = ledger.runs.get(as_str(event.get("parentRunId")) or "")
    if input_id is None or content is None or child_lane is None or input_id in ledger.seen:
        return
    if parent is None or parent.lane != entry.lane or child_lane == entry.lane:
        return
    ledger.seen.add(input_id)
    detached, lane = event.get("detached") is True, ledger.lanes.get(child_lane)
    if parent.cancel is not None and not detached:
        _refuse(ledger, input_id, "parent_cancelled")
    elif (lane is not None and lane.human is not None) or len(ledger.waiting_in(child_lane)) >= ledger.config.max_queue:
        _refuse(ledger, input_id, "queue_full")
    else:
        asked = Input(input_id, entry.seq, entry.ts, entry.by, content, lane=child_lane, parent=parent.run_id)
        ledger.queue[input_id] = replace(asked, agent=as_str(event.get("agent")), detached=detached)
