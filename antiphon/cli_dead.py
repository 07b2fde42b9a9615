"""The command about inputs that were given up."""

from __future__ import annotations

import argparse
from functools import partial

from antiphon.cli_audit import as_operator
from antiphon.cli_sessions import log_access, log_flags
from antiphon.options import Parsers, command
from broker.errors import ConfigError
from broker.permissions import Role


def add_dead(commands: Parsers) -> None:
    """`antiphon dead list`, `show`, `retry`."""
    summary = "List inputs that workers died of and that were given up, show one, or send one again."
    parser = command(commands, "dead", summary, _run_dead)
    parser.add_argument("action", choices=("list", "show", "retry"), help="what to do; show prints what was said")
    parser.add_argument("session", nargs="?", help="the session's name (list: of this session alone)")
    parser.add_argument("input", nargs="?", metavar="INPUT", help="show, retry: its inputId or runId, as list tells it")
    parser.add_argument("--all", action="store_true", help="list: also those that have been sent again")
    parser.add_argument("--json", action="store_true", help="list: print each as a line of JSON")
    log_flags(parser)


async def _run_dead(args: argparse.Namespace) -> int:
    from antiphon.dead import Wanted, list_dead, retry_dead, show_dead

    if args.action == "list":
        return await list_dead(log_access(args, Role.OBSERVER), Wanted(args.session, args.all, args.json))
    if args.session is None or args.input is None:
        raise ConfigError(f"antiphon dead {args.action} needs a session and an input: see `antiphon dead list`")
    if args.action == "show":
        return await show_dead(log_access(args, Role.OBSERVER), args.session, args.input)
    broker = log_access(args, Role.PROVISIONER)
    doing = partial(retry_dead, broker, args.session, args.input)
    return await as_operator(broker, "dead.retry", args.session, doing)
