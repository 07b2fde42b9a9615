"""Rules 3 and 16: the agent asks for a human, and a human gives the lane back."""

from __future__ import annotations

from dataclasses import replace

from antiphon_client._json import JsonObject, as_str
from antiphon_client.ledger import Ledger
from antiphon_client.model import Handoff, Input
from antiphon_client.protocol import Entry


def requested(ledger: Ledger, entry: Entry, event: JsonObject) -> None:
    """Rule 16."""
    run = ledger.running_in(entry.lane)
    handoff = None if run is None else Handoff.requested(event, run.lane, run.run_id)
    if handoff is None or any(each.lane == handoff.lane for each in ledger.handoffs.values()):
        return
    if any(handoff.handoff_id in past.handoffs for past in ledger.past.values()):
        return
    ledger.handoffs[handoff.handoff_id] = handoff
    ledger.past[handoff.run_id].handoffs.add(handoff.handoff_id)


def expired(ledger: Ledger, entry: Entry, event: JsonObject) -> None:
    """Rule 16."""
    handoff = ledger.handoffs.get(as_str(event.get("handoffId")) or "")
    if handoff is not None and handoff.lane == entry.lane:
        del ledger.handoffs[handoff.handoff_id]


def returned(ledger: Ledger, entry: Entry, event: JsonObject) -> None:
    """Rule 3: the lane is nobody's; a note is the agent's next input."""
    name = as_str(event.get("lane")) or ""
    lane = ledger.lanes.get(name)
    if lane is None or lane.human is None or lane.human != (entry.by or {}).get("id"):
        return
    ledger.lanes[name] = replace(lane, owner=None)
    input_id, note = as_str(event.get("inputId")), as_str(event.get("note"))
    if note and input_id is not None and input_id not in ledger.seen:
        ledger.seen.add(input_id)
        ledger.queue[input_id] = Input(input_id, entry.seq, entry.ts, entry.by, note, lane=name)
