"""`antiphon dev`: everything on a laptop, as one process tree. nats-server and the workers are children."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from antiphon.dev_workers import DevWorkers, dev_workers
from antiphon.gateway_process import running_gateway
from antiphon.place import Place, Running, make_token
from antiphon.processes import BrokerSettings, settle_memory, stop_signals
from antiphon.webhooks_process import running_webhooks
from broker.config import NatsSettings
from broker.jetstream.connection import Connection
from broker.jetstream.probe import UserOptions
from broker.jetstream.server import EmbeddedServer, ServerOptions
from broker.jetstream.topology import Topology
from broker.nats_config import Login, users_config
from broker.permissions import Role, User, inbox_of
from gateway.config import GatewaySettings
from webhooks.config import WebhookSettings


@dataclass(frozen=True, slots=True)
class DevOptions:
    """What `antiphon dev` was asked for."""

    place: Place
    broker: BrokerSettings
    gateway: GatewaySettings
    agent: str
    """Serves the sessions."""
    asked: Mapping[str, str] = field(default_factory=dict)
    """Agents that it may ask, by the names it asks for them by: each has a pool of that name."""
    webhooks: WebhookSettings = field(default_factory=WebhookSettings)
    users: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: {"user-1": (), "user-2": ("support",)})
    """Who may try it, and what they are."""
    session: str = "demo"
    sources: Path | None = None
    """Where the agents' code is watched for changes; None: it is loaded once."""


async def run_dev(options: DevOptions) -> None:
    """Runs until SIGTERM or SIGINT. Raises ConfigError, ServerError."""
    options.place.make()
    options.place.secret()
    settings = replace(options.gateway, jwt_secret_file=str(options.place.secret_file))
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(EmbeddedServer(_server(options)))
        log = replace(options.broker.log, pools=",".join((*options.broker.log.pool_names, *options.asked)))
        async with Connection(_nats(options, server.url, Role.PROVISIONER), name="topology") as connection:
            await Topology(connection, log).apply()
        broker = replace(options.broker, nats=_nats(options, server.url, Role.GATEWAY), log=log)
        gateway, url = await stack.enter_async_context(running_gateway(broker, settings))
        if options.webhooks.webhook_file:
            await stack.enter_async_context(
                running_webhooks(
                    replace(broker, nats=_nats(options, server.url, Role.WEBHOOKS)), _beside(options.webhooks)
                )
            )
        await stack.enter_async_context(dev_workers(_workers(options, server.url)))
        options.place.announce(Running(url, server.url, os.getpid()))
        stack.callback(options.place.withdraw)
        settle_memory()
        _say_ready(options, url)
        with stop_signals() as stop:
            async with asyncio.TaskGroup() as tasks:
                watching = tasks.create_task(server.watch())
                await stop.wait()
                watching.cancel()
        await gateway.drain()


def _beside(settings: WebhookSettings) -> WebhookSettings:
    """Receivers that are tried out are on this machine."""
    return replace(settings, webhook_networks=settings.webhook_networks or "127.0.0.0/8,::1/128")


def _server(options: DevOptions) -> ServerOptions:
    """With users: another user of this machine reaches the port as well, and must not write the log."""
    passwords = options.place.nats_passwords()
    logins = [Login(role, User(role), password) for role, password in passwords.items()]
    me = Role.PROVISIONER
    users = UserOptions(users_config(logins, options.broker.log.partitions), me, passwords[me], inbox_of(me))
    return ServerOptions(data_dir=options.place.path / "nats", users=users)


def _nats(options: DevOptions, url: str, role: Role) -> NatsSettings:
    return replace(options.broker.nats, nats_url=url, **options.place.as_nats_user(role))


def _workers(options: DevOptions, nats_url: str) -> DevWorkers:
    agents = {options.broker.log.pool_names[0]: options.agent, **options.asked}
    return DevWorkers(options.place, options.broker, nats_url, agents, options.sources)


def _say_ready(options: DevOptions, url: str) -> None:
    secret = options.place.secret()
    print(f"ready {url}", flush=True)
    for user, roles in options.users.items():
        token = make_token(secret, user, None, {"*": ["admin"]}, roles=roles)
        print(f"{user}: {url}/#session={options.session}&token={token}")
    print(f"In another terminal: antiphon chat {options.session}   (Ctrl-C here stops everything)", flush=True)
