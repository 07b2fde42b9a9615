"""Rules 1 and 2: whose entries count, and who owns a lane."""

from __future__ import annotations

from antiphon_client._json import JsonObject, as_str, as_strings
from antiphon_client.ledger import Ledger
from antiphon_client.model import Lane, Run
from antiphon_client.protocol import Entry

from . import inputs
from .names import input_of


def admits(ledger: Ledger, entry: Entry) -> bool:
    """Rule 1: whether this entry counts, if it is not that of an owner. Asked once for an entry."""
    if entry.lane is None:
        return True
    fence, number = entry.fence, entry.number
    if fence is None or number is None:
        return False
    lane = ledger.lanes.get(entry.lane)
    if lane is None and ledger.partial:
        lane = ledger.lanes[entry.lane] = Lane(None, fence, None)
    if lane is None or lane.fence != fence:
        return False
    if entry.off is None:  # a record; a repeated delta changes nothing anyway
        if number <= ledger.written.get(entry.lane, -1):
            return False
        if ledger.partial and entry.lane not in ledger.written:
            _adopt(ledger, entry)
        ledger.written[entry.lane] = number
    return True


def _adopt(ledger: Ledger, entry: Entry) -> None:
    """A reader who began in the middle meets a lane: the entry tells of a run whose start it missed."""
    starts = any(event.get("type") == "RUN_STARTED" for event in entry.events)
    if entry.run is not None and not starts and entry.lane is not None and entry.run not in ledger.runs:
        ledger.add_run(Run(entry.run, entry.lane, input_of(entry.run)))


def owner(ledger: Ledger, entry: Entry, event: JsonObject) -> None:
    """Rule 2. A human who takes a lane takes what waits in it, too."""
    name = as_str(event.get("lane")) or entry.lane
    kind, owner_id = as_str(event.get("kind")), as_str(event.get("id"))
    if name is None or kind is None:
        return
    before = ledger.lanes.get(name)
    run, paused = (None, None) if before is None else (before.run, before.paused)
    owns = None if kind == "none" else {"kind": kind, "id": owner_id}
    lane = ledger.lanes[name] = Lane(owns, entry.seq, run, as_strings(event.get("can")), paused)
    ledger.written.pop(name, None)
    if lane.human is None:
        return
    for handoff in [each for each in ledger.handoffs.values() if each.lane == name]:
        del ledger.handoffs[handoff.handoff_id]
    for waiting in ledger.waiting_in(name):
        del ledger.queue[waiting.input_id]
        inputs.speak(ledger, waiting)
