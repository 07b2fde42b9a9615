"""`antiphon tenant` and `antiphon usage`: what tenants have, and what their models have cost."""

from __future__ import annotations

import argparse
from functools import partial

from antiphon.cli_audit import as_operator
from antiphon.cli_sessions import log_access, log_flags
from antiphon.options import Parsers, command, names
from broker.errors import ConfigError
from broker.permissions import Role
from broker.subjects import check_tenant, session_key


def _tenant(commands: Parsers) -> None:
    parser = command(commands, "tenant", "What tenants have in a log; deleting all that one has.", _run_tenant)
    parser.add_argument("action", choices=("list", "delete"), help="list: what each has; delete: all that one has")
    parser.add_argument("tenant", nargs="?", default="", metavar="TENANT", help="whose, to delete")
    parser.add_argument("--yes", action="store_true", help="delete: do it")
    parser.add_argument("--json", action="store_true", help="list: print each as a line of JSON")
    log_flags(parser)


async def _run_tenant(args: argparse.Namespace) -> int:
    from antiphon.tenants import delete, usage

    if args.action == "list":
        return await usage(log_access(args, Role.OBSERVER), as_json=args.json)
    tenant = check_tenant(args.tenant)
    if not args.yes:
        raise ConfigError(f"this deletes all that {tenant} has, for ever: say --yes (and have a backup)")
    broker = log_access(args, Role.PROVISIONER)
    return await as_operator(broker, "tenant.delete", session_key(tenant, "*"), partial(delete, broker, tenant))


def _usage(commands: Parsers) -> None:
    parser = command(commands, "usage", "Sum up the tokens that models have taken and given, by the log.", _run_usage)
    parser.add_argument("--days", default="7", metavar="N", help="the last so many days of UTC, with today (default 7)")
    parser.add_argument(
        "--by",
        default="tenant,agent,day",
        metavar="WHAT",
        help="what sums are of: some of tenant, agent, day, version, provider, model, session (default tenant,agent,day)",
    )
    parser.add_argument("--tenant", help="of this tenant alone; -: of the default one (default: all)")
    parser.add_argument("--json", action="store_true", help="print each as a line of JSON")
    log_flags(parser)


async def _run_usage(args: argparse.Namespace) -> int:
    from antiphon.usage import GROUPS, Wanted, usage

    by = tuple(dict.fromkeys(names(args.by)))
    if not by or not {*by} <= {*GROUPS}:
        raise ConfigError(f"--by: some of {', '.join(GROUPS)}, separated by commas")
    if not args.days.isdigit() or not 1 <= int(args.days) <= _DAYS_MAX:
        raise ConfigError(f"--days must be a whole number from 1 to {_DAYS_MAX}")
    tenant = "" if args.tenant == "-" else check_tenant(args.tenant) if args.tenant else None
    return await usage(log_access(args, Role.OBSERVER), Wanted(by, int(args.days), tenant), as_json=args.json)


_DAYS_MAX = 3660

COMMANDS = (_tenant, _usage)
