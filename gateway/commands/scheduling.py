"""Inputs that are to be sent later: what `input.send` adds for them, and what happens when they are due."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum

import structlog

from broker.clock import now_ms
from broker.errors import ErrorCode, LogError, Refused, WrongSequence
from broker.events import Entry, InputCancelRequested, InputScheduled, InputSent, Participant
from broker.fold import inputs
from broker.loading import read_entry
from broker.state import ScheduledInput, SessionState
from broker.subjects import AlarmPlace
from gateway.auth import Identity
from gateway.commands.context import CommandContext
from gateway.feed import Feed
from gateway.protocol import InputSend

_log = structlog.get_logger("antiphon.schedule")

_CLOCK = Participant("system", "antiphon")
_UNKNOWN_S = 1.0
_UNKNOWN_DELIVERIES = 30
"""An alarm is set before its input is stored. For so many deliveries, a second apart, the input may still come."""
_TRIES = 8
"""In a session where people send all the time; then it is put off for a moment."""
_RACE_S = 0.5
_PATIENCE = 4
"""What is due and has to wait is looked at again after so large a part of the time for which it has waited."""
_AGAIN_MIN_S, _AGAIN_MAX_S = 1.0, 300.0


class Outcome(StrEnum):
    """What has become of an alarm that has gone off."""

    SENT = "sent"
    WAITS = "waits"
    """The session is closed, or its queue is full."""
    GIVEN_UP = "given_up"
    """It has waited for too long, and was taken back."""
    EARLY = "early"
    """By the gateway's clock it is not time yet."""
    VOID = "void"
    """There is nothing scheduled by this name (any more)."""
    UNKNOWN = "unknown"
    """The same, so far."""


@dataclass(frozen=True, slots=True)
class Due:
    """The outcome; `again_s`: when to look again, if need be; `late_s`: how late it was sent."""

    outcome: Outcome
    again_s: float | None = None
    late_s: float | None = None


def time_of(ctx: CommandContext, command: InputSend) -> int | None:
    """When the input is to be sent; None: now. Raises Refused (too_far_ahead)."""
    now = now_ms()
    at = command.at if command.delay_ms is None else now + command.delay_ms
    if at is None or at <= now:
        return None
    ahead_s = ctx.settings.schedule_ahead_s
    if at - now > ahead_s * 1000:
        text = f"an input may be scheduled {ahead_s:g} s ahead at most"
        raise Refused(ErrorCode.TOO_FAR_AHEAD, text, limit=ahead_s)
    return at


def check_mode(state: SessionState, command: InputSend, who: Identity) -> None:
    """What the session's config does not allow today is not promised for later. Raises Refused."""
    if command.mode is not None and not state.config.allows_mode(who.roles, command.mode):
        raise Refused(ErrorCode.MODE_NOT_ALLOWED, "the session's config does not let your roles use this mode")


def alarm_of(feed: Feed, input_id: str) -> AlarmPlace:
    """Where the alarm of an input is, as the session stands now."""
    return AlarmPlace(feed.subjects.key, feed.state.deleted_seq, input_id)


async def keep(ctx: CommandContext, feed: Feed, input_id: str) -> None:
    """Sees to it that an input which is scheduled has its alarm. Raises Unavailable."""
    planned = feed.state.planned(input_id)
    if planned is not None and not await ctx.alarms.is_set(alarm_of(feed, input_id)):
        await ctx.alarms.set(alarm_of(feed, input_id), planned.at)


async def forget(ctx: CommandContext, feed: Feed, input_id: str) -> None:
    """Takes off the alarm of an input that is not scheduled any more. One that stays is heard, and means nothing."""
    with suppress(LogError):
        await ctx.alarms.clear(alarm_of(feed, input_id))


async def make_due(ctx: CommandContext, place: AlarmPlace, delivery: int) -> Due:
    """Sends the input, if the log says that it is scheduled and the clock that it is time. Raises Unavailable."""
    async with ctx.hub.session(place.session) as feed:
        for _ in range(_TRIES):
            await feed.ready()
            await ctx.catch_up(feed)
            last = await ctx.log.last_input(feed.subjects)
            await feed.reached(last)
            state = feed.state
            if state.deleted_seq != place.begun:
                return Due(Outcome.VOID)
            planned = state.planned(place.input_id)
            if planned is None:
                known = place.input_id in state.seen or delivery > _UNKNOWN_DELIVERIES
                return Due(Outcome.VOID) if known else Due(Outcome.UNKNOWN, _UNKNOWN_S)
            early_ms = planned.at - now_ms()
            if early_ms > 0:
                return Due(Outcome.EARLY, early_ms / 1000)
            # Somebody may have sent, cancelled or deleted in between: then all of it is looked at once more.
            with suppress(WrongSequence):
                return await _send(ctx, feed, planned, last)
    return Due(Outcome.WAITS, _RACE_S)


async def _send(ctx: CommandContext, feed: Feed, planned: ScheduledInput, last: int) -> Due:
    """Raises WrongSequence if what is to be sent is not the next that a participant says, after entry `last`."""
    entry = await _due_entry(ctx, feed, planned)
    if entry is None:
        return Due(Outcome.VOID)
    event, now = entry.events[0], now_ms()
    assert isinstance(event, InputSent)
    foreseen = inputs.sent(feed.state, feed.state.as_of + 1, entry, event)
    late_s = (now - planned.at) / 1000
    if foreseen.planned(planned.input_id) is not None:
        if late_s <= ctx.settings.schedule_keep_s:
            return Due(Outcome.WAITS, min(max(late_s / _PATIENCE, _AGAIN_MIN_S), _AGAIN_MAX_S))
        await _give_up(ctx, feed, planned, last)
        return Due(Outcome.GIVEN_UP)
    folded = await ctx.append(feed, entry, foreseen, expected=last)
    if folded.state.planned(planned.input_id) is not None:
        return Due(Outcome.WAITS, _RACE_S)
    _log.info("scheduled input sent", session=feed.session, input=planned.input_id, seq=folded.seq)
    return Due(Outcome.SENT, late_s=late_s)


async def _due_entry(ctx: CommandContext, feed: Feed, planned: ScheduledInput) -> Entry | None:
    """The input as its sender would send it now; None if what scheduled it is not in the log any more."""
    stored = await read_entry(ctx.log, feed.subjects, planned.seq)
    wanted = (e for e in stored.events if isinstance(e, InputScheduled) and e.input_id == planned.input_id)
    event = next(wanted, None)
    if event is None:
        return None
    sent = InputSent(event.input_id, event.content, event.mode, event.attachments, event.at)
    # A try after one that counted for nothing is another entry.
    id_ = f"due:{planned.input_id}:{feed.state.as_of}"
    return Entry(id_, now_ms(), (sent,), by=stored.by, trace=stored.trace, via=_via(ctx))


def _via(ctx: CommandContext) -> str | None:
    return ctx.trace.gateway


async def _give_up(ctx: CommandContext, feed: Feed, planned: ScheduledInput, last: int) -> None:
    event = InputCancelRequested(planned.input_id)
    entry = Entry(f"cancel:{planned.input_id}", now_ms(), (event,), by=_CLOCK, via=_via(ctx))
    await ctx.append(feed, entry, expected=last)
    _log.warning("a scheduled input was taken back: it could not be sent", session=feed.session, input=planned.input_id)
