"""The `antiphon` command: what it understands, and one line for each error with the way out."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence

from agent_worker.config import BUILT_IN, WorkerSettings
from antiphon import cli_operations, cli_sessions, processes
from antiphon.options import Parsers, add_settings, broker_settings, command, data_flag, names, settings
from antiphon.place import make_token, place
from broker.config import LogSettings, NatsSettings, TraceSettings
from broker.errors import AntiphonError, ConfigError
from broker.telemetry import configure
from broker.versions import VERSION
from gateway.config import RIGHTS, GatewaySettings

_EPILOG = "Start with `antiphon dev`, then `antiphon chat demo` in another terminal. Docs: README.md, docs/."


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line. Returns the exit code: 0, 1 for a failure, 2 for wrong usage, 130 when interrupted."""
    args = _parser().parse_args(argv)
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
        _gateway,
        _worker,
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
    data_flag(parser)
    add_settings(parser, GatewaySettings, title="gateway", without=frozenset({"jwt_secret", "jwt_secret_file"}))
    add_settings(parser, LogSettings, title="log", without=frozenset({"replicas"}))
    add_settings(parser, TraceSettings, title="traces")


async def _run_dev(args: argparse.Namespace) -> None:
    from agent_worker.loading import check_agent
    from antiphon.dev import DevOptions, run_dev

    broker = processes.BrokerSettings(
        settings(NatsSettings, args), settings(LogSettings, args, replicas=1), settings(TraceSettings, args)
    )
    check_agent(args.agent)
    asked = {check_agent(name): name for name in args.also}
    await run_dev(DevOptions(place(args.data), broker, settings(GatewaySettings, args), args.agent, asked))


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
    add_settings(parser, GatewaySettings, title="gateway", without=frozenset({"jwt_secret"}))
    add_settings(parser, NatsSettings, title="NATS")
    add_settings(parser, LogSettings, title="log")
    add_settings(parser, TraceSettings, title="traces")


async def _run_gateway(args: argparse.Namespace) -> None:
    from antiphon.gateway_process import run_gateway

    await run_gateway(broker_settings(args), settings(GatewaySettings, args))


def _worker(commands: Parsers) -> None:
    parser = command(commands, "worker", "Run a worker with an agent.", _run_worker)
    parser.add_argument("agent", help=f"{', '.join(BUILT_IN)} or module:object")
    add_settings(parser, WorkerSettings, title="worker")
    add_settings(parser, NatsSettings, title="NATS")
    add_settings(parser, LogSettings, title="log")
    add_settings(parser, TraceSettings, title="traces")


async def _run_worker(args: argparse.Namespace) -> None:
    from agent_worker.loading import load_agent
    from antiphon.worker_process import run_worker

    await run_worker(broker_settings(args), settings(WorkerSettings, args), load_agent(args.agent))


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
    parser.add_argument("--rights", default="read,send,cancel", help=f"of {rights} (default read,send,cancel)")
    parser.add_argument("--roles", default="", help="what the user is, for approvals and hand-overs: a,b")
    parser.add_argument("--ttl", default="86400", metavar="S", help="seconds until it expires (default a day)")
    parser.add_argument(
        "--secret-file", metavar="FILE", help="the HS256 secret (default: that of `antiphon dev` beside)"
    )
    data_flag(parser)


async def _run_token(args: argparse.Namespace) -> None:
    rights = [right.strip() for right in args.rights.split(",")]
    unknown = [right for right in rights if right not in set(RIGHTS)]
    if unknown:
        raise ConfigError(f"--rights: there is no right {unknown[0]!r}")
    if not args.ttl.isdigit() or not int(args.ttl):
        raise ConfigError("--ttl must be a whole number of seconds above 0")
    print(make_token(_secret(args), args.user, args.name, {args.sessions: rights}, int(args.ttl), names(args.roles)))


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
    data_flag(parser)
    add_settings(parser, NatsSettings, title="NATS")


async def _run_doctor(args: argparse.Namespace) -> int:
    from antiphon.doctor import doctor

    return await doctor(place(args.data), args)


def _bench(commands: Parsers) -> None:
    parser = command(commands, "bench", "Measure.", _run_bench)
    parser.add_argument("names", nargs="+", choices=("latency", "publish"), help="which benchmarks")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    parser.add_argument("--runs", type=int, default=5, metavar="N", help="runs of each (default 5)")


async def _run_bench(args: argparse.Namespace) -> int:
    from antiphon.bench import bench

    return await bench(args.names, runs=args.runs, as_json=args.json)


if __name__ == "__main__":
    sys.exit(main())
