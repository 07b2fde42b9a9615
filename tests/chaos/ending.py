"""When all is over in a room: nothing runs or waits, nobody owns the lane, and everybody has seen everything."""

from __future__ import annotations

import asyncio

from broker.codec import decode_at, entry_from_wire, entry_to_wire
from broker.errors import LogError
from broker.jetstream.log import JetStreamLog
from broker.subjects import place_of
from broker.transcript import Transcript
from tests.chaos.history import Logged
from tests.chaos.load import Room

LOOK_S = 0.25
_READ_S = 10.0


async def waits_for(log: JetStreamLog, room: Room) -> str:
    """What a room still waits for; empty: nothing. Its log as it is now is among its records afterwards."""
    try:
        logged = await _read(log, room.session)
    except (LogError, TimeoutError) as error:
        return f"the log of {room.session}: {error}"
    room.logged = logged
    busy = [f"{client.name} for {sorted(client.commands)}" for client in room.clients if client.commands]
    busy += _at_work(logged)
    if not busy and logged:
        busy = [f"{client.name} at {client.last}" for client in room.clients if not client.reached(logged[-1].seq)]
    return ", ".join(busy)


def _at_work(logged: list[Logged]) -> list[str]:
    """Runs, inputs and owners that there are."""
    transcript = Transcript()
    for each in logged:
        transcript.apply(each.seq, entry_from_wire(each.entry))
    state = transcript.state
    owners = [f"the owner of {name}" for name, lane in state.lanes.items() if lane.owner is not None]
    return [*state.runs, *(queued.input_id for queued in state.inputs), *owners]


async def _read(log: JetStreamLog, session: str) -> list[Logged]:
    """All that the log holds of a session, up to the head that the stream's leader names."""
    subjects = log.subjects(session)
    head = await log.head(subjects)
    found: list[Logged] = []
    seen = 0
    async with asyncio.timeout(_READ_S):
        while head is not None and seen < head.seq:
            page, _ = await log.read(subjects, seen)
            for stored in page:
                seen = stored.seq
                place = place_of(stored.subject)
                assert place is not None, stored.subject
                found.append(Logged(seen, entry_to_wire(decode_at(place, stored.body)[0])))
    return found
