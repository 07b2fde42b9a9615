"""The audit log in a stream of its own, from which nothing can be deleted before its time (`broker.interfaces.AuditLog`)."""

from __future__ import annotations

import orjson
import structlog

from broker.audit import AuditRecord
from broker.errors import CodecError, Unavailable
from broker.jetstream.answers import ServerRefused
from broker.jetstream.connection import Connection
from broker.jetstream.direct import read_batch
from broker.jetstream.topology import AUDIT_STREAM

_BATCH = 1024

_log = structlog.get_logger("antiphon.audit")


class JetStreamAuditLog:
    """The audit log, over a connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def note(self, record: AuditRecord) -> None:
        try:
            await self._connection.publish(_subject(record.tenant), record.encode())
        except ServerRefused as error:
            raise Unavailable(f"NATS refused the write: {error.description}") from error

    async def read(self, tenant: str | None, limit: int) -> list[AuditRecord]:
        found: list[AuditRecord] = []
        position, end = 0, False
        subjects = "audit.>" if tenant is None else _subject(tenant)
        while not end:
            body = orjson.dumps({"seq": position + 1, "next_by_subj": subjects, "batch": _BATCH})
            page, end = await read_batch(self._connection, AUDIT_STREAM, body)
            found = [*found, *(AuditRecord.decode(stored.body) for stored in page)][-limit:]
            position = page[-1].seq if page else position
        return found

    async def page(self, tenant: str, after: int, limit: int) -> tuple[list[tuple[int, AuditRecord]], bool]:
        body = orjson.dumps({"seq": after + 1, "next_by_subj": _subject(tenant), "batch": limit})
        page, end = await read_batch(self._connection, AUDIT_STREAM, body)
        found = []
        for stored in page:
            try:
                found.append((stored.seq, AuditRecord.decode(stored.body)))
            except CodecError as error:
                # One that a newer version has written must not hide those behind it.
                _log.warning("a record of the audit log is not understood", seq=stored.seq, reason=str(error))
        return found, end


def _subject(tenant: str) -> str:
    # No tenant is named so.
    return f"audit.{tenant or '_'}"
