"""What a nats-server is told of Antiphon's users: the part of its configuration that follows from `broker.permissions`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from broker.permissions import Access, User, access, as_config, inbox_of

SYSTEM_ACCOUNT: Final = "SYS"
"""Its users see the servers themselves (`nats server report`), and nothing of the log."""


CALLOUT_SYSTEM_INBOX: Final = inbox_of("callout-system")
CALLOUT_SYSTEM: Final = Access(
    ("$SYS.REQ.SERVER.PING.CONNZ", "$SYS.REQ.SERVER.*.CONNZ", "$SYS.REQ.SERVER.*.KICK"), (f"{CALLOUT_SYSTEM_INBOX}.>",)
)
"""What the callout may do as a user of the system account: ask who is connected, and end connections."""


@dataclass(frozen=True, slots=True)
class Callout:
    """That the servers ask `antiphon callout` about everybody whom they do not know themselves.

    `issuer` is the public key that its answers are signed with, `system` the public key by which it comes into the system
    account.
    """

    issuer: str
    system: str


@dataclass(frozen=True, slots=True)
class Account:
    """An account of NATS: the streams of a cell, and its users. `storage_bytes` is what they may take; 0: no limit."""

    name: str
    logins: tuple[Login, ...]
    storage_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Login:
    """A user as a server knows it: by a password, or by the public part of an NKey."""

    name: str
    user: User
    password: str = field(default="", repr=False)
    nkey: str = ""

    @property
    def known_as(self) -> str:
        """What the servers call it."""
        return self.nkey or self.name

    def entry(self, partitions: int) -> dict[str, Any]:
        """Its entry among the `users` of a server's configuration."""
        known = {"nkey": self.nkey} if self.nkey else {"user": self.name, "password": self.password}
        return known | {"permissions": as_config(access(self.user, partitions))}


def users_config(
    logins: Iterable[Login], partitions: int, *, account: str = "", system: tuple[str, str] | None = None
) -> dict[str, Any]:
    """Users and accounts. The server's format takes JSON.

    `account` is the one that the streams are in; empty: the one that there is without any. (A stream that is there does
    not come along into another account.) `system` are the name and password of a user of the system account.
    """
    config = accounts_config([Account(account, tuple(logins))], partitions)
    if system is not None:
        name, password = system
        config["system_account"] = SYSTEM_ACCOUNT
        config.setdefault("accounts", {})[SYSTEM_ACCOUNT] = {"users": [{"user": name, "password": password}]}
    return config


def accounts_config(accounts: Sequence[Account], partitions: int, callout: Callout | None = None) -> dict[str, Any]:
    """Users in accounts, each with streams of its own: a cell in each. One without a name is the one that there is without
    any. With a `callout`, the first account is the one that its process is in.
    """
    config: dict[str, Any] = {}
    for account in accounts:
        users = [login.entry(partitions) for login in account.logins]
        if account.name:
            streams: Any = {"max_file": account.storage_bytes} if account.storage_bytes else "enabled"
            config.setdefault("accounts", {})[account.name] = {"jetstream": streams, "users": users}
        else:
            config["authorization"] = {"users": users}
    if callout is not None:
        config.setdefault("accounts", {})[SYSTEM_ACCOUNT] = {
            "users": [{"nkey": callout.system, "permissions": as_config(CALLOUT_SYSTEM)}]
        }
        config["system_account"] = SYSTEM_ACCOUNT
        known = [login.known_as for account in accounts for login in account.logins]
        asked: dict[str, Any] = {"issuer": callout.issuer, "auth_users": [*known, callout.system]}
        if accounts[0].name:
            asked["account"] = accounts[0].name
        config.setdefault("authorization", {})["auth_callout"] = asked
    return config
