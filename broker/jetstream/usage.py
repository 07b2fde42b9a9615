"""What sessions take, in a stream: the last note of each (`broker.interfaces.UsageNotes`)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress

import orjson
import structlog
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from broker.errors import CodecError, LogError, Unavailable
from broker.jetstream.answers import ServerRefused
from broker.jetstream.catalogue import sessions_of
from broker.jetstream.connection import Connection
from broker.jetstream.direct import read_batch
from broker.jetstream.topology import USAGE_STREAM, stored_partitions
from broker.subjects import USAGE, SessionKey, SessionSubjects, usage_of_session, used_by
from broker.usage import SessionUse

_log = structlog.get_logger("antiphon.usage")

_BATCH = 1024
_REREAD_S = 300.0
"""How often all notes are read again: a plain subscription may lose one that a session is gone."""
_RETRY_S = 0.25


class JetStreamUsage:
    """Over a connection. New notes come by their subject itself, at once, and by the stream."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def note(self, session: SessionKey, use: SessionUse) -> None:
        subject = usage_of_session(session)
        try:
            await self._connection.publish(subject, use.encode())
        except ServerRefused as error:
            raise Unavailable(f"NATS refused the write: {error.description}") from error
        if use.gone:
            # Who listens has heard it; who does not, reads that there is nothing.
            await self._connection.purge(USAGE_STREAM, subject)

    async def sessions(self) -> AsyncIterator[SessionSubjects]:
        partitions = await stored_partitions(self._connection)
        for partition in range(partitions or 0):
            async for key in sessions_of(self._connection, partition):
                yield SessionSubjects.of(key, partitions or 0)

    async def follow(self, take: Callable[[Mapping[SessionKey, SessionUse], bool], None]) -> None:
        wake = asyncio.Event()
        off = self._connection.on_disturbed(lambda _: wake.set())
        subscription: Subscription | None = None

        async def heard(msg: Msg) -> None:
            take(_read([(msg.subject, msg.data)]), False)

        try:
            while True:
                await self._connection.wait_connected()
                wake.clear()
                try:
                    if subscription is None:
                        subscription = await self._connection.subscribe(USAGE, heard)
                        await self._connection.flush()
                    take(await self.read(), True)
                except LogError:
                    await asyncio.sleep(_RETRY_S)
                    continue
                with suppress(TimeoutError):
                    async with asyncio.timeout(_REREAD_S):
                        await wake.wait()
        finally:
            off()

    async def read(self) -> dict[SessionKey, SessionUse]:
        """All notes. Raises Unavailable."""
        found: dict[SessionKey, SessionUse] = {}
        position, end = 0, False
        while not end:
            query = {"seq": position + 1, "next_by_subj": USAGE, "batch": _BATCH}
            page, end = await read_batch(self._connection, USAGE_STREAM, orjson.dumps(query))
            position = page[-1].seq if page else position
            found |= _read([(stored.subject, stored.body) for stored in page])
        return found


def _read(notes: list[tuple[str, bytes]]) -> dict[SessionKey, SessionUse]:
    found = {}
    for subject, body in notes:
        try:
            found[used_by(subject)] = SessionUse.decode(body)
        except CodecError as error:
            _log.warning("a note that is none was ignored", subject=subject, reason=str(error))
    return found
