"""`antiphon tenant`: what tenants have in a log, and deleting all that one has. It speaks to NATS, not to a gateway."""

from __future__ import annotations

import dataclasses
import json
import secrets
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from antiphon.processes import BrokerSettings
from antiphon.transfer import Site
from broker.clock import now_ms
from broker.errors import AntiphonError
from broker.events import Entry, Participant, SessionDeleted
from broker.jetstream.audit import JetStreamAuditLog
from broker.jetstream.catalogue import Holding, holdings, messages_by_key
from broker.jetstream.revocations import JetStreamRevocations
from broker.jetstream.topology import ALARM_STREAM, ATTACHMENT_STREAM, HOOKS_STREAM, WORK_STREAM
from broker.jetstream.usage import JetStreamUsage
from broker.subjects import SessionKey, session_key, split_key

DELETER: Final = Participant("system", "antiphon-tenant")
_PASSES: Final = 5
"""Looks for what has been written meanwhile. A tenant whose tokens are out writes nothing any more."""
_RECORDS_MAX: Final = 100_000


class StillWriting(AntiphonError):
    """Something of the tenant is there again after it was deleted."""


@dataclass(slots=True)
class Usage:
    """What a tenant has, in numbers. `messages` are those of its sessions' logs, tokens that have not aged out among them;
    `attachments` their messages, pieces of 128 KiB and one that describes each. `bytes` are those of records and
    attachments that gateways have measured last, which they do for tenants that have a limit; None: nobody has.
    """

    tenant: str
    sessions: int = 0
    messages: int = 0
    attachments: int = 0
    jobs: int = 0
    webhooks: int = 0
    alarms: int = 0
    bytes: int | None = None


async def usage(broker: BrokerSettings, *, as_json: bool) -> int:
    """Prints what each tenant has, the default one as `-`. Raises TopologyError, Unavailable."""
    found: dict[str, Usage] = {}
    sessions: set[str] = set()
    async with Site.of(broker) as site:
        for holding in holdings(site.log.partitions):
            for key, count in (await messages_by_key(site.connection, holding)).items():
                tenant, _ = split_key(key)
                _add(found.setdefault(tenant, Usage(tenant or "-")), holding, count)
                if holding.subjects.startswith("s."):
                    sessions.add(key)
        for measured, use in (await JetStreamUsage(site.connection).read()).items():
            one = found.get(split_key(measured)[0])
            if one is not None:
                one.bytes = (one.bytes or 0) + use.total
    for key in sessions:
        found[split_key(key)[0]].sessions += 1
    for _, one in sorted(found.items()):
        print(json.dumps(dataclasses.asdict(one)) if as_json else _line(one))
    return 0


def _add(one: Usage, holding: Holding, count: int) -> None:
    match holding.stream:
        case stream if stream == ATTACHMENT_STREAM:
            one.attachments += count
        case stream if stream == WORK_STREAM:
            one.jobs += count
        case stream if stream == ALARM_STREAM:
            one.alarms += count
        case stream if stream == HOOKS_STREAM:
            one.webhooks += count
        case _ if holding.subjects.startswith("s."):
            one.messages += count
        case _:
            pass


def _line(one: Usage) -> str:
    return (
        f"{one.tenant:<32}  {one.sessions} sessions  {one.messages} messages  {one.attachments} of attachments  "
        f"{one.jobs} jobs  {one.webhooks} webhooks  {one.alarms} alarms"
        + ("" if one.bytes is None else f"  {one.bytes} bytes")
    )


async def delete(broker: BrokerSettings, tenant: str) -> int:
    """Deletes all that a tenant has, looks again, and says what there is still, and why. Raises StillWriting,
    TopologyError, Unavailable; then it is run again.
    """
    pattern = session_key(tenant, "*")
    deleted: set[str] = set()
    async with Site.of(broker) as site:
        for _ in range(_PASSES):
            left = await _left(site, pattern)
            if not left:
                break
            deleted |= {key for keys in left.values() for key in keys}
            await _tell(
                site, {key for holding, keys in left.items() for key in keys if holding.subjects.startswith("s.")}
            )
            for holding, keys in left.items():
                for key in keys:
                    await site.connection.purge(holding.stream, holding.of(key))
        else:
            raise StillWriting(
                "somebody of the tenant still writes: take its tokens from it first, then run this again"
            )
        kept = await _kept(site, tenant)
    places = dict.fromkeys(holding.stream for holding in holdings(site.log.partitions))
    print(f"{len(deleted)} sessions deleted; nothing of {tenant} is left in {', '.join(places)}")
    for line in kept:
        print(line)
    return 0


async def _left(site: Site, pattern: str) -> dict[Holding, set[str]]:
    """What there is of the sessions that match, by place."""
    found = {}
    for holding in holdings(site.log.partitions):
        if keys := await messages_by_key(site.connection, holding, pattern):
            found[holding] = {*keys}
    return found


async def _tell(site: Site, keys: Iterable[str]) -> None:
    """Says in each session that it is deleted, so that who reads it lets go, and takes its owners their fences."""
    for key in sorted(keys):
        subjects = site.log.subjects(SessionKey(key))
        entry = Entry(f"tenant:{secrets.token_hex(8)}", now_ms(), (SessionDeleted(),), by=DELETER)
        seq = (await site.log.append_input(subjects, entry, entry.id)).seq
        await site.log.forget_before(subjects, seq)


async def _kept(site: Site, tenant: str) -> list[str]:
    """What stays, in lines for people: it must, and goes by itself."""
    async with JetStreamRevocations(site.connection) as revocations:
        revoked = sum(made.tenant == tenant for made in await revocations.listed())
    try:
        records = len(await JetStreamAuditLog(site.connection).read(tenant, _RECORDS_MAX))
    except AntiphonError as error:
        print(f"antiphon: the audit log could not be read: {error}", file=sys.stderr)
        records = 0
    lines = []
    if revoked:
        lines.append(f"kept: {revoked} revocations, which keep its tokens out until these have expired")
    if records:
        lines.append(f"kept: {records} records of the audit log, which nobody can delete before their time")
    return lines
