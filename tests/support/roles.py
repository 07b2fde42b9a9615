"""Users of NATS for tests: one for each role, with its permissions alone, and one for the tests themselves, which may all.

A server that has them is known by its address: processes that a test starts on it are given the user of their role, and
what the test itself does there is done as `tester`, who is in the address.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from broker.jetstream.probe import UserOptions
from broker.nats_config import Login, users_config
from broker.permissions import Role, User, inbox_of

TESTER = "tester"
PARTITIONS = 100

_made: dict[str, RoleUsers] = {}
"""By the password of the tester, which is in the address of a server."""

_ROLES = {
    "gateway": Role.GATEWAY,
    "worker": Role.WORKER,
    "webhooks": Role.WEBHOOKS,
    "doctor": Role.OBSERVER,
    "trace": Role.OBSERVER,
    "export": Role.OBSERVER,
    "usage": Role.OBSERVER,
}


@dataclass(frozen=True, slots=True)
class RoleUsers:
    """The users of one server; the files of their passwords are in `directory`."""

    directory: Path
    password: str

    @classmethod
    def made(cls, directory: Path) -> RoleUsers:
        """New ones, each with a password in a file of its name."""
        directory.mkdir(parents=True, exist_ok=True)
        for role in Role:
            (directory / role).write_text(secrets.token_hex(16))
        users = cls(directory, secrets.token_hex(16))
        _made[users.password] = users
        return users

    def options(self) -> UserOptions:
        logins = [Login(role, User(role), (self.directory / role).read_text()) for role in Role]
        config = users_config(logins, PARTITIONS)
        config["authorization"]["users"].append({"user": TESTER, "password": self.password})
        return UserOptions(config, TESTER, self.password, "_INBOX")

    def settings(self, role: Role) -> dict[str, Any]:
        """Settings of a process with the user of a role."""
        return {
            "nats_user": str(role),
            "nats_password_file": str(self.directory / role),
            "nats_inbox": inbox_of(role),
        }


def users_of(url: str) -> RoleUsers | None:
    """The users of the server at this address; None: everybody may do everything there."""
    return _made.get(urlsplit(url.split(",", maxsplit=1)[0]).password or "")


def settings_of(url: str, role: Role) -> dict[str, Any]:
    """Settings by which a process is the user of a role there; nothing if everybody may do everything."""
    users = users_of(url)
    return {} if users is None else users.settings(role)


def environment_of(url: str, command: str) -> dict[str, str]:
    """The same for an `antiphon` command, as variables without their prefix."""
    role = _ROLES.get(command, Role.PROVISIONER)
    return {name.upper(): value for name, value in settings_of(url, role).items()}
