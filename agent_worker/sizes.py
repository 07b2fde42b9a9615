"""How large what an agent says may be."""

from __future__ import annotations

import orjson

from agent_worker.errors import ContentTooLarge
from agent_worker.lane import EVENT_BYTES_MAX
from broker.codec import event_to_wire
from broker.depth import SENT_DEPTH_MAX, is_deeper
from broker.events import Event


def check_size(event: Event) -> None:
    """Raises ContentTooLarge for an event that is too large for the log, or that JSON cannot hold."""
    wire = event_to_wire(event)
    try:
        body = orjson.dumps(wire)
    except orjson.JSONEncodeError as error:
        raise ContentTooLarge(f"the event is no JSON: {error}") from None
    if is_deeper(wire, body, SENT_DEPTH_MAX):
        raise ContentTooLarge(f"the event is nested in more than {SENT_DEPTH_MAX} levels: say it flatter")
    size = len(body)
    if size > EVENT_BYTES_MAX:
        raise ContentTooLarge(f"the event has {size} bytes, the limit is {EVENT_BYTES_MAX}: keep the data elsewhere")
