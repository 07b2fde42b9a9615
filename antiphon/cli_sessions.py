"""The commands about sessions: talking in them, looking at them, writing them to files."""

from __future__ import annotations

import argparse
import os
from functools import partial
from typing import TYPE_CHECKING

from antiphon.cli_audit import as_operator
from antiphon.options import Parsers, add_settings, broker_settings, command, data_flag, names
from antiphon.place import place
from antiphon.processes import BrokerSettings
from broker.config import LogSettings, NatsSettings
from broker.errors import ConfigError
from broker.permissions import Role

if TYPE_CHECKING:
    from antiphon.talk import Access

# --- talking -------------------------------------------------------------------------------------------------------------


def _chat(commands: Parsers) -> None:
    _session_flags(command(commands, "chat", "Talk in a session, in the terminal.", _run_chat))


async def _run_chat(args: argparse.Namespace) -> int:
    from antiphon.chat import chat

    return await chat(_where(args), args.session)


def _send(commands: Parsers) -> None:
    parser = command(commands, "send", "Send one message to a session.", _run_send)
    _session_flags(parser)
    parser.add_argument("text", help="the message")
    parser.add_argument(
        "--attach", action="append", default=[], metavar="FILE", help="a file to send with it; may be repeated"
    )
    later = parser.add_mutually_exclusive_group()
    later.add_argument("--at", metavar="TIME", help="send it then: 2026-11-30T09:00 (here, unless it says a time zone)")
    later.add_argument("--in", dest="after", metavar="TIME", help="send it after so long: 90s, 15m, 2h, 3d")
    parser.add_argument("--wait", action="store_true", help="wait for the answer and print it")
    parser.add_argument("--json", action="store_true", help="print JSON")


async def _run_send(args: argparse.Namespace) -> int:
    from antiphon.talk import send, when_of

    where, when = _where(args), when_of(args.at, args.after)
    return await send(where, args.session, args.text, args.attach, when=when, wait=args.wait, as_json=args.json)


def _tail(commands: Parsers) -> None:
    parser = command(commands, "tail", "Follow a session.", _run_tail)
    _session_flags(parser)
    parser.add_argument("--from-start", action="store_true", help="from the log's first entry, every token")
    parser.add_argument("--json", action="store_true", help="print each entry as a line of JSON")
    parser.add_argument("--until-idle", action="store_true", help="end when nothing runs and nothing waits")


async def _run_tail(args: argparse.Namespace) -> int:
    from antiphon.talk import tail

    where = _where(args)
    return await tail(where, args.session, from_start=args.from_start, as_json=args.json, until_idle=args.until_idle)


# --- looking around ------------------------------------------------------------------------------------------------------


def _sessions(commands: Parsers) -> None:
    parser = command(commands, "sessions", "List your sessions, the latest first.", _run_sessions)
    parser.add_argument("--json", action="store_true", help="print each as a line of JSON")
    _access_flags(parser)


async def _run_sessions(args: argparse.Namespace) -> None:
    from antiphon.listing import list_sessions

    await list_sessions(_where(args), as_json=args.json)


def _handoffs(commands: Parsers) -> None:
    parser = command(commands, "handoffs", "List the hand-overs that wait for your roles.", _run_handoffs)
    parser.add_argument("--json", action="store_true", help="print each as a line of JSON")
    _access_flags(parser)


async def _run_handoffs(args: argparse.Namespace) -> None:
    from antiphon.listing import list_handoffs

    await list_handoffs(_where(args), as_json=args.json)


def _trace(commands: Parsers) -> None:
    parser = command(commands, "trace", "Follow one request through all parts, by its log.", _run_trace)
    parser.add_argument("id", metavar="ID", help="an inputId, a runId, or a trace id (32 hexadecimal digits)")
    parser.add_argument("--session", metavar="NAME", help="the session it is in (default: those of late are searched)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    log_flags(parser)


async def _run_trace(args: argparse.Namespace) -> int:
    from antiphon.following import trace

    return await trace(log_access(args, Role.OBSERVER), args.id, args.session, as_json=args.json)


# --- sessions as files -----------------------------------------------------------------------------------------------------


def _export(commands: Parsers) -> None:
    parser = command(commands, "export", "Write a session out, whole, as lines of JSON.", _run_export)
    parser.add_argument("session", help="the session's name")
    parser.add_argument("-o", "--output", metavar="FILE", help="where to (default: standard output)")
    log_flags(parser)


async def _run_export(args: argparse.Namespace) -> int:
    from antiphon.transfer import export_session

    broker = log_access(args, Role.OBSERVER)
    return await as_operator(broker, "export", args.session, partial(export_session, broker, args.session, args.output))


def _import(commands: Parsers) -> None:
    parser = command(commands, "import", "Restore an exported session into an empty one.", _run_import)
    parser.add_argument("session", help="the name of the session to restore into")
    parser.add_argument("file", metavar="FILE", help="what `antiphon export` has written; -: standard input")
    log_flags(parser)


async def _run_import(args: argparse.Namespace) -> int:
    from antiphon.transfer import import_session

    broker = log_access(args, Role.PROVISIONER)
    return await as_operator(broker, "import", args.session, partial(import_session, broker, args.session, args.file))


def _replay(commands: Parsers) -> None:
    parser = command(commands, "replay", "Play a recorded session to an agent, and show what it does now.", _run_replay)
    parser.add_argument("file", nargs="?", metavar="FILE", help="what `antiphon export` has written")
    parser.add_argument("--session", metavar="NAME", help="a session of a running log, in place of a file")
    parser.add_argument("--agent", required=True, metavar="NAME", help="built in, or module:object")
    parser.add_argument(
        "--only", default="text,calls,steps,end", metavar="WHAT", help="what to compare (default text,calls,steps,end)"
    )
    parser.add_argument("--timeout-s", type=float, default=120.0, metavar="X", help="longest turn (default 120)")
    parser.add_argument("--json", action="store_true", help="print each turn, then and now, as a line of JSON")
    log_flags(parser)


async def _run_replay(args: argparse.Namespace) -> int:
    from agent_worker.loading import load_agent
    from antiphon.replaying import COMPARED, Asked, replay_file, replay_session

    only = names(args.only)
    if unknown := [name for name in only if name not in COMPARED]:
        raise ConfigError(f"--only: {unknown[0]!r} is none of {', '.join(COMPARED)}")
    if (args.file is None) == (args.session is None):
        raise ConfigError("give a FILE that `antiphon export` has written, or --session NAME")
    asked = Asked(load_agent(args.agent), only, args.timeout_s, args.json)
    if args.file is not None:
        return await replay_file(args.file, asked)
    return await replay_session(log_access(args, Role.OBSERVER), args.session, asked)


def log_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of a command that speaks to the log itself."""
    data_flag(parser)
    add_settings(parser, NatsSettings, title="NATS (default: that of the `antiphon dev` beside)")
    add_settings(parser, LogSettings, title="log")


def log_access(args: argparse.Namespace, role: Role) -> BrokerSettings:
    """The log that the flags name, or that of the `antiphon dev` beside, there in that role."""
    where = place(args.data)
    running = where.running()
    if args.nats_url is None and "ANTIPHON_NATS_URL" not in os.environ and running is not None:
        vars(args).update(where.as_nats_user(role), nats_url=running.nats_url)
    return broker_settings(args)


def _session_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("session", help="the session's name: 1-128 of A-Z a-z 0-9 _ -")
    _access_flags(parser)


def _access_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--url", default=os.environ.get("ANTIPHON_URL"), help="a gateway (default: the `antiphon dev` beside)"
    )
    parser.add_argument(
        "--token", default=os.environ.get("ANTIPHON_TOKEN"), help="a token (default: one made beside dev)"
    )
    parser.add_argument("--user", default=os.environ.get("USER", "me"), help="who to be, beside `antiphon dev`")
    parser.add_argument("--roles", default="", help="what to be there, for approvals and hand-overs: a,b")
    data_flag(parser)


def _where(args: argparse.Namespace) -> Access:
    from antiphon.talk import access

    return access(place(args.data), args.url, args.token, args.user, names(args.roles))


COMMANDS = (_chat, _send, _tail, _sessions, _handoffs, _trace, _export, _import, _replay)
