"""The data directory of `antiphon dev`, by which other commands find it: address and key, so that they need no flags."""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from broker.errors import ConfigError

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
        try:
            return self.secret_file.read_text(encoding="ascii").strip()
        except FileNotFoundError:
            secret = secrets.token_urlsafe(48)
            descriptor = os.open(self.secret_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(secret + "\n")
            return secret

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
) -> str:
    """A token signed with HS256."""
    import jwt  # brings cryptography, 10 MB that a worker has no use for

    claims: dict[str, Any] = {"sub": user, "exp": int(time.time()) + ttl_s, "iat": int(time.time())}
    claims["sessions"] = sessions
    if roles:
        claims["roles"] = list(roles)
    if name:
        claims["name"] = name
    return jwt.encode(claims, secret, "HS256")
