"""`handoff.claim` and `handoff.return`: a human takes a lane, and gives it back."""

from __future__ import annotations

from typing import Any

from broker.clock import now_ms
from broker.codec import by_to_wire
from broker.errors import ErrorCode, Refused, Unavailable, WrongSequence
from broker.events import HandoffReturned, Participant
from broker.fold.handoffs import may_return
from broker.state import SessionState
from broker.subjects import MAIN_LANE
from gateway.auth import Identity, Right
from gateway.commands.context import CommandContext, not_allowed
from gateway.feed import Feed
from gateway.handed_over import close_left_open
from gateway.plane import HandoffClaim, HandoffReturn

_TRIES = 8
"""Claims of a lane that workers claim at the same time; each of them loses to another that has won."""


async def claim(ctx: CommandContext, command: HandoffClaim, who: Identity) -> dict[str, Any]:
    """Takes the lane, and ends there what the agent was doing. Raises Refused, Unavailable."""
    async with ctx.session(command.session) as feed:
        for _ in range(_TRIES):
            lane = _checked_lane(feed.state, command, who)
            human = feed.state.lane(lane).human
            unasked = command.handoff_id is None
            if human is not None and human.id != who.id and not unasked:
                raise _already_claimed(human)
            own = human is not None and human.id == who.id
            fence = feed.state.lane(lane).fence if own else await _claim(ctx, feed, lane, who)
            if fence is not None:
                await feed.reached(await close_left_open(ctx.log, feed.subjects, feed.state, lane))
                return {"lane": lane, "fence": fence}
    raise Unavailable("the lane was claimed by others again and again")


async def _claim(ctx: CommandContext, feed: Feed, lane: str, who: Identity) -> int | None:
    """The fence; None if somebody else was first, whose claim has been folded then."""
    owner = Participant("user", who.id, who.name)
    try:
        fence = await ctx.log.claim(feed.subjects, lane, feed.state.lane(lane).fence, owner, now_ms())
    except WrongSequence:
        await ctx.catch_up(feed)
        return None
    await feed.reached(fence)
    return fence


def _checked_lane(state: SessionState, command: HandoffClaim, who: Identity) -> str:
    """The lane that the command means, if `who` may take it. Raises Refused."""
    admin = who.may(Right.ADMIN, command.session)
    if command.handoff_id is None:
        if not admin:
            raise not_allowed(Right.ADMIN, "only an admin may take a lane unasked")
        return command.lane or MAIN_LANE
    who.require(Right.STEER, command.session)
    handoff = state.handoffs.get(command.handoff_id)
    if handoff is None:
        return _ended_lane(state, command, who)
    if command.lane not in (None, handoff.lane) or handoff.status not in ("waiting", "accepted"):
        raise _not_found()
    if not admin and handoff.to not in who.roles:
        raise Refused(ErrorCode.ROLE_REQUIRED, "the hand-over is for another role", roles=[handoff.to])
    if handoff.status == "accepted" and handoff.by is not None and handoff.by.id != who.id:
        raise _already_claimed(handoff.by)
    return handoff.lane


def _ended_lane(state: SessionState, command: HandoffClaim, who: Identity) -> str:
    """Of a hand-over whose run is over: the lane, if it was `who` that took it and has it still. Raises Refused."""
    ended = state.end_of(command.handoff_id or "")
    if ended is None or ended.status != "accepted":
        raise _not_found()
    lane = command.lane or MAIN_LANE
    human = state.lane(lane).human
    if human is None or human.id != who.id:
        raise _already_claimed(human)
    return lane


def _not_found() -> Refused:
    return Refused(ErrorCode.HANDOFF_NOT_FOUND, "no such hand-over waits")


def _already_claimed(human: Participant | None) -> Refused:
    return Refused(ErrorCode.ALREADY_CLAIMED, "somebody else has taken the lane", by=by_to_wire(human))


async def give_back(ctx: CommandContext, command: HandoffReturn, who: Identity) -> dict[str, Any]:
    """Raises Refused, Unavailable."""
    who.require(Right.STEER, command.session)
    ctx.check_size("note", command.note)
    async with ctx.session(command.session) as feed:
        used = command.input_id in feed.state.seen
        if may_return(feed.state, command.lane, who.participant()):
            if used and command.note:
                text = "`inputId` has been used before: the note would be lost"
                raise Refused(ErrorCode.BAD_COMMAND, text, field="inputId")
            await feed.reached(await close_left_open(ctx.log, feed.subjects, feed.state, command.lane))
            event = HandoffReturned(command.lane, command.input_id, command.note)
            folded = await ctx.append(feed, ctx.entry(event, who, f"return:{command.input_id}"))
            if may_return(folded.state, command.lane, who.participant()):
                raise Refused(ErrorCode.NOT_OWNER, "the lane was not given back: this `inputId` has been used before")
        elif not used:
            raise Refused(ErrorCode.NOT_OWNER, "you do not have the lane")
        await ctx.offer_job(feed, feed.state, command.lane)
        return {"lane": command.lane}
