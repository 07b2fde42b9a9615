"""`antiphon webhooks`: the process that sends them, and what an operator asks of what waits."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from antiphon.cli_sessions import log_access
from antiphon.options import Parsers, add_settings, command, data_flag, settings
from broker.config import LogSettings, NatsSettings, TraceSettings
from broker.errors import ConfigError
from broker.permissions import Role
from webhooks.config import WebhookSettings

_ACTIONS = {
    "run": "send webhooks (the default)",
    "list": "what waits for each endpoint, and what was given up",
    "show": "an event that waits or was given up, by its id",
    "retry": "send what was given up once more: an event by its id, all of an endpoint by the endpoint's, or `all`",
    "resume": "an endpoint that has said 410 Gone is to be told again, from now on",
    "test": "send one event of the type `webhook.test` to an endpoint, and say what it answers",
}


class _Action(argparse.Action):
    """Only the process itself says what it does as it does it."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,  # noqa: ARG002 (see argparse)
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,  # noqa: ARG002
    ) -> None:
        namespace.action = values
        if values != "run":
            namespace.log_level = "warning"


def add_webhooks(commands: Parsers) -> None:
    parser = command(commands, "webhooks", "Tell other systems what happens in sessions.", _run)
    meanings = "; ".join(f"{name}: {meaning}" for name, meaning in _ACTIONS.items())
    parser.add_argument("action", nargs="?", default="run", choices=tuple(_ACTIONS), action=_Action, help=meanings)
    parser.add_argument("what", nargs="?", default="", metavar="ID", help="which event or endpoint")
    parser.add_argument("--json", action="store_true", help="print JSON")
    data_flag(parser)
    add_settings(parser, WebhookSettings, title="webhooks")
    add_settings(parser, NatsSettings, title="NATS (default: that of the `antiphon dev` beside)")
    add_settings(parser, LogSettings, title="log")
    add_settings(parser, TraceSettings, title="traces")


async def _run(args: argparse.Namespace) -> int | None:
    made = settings(WebhookSettings, args)
    if args.action == "run":
        from antiphon.webhooks_process import run_webhooks

        if not made.webhook_file:
            raise ConfigError("ANTIPHON_WEBHOOK_FILE must name the file of endpoints (docs/WEBHOOKS.md)")
        await run_webhooks(log_access(args, Role.WEBHOOKS), made)
        return None
    if not args.what and args.action != "list":
        raise ConfigError(f"`antiphon webhooks {args.action}` needs an ID")
    from antiphon import webhooks_operating

    if args.action == "test":
        return await webhooks_operating.test(made, args.what)
    return await webhooks_operating.operate(
        log_access(args, Role.WEBHOOKS).nats, made, args.action, args.what, as_json=args.json
    )
