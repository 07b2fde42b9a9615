"""`antiphon dead`: inputs that were given up because workers died of them. Seen by the log, sent again into it."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass

from antiphon.processes import BrokerSettings
from antiphon.transfer import Site
from broker.clock import now_ms, utc_text
from broker.dead import Dead, dead_of, retry_id
from broker.errors import ConfigError
from broker.events import Entry, InputSent
from broker.interfaces import Of
from broker.jetstream.directory import JetStreamDirectory
from broker.lease import queue_of
from broker.loading import entry_of, load_state
from broker.subjects import MAIN_LANE, SessionSubjects

SESSIONS_MAX = 1_000
"""Sessions that a listing looks at: those in which an input was given up last."""
NOTED = "dead"
"""The kind of the directory's notes."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to list: of one session, or of all; also those that have been sent again."""

    session: str | None = None
    retried: bool = False
    as_json: bool = False


async def list_dead(broker: BrokerSettings, wanted: Wanted) -> int:
    """Prints a line for each. Returns 0. Raises InvalidName, Unavailable."""
    async with Site.of(broker) as site:
        directory = JetStreamDirectory(site.connection)
        keys = [wanted.session] if wanted.session else await directory.latest(NOTED, SESSIONS_MAX)
        for key in keys:
            for dead in await _dead(site, site.log.subjects(key)):
                if wanted.retried or not dead.retried:
                    print(_json(key, dead) if wanted.as_json else _line(key, dead))
    return 0


async def show_dead(broker: BrokerSettings, session: str, input_id: str) -> int:
    """Prints all of one, what was said included. Raises ConfigError, InvalidName, Unavailable."""
    async with Site.of(broker) as site:
        dead = await _find(site, site.log.subjects(session), input_id)
    print(_line(session, dead))
    for queued in dead.inputs:
        by = "nobody" if queued.by is None else queued.by.id
        print(f"\n{queued.input_id} by {by}:\n{queued.content}")
        for reference in queued.attachments:
            print(f"[{reference.get('name')}, {reference.get('size')} bytes]")
    return 0


async def retry_dead(broker: BrokerSettings, session: str, input_id: str) -> int:
    """Sends it again, as its sender did. Returns 1 if the session does not take it. Raises as `show_dead`."""
    async with Site.of(broker) as site:
        subjects = site.log.subjects(session)
        dead = await _find(site, subjects, input_id)
        if dead.retried:
            print(f"{dead.input_id} has been sent again already, as {retry_id(dead.input_id)}")
            return 0
        for queued in dead.inputs:
            new = retry_id(queued.input_id)
            event = InputSent(new, queued.content, attachments=[dict(r) for r in queued.attachments] or None)
            await site.log.append_input(subjects, Entry(new, now_ms(), (event,), by=queued.by), new)
        state = await load_state(site.log, subjects)
        await site.jobs.offer(subjects, MAIN_LANE, *queue_of(state, MAIN_LANE))
        fate = state.fate(retry_id(dead.input_id))
        if fate is not None and fate.status == "refused":
            print(f"antiphon: the session does not take it: {fate.code}", file=sys.stderr)
            return 1
        if all(other.retried for other in await _dead(site, subjects)):
            await site.directory.forget(NOTED, "", subjects.key)
    print(f"{dead.input_id} is sent again, as {retry_id(dead.input_id)}")
    return 0


async def _dead(site: Site, subjects: SessionSubjects) -> list[Dead]:
    entries: list[tuple[int, Entry]] = []
    position, end = 0, False
    while not end:
        page, end = await site.log.read(subjects, position, Of.RECORDS)
        for stored in page:
            position, entry = stored.seq, entry_of(stored)
            if entry is not None:
                entries.append((stored.seq, entry))
    return dead_of(entries)


async def _find(site: Site, subjects: SessionSubjects, input_id: str) -> Dead:
    for dead in await _dead(site, subjects):
        if input_id in (dead.input_id, dead.run_id):
            return dead
    raise ConfigError(f"no input {input_id!r} of the session {subjects.key!r} was given up: see `antiphon dead list`")


def _line(session: str, dead: Dead) -> str:
    again = "  sent again" if dead.retried else ""
    return f"{utc_text(dead.ts)}  {session}  {dead.input_id}  workers lost: {dead.lost}{again}"


def _json(session: str, dead: Dead) -> str:
    by = dead.inputs[0].by
    wire = {
        "session": session,
        "inputId": dead.input_id,
        "runId": dead.run_id,
        "ts": dead.ts,
        "lost": dead.lost,
        "reason": dead.reason,
        "by": None if by is None else by.id,
        "retried": dead.retried,
    }
    return json.dumps(wire)
