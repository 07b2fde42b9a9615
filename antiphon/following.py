"""`antiphon trace`: finds a request in the log, and shows the way it went. It speaks to NATS, not to a gateway."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from antiphon.processes import BrokerSettings, reached
from antiphon.timeline import Moment, RunSpan, Timeline, as_lines, as_wire, with_text
from broker.interfaces import Of
from broker.jetstream.connection import Connection
from broker.jetstream.directory import JetStreamDirectory
from broker.jetstream.log import JetStreamLog
from broker.loading import entry_of, load_state
from broker.subjects import SessionSubjects
from broker.tracing import is_trace_id

SESSIONS_MAX = 200
"""Sessions, the latest that somebody was active in, that are searched if none is named."""
RECORDS_MAX = 200_000
"""Records of theirs that are read for a trace id."""


@asynccontextmanager
async def _log(broker: BrokerSettings) -> AsyncIterator[tuple[Connection, JetStreamLog]]:
    async with Connection(broker.nats, name="antiphon-trace") as connection:
        await reached(connection)
        async with JetStreamLog(connection, broker.log) as log:
            await log.prepare()
            yield connection, log


@dataclass(frozen=True, slots=True)
class _Found:
    session: str
    timeline: Timeline


async def trace(broker: BrokerSettings, id_: str, session: str | None, *, as_json: bool) -> int:
    """Returns the exit code: 1 if there is no such request. Raises InvalidName, Unavailable."""
    async with _log(broker) as (connection, log):
        if session is None:
            found = await _search(log, JetStreamDirectory(connection), id_)
        else:
            found = await _in(log, session, id_)
        if found is None:
            where = f"in {session!r}" if session is not None else "in the sessions of late: name its --session"
            print(f"antiphon: there is no request {id_!r} {where}", file=sys.stderr)
            return 1
        subjects, timeline = log.subjects(found.session), found.timeline
        text = [moment for span in timeline.text for moment in await _text(log, subjects, span)]
    _show(found, id_, with_text(timeline.moments, text), as_json=as_json)
    return 0


async def _search(log: JetStreamLog, directory: JetStreamDirectory, id_: str) -> _Found | None:
    """Looks through the sessions of late. Their states remember inputs; for a trace their records are read."""
    budget = RECORDS_MAX
    for session in await directory.latest("user", SESSIONS_MAX):
        if is_trace_id(id_):
            subjects = log.subjects(session)
            timeline, budget = await _read(log, subjects, id_, budget)
            if timeline.moments:
                # What is over the budget of a search is not over that of an answer.
                return await _in(log, session, id_)
            if budget <= 0:
                return None
        elif id_.removeprefix("run_") in (await load_state(log, log.subjects(session))).seen:
            return await _in(log, session, id_)
    return None


async def _in(log: JetStreamLog, session: str, id_: str) -> _Found | None:
    timeline, _ = await _read(log, log.subjects(session), id_, None)
    return _Found(session, timeline) if timeline.moments else None


async def _read(log: JetStreamLog, subjects: SessionSubjects, id_: str, budget: int | None) -> tuple[Timeline, int]:
    """The request in a session, and what is left of the records that may be read; None: all of the session."""
    timeline, position, end = Timeline(id_), 0, False
    left = 0 if budget is None else budget
    while not end and (budget is None or left > 0):
        page, end = await log.read(subjects, position, Of.RECORDS)
        left -= len(page)
        for stored in page:
            position = stored.seq
            entry = entry_of(stored)
            if entry is not None:
                timeline.take(stored.seq, entry)
    return timeline, left


async def _text(log: JetStreamLog, subjects: SessionSubjects, span: RunSpan) -> list[Moment]:
    """The first and the last token of a run, as far as its deltas have not aged out."""
    first: Moment | None = None
    last: Moment | None = None
    position, end, count = span.start, False, 0
    while not end:
        page, end = await log.read_deltas(subjects, span.lane, position)
        for stored in page:
            position = stored.seq
            if span.end is not None and stored.seq > span.end:
                end = True
                break
            entry = entry_of(stored)
            if entry is None or not entry.events:
                continue
            count += 1
            last = Moment(stored.seq, entry.ts, "last token", span.lane, span.run, {"deltas": count})
            first = first or replace(last, what="first token", ids={})
    return [moment for moment in (first, last) if moment is not None]


def _show(found: _Found, id_: str, moments: list[Moment], *, as_json: bool) -> None:
    timeline = found.timeline
    traces = list(timeline.trace_ids)
    if as_json:
        wire = {
            "id": id_,
            "session": found.session,
            "traces": traces,
            "ended": timeline.ended,
            "moments": as_wire(moments),
        }
        print(json.dumps(wire))
        return
    state = "ended" if timeline.ended else "goes on"
    print(f"{id_} in {found.session}, {state}; trace {', '.join(traces) or 'none'}")
    for line in as_lines(moments):
        print(line)
