"""`history`: pages of finished messages."""

from __future__ import annotations

from typing import Any

from broker.loading import read_messages
from broker.transcript import Message
from gateway.auth import Identity, Right
from gateway.commands.context import CommandContext
from gateway.protocol import History


async def history(ctx: CommandContext, command: History, who: Identity) -> dict[str, Any]:
    """Raises Refused, Unavailable."""
    who.require(Right.READ, command.session)
    async with ctx.session(command.session, fresh=False) as feed:
        before = command.before if command.before is not None else feed.last + 1
        # One more than asked for tells whether there are more; what is still being said is not counted.
        want = command.limit + 1 + sum(len(lane.streams) for lane in feed.state.lanes.values())
        found = await read_messages(ctx.log, feed.subjects, before, want)
        done = [m for m in found if m.status == "done"]
        return _reply(done, command.limit, ctx.settings.history_chars)


def _reply(found: list[Message], limit: int, chars: int) -> dict[str, Any]:
    """As many of the latest as `limit` and `chars` allow, and at least one."""
    size, chosen = 0, 0
    for message in reversed(found):
        size += message.length
        if chosen == limit or (chosen and size > chars):
            break
        chosen += 1
    # The next page is asked for by an entry: what one entry added is not torn apart.
    while 0 < chosen < len(found) and found[-chosen - 1].seq == found[-chosen].seq:
        chosen += 1
    messages = found[len(found) - chosen :]
    more = len(found) > chosen
    return {"messages": [m.as_dict() for m in messages], "before": messages[0].seq if more else None}
