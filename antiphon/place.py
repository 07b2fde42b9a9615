"""The data directory of `antiphon dev`, by which other commands find it: address and keys, so that they need no flags."""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from broker.errors import ConfigError
from broker.permissions import STANDARD, Role, inbox_of

DEFAULT_DIR = ".antiphon"
_RUNNING = "running.json"
_SECRET = "secret"  # noqa: S105 (the name of a file)
_DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class Running:
    """A running `antiphon dev`: where it serves, where its NATS is, and its process."""

    url: str
    nats_url: str
    pid: int


@dataclass(frozen=True, slots=True)
class Place:
    """A data directory."""

    path: Path

    @property
    def secret_file(self) -> Path:
        return self.path / _SECRET

    def make(self) -> None:
        """Makes the directory, for its owner alone. Raises ConfigError."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"cannot make the data directory {self.path}: {error.strerror}; choose --data") from None

    def secret(self) -> str:
        """The key that tokens are signed with; made at the first call."""
        return _secret(self.secret_file, 48)

    def nats_passwords(self) -> dict[Role, str]:
        """The password of each role in NATS, each in a file for its owner alone; made at the first call."""
        self._nats_users.mkdir(mode=0o700, exist_ok=True)
        return {role: _secret(self._nats_users / role, 24) for role in STANDARD}

    def as_nats_user(self, role: Role) -> dict[str, Any]:
        """Settings of a process that comes to NATS in that role; nothing if there are no users."""
        path = self._nats_users / role
        if not path.exists():
            return {}
        other = dict.fromkeys(("nats_credentials", "nats_nkey_file"), "")
        who = {"nats_user": str(role), "nats_password_file": str(path), "nats_inbox": inbox_of(role)}
        return other | who

    @property
    def _nats_users(self) -> Path:
        return self.path / "nats-users"

    def announce(self, running: Running) -> None:
        """Lets other commands find this process."""
        temporary = self.path / f"{_RUNNING}.{running.pid}"
        temporary.write_text(json.dumps(asdict(running)), encoding="utf-8")
        temporary.replace(self.path / _RUNNING)

    def withdraw(self) -> None:
        (self.path / _RUNNING).unlink(missing_ok=True)

    def running(self) -> Running | None:
        """The `antiphon dev` that runs here, if one does."""
        try:
            wire = json.loads((self.path / _RUNNING).read_text(encoding="utf-8"))
            running = Running(str(wire["url"]), str(wire["nats_url"]), int(wire["pid"]))
            os.kill(running.pid, 0)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return running


def _secret(path: Path, size: int) -> str:
    """What is in the file; at first it is made, of so many random bytes, for its owner alone."""
    try:
        return path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        secret = secrets.token_urlsafe(size)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secret + "\n")
        return secret


def place(data: str | None) -> Place:
    """The data directory that was asked for, or `.antiphon` here."""
    return Place(Path(data or os.environ.get("ANTIPHON_DATA") or DEFAULT_DIR))


def make_token(
    secret: str,
    user: str,
    name: str | None,
    sessions: dict[str, list[str]],
    ttl_s: int = _DAY_S,
    roles: Sequence[str] = (),
    more: Mapping[str, Any] | None = None,
) -> str:
    """A token signed with HS256; `more` are further claims, of which empty ones are left out."""
    import jwt  # brings cryptography, 10 MB that a worker has no use for

    claims: dict[str, Any] = {"sub": user, "exp": int(time.time()) + ttl_s, "iat": int(time.time())}
    claims["sessions"] = sessions
    claims |= {claim: value for claim, value in (more or {}).items() if value}
    if roles:
        claims["roles"] = list(roles)
    if name:
        claims["name"] = name
    return jwt.encode(claims, secret, "HS256")
