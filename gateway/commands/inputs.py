"""`input.send` and `input.cancel`."""

from __future__ import annotations

from typing import Any

import structlog

from broker.errors import ErrorCode, Refused
from broker.events import Entry, InputCancelRequested, InputScheduled, InputSent
from broker.fold import inputs, schedule
from broker.lease import has_work
from broker.state import MAX_SCHEDULED, MAX_SCHEDULED_BYTES, InputFate, QueuedInput, ScheduledInput, SessionState
from broker.subjects import MAIN_LANE, run_id_of
from gateway.attachments import place_of
from gateway.auth import Identity, Right
from gateway.commands import scheduling
from gateway.commands.context import CommandContext, Folded, not_allowed
from gateway.feed import Feed
from gateway.protocol import InputCancel, InputSend

_log = structlog.get_logger("antiphon.input")

_STEERING = ("inject", *inputs.OVERTAKING)
"""Modes that change what an agent is doing for others."""

_REFUSALS: dict[str, tuple[ErrorCode, str]] = {
    "queue_full": (ErrorCode.QUEUE_FULL, "as many inputs wait as may; send again later"),
    "session_full": (ErrorCode.SESSION_FULL, "the session holds its maximum of inputs; go on in a new one"),
    "schedule_full": (ErrorCode.SCHEDULE_FULL, "as much is scheduled as may be; take something back, or wait"),
    "session_closed": (ErrorCode.SESSION_CLOSED, "the session is closed"),
    "busy": (ErrorCode.BUSY, "a run is active, or inputs wait, and the mode is `reject`"),
    "cannot_inject": (ErrorCode.CANNOT_INJECT, "the agent takes no inputs in the middle of a run"),
    "mode_not_allowed": (ErrorCode.MODE_NOT_ALLOWED, "the session's config does not let your roles use this mode"),
}


async def send(ctx: CommandContext, command: InputSend, who: Identity) -> dict[str, Any]:
    """Raises Refused, Unavailable."""
    who.require(Right.SEND, command.session)
    if command.mode in _STEERING:
        who.require(Right.STEER, command.session)
    _check_size(ctx, command.content)
    at = scheduling.time_of(ctx, command)
    async with ctx.session(command.session, fresh=bool(command.attachments)) as feed:
        known = command.input_id in feed.state.seen
        if known:
            await scheduling.keep(ctx, feed, command.input_id)
            await ctx.offer_job(feed, feed.state, MAIN_LANE)
        else:
            known = await _store(ctx, feed, command, who, at)
        ctx.metrics.inputs.labels("duplicate" if known else "new").inc()
        await ctx.activity.note(command.session, who)
        receipt = _receipt(feed.state, command.input_id, who, duplicate=known)
        trace = ctx.trace.stored if not known else feed.state.trace_of(run_id_of(command.input_id))
        return receipt | ({} if trace is None else trace.headers)


async def _store(ctx: CommandContext, feed: Feed, command: InputSend, who: Identity, at: int | None) -> bool:
    """Stores a new input and calls a worker, or sets an alarm for `at`; whether it turns out to have been there before."""
    place = place_of(feed.subjects.key, feed.state)
    attachments = await ctx.attachments.find_all(place, command.attachments)
    references = [attachment.reference() for attachment in attachments] or None
    event: InputSent | InputScheduled = InputSent(command.input_id, command.content, command.mode, references)
    if at is not None:
        scheduling.check_mode(feed.state, command, who)
        event = InputScheduled(command.input_id, command.content, at, command.mode, references)
    entry = ctx.entry(event, who, command.input_id)
    foreseen = _foreseen(feed.state, entry, event)
    if _refused(foreseen, command.input_id) is not None:
        # This gateway may be a moment behind what the sender has seen at another one.
        await ctx.catch_up(feed)
        foreseen = _foreseen(feed.state, entry, event)
    fate = _refused(foreseen, command.input_id)
    if fate is not None:
        # It is not stored, so its id stays free.
        raise _refusal(fate, feed.state, who)
    # Before the log says that they belong to it: what it refers to must not run out.
    await ctx.attachments.use(place, attachments)
    async with ctx.begins(feed):
        if at is not None:
            # Before the log says that it is scheduled: without an alarm nobody would look.
            await ctx.alarms.set(scheduling.alarm_of(feed, command.input_id), at)
        folded = await ctx.append(feed, entry, foreseen)
    _tell(command, folded, entry)
    if not has_work(foreseen, MAIN_LANE):
        # It looked as if a human had the lane, who may have given it back before the input came.
        await ctx.offer_job(feed, folded.state, MAIN_LANE)
    return folded.duplicate or _stored_earlier(folded.state, command.input_id, folded.seq)


def _tell(command: InputSend, folded: Folded, entry: Entry) -> None:
    trace = None if entry.trace is None else entry.trace.trace_id
    _log.info("input stored", session=command.session, input=command.input_id, seq=folded.seq, trace=trace)


def _foreseen(state: SessionState, entry: Entry, event: InputSent | InputScheduled) -> SessionState:
    """What the fold would make of the input, were it the next entry."""
    if isinstance(event, InputScheduled):
        return schedule.scheduled(state, state.as_of + 1, entry, event)
    return inputs.sent(state, state.as_of + 1, entry, event)


def _refused(state: SessionState, input_id: str) -> InputFate | None:
    fate = state.fate(input_id)
    return fate if fate is not None and fate.status == "refused" else None


def _check_size(ctx: CommandContext, content: str) -> None:
    size, limit = len(content.encode()), ctx.settings.input_bytes
    if size > limit:
        raise Refused(ErrorCode.CONTENT_TOO_LARGE, f"the content has {size} bytes, the limit is {limit}", limit=limit)


def _stored_earlier(state: SessionState, input_id: str, seq: int) -> bool:
    """Whether the input of this id is another entry, stored before ours."""
    found = state.queued(input_id) or state.planned(input_id) or state.fate(input_id)
    return found is not None and found.seq != seq


def _receipt(state: SessionState, input_id: str, who: Identity, *, duplicate: bool) -> dict[str, Any]:
    """What has become of an input by now. Raises Refused if it was refused."""
    run_id = run_id_of(input_id)
    receipt: dict[str, Any] = {"inputId": input_id, "runId": run_id, "duplicate": duplicate}
    receipt |= {"mode": None, "position": None, "reason": None}
    queued, planned, fate = state.queued(input_id), state.planned(input_id), state.fate(input_id)
    if queued is not None:
        return receipt | _waiting(state, queued)
    if planned is not None:
        return receipt | {"seq": planned.seq, "status": "scheduled", "mode": planned.mode, "at": planned.at}
    if fate is None:
        # Its end is long forgotten, or it is the input of a run that began long ago.
        return receipt | {"seq": None, "status": "applied" if run_id in state.runs else "ended"}
    if fate.status == "refused":
        raise _refusal(fate, state, who)
    if fate.status != "applied":
        return receipt | {"seq": fate.seq, "status": fate.status, "reason": fate.code}
    over = fate.run is not None and fate.run not in state.runs
    return receipt | {"seq": fate.seq, "runId": fate.run, "status": "ended" if over else "applied"}


def _waiting(state: SessionState, queued: QueuedInput) -> dict[str, Any]:
    reason = None if queued.mode in inputs.OVERTAKING else _held_by(state, queued.lane)
    return {
        "seq": queued.seq,
        "status": "queued" if reason is None else "pending",
        "mode": queued.mode,
        "position": state.queue(queued.lane).index(queued) + 1,
        "reason": reason,
    }


def _held_by(state: SessionState, lane: str) -> str | None:
    """What the lane's run waits for, and the inputs behind it; None if it goes on."""
    if any(a.lane == lane and a.status == "pending" for a in state.approvals.values()):
        return "approval"
    return "paused" if state.lane(lane).paused is not None else None


def _refusal(fate: InputFate, state: SessionState, who: Identity) -> Refused:
    code, message = _REFUSALS.get(fate.code or "", (ErrorCode.QUEUE_FULL, "the input was refused"))
    data: dict[str, Any] = {"inputId": fate.input_id}
    if code is ErrorCode.SCHEDULE_FULL:
        data |= {"limit": MAX_SCHEDULED, "limit_bytes": MAX_SCHEDULED_BYTES}
    if code is ErrorCode.QUEUE_FULL:
        data["limit"] = min(state.config.max_queue, state.config.queue_of(who.roles))
    return Refused(code, message, **data)


async def cancel(ctx: CommandContext, command: InputCancel, who: Identity) -> dict[str, Any]:
    """Raises Refused, Unavailable."""
    who.require(Right.SEND, command.session)
    async with ctx.session(command.session) as feed:
        state = feed.state
        queued, planned = state.queued(command.input_id), state.planned(command.input_id)
        waiting = queued or planned
        if waiting is not None:
            # What an agent has sent later it has sent for the people.
            of_agent = planned is not None and not _is_users(planned)
            if not of_agent and not _is_sender(waiting, who) and not who.may(Right.ADMIN, command.session):
                raise not_allowed(Right.ADMIN, "only its sender or an admin may take an input back")
            event, message_id = InputCancelRequested(command.input_id), f"cancel:{command.input_id}"
            entry = ctx.entry(event, who, message_id, None if queued is None else queued.trace)
            state = (await ctx.append(feed, entry)).state
        if planned is not None:
            await scheduling.forget(ctx, feed, command.input_id)
        return _cancelled(state, command.input_id)


def _is_users(planned: ScheduledInput) -> bool:
    return planned.by is not None and planned.by.kind == "user"


def _is_sender(waiting: QueuedInput | ScheduledInput, who: Identity) -> bool:
    return waiting.by is not None and (waiting.by.kind, waiting.by.id) == ("user", who.id)


def _cancelled(state: SessionState, input_id: str) -> dict[str, Any]:
    fate = state.fate(input_id)
    if fate is not None and fate.status == "cancelled":
        return {"inputId": input_id, "status": "cancelled"}
    if input_id in state.seen and (fate is None or fate.status != "refused"):
        raise Refused(ErrorCode.INPUT_ALREADY_APPLIED, "the input is no longer queued", inputId=input_id)
    raise Refused(ErrorCode.INPUT_NOT_FOUND, "the session has no such input", inputId=input_id)
