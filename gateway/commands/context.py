"""What all commands need: a session that is up to date, one append, and what the fold made of it."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import orjson

from broker.clock import now_ms
from broker.errors import ErrorCode, Refused
from broker.events import Entry, Event
from broker.interfaces import Alarms, Directory, JobQueue, Of, SessionLog
from broker.lease import has_work, queue_of
from broker.schema import SchemaInvalid, Schemas
from broker.state import Ended, SessionState
from broker.subjects import MAIN_LANE, session_key
from broker.tracing import TraceContext
from gateway.admission import Admission
from gateway.attachments import Attachments
from gateway.auth import Identity, Right
from gateway.commands.activity import Activity
from gateway.config import GatewaySettings
from gateway.feed import Feed
from gateway.hub import Hub
from gateway.metrics import GatewayMetrics
from gateway.tracing import CommandTrace
from gateway.usage import Usage


@dataclass(frozen=True, slots=True)
class Folded:
    """A stored entry and the state right after it; `duplicate`: it had been stored before under the same id."""

    seq: int
    duplicate: bool
    state: SessionState
    ts: int


@dataclass(frozen=True, slots=True)
class CommandContext:
    """What a command has at hand: all but `trace` and `tenant` is shared by all commands of a gateway."""

    hub: Hub
    log: SessionLog
    jobs: JobQueue
    settings: GatewaySettings
    metrics: GatewayMetrics
    directory: Directory
    activity: Activity
    schemas: Schemas
    attachments: Attachments
    admission: Admission
    usage: Usage
    alarms: Alarms
    trace: CommandTrace
    tenant: str
    """Whose sessions the command's names mean."""

    @asynccontextmanager
    async def session(self, name: str, *, fresh: bool = True) -> AsyncIterator[Feed]:
        """The session's feed. Raises InvalidName, Unavailable.

        With `fresh`, its state has everything that was stored before: what somebody has learnt at another gateway is
        known here too. Without, it may be a moment behind.
        """
        async with self.hub.session(session_key(self.tenant, name)) as feed:
            await feed.ready()
            if fresh:
                await self.catch_up(feed)
            yield feed

    async def catch_up(self, feed: Feed) -> None:
        """Returns when the feed has every record that the log has now. Raises Unavailable."""
        head = await self.log.head(feed.subjects, Of.RECORDS)
        if head is not None:
            await feed.proven(head.seq)

    def entry(self, event: Event, who: Identity, message_id: str, cause: TraceContext | None = None) -> Entry:
        """`message_id` must differ from those of other commands: an inputId, or text with a colon, which no id has.

        `cause` is the span of the run that the command is about.
        """
        trace, by = self.trace.context(cause), who.participant()
        return Entry(id=message_id, ts=now_ms(), events=(event,), by=by, trace=trace, via=self.trace.gateway)

    def begins(self, feed: Feed) -> AbstractAsyncContextManager[None]:
        """Within, something is stored by which a session may begin. Raises Refused (too_many_sessions, storage_full)."""
        self.usage.check_room(self.tenant)
        state = feed.state
        return self.usage.beginning(feed.subjects.key, new=state.as_of == state.deleted_seq)

    async def append(
        self, feed: Feed, entry: Entry, foreseen: SessionState | None = None, expected: int | None = None
    ) -> Folded:
        """Stores a participant's entry and waits until it is folded. Raises Unavailable, and WrongSequence if the last one
        of a participant is not the one that is `expected`.

        With `foreseen`, the state that the entry is about to lead to, a worker is called before the fold has seen it.
        """
        with feed.witness(entry.id) as witness:
            # After a deletion the session begins anew, and ids of before are free again.
            deleted = feed.state.deleted_seq
            message_id = f"{deleted}:{entry.id}" if deleted else entry.id
            with self.trace.append():
                stored = await self.log.append_input(feed.subjects, entry, message_id, expected)
            if foreseen is not None:
                await self.offer_job(feed, foreseen, MAIN_LANE)
            # If it turns out that something before it was missed, the feed is read afresh first, and the witness forgets.
            await feed.proven(stored.seq)
            return Folded(stored.seq, stored.duplicate, witness.after(stored.seq) or feed.state, entry.ts)

    async def offer_job(self, feed: Feed, state: SessionState, lane: str) -> None:
        """Calls a worker to a lane, if there is something to do in it. Raises Unavailable."""
        if has_work(state, lane):
            await self.jobs.offer(feed.subjects, lane, *queue_of(state, lane))

    def check_size(self, field_name: str, value: Any) -> None:
        """Raises Refused (content_too_large) for a value that is larger than an input."""
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
    """Raises Refused (content_too_large)."""
    size = len(orjson.dumps(value))
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
