"""Rules 20 and 21: inputs that are to be sent later."""

from __future__ import annotations

from typing import Final

from antiphon_client._json import JsonObject, as_int, as_objects, as_str
from antiphon_client.changes import InputDropped
from antiphon_client.ledger import Ledger
from antiphon_client.model import Scheduled
from antiphon_client.protocol import Entry

from .cancelling import withdraw
from .names import MAX_INPUTS

MAX_SCHEDULED: Final = 64
MAX_SCHEDULED_BYTES: Final = 262_144


def scheduled(ledger: Ledger, entry: Entry, event: JsonObject) -> None:
    """Rule 20."""
    input_id, content, at = as_str(event.get("inputId")), as_str(event.get("content")), as_int(event.get("at"))
    if input_id is None or content is None or at is None or input_id in ledger.seen:
        return
    mode, attachments = as_str(event.get("mode")), as_objects(event.get("attachments"))
    planned = Scheduled(input_id, entry.seq, entry.ts, entry.by, content, at, mode, attachments)
    code = _refusal(ledger, planned)
    ledger.seen.add(input_id)
    if code is None:
        ledger.plan(planned)
    else:
        ledger.ended.append((input_id, None, False))
        ledger.changes.append(InputDropped(input_id, code))


def _refusal(ledger: Ledger, planned: Scheduled) -> str | None:
    if len(ledger.seen) >= MAX_INPUTS:
        return "session_full"
    if ledger.closed:
        return "session_closed"
    size = sum(len(each.content.encode(errors="replace")) for each in (*ledger.scheduled.values(), planned))
    full = len(ledger.scheduled) >= MAX_SCHEDULED or size > MAX_SCHEDULED_BYTES
    return "schedule_full" if full else None


def unscheduled(ledger: Ledger, entry: Entry, event: JsonObject) -> None:
    """Rule 21: the lane's agent takes it back."""
    input_id = as_str(event.get("inputId"))
    if input_id in ledger.scheduled:
        withdraw(ledger, input_id, entry.by, "cancelled")
