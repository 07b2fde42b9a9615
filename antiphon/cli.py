"""The `antiphon` command: what it understands, and one line for each error with the way out."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import os
import re
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agent_worker.config import BUILT_IN, WorkerSettings
from antiphon import (
    cli_audit,
    cli_dead,
    cli_identity,
    cli_operations,
    cli_sessions,
    cli_tenants,
    cli_webhooks,
    cli_workers,
    processes,
)
from antiphon.callout_config import CalloutSettings
from antiphon.options import Parsers, add_settings, broker_settings, command, data_flag, names, settings
from antiphon.place import make_token, place
from broker.config import AttachmentSettings, LogSettings, NatsSettings, TraceSettings
from broker.errors import AntiphonError, ConfigError
from broker.permissions import Role
from broker.session_config import POOL_NAME
from broker.subjects import check_tenant
from broker.telemetry import configure
from broker.versions import VERSION
from gateway.config import RIGHTS, GatewaySettings
from webhooks.config import WebhookSettings

BENCHMARKS = ("fanout", "flood", "idle", "latency", "mix", "one-to-one", "open", "publish", "scale", "slow", "storm")
"""Named here so that the command line need not import what they measure with."""
_NOT_IN_DEV = frozenset({"jwt_secret", "jwt_secret_file", "processes", "process_port"})
_EPILOG = "Start with `antiphon dev`, then `antiphon chat demo` in another terminal. Docs: README.md, docs/."


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line. Returns the exit code: 0, 1 for a failure, 2 for wrong usage, 130 when interrupted."""
    args = _parser().parse_args(argv)
    args.argv = sys.argv[1:] if argv is None else list(argv)
    configure(level=os.environ.get("ANTIPHON_LOG_LEVEL", args.log_level), pretty=sys.stderr.isatty())
    # What the client warns of, the command says itself, in its one line.
    logging.getLogger("antiphon_client").setLevel(logging.ERROR)
    try:
        code: int | None = processes.run(lambda: args.main(args))
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        expected = _innermost(error)
        if not _is_ours(expected):
            raise
        print(f"antiphon: {str(expected).splitlines()[0]}", file=sys.stderr)
        return 1
    return code or 0


def _is_ours(error: BaseException) -> bool:
    """Whether an error is one of Antiphon's or its client's, whose text is for the user."""
    if isinstance(error, AntiphonError):
        return True
    client = sys.modules.get("antiphon_client")
    return client is not None and isinstance(error, client.AntiphonError)


def _innermost(error: BaseException) -> BaseException:
    """What happened, of an error that tasks have wrapped."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="antiphon", description="Live sessions between people and AI agents.", epilog=_EPILOG
    )
    parser.add_argument("--version", action="version", version=f"antiphon {VERSION}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add in (
        _dev,
        _demo,
        *cli_sessions.COMMANDS,
        *cli_operations.COMMANDS,
        *cli_identity.COMMANDS,
        *cli_audit.COMMANDS,
        *cli_tenants.COMMANDS,
        cli_dead.add_dead,
        cli_workers.add_workers,
        _gateway,
        _worker,
        cli_webhooks.add_webhooks,
        _callout,
        _topology,
        _token,
        _doctor,
        _bench,
    ):
        add(commands)
    return parser


# --- all in one --------------------------------------------------------------------------------------------------------


def _dev(commands: Parsers) -> None:
    parser = command(commands, "dev", "Run everything here: NATS, a gateway, a worker.", _run_dev)
    parser.add_argument("--agent", default="echo", metavar="NAME", help=f"{', '.join(BUILT_IN)} or module:object")
    parser.add_argument(
        "--also",
        action="append",
        default=[],
        metavar="NAME",
        help="another agent, that agents may ask; may be repeated",
    )
    parser.add_argument(
        "--no-reload",
        action="store_true",
        help="keep the workers when a Python file below this directory changes",
    )
    data_flag(parser)
    add_settings(parser, GatewaySettings, title="gateway", without=_NOT_IN_DEV)
    add_settings(parser, LogSettings, title="log", without=frozenset({"replicas"}))
    add_settings(parser, AttachmentSettings, title="attachments")
    add_settings(parser, WebhookSettings, title="webhooks", without=frozenset({"webhook_port"}))
    add_settings(parser, TraceSettings, title="traces")


async def _run_dev(args: argparse.Namespace) -> None:
    from agent_worker.loading import check_agent
    from antiphon.dev import DevOptions, run_dev

    broker = processes.BrokerSettings(
        settings(NatsSettings, args),
        settings(LogSettings, args, replicas=1),
        settings(TraceSettings, args),
        settings(AttachmentSettings, args),
    )
    check_agent(args.agent)
    asked = {check_agent(name): name for name in args.also}
    webhooks = settings(WebhookSettings, args, webhook_port=0)
    gateway = settings(GatewaySettings, args)
    sources = None if args.no_reload else Path.cwd()
    await run_dev(DevOptions(place(args.data), broker, gateway, args.agent, asked, webhooks, sources=sources))


def _demo(commands: Parsers) -> None:
    parser = command(commands, "demo", "See it: a session with a real model, here and on a page.", _run_demo)
    parser.add_argument("--port", default="8080", help="port of the page (default 8080; 0: any free one)")
    data_flag(parser)


async def _run_demo(args: argparse.Namespace) -> int:
    from antiphon.demo import run_demo

    return await run_demo(place(args.data), args.port)


# --- processes of a cluster ------------------------------------------------------------------------------------------------


def _gateway(commands: Parsers) -> None:
    parser = command(commands, "gateway", "Run a gateway.", _run_gateway)
    parser.add_argument(
        "--process", type=int, help=argparse.SUPPRESS
    )  # which of several it is: for `run_gateways` alone
    add_settings(parser, GatewaySettings, title="gateway", without=frozenset({"jwt_secret"}))
    add_settings(parser, NatsSettings, title="NATS")
    add_settings(parser, LogSettings, title="log")
    add_settings(parser, AttachmentSettings, title="attachments")
    add_settings(parser, TraceSettings, title="traces")


async def _run_gateway(args: argparse.Namespace) -> None:
    broker, gateway = broker_settings(args), settings(GatewaySettings, args)
    if gateway.processes > 1 and args.process is None:
        from antiphon.gateway_processes import run_gateways

        await run_gateways(args.argv, gateway)
        return
    from antiphon.gateway_process import run_gateway

    await run_gateway(broker, gateway, args.process)


def _worker(commands: Parsers) -> None:
    parser = command(
        commands, "worker", "Run a worker with an agent, or with one for each of several pools.", _run_worker
    )
    parser.add_argument(
        "agent", nargs="?", help=f"{', '.join(BUILT_IN)} or module:object, for the pool that --pool names"
    )
    parser.add_argument(
        "--agent",
        action="append",
        default=[],
        dest="agents",
        metavar="POOL=NAME",
        help="an agent for a pool, in place of the former; may be repeated",
    )
    parser.add_argument(
        "--process", type=int, help=argparse.SUPPRESS
    )  # which of several it is: for `run_workers` alone
    add_settings(parser, WorkerSettings, title="worker")
    add_settings(parser, NatsSettings, title="NATS")
    add_settings(parser, LogSettings, title="log")
    add_settings(parser, AttachmentSettings, title="attachments")
    add_settings(parser, TraceSettings, title="traces")


async def _run_worker(args: argparse.Namespace) -> None:
    from agent_worker.loading import load_agent

    broker, made = broker_settings(args), settings(WorkerSettings, args)
    names_of = _agents_of(args, made.pool)
    if made.worker_processes > 1 and args.process is None:
        from antiphon.worker_processes import run_workers

        await run_workers(args.argv, made)
        return
    from antiphon.worker_process import run_worker

    await run_worker(broker, made, {pool: load_agent(name) for pool, name in names_of.items()}, args.process)


def _agents_of(args: argparse.Namespace, pool: str) -> dict[str, str]:
    """The names of agents by pool. Raises ConfigError."""
    if (args.agent is None) == (not args.agents):
        raise ConfigError("name one agent, or give --agent POOL=NAME for each pool")
    if args.agent is not None:
        return {pool: args.agent}
    found: dict[str, str] = {}
    for text in args.agents:
        of_pool, equals, name = text.partition("=")
        if not equals or not name or not re.fullmatch(POOL_NAME, of_pool) or of_pool in found:
            raise ConfigError(f"--agent {text}: POOL=NAME, each pool (1-64 of A-Z a-z 0-9 _ -) once")
        found[of_pool] = name
    return found


def _callout(commands: Parsers) -> None:
    parser = command(commands, "callout", "Let workers into NATS by service tokens.", _run_callout)
    add_settings(parser, CalloutSettings, title="callout")
    add_settings(parser, GatewaySettings, title="tokens", without=_NOT_OF_TOKENS)
    add_settings(parser, NatsSettings, title="NATS")


_NOT_OF_TOKENS = frozenset(
    field.name
    for field in dataclasses.fields(GatewaySettings)
    if not field.name.startswith(("jwt_", "jwks")) or field.name == "jwt_secret"
)


async def _run_callout(args: argparse.Namespace) -> None:
    from antiphon.callout_process import run_callout

    await run_callout(broker_settings(args), settings(GatewaySettings, args), settings(CalloutSettings, args))


def _topology(commands: Parsers) -> None:
    parser = command(
        commands, "topology", "Make the streams in NATS, or compare them with what they must be.", _run_topology
    )
    parser.add_argument("action", choices=("apply", "check"), help="apply: make them so; check: only say what differs")
    parser.add_argument(
        "--wait-s", type=float, default=0.0, metavar="X", help="seconds to wait for NATS to be ready (default 0)"
    )
    add_settings(parser, NatsSettings, title="NATS")
    add_settings(parser, LogSettings, title="log")


async def _run_topology(args: argparse.Namespace) -> int:
    from broker.jetstream.connection import Connection
    from broker.jetstream.topology import Topology

    broker = broker_settings(args)
    async with Connection(broker.nats, name="antiphon-topology") as connection:
        topology = Topology(connection, broker.log)
        act = topology.apply if args.action == "apply" else topology.check
        drift = await processes.patiently(act, args.wait_s)
    for item in drift:
        print(f"changed: {item}" if args.action == "apply" else str(item))
    if args.action == "check" and drift:
        print("antiphon: `antiphon topology apply` mends this", file=sys.stderr)
        return 1
    print("the topology is as it must be")
    return 0


def _token(commands: Parsers) -> None:
    parser = command(commands, "token", "Make a token.", _run_token)
    parser.add_argument("user", help="the user's id")
    parser.add_argument("--name", help="the name that others see")
    parser.add_argument("--sessions", default="*", metavar="PATTERN", help="sessions it is for (default *: all)")
    rights = ",".join(RIGHTS)
    parser.add_argument(
        "--rights", default="read,send,cancel", help=f"of {rights}, or single commands (default read,send,cancel)"
    )
    parser.add_argument("--roles", default="", help="what the user is, for approvals and hand-overs: a,b")
    parser.add_argument("--tenant", default="", help="the tenant that it is for (default: the default one)")
    parser.add_argument("--id", default="", dest="token_id", help="its `jti`, by which it can be revoked")
    parser.add_argument(
        "--worker",
        default="",
        metavar="POOLS",
        help="a service token, by which a worker comes into NATS: for these pools, or * for all; its --sessions (a,b) are "
        "names, or * for all",
    )
    parser.add_argument(
        "--lanes",
        default="",
        metavar="LANES",
        help="with --worker: the lanes of its --sessions that it may write to: a,b",
    )
    parser.add_argument("--ttl", default="86400", metavar="S", help="seconds until it expires (default a day)")
    parser.add_argument(
        "--secret-file", metavar="FILE", help="the HS256 secret (default: that of `antiphon dev` beside)"
    )
    data_flag(parser)


async def _run_token(args: argparse.Namespace) -> None:
    rights = [right.strip() for right in args.rights.split(",")]
    from gateway.operations import OPERATIONS

    unknown = [right for right in rights if right not in {*RIGHTS, *OPERATIONS}]
    if unknown:
        raise ConfigError(f"--rights: there is no right {unknown[0]!r}")
    if not args.ttl.isdigit() or not int(args.ttl):
        raise ConfigError("--ttl must be a whole number of seconds above 0")
    tenant = check_tenant(args.tenant) if args.tenant else ""
    claims: dict[str, Any] = {"tenant": tenant, "jti": args.token_id}
    roles = names(args.roles)
    if args.lanes and not args.worker:
        raise ConfigError("--lanes is for a service token: say its --worker, too")
    if args.worker:
        claims["worker"] = _worker_claim(args)
        claims["jti"] = args.token_id or secrets.token_hex(8)
        print(make_token(_secret(args), args.user, args.name, {}, int(args.ttl), roles, claims))
        return
    print(make_token(_secret(args), args.user, args.name, {args.sessions: rights}, int(args.ttl), roles, claims))


def _worker_claim(args: argparse.Namespace) -> dict[str, list[str]]:
    """Raises ConfigError."""
    sessions, lanes = [] if args.sessions == "*" else names(args.sessions), names(args.lanes)
    if lanes and not sessions:
        raise ConfigError("--lanes are of some sessions: name them with --sessions")
    return {"pools": names(args.worker), "sessions": sessions} | ({"lanes": lanes} if lanes else {})


def _secret(args: argparse.Namespace) -> str:
    where = place(args.data)
    path = args.secret_file or str(where.secret_file)
    try:
        with open(path, encoding="utf-8") as file:  # noqa: PTH123 (a path the user gave)
            return file.read().strip()
    except OSError as error:
        raise ConfigError(f"cannot read the secret {path}: {error.strerror}; give --secret-file") from None


def _doctor(commands: Parsers) -> None:
    parser = command(commands, "doctor", "Check the set-up, and say how to mend it.", _run_doctor)
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.add_argument(
        "--monitoring",
        default="",
        metavar="URLS",
        help="monitoring ports of the NATS servers, for what clients cannot see",
    )
    parser.add_argument(
        "--role", choices=[*Role], help="only compare what this user of NATS may do with what that role needs"
    )
    data_flag(parser)
    add_settings(parser, NatsSettings, title="NATS")


async def _run_doctor(args: argparse.Namespace) -> int:
    from antiphon.doctor import doctor

    return await doctor(place(args.data), args)


def _bench(commands: Parsers) -> None:
    parser = command(commands, "bench", "Measure.", _run_bench)
    parser.add_argument(
        "names", nargs="+", choices=BENCHMARKS, help="which benchmarks; scale: a model of their figures"
    )
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    parser.add_argument("--runs", type=int, default=5, metavar="N", help="runs of each (default 5)")
    parser.add_argument(
        "--against",
        action="append",
        default=[],
        metavar="PEER",
        help="measure this one, too, in the same run; may be repeated; all: whatever there is (docs/BENCHMARKS.md)",
    )
    parser.add_argument(
        "--costs",
        default="docs/benchmarks.json",
        metavar="FILE",
        help="what scale reckons with: what --json has printed (default docs/benchmarks.json)",
    )


async def _run_bench(args: argparse.Namespace) -> int:
    from antiphon.bench import bench

    return await bench(args.names, runs=args.runs, against=args.against, costs=args.costs, as_json=args.json)


if __name__ == "__main__":
    sys.exit(main())
