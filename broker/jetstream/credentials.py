"""As whom a process comes to NATS: a password, an NKey or a credentials file, each read anew at every connection.

So a secret is changed by writing its file, and then letting the server end what stands with the old one.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import nats.errors

from broker.config import NatsSettings
from broker.errors import ConfigError
from broker.nkeys import BadKey, NKey

T = TypeVar("T")

_JWT = re.compile(r"-+BEGIN NATS USER JWT-+\s+(\S+)\s+-+END NATS USER JWT-+")
_SEED = re.compile(r"-+BEGIN USER NKEY SEED-+\s+(\S+)\s+-+END USER NKEY SEED-+")


class Credentials:
    """What a process shows of itself. Making it raises ConfigError if there is something that cannot be used."""

    def __init__(self, settings: NatsSettings) -> None:
        self._settings = settings
        if settings.nats_password_file:
            _text("ANTIPHON_NATS_PASSWORD_FILE", settings.nats_password_file)
        if settings.nats_nkey_file or settings.nats_credentials:
            self.key()

    def options(self) -> dict[str, Any]:
        """For nats-py, which calls what is given here at each connection."""
        s = self._settings
        if s.nats_user:
            return {"user": s.nats_user, "password": _at_connect(self.password)}
        if s.nats_credentials:
            return {"user_jwt_cb": _at_connect(self.jwt), "signature_cb": self._signature}
        if s.nats_nkey_file:
            return {"signature_cb": self._signature}
        return {}

    @property
    def public_key(self) -> str | None:
        """The user's name, if it comes with an NKey alone. Raises nats-py's Error if the file cannot be used any more."""
        return _at_connect(self.key)().public if self._settings.nats_nkey_file else None

    def password(self) -> str:
        """Raises ConfigError."""
        return _text("ANTIPHON_NATS_PASSWORD_FILE", self._settings.nats_password_file)

    def jwt(self) -> bytes:
        """The user's JWT in a credentials file. Raises ConfigError."""
        return self._in_credentials(_JWT, "JWT").encode()

    def key(self) -> NKey:
        """Raises ConfigError."""
        name = "ANTIPHON_NATS_NKEY_FILE"
        if self._settings.nats_credentials:
            name = "ANTIPHON_NATS_CREDENTIALS"
            self.jwt()
            seed = self._in_credentials(_SEED, "seed")
        else:
            seed = _text(name, self._settings.nats_nkey_file)
        try:
            return NKey.of(seed)
        except BadKey as error:
            raise ConfigError(f"{name}: {error}") from None

    def _signature(self, nonce: str) -> bytes:
        return base64.b64encode(_at_connect(self.key)().sign(nonce.encode()))

    def _in_credentials(self, form: re.Pattern[str], what: str) -> str:
        found = form.search(_text("ANTIPHON_NATS_CREDENTIALS", self._settings.nats_credentials))
        if found is None:
            raise ConfigError(f"ANTIPHON_NATS_CREDENTIALS: there is no {what} of a user in it")
        return found[1]


def _text(name: str, path: str) -> str:
    try:
        text = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise ConfigError(f"{name}: cannot read it: {reason or error}") from None
    if not text:
        raise ConfigError(f"{name}: it is empty")
    return text


def _at_connect(act: Callable[[], T]) -> Callable[[], T]:
    """Says what is wrong in a form after which nats-py tries again, for the file may be in the middle of a change."""

    def guarded() -> T:
        try:
            return act()
        except ConfigError as error:
            raise nats.errors.Error(str(error)) from None

    return guarded
