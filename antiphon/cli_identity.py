"""The commands about who may do what: taking back what tokens allow."""

from __future__ import annotations

import argparse
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from antiphon.cli_audit import as_operator
from antiphon.cli_sessions import log_access, log_flags
from antiphon.options import Parsers, command
from antiphon.processes import BrokerSettings
from broker.clock import utc_text
from broker.errors import ConfigError
from broker.interfaces import Revocations
from broker.permissions import Role
from broker.revocations import Revocation, Revoked, revocation
from broker.subjects import check_tenant, session_key

_DAY_S = 86_400


def _revoke(commands: Parsers) -> None:
    parser = command(commands, "revoke", "Take back tokens, at all gateways within a second.", _run_revoke)
    parser.add_argument(
        "kind",
        choices=[*Revoked, "list"],
        help="token: one, by its `jti`; user: all that a user has by now; session: what those of all (or of --user) allow "
        "in one session; list: show what is revoked",
    )
    parser.add_argument(
        "whose", nargs="?", default="", metavar="ID", help="the token's `jti`, the user's id, the session"
    )
    parser.add_argument("--tenant", default="", help="whose user, token or session it is (default: the default one's)")
    parser.add_argument("--user", default="", help="of a session: the tokens of this user alone")
    parser.add_argument(
        "--ttl-s", default=str(30 * _DAY_S), metavar="S", help="seconds that tokens live at most (30 days)"
    )
    log_flags(parser)


async def _run_revoke(args: argparse.Namespace) -> int:
    if not args.ttl_s.isdigit() or not int(args.ttl_s):
        raise ConfigError("--ttl-s must be a whole number of seconds above 0")
    tenant = check_tenant(args.tenant) if args.tenant else ""
    if (args.kind == "list") == bool(args.whose):
        raise ConfigError("say what to revoke: a token's `jti`, a user's id, or a session")
    if args.user and args.kind != Revoked.SESSION:
        raise ConfigError("--user says whose tokens are meant in a session")
    broker = log_access(args, Role.OBSERVER if args.kind == "list" else Role.PROVISIONER)
    if args.kind == "list":
        await _list(broker)
        return 0
    made = revocation(Revoked(args.kind), args.whose, time.time(), int(args.ttl_s), tenant=tenant, user=args.user)
    about = f"{made.kind} {made.whose}{f' of {made.user}' if made.user else ''}"
    return await as_operator(broker, "revoke", about, partial(_put, broker, made), tenant)


async def _put(broker: BrokerSettings, made: Revocation) -> int:
    async with _revocations(broker) as revocations:
        await revocations.revoke(made)
    print(f"revoked: {made.kind} {made.whose}")
    return 0


async def _list(broker: BrokerSettings) -> None:
    async with _revocations(broker) as revocations:
        for known in await revocations.listed():
            until = utc_text(int(known.until * 1000))
            whose = session_key(known.tenant, known.whose)
            print(f"{known.kind:<8}{whose}{f' of {known.user}' if known.user else ''}  until {until}")


@asynccontextmanager
async def _revocations(broker: BrokerSettings) -> AsyncIterator[Revocations]:
    from broker.jetstream.connection import Connection
    from broker.jetstream.revocations import JetStreamRevocations

    async with (
        Connection(broker.nats, name="antiphon-revoke") as connection,
        JetStreamRevocations(connection) as revocations,
    ):
        yield revocations


COMMANDS = (_revoke,)
