"""Rules 17 to 19: what a session is told about itself."""

from __future__ import annotations

from antiphon_client._json import JsonObject, as_object, as_objects, as_str
from antiphon_client.changes import Change, Emptied, Imported, InputDropped, Outcome, RunEnded
from antiphon_client.ledger import Ledger
from antiphon_client.protocol import Entry


def created(ledger: Ledger, entry: Entry, event: JsonObject) -> None:
    """Only the first one counts."""
    if not ledger.created:
        ledger.created = True
        updated(ledger, entry, event)


def updated(ledger: Ledger, _entry: Entry, event: JsonObject) -> None:
    """What is there and as it must be; the rest stays."""
    if (title := as_str(event.get("title"))) is not None:
        ledger.title = title
    if (metadata := as_object(event.get("metadata"))) is not None:
        ledger.metadata = metadata
    ledger.config = ledger.config.updated(as_object(event.get("config")) or {})


def closed(ledger: Ledger, _entry: Entry, _event: JsonObject) -> None:
    """Inputs are refused from here on."""
    ledger.closed = True


def reopened(ledger: Ledger, _entry: Entry, _event: JsonObject) -> None:
    """Inputs are taken again."""
    ledger.closed = False


def deleted(ledger: Ledger, _entry: Entry, _event: JsonObject) -> None:
    """Rule 18: nothing is left; who waits for an input or a run is told that it is over."""
    over: list[Change] = [InputDropped(input_id, "deleted") for input_id in (*ledger.queue, *ledger.scheduled)]
    over += [RunEnded(run_id, Outcome("cancelled", reason="deleted")) for run_id in ledger.runs]
    ledger.clear()
    ledger.changes += [*over, Emptied()]


def imported(ledger: Ledger, _entry: Entry, event: JsonObject) -> None:
    """Rule 19: the session begins with messages of another."""
    if not ledger.seen and (ledger.partial or not ledger.lanes):
        ledger.changes.append(Imported(as_objects(event.get("messages"))))
