"""`antiphon audit`, and what the commands that speak to the log itself write there."""

from __future__ import annotations

import argparse
import dataclasses
import getpass
import json
import re
import secrets
import socket
import sys
from collections.abc import Awaitable, Callable

from antiphon.options import Parsers, command
from antiphon.processes import BrokerSettings
from broker.audit import ASKED, DONE, Action, AuditRecord, actions
from broker.clock import now_ms, utc_text
from broker.errors import ConfigError, LogError
from broker.interfaces import AuditLog
from broker.permissions import Role
from broker.subjects import TENANT_NAME, check_tenant, split_key

_TENANT = re.compile(TENANT_NAME)
RECORDS_MAX = 100_000
"""Records that are looked at; an action has two."""


async def as_operator(
    broker: BrokerSettings, action: str, target: str, doing: Callable[[], Awaitable[int]], tenant: str | None = None
) -> int:
    """Does something beside the gateways, and returns its exit code. `tenant` None: the one of the key that `target` is.

    Who may do this may do anything to the log, so that it cannot be written down (an older log has no place for it) is
    told, and does not stop it.
    """
    from broker.jetstream.audit import JetStreamAuditLog
    from broker.jetstream.connection import Connection

    asked = AuditRecord(
        id=secrets.token_hex(8),
        ts=now_ms(),
        action=action,
        target=target,
        outcome=ASKED,
        kind="operator",
        by=_account(),
        tenant=_tenant_of(target) if tenant is None else tenant,
        address=socket.gethostname(),
        process="antiphon",
    )
    async with Connection(broker.nats, name="antiphon-audit") as connection:
        log = JetStreamAuditLog(connection)
        await _note(log, asked)
        outcome = "failed"
        try:
            code = await doing()
            outcome = "failed" if code else DONE
        finally:
            await _note(log, dataclasses.replace(asked, ts=now_ms(), outcome=outcome))
    return code


def _tenant_of(key: str) -> str:
    """Of a session, or of a pattern of sessions."""
    tenant, _ = split_key(key)
    return tenant if _TENANT.fullmatch(tenant) else ""


async def _note(log: AuditLog, record: AuditRecord) -> None:
    try:
        await log.note(record)
    except LogError as error:
        print(f"antiphon: not in the audit log: {error}", file=sys.stderr)


def _account() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def _audit(commands: Parsers) -> None:
    from antiphon.cli_sessions import log_flags

    parser = command(commands, "audit", "List who deleted, copied, revoked and took over what.", _run_audit)
    parser.add_argument("--tenant", help="of this tenant alone; -: of the default one (default: all)")
    parser.add_argument("--action", default="", help="only this one, such as session.delete")
    parser.add_argument("--limit", default="1000", metavar="N", help="the newest so many (default 1000)")
    parser.add_argument("--json", action="store_true", help="print each as a line of JSON")
    log_flags(parser)


async def _run_audit(args: argparse.Namespace) -> None:
    from antiphon.cli_sessions import log_access
    from broker.jetstream.audit import JetStreamAuditLog
    from broker.jetstream.connection import Connection

    if not args.limit.isdigit() or not int(args.limit):
        raise ConfigError("--limit must be a whole number above 0")
    tenant = "" if args.tenant == "-" else check_tenant(args.tenant) if args.tenant else None
    async with Connection(log_access(args, Role.OBSERVER).nats, name="antiphon-audit") as connection:
        found = actions(await JetStreamAuditLog(connection).read(tenant, RECORDS_MAX))
    wanted = [one for one in found if args.action in ("", one.asked.action)]
    for one in wanted[-int(args.limit) :]:
        print(_json(one) if args.json else _line(one))


def _line(one: Action) -> str:
    asked = one.asked
    tenant = f" of {asked.tenant}" if asked.tenant else ""
    by = f"{asked.kind} {asked.by}{tenant}"
    return f"{utc_text(asked.ts)}  {one.outcome or 'not known':<12}  {asked.action:<16}  {asked.target}  by {by} from {asked.address}"


def _json(one: Action) -> str:
    wire = dataclasses.asdict(one.asked) | {"outcome": one.outcome}
    return json.dumps(wire)


COMMANDS = (_audit,)
