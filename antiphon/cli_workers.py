"""The command about workers and the versions of their agents."""

from __future__ import annotations

import argparse
from functools import partial

from antiphon.cli_audit import as_operator
from antiphon.cli_sessions import log_access, log_flags
from antiphon.options import Parsers, command
from broker.errors import ConfigError
from broker.permissions import Role
from broker.subjects import check_pool_key, check_version, split_key
from broker.workers import NO_LABEL

DRAIN_TTL_S = 604_800
"""A week: long enough to take an old version away, and short enough that its label may come back one day."""


def add_workers(commands: Parsers) -> None:
    """`antiphon workers list`, `drain`, `undrain`."""
    summary = "List the workers that are there, or have those of a version take no more jobs, or take them again."
    parser = command(commands, "workers", summary, _run_workers)
    parser.add_argument("action", choices=("list", "drain", "undrain"), help="what to do")
    parser.add_argument("--pool", metavar="POOL", help="whose (list: of this pool alone); TENANT~POOL: a tenant's own")
    parser.add_argument(
        "--version", metavar="LABEL", help=f"the version of their agents; {NO_LABEL}: those that name none"
    )
    parser.add_argument(
        "--finish",
        action="store_true",
        help="drain: what they have stays theirs until it ends, however long that takes",
    )
    parser.add_argument(
        "--ttl",
        metavar="S",
        default=str(DRAIN_TTL_S),
        help="drain: seconds after which they take jobs again (default a week; 0: until undrain)",
    )
    parser.add_argument(
        "--wait-s", metavar="S", default="0", help="drain: seconds to wait until they have nothing left (default 0)"
    )
    parser.add_argument("--json", action="store_true", help="list: print each as a line of JSON")
    log_flags(parser)


async def _run_workers(args: argparse.Namespace) -> int:
    from antiphon.workers import Draining, Whose, drain, list_workers, undrain

    pool = None if args.pool is None else check_pool_key(args.pool)
    version = None if args.version is None else _version(args.version)
    if args.action == "list":
        return await list_workers(log_access(args, Role.OBSERVER), Whose(pool, version), as_json=args.json)
    if pool is None or version is None:
        raise ConfigError(f"antiphon workers {args.action} needs --pool and --version: see `antiphon workers list`")
    broker = log_access(args, Role.PROVISIONER)
    if args.action == "undrain":
        doing = partial(undrain, broker, pool, version)
    else:
        plan = Draining(args.finish, _whole("--ttl", args.ttl), _whole("--wait-s", args.wait_s))
        doing = partial(drain, broker, pool, version, plan)
    target = f"{pool} {args.version}"
    return await as_operator(broker, f"workers.{args.action}", target, doing, split_key(pool)[0])


def _version(text: str) -> str:
    return "" if text == NO_LABEL else check_version(text)


def _whole(flag: str, text: str) -> int:
    if not text.isdigit():
        raise ConfigError(f"{flag} must be a whole number of seconds")
    return int(text)
