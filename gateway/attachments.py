"""The attachments of sessions, as a gateway gives and takes them: where they are, whether they may be there, and whose."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager

import structlog

from broker.attachments import Attachment
from broker.config import AttachmentSettings
from broker.errors import ErrorCode, LogError, Refused, Unavailable
from broker.interfaces import AttachmentStore, Of, SessionLog
from broker.state import SessionState
from broker.subjects import AttachmentPlace, SessionKey, split_key
from gateway.auditing import Auditing
from gateway.auth import Identity, Right
from gateway.hub import Hub
from gateway.metrics import GatewayMetrics
from gateway.usage import Usage

_log = structlog.get_logger("antiphon.attachments")

COPIED_BYTES_MAX = 64 << 20
"""Bytes of attachments that a fork takes along."""


class Attachments:
    """One for a gateway. All raise Refused, InvalidName, Unavailable."""

    def __init__(
        self,
        hub: Hub,
        log: SessionLog,
        store: AttachmentStore,
        settings: AttachmentSettings,
        metrics: GatewayMetrics,
        timeout_s: float,
        *,
        usage: Usage,
        auditing: Auditing,
    ) -> None:
        """`timeout_s`: how long the log may take to say what a session is."""
        self._usage = usage
        self._auditing = auditing
        self._hub = hub
        self._log = log
        self._metrics = metrics
        self._timeout_s = timeout_s
        self.store = store
        self.settings = settings

    async def state(self, session: SessionKey, *, fresh: bool = True) -> SessionState:
        """The session's state. With `fresh`, what has been stored at another gateway just now is in it."""
        try:
            async with asyncio.timeout(self._timeout_s), self._hub.session(session) as feed:
                await feed.ready()
                head = await self._log.head(feed.subjects, Of.RECORDS) if fresh else None
                if head is not None:
                    await feed.reached(head.seq)
                return feed.state
        except TimeoutError:
            raise Unavailable("the log did not answer in time") from None

    async def place_to_read(self, session: str, who: Identity) -> AttachmentPlace:
        who.require(Right.READ, session)
        return place_of(who.key(session), await self.state(who.key(session), fresh=False))

    async def place_to_write(self, session: str, who: Identity) -> AttachmentPlace:
        """Where somebody may upload, now."""
        who.require(Right.SEND, session)
        state = await self.state(who.key(session))
        if state.closed:
            raise Refused(ErrorCode.SESSION_CLOSED, "the session is closed")
        return place_of(who.key(session), state)

    async def find(self, place: AttachmentPlace, id_: str) -> Attachment:
        """One that is there. Raises Refused (attachment_not_found)."""
        found = await self.store.find(place, id_)
        if found is None:
            text = f"the session has no attachment {id_!r}, or its upload has not ended"
            raise Refused(ErrorCode.ATTACHMENT_NOT_FOUND, text, attachment=id_)
        return found

    async def check_room(self, place: AttachmentPlace, size: int) -> None:
        """Raises Refused if `size` more bytes are too many for the session (attachments_full), or its tenant (storage_full).

        Uploads that end at the same moment are not seen; each of them was let in, so there are never many.
        """
        self._usage.check_room(split_key(place.session)[0], size)
        there = await self.store.listed(place)
        most, bytes_most = self.settings.attachments_per_session, self.settings.attachments_session_bytes
        if len(there) >= most:
            raise Refused(ErrorCode.ATTACHMENTS_FULL, f"the session has {most} attachments", limit=most)
        if sum(attachment.size for attachment in there) + size > bytes_most:
            text = f"the session's attachments would have more than {bytes_most} bytes"
            raise Refused(ErrorCode.ATTACHMENTS_FULL, text, limit=bytes_most)

    def changed(self, place: AttachmentPlace) -> None:
        """There is another one, or one less."""
        self._usage.changed(place.session)

    async def find_all(self, place: AttachmentPlace, ids: Sequence[str]) -> list[Attachment]:
        """Those that a message is to refer to, in order. Raises Refused (attachment_not_found)."""
        return [await self.find(place, id_) for id_ in ids]

    async def use(self, place: AttachmentPlace, attachments: Iterable[Attachment]) -> None:
        """Keeps them for as long as the session. Raises Refused (attachment_not_found)."""
        for attachment in attachments:
            if not attachment.used and await self.store.use(place, attachment.id) is None:
                await self.find(place, attachment.id)

    async def remove(self, session: str, id_: str, who: Identity) -> None:
        """One that no message refers to, for who has uploaded it; any, for admins, which goes into the audit log."""
        is_admin = who.may(Right.ADMIN, session)
        if not is_admin:
            who.require(Right.SEND, session)
        place = place_of(who.key(session), await self.state(who.key(session)))
        found = await self.find(place, id_)
        if not is_admin and found.by != who.id:
            raise Refused(ErrorCode.NOT_ALLOWED, "only who has uploaded it or an admin may delete it", right="admin")
        if not found.used and found.by == who.id:
            await self._remove(place, found)
        elif is_admin:
            async with self._auditing.action("attachment.delete", f"{session} {id_} of {found.by}", who):
                await self._remove(place, found)
        else:
            raise _in_use(id_)

    async def _remove(self, place: AttachmentPlace, found: Attachment) -> None:
        if not await self.store.remove(place, found):
            raise _in_use(found.id)
        self.changed(place)

    async def copy(self, source: AttachmentPlace, ids: Iterable[str], target: AttachmentPlace) -> None:
        """Puts attachments into another session as well. Those that are gone by now are left out.

        Raises Refused (content_too_large).
        """
        found = [a for id_ in dict.fromkeys(ids) if (a := await self.store.find(source, id_)) is not None]
        size = sum(attachment.size for attachment in found)
        if size > COPIED_BYTES_MAX:
            text = f"attachments of {size} bytes are more than a fork takes along"
            raise Refused(ErrorCode.CONTENT_TOO_LARGE, text, limit=COPIED_BYTES_MAX)
        for attachment in found:
            async with self.store.upload(target, attachment.id) as upload:
                async for part in self.store.read(source, attachment):
                    await upload.write(part)
                await upload.commit(dataclasses.replace(attachment, used=True))

    @asynccontextmanager
    async def swept(self) -> AsyncIterator[None]:
        """Within, what uploads have left that were cut short is looked for and deleted."""
        async with asyncio.TaskGroup() as tasks:
            sweeping = tasks.create_task(self._sweep())
            try:
                yield
            finally:
                sweeping.cancel()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(self.settings.attachment_sweep_s)
            try:
                count = await self.store.sweep()
            except LogError as error:
                _log.warning("what uploads have left could not be looked for", reason=str(error))
                continue
            self._metrics.attachments_swept.inc(count)


def _in_use(id_: str) -> Refused:
    return Refused(ErrorCode.ATTACHMENT_IN_USE, "a message refers to it", attachment=id_)


def place_of(session: SessionKey, state: SessionState) -> AttachmentPlace:
    """Where the attachments are that a session has since it began, or began anew."""
    return AttachmentPlace(session, state.deleted_seq)
