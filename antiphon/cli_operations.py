"""The commands that take all sessions at once: saving them, restoring them, moving them to another log."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from antiphon.cli_sessions import log_access, log_flags
from antiphon.options import Parsers, command
from antiphon.processes import BrokerSettings
from broker.errors import ConfigError

_AT_ONCE = "8"


def _backup(commands: Parsers) -> None:
    parser = command(commands, "backup", "Save all sessions, or those that match, to a directory.", _run_backup)
    parser.add_argument("directory", metavar="DIR", help="a new directory, or that of an earlier backup of this log")
    _choice(parser)
    log_flags(parser)


async def _run_backup(args: argparse.Namespace) -> int:
    from antiphon.backup import backup

    return await backup(log_access(args), Path(args.directory), _pattern(args.sessions), _at_once(args))


def _restore(commands: Parsers) -> None:
    parser = command(commands, "restore", "Restore the sessions of a backup, or those that match.", _run_restore)
    parser.add_argument("directory", metavar="DIR", help="what `antiphon backup` has made")
    parser.add_argument("--check", action="store_true", help="write nothing: compare the log with the backup")
    _choice(parser)
    log_flags(parser)


async def _run_restore(args: argparse.Namespace) -> int:
    from antiphon.backup import restore_all

    path, pattern = Path(args.directory), _pattern(args.sessions)
    return await restore_all(log_access(args), path, pattern, _at_once(args), check=args.check)


def _move(commands: Parsers) -> None:
    parser = command(commands, "move", "Move sessions into another log.", _run_move)
    parser.add_argument("sessions", metavar="PATTERN", help="which: a name, in which * stands for any characters")
    parser.add_argument("--to-nats-url", metavar="URL", required=True, help="NATS servers of the other log")
    parser.add_argument("--to-nats-credentials", metavar="FILE", default="", help="a NATS credentials file for it")
    parser.add_argument("--wait-s", metavar="S", default="60", help="seconds that a run may take to end (default 60)")
    parser.add_argument("--delete", action="store_true", help="delete each here once it is there, whole")
    parser.add_argument("--at-once", metavar="N", default=_AT_ONCE, help=f"sessions at once (default {_AT_ONCE})")
    log_flags(parser)


async def _run_move(args: argparse.Namespace) -> int:
    from antiphon.moving import Plan, move

    source = log_access(args)
    there = dataclasses.replace(
        source.nats,
        nats_url=args.to_nats_url,
        nats_credentials=args.to_nats_credentials or source.nats.nats_credentials,
    )
    plan = Plan(_pattern(args.sessions), _at_once(args), _seconds("--wait-s", args.wait_s), args.delete)
    return await move(source, BrokerSettings(there, source.log), plan)


def _choice(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sessions", metavar="PATTERN", default="*", help="which: * stands for any characters")
    parser.add_argument("--at-once", metavar="N", default=_AT_ONCE, help=f"sessions at once (default {_AT_ONCE})")


def _pattern(text: str) -> str:
    from broker.jetstream.catalogue import check_pattern

    try:
        return check_pattern(text)
    except ValueError:
        raise ConfigError(f"{text!r} is no pattern of sessions: A-Z a-z 0-9 _ - and *") from None


def _at_once(args: argparse.Namespace) -> int:
    if not args.at_once.isdigit() or not 1 <= int(args.at_once) <= 256:
        raise ConfigError("--at-once must be a whole number from 1 to 256")
    return int(args.at_once)


def _seconds(flag: str, text: str) -> float:
    if not text.isdigit():
        raise ConfigError(f"{flag} must be a whole number of seconds")
    return float(text)


COMMANDS = (_backup, _restore, _move)
