"""Rules 7, 8 and 10: taking inputs back, stopping runs, and what that stops in turn."""

from __future__ import annotations

from dataclasses import replace

from antiphon_client._json import JsonObject
from antiphon_client.changes import InputDropped
from antiphon_client.ledger import Ledger
from antiphon_client.model import Run

IMMEDIATE = "immediate"


def withdraw(ledger: Ledger, input_id: str | None, by: JsonObject | None, code: str) -> None:
    """Take back an input that waits, or is scheduled; otherwise nothing."""
    key = input_id or ""
    waiting = ledger.queue.pop(key, None) or ledger.scheduled.pop(key, None)
    if waiting is not None:
        ledger.ended.append((waiting.input_id, by, True))
        ledger.changes.append(InputDropped(waiting.input_id, code))


def stop(ledger: Ledger, run: Run | None, mode: str, by: JsonObject | None, reason: str) -> None:
    """Set the `cancel` of a run, and if that makes it immediate, stop what it has asked for."""
    if run is None or (run.cancel is not None and not (mode == IMMEDIATE and run.cancel.get("mode") != IMMEDIATE)):
        return
    ledger.runs[run.run_id] = replace(run, cancel={"mode": mode, "by": by, "reason": reason})
    if mode == IMMEDIATE:
        stop_children(ledger, run.run_id, by)


def stop_children(ledger: Ledger, parent: str, by: JsonObject | None) -> None:
    """Inputs and runs that this run has asked for are not wanted any more, unless they are detached."""
    for waiting in list(ledger.queue.values()):
        if waiting.parent == parent and not waiting.detached:
            withdraw(ledger, waiting.input_id, by, "parent_cancelled")
    for run in list(ledger.runs.values()):
        if run.parent == parent and not run.detached:
            stop(ledger, run, IMMEDIATE, by, "parent")
