"""The commands for a whole log: saving all its sessions, restoring them, moving them to another; its users of NATS."""

from __future__ import annotations

import argparse
import dataclasses
from functools import partial
from pathlib import Path

from antiphon.cli_audit import as_operator
from antiphon.cli_sessions import log_access, log_flags
from antiphon.options import Parsers, add_settings, command, settings
from antiphon.processes import BrokerSettings
from broker.config import LogSettings
from broker.errors import ConfigError
from broker.permissions import STANDARD, Role, inbox_of

_AT_ONCE = "8"
_THERE = {
    "nats_user": "its user there",
    "nats_password_file": "the file with that user's password",
    "nats_credentials": "a NATS credentials file for it",
    "nats_nkey_file": "the file with the seed of its NKey there",
}
"""Who is in the other log whom we write to."""


def _backup(commands: Parsers) -> None:
    parser = command(commands, "backup", "Save all sessions, or those that match, to a directory.", _run_backup)
    parser.add_argument("directory", metavar="DIR", help="a new directory, or that of an earlier backup of this log")
    _choice(parser)
    log_flags(parser)


async def _run_backup(args: argparse.Namespace) -> int:
    from antiphon.backup import backup

    broker, pattern = log_access(args, Role.PROVISIONER), _pattern(args.sessions)
    doing = partial(backup, broker, Path(args.directory), pattern, _at_once(args))
    return await as_operator(broker, "backup", pattern, doing)


def _restore(commands: Parsers) -> None:
    parser = command(commands, "restore", "Restore the sessions of a backup, or those that match.", _run_restore)
    parser.add_argument("directory", metavar="DIR", help="what `antiphon backup` has made")
    parser.add_argument("--check", action="store_true", help="write nothing: compare the log with the backup")
    _choice(parser)
    log_flags(parser)


async def _run_restore(args: argparse.Namespace) -> int:
    from antiphon.backup import restore_all

    path, pattern = Path(args.directory), _pattern(args.sessions)
    broker = log_access(args, Role.PROVISIONER)
    doing = partial(restore_all, broker, path, pattern, _at_once(args), check=args.check)
    return await (doing() if args.check else as_operator(broker, "restore", pattern, doing))


def _move(commands: Parsers) -> None:
    parser = command(commands, "move", "Move sessions into another log.", _run_move)
    parser.add_argument("sessions", metavar="PATTERN", help="which: a name, in which * stands for any characters")
    parser.add_argument("--to-nats-url", metavar="URL", required=True, help="NATS servers of the other log")
    for name, what in _THERE.items():
        flag, metavar = f"--to-{name.replace('_', '-')}", "NAME" if name == "nats_user" else "FILE"
        parser.add_argument(flag, metavar=metavar, default="", help=f"{what}; default: as here")
    parser.add_argument(
        "--to-nats-inbox", metavar="X", help="prefix of the subjects of answers there; default: as here"
    )
    parser.add_argument("--wait-s", metavar="S", default="60", help="seconds that a run may take to end (default 60)")
    parser.add_argument("--delete", action="store_true", help="delete each here once it is there, whole")
    parser.add_argument("--at-once", metavar="N", default=_AT_ONCE, help=f"sessions at once (default {_AT_ONCE})")
    log_flags(parser)


async def _run_move(args: argparse.Namespace) -> int:
    from antiphon.moving import Plan, move

    source = log_access(args, Role.PROVISIONER)
    who = {name: getattr(args, f"to_{name}") for name in _THERE}
    if not any(who.values()) and "@" not in args.to_nats_url:
        who = {name: getattr(source.nats, name) for name in _THERE}
    inbox = args.to_nats_inbox or source.nats.nats_inbox
    there = dataclasses.replace(source.nats, nats_url=args.to_nats_url, nats_inbox=inbox, **who)
    plan = Plan(_pattern(args.sessions), _at_once(args), _seconds("--wait-s", args.wait_s), args.delete)
    doing = partial(move, source, BrokerSettings(there, source.log, attachments=source.attachments), plan)
    return await as_operator(source, "move", plan.pattern, doing)


def _choice(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sessions", metavar="PATTERN", default="*", help="which: * stands for any characters")
    parser.add_argument("--at-once", metavar="N", default=_AT_ONCE, help=f"sessions at once (default {_AT_ONCE})")


def _pattern(text: str) -> str:
    from broker.jetstream.catalogue import check_pattern

    try:
        return check_pattern(text)
    except ValueError:
        raise ConfigError(f"{text!r} is no pattern of sessions: A-Z a-z 0-9 _ - and *, after a tenant and ~") from None


def _at_once(args: argparse.Namespace) -> int:
    if not args.at_once.isdigit() or not 1 <= int(args.at_once) <= 256:
        raise ConfigError("--at-once must be a whole number from 1 to 256")
    return int(args.at_once)


def _seconds(flag: str, text: str) -> float:
    if not text.isdigit():
        raise ConfigError(f"{flag} must be a whole number of seconds")
    return float(text)


def _nats_users(commands: Parsers) -> None:
    parser = command(
        commands, "nats-users", "Make users for NATS, each with what its role needs alone.", _run_nats_users
    )
    parser.add_argument("directory", metavar="DIR", help="where users.conf and the keys go; keys that are there stay")
    parser.add_argument(
        "--user",
        action="append",
        default=[],
        metavar="NAME=ROLE[:POOLS][@ACCOUNT]",
        help=f"a user; may be repeated (default: one for each role: {', '.join(STANDARD)})",
    )
    parser.add_argument("--account", default="", metavar="NAME", help="the account of the streams (default: none)")
    parser.add_argument(
        "--storage",
        action="append",
        default=[],
        metavar="ACCOUNT=BYTES",
        help="what the streams of an account may take, in each copy; may be repeated",
    )
    parser.add_argument(
        "--callout", action="store_true", help="have the servers ask `antiphon callout` about everybody else"
    )
    add_settings(parser, LogSettings, title="log", without=_NOT_PARTITIONS)


async def _run_nats_users(args: argparse.Namespace) -> None:
    from antiphon.nats_users import CONFIG, ISSUER, ROLES, SYSTEM, Plan, Wanted, make_users, storage_of

    wanted, directory = [Wanted.of(text) for text in args.user] or ROLES, Path(args.directory)
    partitions = settings(LogSettings, args).partitions
    plan = Plan(wanted, partitions, args.account, storage_of(args.storage), args.callout)
    files = make_users(directory, plan)
    print(f"include {files[0].with_name(CONFIG)} in the configuration of each nats-server; then, for processes:")
    for user, file in zip(plan.users, files, strict=True):
        more = ""
        if user.role is Role.CALLOUT and args.callout:
            issuer, system = file.with_name(ISSUER), file.with_name(SYSTEM)
            more = f" ANTIPHON_CALLOUT_ISSUER_FILE={issuer} ANTIPHON_CALLOUT_SYSTEM_FILE={system}"
        print(f"{user.name}: ANTIPHON_NATS_NKEY_FILE={file} ANTIPHON_NATS_INBOX={inbox_of(user.name)}{more}")


_NOT_PARTITIONS = frozenset(field.name for field in dataclasses.fields(LogSettings)) - {"partitions"}

COMMANDS = (_backup, _restore, _move, _nats_users)
