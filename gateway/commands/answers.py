"""What a run has come to: for who asked for an answer and does not follow the session."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from broker.errors import ErrorCode, Refused, Unavailable
from broker.events import Entry, Event, RunCacheable, RunError, RunFinished
from broker.interfaces import Of
from broker.loading import entry_of, read_messages
from broker.state import SessionState
from broker.subjects import SessionSubjects, input_id_of
from gateway.auth import Identity, Right
from gateway.commands.context import CommandContext

_STALE_WAIT_S = 0.02
_STALE_TRIES = 250


@dataclass(slots=True)
class _Ending:
    """The end of a run, as its records tell it. `seq` 0: it is not there yet."""

    run_id: str
    seq: int = 0
    ts: int = 0
    max_age_s: int | None = None
    reason: str | None = None
    error: dict[str, Any] | None = None

    def take(self, seq: int, entry: Entry) -> None:
        for event in entry.events:
            self._take(seq, entry, event)

    def _take(self, seq: int, entry: Entry, event: Event) -> None:
        own = entry.run == self.run_id
        match event:
            case RunCacheable() if event.run_id == self.run_id:
                self.max_age_s = event.max_age_s
            case RunFinished() if event.run_id == self.run_id:
                self.seq, self.ts = seq, entry.ts
                reason = (event.outcome or {}).get("reason")
                self.reason = reason if isinstance(reason, str) else None
            case RunError() if own:
                self.seq, self.ts = seq, entry.ts
                self.error = {"code": event.code, "message": event.message}


@dataclass(frozen=True, slots=True)
class Answer:
    """A run as clients see it, and how long it may be given again.

    `wire` is its JSON; `ended_seq` the entry that ended it (0: it has not, or long ago), `ended_ts` that entry's time.
    """

    wire: dict[str, Any] = field(default_factory=dict)
    ended_seq: int = 0
    ended_ts: int = 0
    max_age_s: int | None = None


def is_over(state: SessionState, run_id: str) -> bool:
    """Nothing more comes of the run: it has ended, or can never start."""
    input_id = input_id_of(run_id)
    if run_id in state.runs or state.queued(input_id) is not None or state.planned(input_id) is not None:
        return False
    # An input that has just been applied is in a run that has just begun; one that nobody knows comes to nothing.
    return input_id in state.seen or state.end_of(run_id) is not None


async def answer(ctx: CommandContext, session: str, run_id: str, who: Identity) -> Answer:
    """The run as it is now. Raises Refused (not_allowed, run_not_found), InvalidName, Unavailable."""
    who.require(Right.READ, session)
    async with ctx.session(session) as feed:
        return await _answer(ctx, feed.subjects, feed.state, run_id)


async def _answer(ctx: CommandContext, subjects: SessionSubjects, state: SessionState, run_id: str) -> Answer:
    input_id = input_id_of(run_id)
    wire: dict[str, Any] = {"session": subjects.session, "runId": run_id, "inputId": input_id}
    wire |= {"status": _status(state, run_id), "reason": None, "error": None, "text": None, "messages": []}
    ended, fate = state.end_of(run_id), state.fate(input_id)
    if ended is None and fate is not None and fate.status in ("cancelled", "failed"):
        return Answer(wire | {"reason": fate.code})
    if ended is None or fate is None:
        return Answer(wire)
    ending = await _read_ending(ctx, subjects, run_id, fate.seq)
    found = await read_messages(ctx.log, subjects, ending.seq + 1, 1)
    messages = [message for message in found if message.run == run_id and message.role != "user"]
    wire |= {
        "reason": ending.reason,
        "error": ending.error,
        "text": "".join(message.text for message in messages if message.role == "assistant"),
        "messages": [message.as_dict() for message in messages],
    }
    return Answer(wire, ending.seq, ending.ts, ending.max_age_s if ended.status == "success" else None)


def _status(state: SessionState, run_id: str) -> str:
    """scheduled, queued, running, requires_action, success, cancelled, error, failed, or ended (how is long forgotten).

    Raises Refused (run_not_found).
    """
    input_id = input_id_of(run_id)
    if run_id in state.runs:
        return "requires_action" if _waits_for_people(state, run_id) else "running"
    if state.queued(input_id) is not None:
        return "queued"
    if state.planned(input_id) is not None:
        return "scheduled"
    ended, fate = state.end_of(run_id), state.fate(input_id)
    if ended is not None:
        return ended.status
    if fate is not None and fate.status in ("cancelled", "failed"):
        return fate.status
    went_elsewhere = fate is not None and fate.run != run_id
    if input_id not in state.seen or went_elsewhere:
        raise Refused(ErrorCode.RUN_NOT_FOUND, "the session has no such run", runId=run_id)
    return "ended"


def _waits_for_people(state: SessionState, run_id: str) -> bool:
    return (
        any(a.run == run_id and a.status == "pending" for a in state.approvals.values())
        or any(c.run == run_id and c.status == "open" and c.executor == "client" for c in state.calls.values())
        or any(h.run == run_id and h.status == "waiting" for h in state.handoffs.values())
    )


async def _read_ending(ctx: CommandContext, subjects: SessionSubjects, run_id: str, after: int) -> _Ending:
    """Reads the records of a run that has ended, from its input on; waits for a replica that lags behind its end."""
    ending, position = _Ending(run_id), after
    for _ in range(_STALE_TRIES):
        end = False
        while not end:
            entries, end = await ctx.log.read(subjects, position, Of.RECORDS)
            for stored in entries:
                position = stored.seq
                entry = entry_of(stored)
                if entry is not None:
                    ending.take(position, entry)
                if ending.seq:
                    return ending
        await asyncio.sleep(_STALE_WAIT_S)
    raise Unavailable("a replica of the log stays behind")
