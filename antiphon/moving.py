"""`antiphon move`: sessions from one log into another: another cluster, or the same with another number of partitions.

A session is copied while it is in use, then closed, copied to its end, compared, and opened in the other log. So it stands
still only for its last entries. Every step may be repeated: a move that was cut short is run again.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Final

from antiphon.backup import Notes, Tally, each
from antiphon.processes import BrokerSettings
from antiphon.transfer import Site, settle, users_of
from broker.clock import now_ms
from broker.errors import AntiphonError
from broker.events import Entry, Event, Participant, SessionClosed, SessionDeleted, SessionReopened
from broker.interfaces import Of
from broker.jetstream.catalogue import sessions_of
from broker.loading import load_state
from broker.subjects import SessionSubjects
from broker.transfer import Into, Restored, exported, restore

MOVER: Final = Participant("system", "antiphon-move")
_LOOK_S: Final = 0.2


class Busy(AntiphonError):
    """A run does not end, or somebody goes on writing: the session is where it was."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to move, and how long a session's run may take to end."""

    pattern: str
    at_once: int
    wait_s: float
    delete: bool


async def move(source: BrokerSettings, target: BrokerSettings, plan: Plan) -> int:
    """Moves the sessions that match. Returns 1 if one could not be moved. Raises TopologyError, Unavailable."""
    tally = Tally()
    async with Site.of(source) as old, Site.of(target) as new:
        await _refuse_same(old, new)
        with Notes() as notes:
            for partition in range(old.log.partitions):
                names = sessions_of(old.connection, partition, plan.pattern)
                await each(names, plan.at_once, partial(_move_one, old, new, plan, tally, notes))
            for kind, whose, session, ts in notes:
                await new.directory.note(kind, whose, session, ts)
    print(f"{tally.done} sessions moved ({tally.entries} entries), {len(tally.failed)} failed")
    return 1 if tally.failed else 0


async def _refuse_same(old: Site, new: Site) -> None:
    """Raises Busy if both are one log: a session would be closed, found to be there already, and deleted."""
    probe = SessionSubjects.of("probe", 1)
    if await old.log.epoch(probe) == await new.log.epoch(probe):
        raise Busy("both addresses lead to the same log")


async def _move_one(old: Site, new: Site, plan: Plan, tally: Tally, notes: Notes, session: str) -> None:
    try:
        state = await load_state(old.log, old.log.subjects(session))
        if state.deleted_seq and state.deleted_seq == state.as_of:
            return  # nothing is left of it here
        restored = await _moved(old, new, plan, session)
        found = users_of(restored) + await settle(new, new.log.subjects(session))
        notes.add((kind, whose, session, ts) for kind, whose, ts in found)
        if plan.delete:
            await _delete(old, session, restored.active)
    except AntiphonError as error:
        tally.fail(session, error)
        return
    tally.done += 1
    tally.entries += restored.written + restored.present


async def _moved(old: Site, new: Site, plan: Plan, session: str) -> Restored:
    """A session, whole and open in the new log, closed in the old one. Raises Busy, TransferError, Unavailable."""
    here, there = old.log.subjects(session), new.log.subjects(session)
    before = await restore(
        new.log, there, exported(old.log, here, old.attachments), into=Into.PART, attachments=new.attachments
    )
    state = await load_state(old.log, here)
    ours = not state.closed or before.closed_by == MOVER
    if not state.closed:
        await _say(old, session, SessionClosed())
    try:
        restored = await _copy_the_end(old, new, plan, session)
    except BaseException:
        # Where an earlier move has opened it in the new log it must not be open in both.
        if ours and not before.beyond:
            await _say(old, session, SessionReopened())
        raise
    if ours and not restored.beyond:
        await _say(new, session, SessionReopened())
    return restored


async def _copy_the_end(old: Site, new: Site, plan: Plan, session: str) -> Restored:
    """Of a session that is closed, when nothing runs there any more. Raises Busy, TransferError, Unavailable."""
    here, there = old.log.subjects(session), new.log.subjects(session)
    deadline = asyncio.get_running_loop().time() + plan.wait_s
    while True:
        head, state = await old.log.head(here, Of.RECORDS), await load_state(old.log, here)
        if state.idle and head is not None and state.as_of == head.seq:
            restored = await restore(
                new.log, there, exported(old.log, here, old.attachments), into=Into.PART, attachments=new.attachments
            )
            # A worker may still say that it has let go of a lane.
            if await old.log.head(here, Of.RECORDS) == head:
                await restore(
                    new.log,
                    there,
                    exported(old.log, here, old.attachments),
                    into=Into.SAME,
                    attachments=new.attachments,
                )
                return restored
        if asyncio.get_running_loop().time() > deadline:
            what = f"{len(state.runs)} runs and {len(state.inputs)} inputs are left after {plan.wait_s:g} s"
            raise Busy(f"it stays where it is: {what}")
        await asyncio.sleep(_LOOK_S)


async def _delete(site: Site, session: str, users: Iterable[str]) -> None:
    """As `session.delete` does: an entry that says so, then all that was before it goes, and the notes."""
    subjects = site.log.subjects(session)
    seq = await _say(site, session, SessionDeleted())
    await site.log.forget_before(subjects, seq)
    for user in users:
        await site.directory.forget("user", user, session)


async def _say(site: Site, session: str, event: Event) -> int:
    entry = Entry(f"move:{secrets.token_hex(8)}", now_ms(), (event,), by=MOVER)
    return (await site.log.append_input(site.log.subjects(session), entry, entry.id)).seq
