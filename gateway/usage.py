"""How much of what it may have each tenant has: sessions, and bytes of records and attachments (ADR 30).

What a session takes is measured from the log, by a gateway that has it open, and noted where all gateways hear of it. So
each knows all of it, without asking anybody at a command; and is behind by what was stored since the last look.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from types import TracebackType
from typing import Self

import structlog

from broker.errors import ErrorCode, LogError, Refused, Unavailable
from broker.events import SessionDeleted
from broker.interfaces import AttachmentStore, Of, SessionLog, UsageNotes
from broker.loading import entry_of
from broker.subjects import SessionKey, SessionSubjects, split_key
from broker.tail import StoredEntry
from broker.usage import SessionUse
from gateway.config import GatewaySettings
from gateway.feed import Feed
from gateway.hub import Hub
from gateway.ledger import Ledger
from gateway.limits import Limit
from gateway.quotas import Quota, Quotas

_log = structlog.get_logger("antiphon.usage")

_RETRY_S = 1.0
_RECOUNT_S = 3600.0
_SAY_EVERY_S = 60.0
"""That a tenant has come to its limit is logged no more often."""


class Usage:
    """One for a gateway; a context. Where nobody has a limit it does nothing."""

    def __init__(
        self, hub: Hub, log: SessionLog, store: AttachmentStore, notes: UsageNotes, settings: GatewaySettings
    ) -> None:
        """Raises ConfigError."""
        self._quotas = Quotas(Quota(settings.tenant_sessions, settings.tenant_bytes), settings.tenant_limits)
        self._hub = hub
        self._log = log
        self._store = store
        self._notes = notes
        self._every_s = settings.usage_s
        self._ledger = Ledger()
        self._known = asyncio.Event()
        self._looked: dict[SessionKey, int] = {}
        """Up to which entry the sessions that are open here have been measured."""
        self._changed: set[SessionKey] = set()
        self._deleted: set[SessionKey] = set()
        """Sessions that were, when all were counted; one that begins again is noted then."""
        self._said: dict[tuple[str, Limit], float] = {}
        self._tasks = asyncio.TaskGroup()
        self._running: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        if self._quotas.is_any:
            work = (self._notes.follow(self._take), self._recount(), self._measure())
            self._running = [self._tasks.create_task(each, name="usage") for each in work]
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        for task in self._running:
            task.cancel()
        await self._tasks.__aexit__(exc_type, exc, tb)

    async def read(self, within_s: float) -> None:
        """Returns when it is known what there is, or is not in time: until then nobody is refused anything."""
        if self._quotas.is_any:
            with suppress(TimeoutError):
                async with asyncio.timeout(within_s):
                    await self._known.wait()

    # --- for commands --------------------------------------------------------------------------------------------------

    def quota(self, tenant: str) -> Quota:
        return self._quotas.of(tenant)

    def check_room(self, tenant: str, more_bytes: int = 0) -> None:
        """Before something is stored that need not be. Raises Refused (storage_full)."""
        most, used = self.quota(tenant).bytes, self._ledger.bytes(tenant)
        # What is just about to be stored has its room if there is any; only of a file is it known how much it takes.
        if most and (used >= most or used + more_bytes > most):
            self._say(tenant, Limit.TENANT_BYTES, used)
            text = f"the tenant's sessions take {used} bytes of {most}: delete some, or ask the operator for more"
            raise Refused(ErrorCode.STORAGE_FULL, text, limit=most, used=used, exceeded=Limit.TENANT_BYTES.value)

    @asynccontextmanager
    async def beginning(self, session: SessionKey, *, new: bool = True) -> AsyncIterator[None]:
        """Within, a session is begun: it counts from here on, unless it fails. Raises Refused (too_many_sessions)."""
        tenant, _ = split_key(session)
        most = self.quota(tenant).sessions
        if not (new and self.quota(tenant).is_any) or self._ledger.of(session) is not None:
            yield
            return
        used = self._ledger.sessions(tenant)
        if most and used >= most:
            self._say(tenant, Limit.TENANT_SESSIONS, used)
            text = f"the tenant has {used} sessions of {most}: delete some, or ask the operator for more"
            raise Refused(
                ErrorCode.TOO_MANY_SESSIONS, text, limit=most, used=used, exceeded=Limit.TENANT_SESSIONS.value
            )
        self._ledger.put(session, SessionUse())
        try:
            yield
        except BaseException:
            if self._ledger.of(session) == SessionUse():
                self._ledger.put(session, SessionUse(gone=True))
            raise
        with suppress(Unavailable):
            await self._notes.note(session, SessionUse())

    def changed(self, session: SessionKey) -> None:
        """Something of the session has been stored, or deleted, beside its log."""
        if self._counts(session):
            self._changed.add(session)

    async def gone(self, session: SessionKey, seq: int) -> None:
        """The session has been deleted by entry `seq`."""
        if not self._counts(session):
            return
        use = SessionUse(seq, gone=True)
        self._ledger.put(session, use)
        with suppress(Unavailable):
            await self._notes.note(session, use)

    # --- measuring -----------------------------------------------------------------------------------------------------

    def _counts(self, session: SessionKey) -> bool:
        return self._quotas.of(split_key(session)[0]).is_any

    def _take(self, notes: Mapping[SessionKey, SessionUse], whole: bool) -> None:
        own = {session: use for session, use in notes.items() if self._counts(session)}
        if whole:
            self._ledger.replace(own)
            self._known.set()
            return
        for session, use in own.items():
            self._ledger.put(session, use)

    async def _measure(self) -> None:
        """The sessions that are open here and have something new: of each all that it has, however it was written."""
        while True:
            await asyncio.sleep(self._every_s)
            feeds = [feed for feed in self._hub.feeds() if self._counts(feed.subjects.key) and feed.is_caught_up]
            keys = {feed.subjects.key for feed in feeds}
            self._looked = {key: seq for key, seq in self._looked.items() if key in keys}
            for feed in feeds:
                try:
                    await self._measure_open(feed)
                except LogError:
                    self._changed.add(feed.subjects.key)  # next time
                except Exception:  # noqa: BLE001 (a fault in counting must not end what is counted)
                    _log.exception("a session could not be measured", session=feed.subjects.key)

    async def _measure_open(self, feed: Feed) -> None:
        key, last, state = feed.subjects.key, feed.last, feed.state
        if self._looked.get(key) == last and key not in self._changed:
            return
        self._changed.discard(key)
        if state.as_of == state.deleted_seq:
            # Nobody has written to it, or not since it was deleted; but attachments may be there before that.
            await self._note_empty(key, state.deleted_seq)
        else:
            await self._measure_one(feed.subjects, state.deleted_seq)
        self._looked[key] = last

    async def _note_empty(self, session: SessionKey, begun: int) -> None:
        attachments = await self._store.stored_bytes(session)
        if attachments:
            await self._note(session, SessionUse(begun, 0, attachments))
        elif self._ledger.of(session) is not None:
            await self.gone(session, begun)

    async def _measure_one(self, subjects: SessionSubjects, begun: int) -> None:
        """Reads what has been added since its last note. `begun`: the entry by which it began anew."""
        use = self._ledger.of(subjects.key) or SessionUse()
        if use.seq < begun:
            use = SessionUse(seq=begun - 1)
        seq, records, end = use.seq, use.records, False
        while not end:
            page, end = await self._log.read(subjects, seq, Of.RECORDS)
            records += sum(len(stored.body) for stored in page)
            seq = page[-1].seq if page else seq
        await self._note(subjects.key, SessionUse(seq, records, await self._store.stored_bytes(subjects.key)))

    async def _note(self, session: SessionKey, use: SessionUse) -> None:
        if use != self._ledger.of(session):
            await self._notes.note(session, use)
            self._ledger.put(session, use)

    async def _recount(self) -> None:
        """Compares what is noted with what the log holds: sessions may be there from before there were limits, and be
        deleted, or moved away, by others than gateways.
        """
        await self._known.wait()
        while True:
            try:
                await self._compare()
            except LogError as error:
                _log.warning("not all sessions could be counted", reason=str(error))
                await asyncio.sleep(_RETRY_S)
            except Exception:  # noqa: BLE001 (as above)
                _log.exception("sessions could not be counted")
                await asyncio.sleep(_RECOUNT_S)
            else:
                await asyncio.sleep(_RECOUNT_S)

    async def _measure_new(self, subjects: SessionSubjects) -> None:
        """One of which there is no note. Of one that was deleted its deletion is all that is left."""
        if subjects.key in self._deleted:
            return
        page, end = await self._log.read(subjects, 0, Of.RECORDS)
        if end and len(page) == 1 and _is_deletion(page[0]):
            self._deleted.add(subjects.key)
        else:
            await self._measure_one(subjects, 0)

    async def _compare(self) -> None:
        noted = self._ledger.all()
        async for subjects in self._notes.sessions():
            noted.pop(subjects.key, None)
            if self._counts(subjects.key) and self._ledger.of(subjects.key) is None:
                await self._measure_new(subjects)
        for session, use in noted.items():
            # One that has changed meanwhile is there.
            if self._ledger.of(session) == use:
                await self._note_empty(session, use.seq)

    def _say(self, tenant: str, limit: Limit, used: int) -> None:
        now = time.monotonic()
        if now - self._said.get((tenant, limit), -_SAY_EVERY_S) >= _SAY_EVERY_S:
            self._said = {said: at for said, at in self._said.items() if now - at < _SAY_EVERY_S}
            self._said[tenant, limit] = now
            _log.warning("a tenant has all that it may have", tenant=tenant, limit=limit.value, used=used)


def _is_deletion(stored: StoredEntry) -> bool:
    entry = entry_of(stored)
    return entry is not None and any(isinstance(event, SessionDeleted) for event in entry.events)
