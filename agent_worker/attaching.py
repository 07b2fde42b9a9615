"""Attachments for agents: those that people send, to be read, and those of the agent's own."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager, suppress

from agent_worker.errors import AttachmentNotFound, AttachmentRefused, ContentTooLarge, RunEnded
from agent_worker.scope import LaneScope
from broker.attachments import Attachment, name_problem, parse_media_type
from broker.clock import now_ms
from broker.config import AttachmentSettings
from broker.errors import AttachmentGone, LogError, LogFull, WrongSequence
from broker.interfaces import AttachmentStore
from broker.media_types import SNIFFED_BYTES, is_allowed, mismatch
from broker.subjects import AttachmentPlace

READ_BYTES_MAX = 26_214_400
"""Bytes that `AttachedFile.read` takes into memory, unless it is told otherwise."""


class AttachedFile:
    """An attachment of the session: what it is, and its bytes, when they are asked for."""

    def __init__(self, store: AttachmentStore, place: AttachmentPlace, attachment: Attachment) -> None:
        self._store = store
        self._place = place
        self._attachment = attachment
        self.id = attachment.id
        self.name = attachment.name
        """As its sender named it: safe to show, and no path; but not to be trusted for what it says."""
        self.media_type = attachment.media_type
        self.size = attachment.size
        self.sha256 = attachment.sha256
        """In hexadecimal digits."""

    async def stream(self) -> AsyncIterator[bytes]:
        """Its bytes, piece by piece. Raises AttachmentNotFound (it has been deleted), LogError."""
        try:
            async for piece in self._store.read(self._place, self._attachment):
                yield piece
        except AttachmentGone:
            raise AttachmentNotFound(self.id) from None

    async def read(self, limit: int = READ_BYTES_MAX) -> bytes:
        """All of it. Raises ContentTooLarge beyond `limit` bytes, AttachmentNotFound, LogError."""
        if self.size > limit:
            raise ContentTooLarge(f"the attachment has {self.size} bytes, the limit is {limit}: read it by `stream`")
        return b"".join([piece async for piece in self.stream()])


def place_of(scope: LaneScope) -> AttachmentPlace:
    """Where the session's attachments are."""
    return AttachmentPlace(scope.subjects.key, scope.state.deleted_seq)


async def find(scope: LaneScope, id_: str) -> AttachedFile:
    """Raises AttachmentNotFound, LogError."""
    store, place = scope.services.attachments, place_of(scope)
    found = await store.find(place, id_)
    if found is None:
        raise AttachmentNotFound(id_)
    return AttachedFile(store, place, found)


async def store(scope: LaneScope, name: str, media_type: str, data: bytes | AsyncIterable[bytes]) -> Attachment:
    """Stores a file of the agent's own. Raises AttachmentRefused, ContentTooLarge, LogError."""
    services, place = scope.services, place_of(scope)
    checked_type = _checked(name, media_type, services.attachment_settings)
    id_, digest, size, head = secrets.token_hex(16), hashlib.sha256(), 0, b""
    try:
        async with services.attachments.upload(place, id_) as upload:
            async for piece in _pieces(data):
                digest.update(piece)
                size += len(piece)
                head += piece[: max(0, SNIFFED_BYTES - len(head))]
                if size > services.attachment_settings.attachment_bytes:
                    raise ContentTooLarge(
                        f"an attachment may have {services.attachment_settings.attachment_bytes} bytes"
                    )
                await upload.write(piece)
            if (problem := mismatch(checked_type, head)) is not None:
                raise AttachmentRefused(f"this is not {checked_type}: {problem}")
            await _check_room(scope, place, size)
            about = Attachment(id_, name, checked_type, size, digest.hexdigest(), services.agent.name, now_ms(), True)
            stored = await upload.commit(about)
    except LogFull as error:
        raise AttachmentRefused(str(error)) from None
    except AttachmentGone:
        raise AttachmentRefused("the session has been deleted meanwhile") from None
    assert stored is not None, "nobody else has this id"
    return stored


@asynccontextmanager
async def taken_back_unless_said(scope: LaneScope, stored: Attachment) -> AsyncIterator[None]:
    """Within, the log is told of a file. It is deleted if no message refers to it, nor ever will: after anything else than
    these errors one may yet. Should NATS be away, it goes with its session.
    """
    try:
        yield
    except (RunEnded, WrongSequence):
        await _remove(scope, stored)
        raise


async def _remove(scope: LaneScope, stored: Attachment) -> None:
    """To its end, though the run is cancelled meanwhile: as it is, at any moment, once its lane has been taken."""

    async def remove() -> None:
        with suppress(LogError):
            await scope.services.attachments.remove(place_of(scope), stored)

    async with asyncio.TaskGroup() as tasks:
        removing = tasks.create_task(remove())
        try:
            await asyncio.shield(removing)
        except asyncio.CancelledError:
            # A second cancellation ends it.
            await removing
            raise


def _checked(name: str, media_type: str, settings: AttachmentSettings) -> str:
    problem = name_problem(name)
    if problem is not None:
        raise AttachmentRefused(f"the name {problem}")
    checked = parse_media_type(media_type)
    if checked is None or not is_allowed(checked, settings.types):
        raise AttachmentRefused(f"attachments may not be {media_type!r}: see ANTIPHON_ATTACHMENT_TYPES")
    return checked


async def _check_room(scope: LaneScope, place: AttachmentPlace, size: int) -> None:
    settings = scope.services.attachment_settings
    there = await scope.services.attachments.listed(place)
    if len(there) >= settings.attachments_per_session:
        raise AttachmentRefused(f"the session has {settings.attachments_per_session} attachments")
    if sum(attachment.size for attachment in there) + size > settings.attachments_session_bytes:
        raise AttachmentRefused(f"its attachments would have more than {settings.attachments_session_bytes} bytes")


async def _pieces(data: bytes | AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    if isinstance(data, bytes):
        yield data
        return
    async for piece in data:
        yield piece
