"""The operations of those who run it. They need `admin` in all sessions."""

from __future__ import annotations

import time
from typing import Any

import orjson
from aiohttp import web

from broker.errors import ErrorCode, Refused
from broker.revocations import Revocation, Revoked, revocation
from gateway.http.answering import json_answer
from gateway.http.carrying import within
from gateway.http.operations.administration import AUDIT_FIELDS, AUDIT_PAGE, REVOCATION_TTL_S
from gateway.http.requests import Call
from gateway.services import Services


class Administration:
    """One for a gateway."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def revoke(self, call: Call) -> web.Response:
        """Raises Refused."""
        fields, kind = call.fields, Revoked(call.fields["kind"])
        if fields.get("user") is not None and kind is not Revoked.SESSION:
            raise Refused(ErrorCode.BAD_COMMAND, "`user` says whose grants in a session are meant", field="user")
        made = revocation(
            kind,
            fields["whose"],
            time.time(),
            fields.get("ttl") or REVOCATION_TTL_S,
            tenant=call.who.tenant,
            user=fields.get("user") or "",
        )
        about = f"{made.kind} {made.whose}{f' of {made.user}' if made.user else ''}"
        async with within(self._services, "revoke"), self._services.auditing.action("revoke", about, call.who):
            call.who.require_everywhere()
            await self._services.revocations.revoke(made)
        return json_answer(orjson.dumps(_wire(made)), 201)

    async def revocations(self, call: Call) -> web.Response:
        """Raises Refused."""
        call.who.require_everywhere()
        async with within(self._services, "revocations"):
            listed = await self._services.revocations.listed()
        own = [_wire(made) for made in listed if made.tenant == call.who.tenant]
        return json_answer(orjson.dumps({"revocations": own}))

    async def audit(self, call: Call) -> web.Response:
        """A page of the tenant's audit log. Raises Refused."""
        call.who.require_everywhere()
        after = int(call.extra.get("after") or 0)
        async with within(self._services, "audit"):
            page, end = await self._services.auditing.page(call.who, after, call.extra.get("limit") or AUDIT_PAGE)
        last = page[-1][0] if page else after
        records = [{name: getattr(record, name) for name in AUDIT_FIELDS} for _, record in page]
        return json_answer(orjson.dumps({"records": records, "after": str(last), "end": end}))


def _wire(made: Revocation) -> dict[str, Any]:
    return {
        "kind": made.kind,
        "whose": made.whose,
        "user": made.user or None,
        "before": made.before,
        "until": made.until,
    }
