"""Rules 8 to 10: runs."""

from __future__ import annotations

from dataclasses import replace

from antiphon_client._json import JsonObject, as_count, as_object, as_str
from antiphon_client.changes import Outcome, RunEnded
from antiphon_client.ledger import Ledger
from antiphon_client.model import Run
from antiphon_client.protocol import Entry

from .cancelling import IMMEDIATE, stop, stop_children, withdraw
from .names import RUN_PREFIX, input_of


def cancel_requested(ledger: Ledger, entry: Entry, event: JsonObject) -> None:
    """Rule 8."""
    run_id = as_str(event.get("runId"))
    if run_id is None or (entry.by is not None and not ledger.config.allows_cancel(entry.by)):
        return
    run = ledger.runs.get(run_id)
    if run is None:
        withdraw(ledger, input_of(run_id), entry.by, "cancelled")
    else:
        mode = "after_step" if event.get("mode") == "after_step" else IMMEDIATE
        stop(ledger, run, mode, entry.by, "requested")


def started(ledger: Ledger, entry: Entry, event: JsonObject) -> None:
    """Rule 9."""
    run_id, lane = as_str(event.get("runId")), ledger.lanes.get(entry.lane or "")
    if run_id is None or entry.lane is None or lane is None or lane.run is not None or run_id in ledger.runs:
        return
    input_id = run_id.removeprefix(RUN_PREFIX)
    source, taken_back = ledger.queue.get(input_id), ledger.taken_back(input_id)
    cancel = None if taken_back is None else {"mode": IMMEDIATE, "by": taken_back[0], "reason": "requested"}
    run = Run(run_id, entry.lane, input_id, cancel=cancel)
    if source is not None:
        run = replace(run, parent=source.parent, agent=source.agent, detached=source.detached)
    ledger.add_run(run)


def dropped(ledger: Ledger, entry: Entry, event: JsonObject) -> None:
    """Rule 8: the run does not wait for what it asked for any more."""
    parent, input_id = ledger.running_in(entry.lane), as_str(event.get("inputId"))
    if parent is None or input_id is None:
        return
    waiting, child = ledger.queue.get(input_id), ledger.runs.get(RUN_PREFIX + input_id)
    if waiting is not None and waiting.parent == parent.run_id:
        withdraw(ledger, input_id, None, "parent_cancelled")
    elif child is not None and child.parent == parent.run_id:
        stop(ledger, child, IMMEDIATE, None, "parent")


def taken_over(ledger: Ledger, entry: Entry, event: JsonObject) -> None:
    """Rule 10."""
    run, attempt = ledger.running_in(entry.lane), as_count(event.get("attempt"))
    if run is not None and attempt is not None and event.get("runId") == run.run_id:
        ledger.runs[run.run_id] = replace(run, attempt=attempt)


def held(ledger: Ledger, entry: Entry, event: JsonObject) -> None:
    """Rule 10: the lane's run is held, or goes on."""
    run, state = ledger.running_in(entry.lane), event.get("state")
    if run is not None and state in ("paused", "running"):
        paused = as_str(event.get("reason")) or "" if state == "paused" else None
        ledger.lanes[run.lane] = replace(ledger.lanes[run.lane], paused=paused)


def finished(ledger: Ledger, entry: Entry, event: JsonObject) -> None:
    """Rule 10."""
    outcome = as_object(event.get("outcome")) or {}
    kind, reason = as_str(outcome.get("type")) or "success", as_str(outcome.get("reason"))
    _end(ledger, entry, as_str(event.get("runId")), Outcome(kind, reason=reason))


def failed(ledger: Ledger, entry: Entry, event: JsonObject) -> None:
    """Rule 10."""
    code, message = as_str(event.get("code")), as_str(event.get("message"))
    run = ledger.running_in(entry.lane)
    run_id = entry.run if run is None else run.run_id
    _end(ledger, entry, run_id, Outcome("error", code or "agent_error", message))


def _end(ledger: Ledger, entry: Entry, run_id: str | None, outcome: Outcome) -> None:
    run = ledger.running_in(entry.lane)
    if run is None:
        if ledger.partial and run_id is not None:  # a reader who began in the middle has not seen the start
            ledger.changes.append(RunEnded(run_id, outcome))
        return
    if run.run_id != run_id:
        return
    del ledger.runs[run_id]
    ledger.past.pop(run_id, None)
    ledger.lanes[run.lane] = replace(ledger.lanes[run.lane], run=None, paused=None)
    ledger.calls = {key: each for key, each in ledger.calls.items() if each.run_id != run_id}
    ledger.approvals = {key: each for key, each in ledger.approvals.items() if each.run_id != run_id}
    ledger.handoffs = {key: each for key, each in ledger.handoffs.items() if each.run_id != run_id}
    cancel = run.cancel or {}
    ledger.changes.append(RunEnded(run_id, outcome, rolled_back=cancel.get("reason") == "rollback"))
    stop_children(ledger, run_id, as_object(cancel.get("by")))
