"""What all commands need: a session that is up to date, one append, and what the fold made of it."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import orjson

from broker.clock import now_ms
from broker.errors import ErrorCode, Refused
from broker.events import Entry, Event
from broker.interfaces import Directory, JobQueue, Of, SessionLog
from broker.lease import has_work, pool_of
from broker.schema import SchemaInvalid, Schemas
from broker.state import Ended, SessionState
from broker.subjects import MAIN_LANE
from broker.tracing import TraceContext
from gateway.auth import Identity, Right
from gateway.commands.activity import Activity
from gateway.config import GatewaySettings
from gateway.feed import Feed
from gateway.hub import Hub
from gateway.metrics import GatewayMetrics
from gateway.tracing import CommandTrace

_ENVELOPE_LEVELS = 8
"""Levels of nesting that an entry puts around a value, and some more; the log's JSON has at most 254."""


@dataclass(frozen=True, slots=True)
class Folded:
    """A stored entry and the state right after it; `duplicate`: it had been stored before under the same id."""

    seq: int
    duplicate: bool
    state: SessionState
    ts: int


@dataclass(frozen=True, slots=True)
class CommandContext:
    """What a command has at hand: all but `trace` is shared by all commands of a gateway."""

    hub: Hub
    log: SessionLog
    jobs: JobQueue
    settings: GatewaySettings
    metrics: GatewayMetrics
    directory: Directory
    activity: Activity
    schemas: Schemas
    trace: CommandTrace

    @asynccontextmanager
    async def session(self, name: str, *, fresh: bool = True) -> AsyncIterator[Feed]:
        """The session's feed. Raises InvalidName, Unavailable.

        With `fresh`, its state has everything that was stored before: what somebody has learnt at another gateway is
        known here too. Without, it may be a moment behind.
        """
        async with self.hub.session(name) as feed:
            await feed.ready()
            if fresh:
                await self.catch_up(feed)
            yield feed

    async def catch_up(self, feed: Feed) -> None:
        """Returns when the feed has every record that the log has now. Raises Unavailable."""
        head = await self.log.head(feed.subjects, Of.RECORDS)
        if head is not None:
            await feed.reached(head.seq)

    def entry(self, event: Event, who: Identity, message_id: str, cause: TraceContext | None = None) -> Entry:
        """`message_id` must differ from those of other commands: an inputId, or text with a colon, which no id has.

        `cause` is the span of the run that the command is about.
        """
        trace, by = self.trace.context(cause), who.participant()
        return Entry(id=message_id, ts=now_ms(), events=(event,), by=by, trace=trace, via=self.trace.gateway)

    async def append(self, feed: Feed, entry: Entry, foreseen: SessionState | None = None) -> Folded:
        """Stores a participant's entry and waits until it is folded. Raises Unavailable.

        With `foreseen`, the state that the entry is about to lead to, a worker is called before the fold has seen it.
        """
        with feed.witness(entry.id) as witness:
            # After a deletion the session begins anew, and ids of before are free again.
            deleted = feed.state.deleted_seq
            message_id = f"{deleted}:{entry.id}" if deleted else entry.id
            with self.trace.append():
                stored = await self.log.append_input(feed.subjects, entry, message_id)
            if foreseen is not None:
                await self.offer_job(feed, foreseen, MAIN_LANE)
            await feed.reached(stored.seq)
            return Folded(stored.seq, stored.duplicate, witness.after(stored.seq) or feed.state, entry.ts)

    async def offer_job(self, feed: Feed, state: SessionState, lane: str) -> None:
        """Calls a worker to a lane, if there is something to do in it. Raises Unavailable."""
        if has_work(state, lane):
            await self.jobs.offer(feed.subjects, lane, pool_of(state, lane))

    def check_size(self, field_name: str, value: Any) -> None:
        """Raises Refused (content_too_large, bad_command) for a value that is larger than an input, or nested too deeply."""
        check_json(field_name, value, self.settings.input_bytes)

    def check_schema(self, schema: Mapping[str, Any] | None, value: Any, code: ErrorCode) -> None:
        """Raises Refused: `code` for a value that is not as the schema says, schema_invalid for a schema that is none."""
        try:
            problem = self.schemas.problem(schema, value)
        except SchemaInvalid as error:
            raise Refused(ErrorCode.SCHEMA_INVALID, f"the schema cannot be used: {error}") from None
        if problem is not None:
            raise Refused(code, f"at {problem.path or 'the root'}: {problem.message}", path=problem.path)


def check_json(field_name: str, value: Any, limit: int) -> None:
    """Raises Refused (content_too_large, bad_command)."""
    nested = value
    for _ in range(_ENVELOPE_LEVELS):
        nested = [nested]
    try:
        size = len(orjson.dumps(nested)) - 2 * _ENVELOPE_LEVELS
    except orjson.JSONEncodeError:
        raise Refused(ErrorCode.BAD_COMMAND, f"`{field_name}` is nested too deeply", field=field_name) from None
    if size > limit:
        raise Refused(
            ErrorCode.CONTENT_TOO_LARGE, f"`{field_name}` has {size} bytes, the limit is {limit}", limit=limit
        )


def short_id(text: str) -> str:
    """A name for any text that fits into a message id. 48 bits: it tells apart what one session has within minutes."""
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


def not_allowed(right: Right, message: str) -> Refused:
    return Refused(ErrorCode.NOT_ALLOWED, message, right=right.value)


def already_resolved(ended: Ended, **data: Any) -> Refused:
    """The refusal for what is gone from the state."""
    message = f"it has ended already: {ended.status}"
    return Refused(ErrorCode.ALREADY_RESOLVED, message, status=ended.status, **data)
