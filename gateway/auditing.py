"""What a gateway writes into the audit log: before anything is done, and when it is known what came of it.

Nothing is done that could not be written down. A gateway that dies in between leaves an action whose outcome is not known;
what came of it is in the session's log.
"""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from broker.audit import ASKED, DONE, AuditRecord
from broker.clock import now_ms
from broker.errors import LogError, Refused
from broker.interfaces import AuditLog
from gateway import plane
from gateway.rights import Identity

_log = structlog.get_logger("antiphon.audit")


def audited(command: object) -> tuple[str, str] | None:
    """The action that a command is, and to what; None for what is no business of an auditor.

    What people say and decide is in the session's log, with who did it. Here is what takes the log away or copies it, what
    changes the rules of a session, and what takes it out of others' hands.
    """
    match command:
        case plane.SessionDelete():
            return "session.delete", command.session
        case plane.SessionFork():
            return "session.fork", f"{command.session} to {command.to}"
        case plane.SessionClose():
            return "session.close", command.session
        case plane.SessionReopen():
            return "session.reopen", command.session
        case plane.SessionUpdate() if command.config is not None:
            return "session.config", f"{command.session}: {', '.join(sorted(command.config))}"[:500]
        case plane.HandoffClaim() if command.handoff_id is None:
            return "lane.take", f"{command.session} {command.lane or 'main'}"
        case _:
            return None


class Auditing:
    """Writes down the actions of users. One for a gateway."""

    def __init__(self, log: AuditLog, process: str) -> None:
        self._log = log
        self._process = process

    async def page(self, who: Identity, after: int, limit: int) -> tuple[list[tuple[int, AuditRecord]], bool]:
        """The records of somebody's own tenant (`AuditLog.page`). Raises Unavailable."""
        return await self._log.page(who.tenant, after, limit)

    @asynccontextmanager
    async def action(self, action: str, target: str, who: Identity) -> AsyncIterator[None]:
        """Within, it is carried out. Raises Unavailable, before, if it cannot be written down."""
        record = AuditRecord(
            id=secrets.token_hex(8),
            ts=now_ms(),
            action=action,
            target=target,
            outcome=ASKED,
            kind="user",
            by=who.id,
            tenant=who.tenant,
            address=who.address,
            process=self._process,
        )
        await self._log.note(record)
        try:
            yield
        except Refused as refusal:
            await self._came_to(record, refusal.code.value)
            raise
        await self._came_to(record, DONE)

    async def _came_to(self, record: AuditRecord, outcome: str) -> None:
        """It is done by now: that its outcome cannot be written down is told, and is no reason to say otherwise."""
        try:
            await self._log.note(dataclasses.replace(record, ts=now_ms(), outcome=outcome))
        except LogError as error:
            _log.error("an outcome is missing in the audit log", action=record.action, reason=str(error))
