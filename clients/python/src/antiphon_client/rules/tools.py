"""Rules 11 to 13: calls of tools."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from antiphon_client._json import JsonObject, as_int, as_str
from antiphon_client.ledger import Ledger
from antiphon_client.model import Call, Claim
from antiphon_client.protocol import Entry

from .names import same_id

MAX_OPEN: Final = 64
"""Calls that may be open in a session."""
MAX_HAD: Final = 1000
"""Calls that the running runs may have had."""


def requested(ledger: Ledger, entry: Entry, event: JsonObject) -> None:
    """Rule 11."""
    run = ledger.running_in(entry.lane)
    call = None if run is None else Call.requested(event, run.lane, run.run_id)
    if call is None or len(ledger.calls) >= MAX_OPEN:
        return
    call = replace(call, trace=entry.trace)
    had = [past.calls for past in ledger.past.values()]
    if sum(len(calls) for calls in had) >= MAX_HAD or any(call.tool_call_id in calls for calls in had):
        return
    ledger.calls[call.tool_call_id] = call
    ledger.past[call.run_id].calls.add(call.tool_call_id)


def claimed(ledger: Ledger, entry: Entry, event: JsonObject) -> None:
    """Rule 12."""
    call, claim_id, expires_at = _open(ledger, event), as_str(event.get("claimId")), as_int(event.get("expiresAt"))
    if entry.by is None or call is None or call.executor != "client":
        return
    if claim_id is None or expires_at is None or _late(call, entry):
        return
    held, device = call.claim, as_str(event.get("device"))
    renews = held is not None and held.claim_id == claim_id and same_id(held.by, entry.by)
    free = held is None or (held.expires_at < entry.ts and call.idempotent)
    if renews or (free and _is_target(call, entry, device)):
        claim = Claim(claim_id, entry.by, device, expires_at)
        ledger.calls[call.tool_call_id] = replace(call, claim=claim)


def released(ledger: Ledger, entry: Entry, event: JsonObject) -> None:
    """Rule 13."""
    call = _claimed_by(ledger, entry, event)
    if call is not None:
        ledger.calls[call.tool_call_id] = replace(call, claim=None)


def resolved(ledger: Ledger, entry: Entry, event: JsonObject) -> None:
    """Rule 13."""
    call = _claimed_by(ledger, entry, event)
    if call is not None:
        del ledger.calls[call.tool_call_id]


def lapsed(ledger: Ledger, entry: Entry, event: JsonObject) -> None:
    """Rule 13: a claim has run out."""
    call = _open(ledger, event)
    if call is None or not call.idempotent or call.claim is None:
        return
    if call.claim.claim_id == event.get("claimId") and call.claim.expires_at < entry.ts:
        ledger.calls[call.tool_call_id] = replace(call, claim=None)


def ended(ledger: Ledger, entry: Entry, event: JsonObject) -> None:
    """Rule 13: the call's lane ends it, with a result or without."""
    call = _open(ledger, event)
    if call is not None and call.lane == entry.lane:
        del ledger.calls[call.tool_call_id]


def _open(ledger: Ledger, event: JsonObject) -> Call | None:
    return ledger.calls.get(as_str(event.get("toolCallId")) or "")


def _late(call: Call, entry: Entry) -> bool:
    return call.deadline is not None and entry.ts > call.deadline


def _claimed_by(ledger: Ledger, entry: Entry, event: JsonObject) -> Call | None:
    """The open call, if the claim that counts is that of the entry, in time."""
    call = _open(ledger, event)
    if call is None or call.claim is None or _late(call, entry):
        return None
    mine = call.claim.claim_id == event.get("claimId") and same_id(call.claim.by, entry.by)
    return call if mine else None


def _is_target(call: Call, entry: Entry, device: str | None) -> bool:
    if call.any_after is not None and entry.ts >= call.any_after:
        return True
    is_participant = call.participant is None or (entry.by or {}).get("id") == call.participant
    return is_participant and (call.device is None or device == call.device)
