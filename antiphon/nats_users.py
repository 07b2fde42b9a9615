"""`antiphon nats-users`: users of NATS, their NKeys, and the part of nats-server's configuration that knows them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from broker.errors import ConfigError
from broker.nats_config import Account, Callout, Login, accounts_config
from broker.nkeys import BadKey, Kind, NKey
from broker.permissions import ANY_POOL, STANDARD, Role, User, inbox_of

CONFIG: Final = "users.conf"
ISSUER: Final = "callout-issuer.nk"
"""The key that `antiphon callout` signs with: who has it can let anybody in."""
SYSTEM: Final = "callout-system.nk"
_HEAD = "# Made by `antiphon nats-users`. No secret is in it: an NKey's public part only.\n"


@dataclass(frozen=True, slots=True)
class Wanted:
    """A user that is wanted: `NAME=ROLE`, or `NAME=ROLE:POOL,POOL` for one of these pools alone, with `@ACCOUNT` behind it if
    it is not in the account of the others.
    """

    name: str
    role: Role
    pools: tuple[str, ...] = (ANY_POOL,)
    account: str | None = None

    @classmethod
    def of(cls, text: str) -> Wanted:
        """Raises ConfigError."""
        name, _, rest = text.partition("=")
        rest, at, account = rest.partition("@")
        role, _, pools = rest.partition(":")
        if not _is_name(name) or role not in {*Role} or (at and not _is_name(account)):
            raise ConfigError(
                f"--user {text!r}: must be NAME=ROLE or NAME=ROLE:POOL,…, with a role of {', '.join(Role)}, "
                "and @ACCOUNT behind it or not"
            )
        return cls(name, Role(role), tuple(filter(None, pools.split(","))) or (ANY_POOL,), account or None)


def _is_name(text: str) -> bool:
    return text.isascii() and text.replace("-", "").replace("_", "").isalnum()


ROLES: Final = tuple(Wanted(str(role), role) for role in STANDARD)
"""One for each role."""


def storage_of(texts: Iterable[str]) -> dict[str, int]:
    """`ACCOUNT=BYTES` each: what the streams of an account may take. Raises ConfigError."""
    found: dict[str, int] = {}
    for text in texts:
        account, _, size = text.partition("=")
        if not _is_name(account) or not size.isdigit() or not int(size):
            raise ConfigError(f"--storage {text!r}: must be ACCOUNT=BYTES")
        found[account] = int(size)
    return found


@dataclass(frozen=True, slots=True)
class Plan:
    """Which users, of a log with how many partitions, in which account unless they name another one ("": in none); how much
    storage accounts may take; and whether the servers are to ask `antiphon callout`.
    """

    wanted: Sequence[Wanted]
    partitions: int
    account: str = ""
    storage: Mapping[str, int] = field(default_factory=dict)
    callout: bool = False

    @property
    def users(self) -> Sequence[Wanted]:
        known = any(each.role is Role.CALLOUT for each in self.wanted)
        return self.wanted if known or not self.callout else [*self.wanted, Wanted(str(Role.CALLOUT), Role.CALLOUT)]

    @property
    def accounts(self) -> Sequence[str]:
        """In order; the first is that of the callout."""
        first = [each.account or self.account for each in self.users if each.role is Role.CALLOUT]
        return [*dict.fromkeys([*first, *(each.account or self.account for each in self.users)])]


def make_users(directory: Path, plan: Plan) -> list[Path]:
    """Writes `users.conf`, and a seed for each user that has none yet; returns the seeds' files. Raises ConfigError."""
    directory = directory.absolute()
    if len({each.name for each in plan.users}) < len(plan.users):
        raise ConfigError("--user: two users have one name")
    if unknown := plan.storage.keys() - {*plan.accounts}:
        raise ConfigError(f"--storage: no user is in the account {min(unknown)!r}")
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        keys = {each.name: _key(directory / f"{each.name}.nk") for each in plan.users}
        callout = _callout(directory) if plan.callout else None
        accounts = [_account(name, plan, keys) for name in plan.accounts]
        config = accounts_config(accounts, plan.partitions, callout)
        # What nats-server includes is not JSON as a whole, but its values are.
        lines = [f"{name}: {json.dumps(value, indent=2)}\n" for name, value in config.items()]
        (directory / CONFIG).write_text(_HEAD + "".join(lines), encoding="ascii")
    except OSError as error:
        raise ConfigError(f"cannot write to {directory}: {error.strerror}") from None
    return [directory / f"{name}.nk" for name in keys]


def _account(name: str, plan: Plan, keys: dict[str, NKey]) -> Account:
    logins = [
        Login(each.name, User(each.role, each.pools, inbox_of(each.name)), nkey=keys[each.name].public)
        for each in plan.users
        if (each.account or plan.account) == name
    ]
    return Account(name, tuple(logins), plan.storage.get(name, 0))


def _callout(directory: Path) -> Callout:
    return Callout(_key(directory / ISSUER, Kind.ACCOUNT).public, _key(directory / SYSTEM).public)


def _key(path: Path, kind: Kind = Kind.USER) -> NKey:
    """The key of the seed in a file; at first it is made, for the file's owner alone."""
    try:
        return NKey.of(path.read_text(encoding="ascii").strip())
    except BadKey as error:
        raise ConfigError(f"{path}: {error}") from None
    except FileNotFoundError:
        key = NKey.made(kind)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(key.seed + "\n")
        return key
