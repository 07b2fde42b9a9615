"""Attachments over a JetStream stream (`broker.interfaces.AttachmentStore`), laid out as its object store lays out objects.

An attachment is a series of pieces on a subject of its upload, and one message that says what it is and which pieces are
its own. With that message it is there, whole; a client that is cut short leaves pieces that nobody sees. Why not nats-py's
object store: ADR 23.
"""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import orjson

from broker.attachments import Attachment, from_wire, to_wire
from broker.clock import age_s
from broker.config import AttachmentSettings
from broker.errors import AttachmentGone, LogFull, TopologyError, Unavailable
from broker.jetstream.answers import CONTENDED, NO_MESSAGE, WRONG_LAST_SEQUENCE, ServerRefused
from broker.jetstream.connection import Ack, Connection
from broker.jetstream.direct import read_batch
from broker.jetstream.pages import subject_pages
from broker.jetstream.topology import ATTACHMENT_STREAM
from broker.subjects import SWEEP, UPLOADS, AttachmentPlace, SessionKey, attachment_place, attachments_of, infos_of
from broker.tail import StoredEntry

PIECE_BYTES = 131_072
"""Bytes of a piece: what NATS's object store takes, an eighth of the largest message of a server by default."""
READ_PIECES = 4
"""Pieces that a download has in memory at once."""
_CONTENDED_WAIT_S = 0.002
_RETRY_MIN_S, _RETRY_MAX_S = 0.02, 1.0
_STALE_WAIT_S = 0.02
_LIST_BATCH = 256
_REMOVED_S = 60
"""How long an attachment that is being deleted keeps its place, should the deletion be cut short."""
_SLACK_S = 60.0
"""By how much an upload must be older than the time it may take, before it is taken for one that was cut short."""


class JetStreamAttachments:
    """The store, over a connection."""

    def __init__(self, connection: Connection, settings: AttachmentSettings) -> None:
        self._connection = connection
        self._settings = settings

    async def find(self, place: AttachmentPlace, id_: str) -> Attachment | None:
        """From the stream's leader: what has just been uploaded through another gateway is found."""
        found = await last_message(self._connection, place.info(id_))
        return None if found is None else _read_info(found.seq, found.body)

    async def listed(self, place: AttachmentPlace) -> list[Attachment]:
        found = [attachment async for attachment in self._on(place.infos)]
        # One that is used was written again, and stands later in the stream than it came.
        return sorted(found, key=lambda attachment: (attachment.at, attachment.id))

    async def stored_bytes(self, session: SessionKey) -> int:
        return sum([attachment.size async for attachment in self._on(infos_of(session))])

    async def _on(self, subjects: str) -> AsyncIterator[Attachment]:
        position, end = 0, False
        while not end:
            query = {"seq": position + 1, "next_by_subj": subjects, "batch": _LIST_BATCH}
            page, end = await read_batch(self._connection, ATTACHMENT_STREAM, orjson.dumps(query))
            for stored in page:
                position = stored.seq
                attachment = _read_info(stored.seq, stored.body)
                if attachment is not None:
                    yield attachment

    @asynccontextmanager
    async def upload(self, place: AttachmentPlace, id_: str) -> AsyncIterator[JetStreamUpload]:
        upload = JetStreamUpload(self._connection, self._settings, place, id_)
        await upload.begin()
        try:
            yield upload
        finally:
            if not upload.committed:
                # Should this fail, or be cut short: a sweep finds it.
                with suppress(Unavailable):
                    await upload.abandon()

    async def read(
        self, place: AttachmentPlace, attachment: Attachment, first: int = 0, last: int | None = None
    ) -> AsyncIterator[bytes]:
        end = attachment.size if last is None else last + 1
        number, skip = divmod(first, PIECE_BYTES)
        position = first
        while position < end:
            for piece in await self._pieces(place, attachment, number):
                part = piece[skip : skip + end - position]
                number, skip = number + 1, 0
                position += len(part)
                if part:
                    yield part

    async def _pieces(self, place: AttachmentPlace, attachment: Attachment, number: int) -> list[bytes]:
        """Some of an attachment's pieces, from one on. Raises AttachmentGone, Unavailable."""
        wanted = attachment.pieces[number : number + READ_PIECES]
        query = {
            "seq": wanted[0],
            "next_by_subj": place.data(attachment.id, attachment.upload),
            "batch": len(wanted),
        }
        deadline = asyncio.get_running_loop().time() + self._connection.ack_timeout_s
        while True:
            page, _ = await read_batch(self._connection, ATTACHMENT_STREAM, orjson.dumps(query))
            found = [stored.body for stored, seq in zip(page, wanted, strict=False) if stored.seq == seq]
            if found:
                return found
            # A replica that lags, or there is nothing there any more.
            now = await self.find(place, attachment.id)
            if now is None or now.upload != attachment.upload:
                raise AttachmentGone("the attachment has been deleted")
            if asyncio.get_running_loop().time() > deadline:
                raise Unavailable("a replica of the attachments stays behind")
            await asyncio.sleep(_STALE_WAIT_S)

    async def use(self, place: AttachmentPlace, id_: str) -> Attachment | None:
        deadline = asyncio.get_running_loop().time() + self._connection.ack_timeout_s
        while True:
            found = await self.find(place, id_)
            if found is None or found.used:
                return found
            used = dataclasses.replace(found, used=True)
            headers = {"Nats-Expected-Last-Subject-Sequence": str(found.revision), "Nats-Rollup": "sub"}
            try:
                ack = await _publish(self._connection, place.info(id_), orjson.dumps(to_wire(used)), headers)
            except ServerRefused as error:
                # Somebody else uses it at the same time, or it has just run out: look again.
                if error.code != WRONG_LAST_SEQUENCE or asyncio.get_running_loop().time() > deadline:
                    raise Unavailable(f"NATS refused the write: {error.description}") from error
                continue
            return dataclasses.replace(used, revision=ack.seq)

    async def remove(self, place: AttachmentPlace, attachment: Attachment) -> bool:
        headers = {
            "Nats-Expected-Last-Subject-Sequence": str(attachment.revision),
            "Nats-Rollup": "sub",
            "Nats-TTL": f"{_REMOVED_S}s",
        }
        try:
            await _publish(self._connection, place.info(attachment.id), b"", headers)
        except ServerRefused as error:
            if error.code == WRONG_LAST_SEQUENCE:
                return False
            raise Unavailable(f"NATS refused the write: {error.description}") from error
        await self._connection.purge(ATTACHMENT_STREAM, place.of(attachment.id))
        return True

    async def sweep(self) -> int:
        return await self._sweep() if await self._my_turn() else 0

    async def _my_turn(self) -> bool:
        """Of all processes that want to sweep, one does each time."""
        last = await last_message(self._connection, SWEEP)
        if last is not None and _age_s(last.stored) < self._settings.attachment_sweep_s * 0.9:
            return False
        headers = {"Nats-Expected-Last-Subject-Sequence": str(last.seq if last else 0), "Nats-Rollup": "sub"}
        try:
            await _publish(self._connection, SWEEP, b"", headers)
        except ServerRefused:
            return False
        return True

    async def _sweep(self) -> int:
        position, end, swept = 0, False, 0
        while not end:
            query = {"seq": position + 1, "next_by_subj": UPLOADS, "batch": _LIST_BATCH}
            page, end = await read_batch(self._connection, ATTACHMENT_STREAM, orjson.dumps(query))
            for stored in page:
                position = stored.seq
                if _age_s(stored.stored) < self._settings.attachment_upload_s + _SLACK_S:
                    return swept  # those that follow are younger
                swept += await self._judge(stored.subject)
        return swept

    async def _judge(self, subject: str) -> bool:
        """What has come of an upload that must have ended by now; whether it was cut short, or its attachment is gone."""
        place, id_, rest = attachment_place(subject)
        upload = rest.rpartition(".")[2]
        found = await self.find(place, id_)
        if found is None or found.upload != upload:
            await self._connection.purge(ATTACHMENT_STREAM, place.data(id_, upload))
        elif not found.used:
            return False  # it may run out yet
        await self._connection.purge(ATTACHMENT_STREAM, subject)
        return found is None or found.upload != upload


class JetStreamUpload:
    """An upload. Its pieces are written under the condition that its first message is still there: a deletion of the
    session, or of the attachment, takes that away.
    """

    def __init__(self, connection: Connection, settings: AttachmentSettings, place: AttachmentPlace, id_: str) -> None:
        self._connection = connection
        self._settings = settings
        self._place = place
        self._id = id_
        self._name = secrets.token_hex(8)
        self._begun = 0
        self._pieces: list[int] = []
        self._waiting = bytearray()
        self.committed = False

    @property
    def _first(self) -> str:
        return self._place.upload(self._id, self._name)

    async def begin(self) -> None:
        """Raises LogFull, Unavailable."""
        headers = {"Nats-Msg-Id": f"{self._name}.up"}
        self._begun = (await self._retrying(self._first, b"", headers)).seq

    async def write(self, data: bytes) -> None:
        self._waiting += data
        while len(self._waiting) >= PIECE_BYTES:
            piece = bytes(self._waiting[:PIECE_BYTES])
            del self._waiting[:PIECE_BYTES]
            await self._write_piece(piece)

    async def commit(self, attachment: Attachment) -> Attachment | None:
        if self._waiting:
            await self._write_piece(bytes(self._waiting))
            self._waiting.clear()
        whole = dataclasses.replace(attachment, upload=self._name, pieces=tuple(self._pieces))
        headers = {"Nats-Expected-Last-Subject-Sequence": "0", "Nats-Msg-Id": f"{self._name}.info"}
        if not whole.used:
            headers["Nats-TTL"] = f"{max(1, round(self._settings.attachment_unused_s))}s"
        try:
            ack = await self._retrying(self._place.info(self._id), orjson.dumps(to_wire(whole)), headers)
        except ServerRefused as error:
            if error.code == WRONG_LAST_SEQUENCE:
                return None
            raise Unavailable(f"NATS refused the write: {error.description}") from error
        if await last_message(self._connection, self._first) is None:
            # Deleted in between: it must not be there without all of its pieces.
            await self._connection.purge(ATTACHMENT_STREAM, self._place.info(self._id))
            raise AttachmentGone("the session has been deleted meanwhile")
        self.committed = True
        return dataclasses.replace(whole, revision=ack.seq)

    async def abandon(self) -> None:
        """Deletes what has been written. Raises Unavailable."""
        await self._connection.purge(ATTACHMENT_STREAM, self._place.data(self._id, self._name))
        await self._connection.purge(ATTACHMENT_STREAM, self._first)

    async def _write_piece(self, piece: bytes) -> None:
        headers = {
            "Nats-Expected-Last-Subject-Sequence": str(self._begun),
            "Nats-Expected-Last-Subject-Sequence-Subject": self._first,
            "Nats-Msg-Id": f"{self._name}.{len(self._pieces)}",
        }
        try:
            ack = await self._retrying(self._place.data(self._id, self._name), piece, headers)
        except ServerRefused as error:
            if error.code == WRONG_LAST_SEQUENCE:
                raise AttachmentGone("the session has been deleted meanwhile") from None
            raise Unavailable(f"NATS refused the write: {error.description}") from error
        self._pieces.append(ack.seq)

    async def _retrying(self, subject: str, body: bytes, headers: dict[str, str]) -> Ack:
        """Repeats a write whose outcome is not known, for as long as an upload may stand still: a new leader takes a while.
        Its message id makes it count once. Raises ServerRefused too.
        """
        deadline = asyncio.get_running_loop().time() + self._settings.attachment_idle_s
        wait_s = _RETRY_MIN_S
        while True:
            try:
                return await _publish(self._connection, subject, body, headers)
            except LogFull:
                raise
            except Unavailable:
                if asyncio.get_running_loop().time() + wait_s > deadline:
                    raise
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, _RETRY_MAX_S)


async def forget_before(connection: Connection, session: SessionKey, begun: int) -> None:
    """Deletes all attachments that a session had before entry `begun`, with which it began anew. Raises Unavailable."""
    places: set[AttachmentPlace] = set()
    try:
        async for page in subject_pages(connection, ATTACHMENT_STREAM, attachments_of(session)):
            places.update(attachment_place(subject)[0] for subject in page)
    except TopologyError:
        return  # a log of before there were attachments
    except ServerRefused as error:
        raise Unavailable(f"NATS refused to read: {error.description}") from error
    for place in places:
        if place.begun < begun:
            await connection.purge(ATTACHMENT_STREAM, place.everything)


async def last_message(connection: Connection, subject: str) -> StoredEntry | None:
    """The last message on a subject of the stream, from its leader. Raises Unavailable."""
    try:
        answer = await connection.api(f"STREAM.MSG.GET.{ATTACHMENT_STREAM}", {"last_by_subj": subject})
    except ServerRefused as error:
        if error.code == NO_MESSAGE:
            return None
        raise Unavailable(f"NATS refused to read: {error.description}") from error
    message = answer["message"]
    body = base64.b64decode(message.get("data", ""))
    return StoredEntry(message["seq"], message["subject"], body, message.get("time", ""))


async def _publish(connection: Connection, subject: str, body: bytes, headers: dict[str, str]) -> Ack:
    """Raises ServerRefused, LogFull, Unavailable. A write with the same condition in flight is waited for."""
    deadline = asyncio.get_running_loop().time() + connection.ack_timeout_s
    while True:
        try:
            return await connection.publish(subject, body, headers)
        except ServerRefused as error:
            if error.code != CONTENDED or asyncio.get_running_loop().time() > deadline:
                raise
        await asyncio.sleep(_CONTENDED_WAIT_S)


def _age_s(stored: str) -> float:
    return age_s(stored, time.time()) or 0.0


def _read_info(seq: int, body: bytes) -> Attachment | None:
    """None for one that cannot be read."""
    try:
        return from_wire(orjson.loads(body), seq)
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        return None
