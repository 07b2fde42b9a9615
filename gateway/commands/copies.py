"""`session.fork` and `session.delete`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import orjson

from broker.errors import ErrorCode, Refused
from broker.events import MessagesImported, SessionCreated, SessionDeleted
from broker.loading import read_messages
from broker.queues import Priority
from broker.session_config import config_to_wire
from broker.subjects import AttachmentPlace
from broker.transcript import Message
from gateway.attachments import place_of
from gateway.auth import Identity, Right
from gateway.commands.context import CommandContext, short_id
from gateway.commands.sessions import require_manager
from gateway.plane import SessionDelete, SessionFork

TEXT_BYTES_MAX = 16 << 20
"""Text that a fork may take along."""
MESSAGES_MAX = 20_000
_RECORD_BYTES = 512 << 10
_RECORD_MESSAGES = 50
"""Pages of history end between records."""


async def fork(ctx: CommandContext, command: SessionFork, who: Identity) -> dict[str, Any]:
    """Raises Refused, Unavailable."""
    who.require(Right.READ, command.session)
    who.require(Right.SEND, command.to)
    async with ctx.session(command.session) as feed:
        before = command.before if command.before is not None else feed.last + 1
        source = feed.state
        found = await read_messages(ctx.log, feed.subjects, before, MESSAGES_MAX)
    messages = [m for m in found if m.status == "done" and not m.rolled_back]
    _check_size(messages)
    config = source.config
    if config.priority == Priority.HIGH and not who.may(Right.PRIORITY, command.to):
        config = replace(config, priority=Priority.NORMAL)
    about = SessionCreated(source.title, source.metadata, config_to_wire(config))
    mark = short_id(f"{command.session}:{before}:{who.id}")
    async with ctx.session(command.to) as feed:
        if feed.state.as_of and not (feed.state.deleted_seq == feed.state.as_of):
            raise Refused(ErrorCode.SESSION_EXISTS, f"the session {command.to!r} is in use")
        async with ctx.begins(feed):
            created = await ctx.append(feed, ctx.entry(about, who, f"fork:{mark}"))
        if created.duplicate or created.state.created_seq != created.seq:
            raise Refused(ErrorCode.SESSION_EXISTS, "somebody else has just made this session")
        await _copy_attachments(
            ctx, place_of(who.key(command.session), source), messages, place_of(who.key(command.to), created.state)
        )
        for n, part in enumerate(_records(messages)):
            event = MessagesImported(part, command.session)
            await ctx.append(feed, ctx.entry(event, who, f"fork:{mark}:{n}"))
    await ctx.activity.note(command.to, who)
    return {"session": command.to, "messages": len(messages)}


async def _copy_attachments(
    ctx: CommandContext, source: AttachmentPlace, messages: list[Message], target: AttachmentPlace
) -> None:
    """A copy of each: the sessions live and end without each other."""
    ids = [reference.get("id") for message in messages for reference in message.attachments]
    await ctx.attachments.copy(source, [id_ for id_ in ids if isinstance(id_, str)], target)


def _check_size(messages: list[Message]) -> None:
    size = sum(len(message.text.encode()) for message in messages)
    if size > TEXT_BYTES_MAX or len(messages) >= MESSAGES_MAX:
        text = f"{len(messages)} messages with {size} bytes are more than a fork takes along"
        raise Refused(ErrorCode.CONTENT_TOO_LARGE, text, limit=TEXT_BYTES_MAX)


def _records(messages: list[Message]) -> Iterator[list[dict[str, Any]]]:
    """The messages in as few records as hold them; one that is larger goes on in the next."""
    record: list[dict[str, Any]] = []
    size = 0
    for message in messages:
        for piece in _pieces(message.as_dict()):
            more = len(orjson.dumps(piece))
            if record and (size + more > _RECORD_BYTES or len(record) >= _RECORD_MESSAGES):
                yield record
                record, size = [], 0
            record.append(piece)
            size += more
    if record:
        yield record


def _pieces(wire: dict[str, Any]) -> Iterator[dict[str, Any]]:
    # A character may be six bytes as JSON.
    step = _RECORD_BYTES // 6
    text = wire["text"]
    yield wire | {"text": text[:step]}
    for start in range(step, len(text), step):
        yield {"id": wire["id"], "continued": True, "text": text[start : start + step]}


async def delete(ctx: CommandContext, command: SessionDelete, who: Identity) -> dict[str, Any]:
    """Raises Refused, Unavailable."""
    async with ctx.session(command.session) as feed:
        state = feed.state
        if state.as_of and state.deleted_seq != state.as_of:
            require_manager(state, command.session, who)
            entry = ctx.entry(SessionDeleted(), who, f"delete:{state.as_of}")
            await ctx.append(feed, entry)
        else:
            who.require(Right.READ, command.session)
        if feed.state.deleted_seq:
            await ctx.log.forget_before(feed.subjects, feed.state.deleted_seq)
            await ctx.usage.gone(feed.subjects.key, feed.state.deleted_seq)
    await ctx.directory.forget("user", who.id, who.key(command.session))
    return {"session": command.session}
