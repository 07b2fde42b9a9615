"""A stack on a nats-server that asks `antiphon callout` about everybody but its own users, who are known by their keys."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from antiphon.nats_users import ISSUER, ROLES, SYSTEM, Plan, Wanted, make_users
from broker.config import NatsSettings
from broker.jetstream.connection import Connection
from broker.permissions import Role, inbox_of, inbox_of_service
from tests.support.nats import free_ports
from tests.support.served_nats import served
from tests.support.stack import Process, Stack

_USERS = {"gateway": Role.GATEWAY, "callout": Role.CALLOUT, "audit": Role.OBSERVER, "worker": Role.WORKER}
MAIN = "MAIN"
PARTITIONS = 4


@dataclass(slots=True)
class Walled(Stack):
    """Its processes are users of the server, each of its role; `cell` is the account whose users these are, if not of the
    first one.
    """

    users: Path = field(default_factory=Path)
    cell: str = ""

    def _settings(self, command: str, extra: Any) -> dict[str, str]:
        role = _USERS.get(command, Role.PROVISIONER)
        own = {"ANTIPHON_NATS_NKEY_FILE": str(self.users / f"{self.named(role)}.nk")}
        own["ANTIPHON_NATS_INBOX"] = inbox_of(self.named(role))
        own["ANTIPHON_CALLOUT_ISSUER_FILE"] = str(self.users / ISSUER)
        own["ANTIPHON_CALLOUT_SYSTEM_FILE"] = str(self.users / SYSTEM)
        # Not `super()`: a dataclass with slots is another class than the one whose body this is.
        return own | Stack._settings(self, command, extra)

    def of_cell(self, cell: str, **env: str) -> Walled:
        """The stack of a cell on the same server."""
        upper = {name.upper(): value for name, value in env.items()}
        return Walled(
            self.directory.with_name(cell), self.nats_url, partitions=PARTITIONS, env=upper, users=self.users, cell=cell
        )

    async def start_callout(self, **env: str) -> Process:
        """A new process of `antiphon callout`."""
        return await self._start("callout", "callout", **env)

    def named(self, role: Role) -> str:
        """The user's name."""
        return f"{self.cell}-{role}" if self.cell else str(role)

    def as_user(self, role: Role) -> Connection:
        """A connection of this process."""
        name = self.named(role)
        file = self.users / f"{name}.nk"
        settings = NatsSettings(nats_url=self.nats_url, nats_nkey_file=str(file), nats_inbox=inbox_of(name))
        return Connection(settings, name="test")

    def service_token(self, name: str, *pools: str, **claims: Any) -> str:
        """Of a worker of these pools, an hour unless it says otherwise."""
        worker = {"pools": [*pools]}
        if sessions := claims.pop("only", None):
            worker["sessions"] = sessions
        if lanes := claims.pop("lanes", None):
            worker["lanes"] = lanes
        return self.token(name, **({"worker": worker, "jti": f"id-{name}"} | claims))

    def by_token(self, name: str, token: str, tenant: str = "") -> dict[str, str]:
        """The environment of a worker that comes with a service token, which is in a file of its name."""
        self.token_file(name).write_text(token)
        return {
            "nats_nkey_file": "",
            "nats_user": "worker",
            "nats_password_file": str(self.token_file(name)),
            "nats_inbox": inbox_of_service(tenant, name),
        }

    def token_file(self, name: str) -> Path:
        return self.directory / f"{name}.token"

    def settings_by_token(self, name: str, token: str, tenant: str = "") -> NatsSettings:
        given = {"nats_url": self.nats_url, "connect_timeout_s": 3.0, "reconnect_wait_s": 0.05}
        return NatsSettings(**(self.by_token(name, token, tenant) | given))  # type: ignore[arg-type]


@contextlib.asynccontextmanager
async def walled(
    directory: Path, *, cells: Sequence[str] = (), storage: Mapping[str, int] | None = None, **env: str
) -> AsyncIterator[Walled]:
    """The stack of the account that there is without any. `cells` are accounts with users of their own, whose names begin with
    its; the first stack is then in the account `MAIN`. `storage` are bytes that an account may take.
    """
    users, [port] = directory / "users", free_ports(1)
    upper = {name.upper(): value for name, value in env.items()}
    others = [Wanted(f"{cell}-{role.name}", role.role, account=cell) for cell in cells for role in ROLES]
    make_users(users, Plan([*ROLES, *others], PARTITIONS, MAIN if cells else "", storage or {}, callout=True))
    config = directory / "server.conf"
    store = json.dumps(str(directory / "js"))
    config.write_text(f"host: 127.0.0.1, port: {port}\njetstream {{ store_dir: {store} }}\ninclude users/users.conf\n")
    async with (
        served(config, port),
        Walled(directory / "stack", f"nats://127.0.0.1:{port}", partitions=PARTITIONS, env=upper, users=users) as stack,
    ):
        yield stack
