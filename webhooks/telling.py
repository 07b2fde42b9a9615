"""From the log to the outbox: reads all records, judges them, and lets what is to be told wait for each endpoint.

An event is in the outbox exactly once, whatever dies when. The mark says up to where records were judged. Events are
put first, the mark is moved after them, and nobody sends an event from beyond the mark: so what a sender that died has put
beyond it was never sent, and is taken back by the next one, which judges those records again.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

import orjson
import structlog

from broker import reading
from broker.checkpoint import START, checkpoint_of, state_at
from broker.errors import CodecError, InvalidName
from broker.events import Entry, SessionDeleted
from broker.interfaces import Of, SessionLog
from broker.loading import entry_of, read_messages
from broker.outbox import Outbox, Partitions, Term
from broker.subjects import SessionSubjects
from broker.tail import StoredEntry
from webhooks.config import WebhookSettings
from webhooks.due import decode, due_of, excerpt
from webhooks.endpoints import Endpoint
from webhooks.leading import once, patiently
from webhooks.metrics import WebhookMetrics
from webhooks.notices import RUN_FINISHED, Known, Notice, judged

_log = structlog.get_logger("antiphon.webhooks")

POLL_S = 5.0
"""Seconds until a partition is read of which nothing was heard: a message that says so may get lost."""
_PUT_MAX = 64
"""Events that are put until the mark is moved: they wait for that."""
_MARK_S = 1.0
"""Seconds until the mark is moved over records of which nothing is told."""
_MESSAGES = 8
"""Last messages of a run among which its answer is looked for."""
_STALE_WAIT_S = 0.02


@dataclass(slots=True)
class Mark:
    """How far records were judged, by partition, and from where on each endpoint is told."""

    positions: list[int]
    since: dict[str, list[int]]

    def encode(self) -> bytes:
        return orjson.dumps({"positions": self.positions, "since": self.since})

    @classmethod
    def decode(cls, body: bytes | None, last: list[int]) -> Mark:
        """`last` is where the log ends, for a mark that is none, or that is of a log that had more."""
        try:
            wire = orjson.loads(body or b"")
            positions = [reading.whole(position) for position in wire["positions"]]
            since = {id_: [reading.whole(at) for at in places] for id_, places in wire["since"].items()}
        except (ValueError, KeyError, TypeError, AttributeError):
            return cls(list(last), {})
        if len(positions) != len(last) or any(len(places) != len(last) for places in since.values()):
            return cls(list(last), {})
        if any(position > end for position, end in zip(positions, last, strict=True)):
            _log.warning("the log ends before the mark: it was replaced or restored", mark=positions, log=last)
        return cls([min(pair) for pair in zip(positions, last, strict=True)], since)


@dataclass(frozen=True, slots=True)
class Listening:
    """Who is told, by id, and what to do when something may be sent to them, or is not to be sent any more."""

    endpoints: Callable[[], Mapping[str, Endpoint]]
    put: Callable[[str, int], None]
    forget: Callable[[str], None]


class Teller:
    """Reads the partitions, for one term. `begin` once, then `run`."""

    def __init__(
        self,
        term: Term,
        outbox: Outbox,
        partitions: Partitions,
        log: SessionLog,
        listening: Listening,
        settings: WebhookSettings,
        metrics: WebhookMetrics,
    ) -> None:
        self._term = term
        self._outbox = outbox
        self._partitions = partitions
        self._log = log
        self._listening = listening
        self._settings = settings
        self._metrics = metrics
        self._known: OrderedDict[str, Known] = OrderedDict()
        self._behind: dict[int, float] = {}
        self._mark = Mark([], {})
        self._moved = False
        self._marking = asyncio.Lock()
        self.marked: list[int] = []
        """Up to where events may be sent, by partition."""

    async def begin(self) -> None:
        """Goes on where the former sender stopped. Raises TermOver."""
        place, body = self._term.started
        self._mark = Mark.decode(body, await self._last())
        for kept in await patiently(self._term, partial(self._outbox.waiting_since, place + 1)):
            try:
                due = decode(kept.body)
            except CodecError:
                continue
            if not due.again and due.at > self._mark.positions[due.partition]:
                await patiently(self._term, partial(self._term.settle, kept.place))
        await self.listen()

    async def listen(self) -> None:
        """The endpoints are others: new ones are told from here on. Raises TermOver."""
        endpoints = {id_ for id_, endpoint in self._listening.endpoints().items() if endpoint.enabled}
        new = endpoints - self._mark.since.keys()
        last = await self._last() if new else []
        self._mark.since = {id_: at for id_, at in self._mark.since.items() if id_ in endpoints}
        self._mark.since |= {id_: list(last) for id_ in new}
        await self._save()

    async def run(self) -> None:
        """Raises TermOver."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_marking())
            for partition in range(self._partitions.count):
                tasks.create_task(self._follow(partition))

    @property
    def lag_s(self) -> float:
        """How long ago the oldest record was stored that was not judged."""
        oldest = min(self._behind.values(), default=None)
        return 0.0 if oldest is None else max(0.0, datetime.now(UTC).timestamp() - oldest)

    async def _last(self) -> list[int]:
        count = self._partitions.count
        return [await patiently(self._term, partial(self._partitions.last, p)) for p in range(count)]

    async def _follow(self, partition: int) -> None:
        while True:
            after = self._mark.positions[partition]
            page, end = await patiently(self._term, partial(self._partitions.read, partition, after))
            put: list[tuple[str, int]] = []
            for stored in page:
                if not end:
                    self._behind[partition] = _stored_at(stored) or self._behind.get(partition, 0.0)
                put += await self._take(partition, stored)
                self._mark.positions[partition] = stored.seq
                if len(put) >= _PUT_MAX:
                    put = await self._release(put)
            if put:
                await self._release(put)
            elif page:
                self._moved = True
            if end:
                self._behind.pop(partition, None)
                await self._partitions.written(partition, POLL_S)

    async def _release(self, put: list[tuple[str, int]]) -> list[tuple[str, int]]:
        """Moves the mark over what was put, so that it may be sent; returns what is left to do so with: nothing."""
        await self._save()
        for endpoint, place in put:
            self._listening.put(endpoint, place)
        return []

    async def _keep_marking(self) -> None:
        while True:
            await asyncio.sleep(_MARK_S)
            if self._moved:
                await self._save()

    async def _save(self) -> None:
        async with self._marking:
            self._moved = False
            positions = list(self._mark.positions)
            body = self._mark.encode()
            await patiently(self._term, partial(self._term.mark, body))
            self.marked = positions

    # --- one record --------------------------------------------------------------------------------------------------

    async def _take(self, partition: int, stored: StoredEntry) -> list[tuple[str, int]]:
        """Judges a record; for whom events wait because of it, and where."""
        session = stored.subject.split(".")[2]
        if not self._belongs(session, partition):
            return []
        if not any(endpoint.wants_session(session) for endpoint in self._listening.endpoints().values()):
            self._known.pop(session, None)
            await self._forget_if_deleted(session, entry_of(stored) if b"session.deleted" in stored.body else None)
            return []
        entry = entry_of(stored)
        if entry is None:
            return []
        known = self._known.pop(session, None) or await self._load(session, stored.seq)
        if known is None:
            return []
        known, notices = judged(known, session, stored.seq, entry)
        self._known[session] = known
        while len(self._known) > self._settings.webhook_sessions:
            self._known.popitem(last=False)
        await self._forget_if_deleted(session, entry)
        if self._is_copy(entry, stored):
            return []
        return [kept for notice in notices for kept in await self._put(partition, session, stored.seq, notice)]

    def _belongs(self, session: str, partition: int) -> bool:
        """A session of this partition: somebody may write to subjects that none has."""
        try:
            return self._log.subjects(session).partition == partition
        except InvalidName:
            return False

    async def _forget_if_deleted(self, session: str, entry: Entry | None) -> None:
        """What waits of a session that is deleted goes with it."""
        if entry is not None and any(isinstance(event, SessionDeleted) for event in entry.events):
            await patiently(self._term, partial(self._term.forget, session))
            self._listening.forget(session)

    def _is_copy(self, entry: Entry, stored: StoredEntry) -> bool:
        """Restored sessions keep their times: what happened long before it was stored is told already, or was never."""
        at = _stored_at(stored)
        return at is not None and at - entry.ts / 1000 > self._settings.webhook_stale_s

    async def _put(self, partition: int, session: str, seq: int, notice: Notice) -> list[tuple[str, int]]:
        wanting = [e for e in self._listening.endpoints().values() if self._wants(e, partition, session, seq, notice)]
        if not wanting:
            return []
        text = None
        if any("text" in endpoint.include for endpoint in wanting):
            text = await self._text(session, seq, notice)
        put: list[tuple[str, int]] = []
        for endpoint in wanting:
            shown = text if "text" in endpoint.include else None
            body = due_of(notice, endpoint.id, session, partition, seq, shown).encode()
            place = await once(
                self._term,
                partial(self._term.put, endpoint.id, session, notice.id, body),
            )
            self._metrics.events.inc()
            put.append((endpoint.id, place))
        return put

    def _wants(self, endpoint: Endpoint, partition: int, session: str, seq: int, notice: Notice) -> bool:
        since = self._mark.since.get(endpoint.id)
        if since is None or seq <= since[partition] or not endpoint.wants(notice.type, session):
            return False
        return endpoint.child_runs or not (notice.child and notice.type.startswith("run."))

    async def _text(self, session: str, seq: int, notice: Notice) -> str | None:
        chars = self._settings.webhook_text_chars
        if notice.type != RUN_FINISHED:
            return excerpt(notice.text, chars)
        subjects = self._log.subjects(session)
        messages = await patiently(self._term, partial(read_messages, self._log, subjects, seq + 1, _MESSAGES))
        said = (m.text for m in reversed(messages) if m.role == "assistant" and m.run == notice.run)
        return excerpt(next(said, None), chars)

    # --- the session before it -----------------------------------------------------------------------------------------

    async def _load(self, session: str, seq: int) -> Known | None:
        """The session right before a record; None if the record is gone, with the session. Raises TermOver."""
        subjects = self._log.subjects(session)
        checkpoint = await patiently(self._term, partial(self._log.read_checkpoint, subjects))
        known = _beginning(checkpoint, seq)
        while True:
            after = known.state.as_of
            page, end = await patiently(
                self._term,
                partial(self._log.read, subjects, after, Of.RECORDS),
            )
            known, reached = _folded(known, session, page, seq)
            if reached:
                return known
            if end and not await self._still_there(subjects, seq):
                return None

    async def _still_there(self, subjects: SessionSubjects, seq: int) -> bool:
        """For a replica that lags; waits a moment for it."""
        if not await patiently(self._term, partial(self._log.holds, subjects, seq)):
            return False
        await asyncio.sleep(_STALE_WAIT_S)
        return True


def _beginning(checkpoint: StoredEntry | None, before: int) -> Known:
    """The newest place before a record from which folding gives all that is judged by."""
    newest = checkpoint_of(checkpoint)
    if newest.state.as_of < before:
        return Known(newest.state)
    page = next((page for page in reversed(newest.pages) if page.seq < before), None)
    return Known(START.state if page is None else state_at(page))


def _folded(known: Known, session: str, page: Iterable[StoredEntry], before: int) -> tuple[Known, bool]:
    """The session after those of the records that are before one, and whether that one was reached."""
    for stored in page:
        if stored.seq >= before:
            return known, True
        entry = entry_of(stored)
        if entry is not None:
            known, _ = judged(known, session, stored.seq, entry)
    return known, False


def _stored_at(stored: StoredEntry) -> float | None:
    try:
        return datetime.fromisoformat(stored.stored).timestamp()
    except ValueError:
        return None
