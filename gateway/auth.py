"""Who somebody is and what they may do: JWTs to identities with rights per session pattern (PROTOCOL, section 1)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from broker.errors import ConfigError, ErrorCode, Refused
from broker.events import Participant
from gateway.config import GatewaySettings

MIN_SECRET_BYTES = 32
"""RFC 7518, section 3.2: an HS256 key has at least the size of the hash."""
MAX_TOKEN_BYTES = 16_384
MAX_PATTERNS = 100
MAX_ROLES = 32
_MAX_EXPIRY = 253_402_300_799
"""The end of the year 9999. A later one is in another unit, and beyond what timers and JSON numbers hold."""


class Right(StrEnum):
    """What a token may allow in a session."""

    READ = "read"
    SEND = "send"
    STEER = "steer"
    CANCEL = "cancel"
    TOOLS = "tools"
    APPROVE = "approve"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Grant:
    """Rights in the sessions whose names match."""

    pattern: re.Pattern[str]
    rights: frozenset[str]


@dataclass(frozen=True, slots=True)
class Identity:
    """A user, until `expires_at` (seconds since 1970). `roles` is what the user is, for approvals and hand-overs."""

    id: str
    name: str | None
    expires_at: int
    grants: tuple[Grant, ...]
    roles: tuple[str, ...] = ()

    def participant(self) -> Participant:
        """Who the user is in the log."""
        return Participant("user", self.id, self.name, self.roles)

    def may(self, right: Right, session: str) -> bool:
        """Whether some pattern that matches the session gives the right; `admin` gives every one."""
        return any(
            (right in grant.rights or Right.ADMIN in grant.rights) and grant.pattern.fullmatch(session)
            for grant in self.grants
        )

    def require(self, right: Right, session: str) -> None:
        """Raises Refused (not_allowed)."""
        if not self.may(right, session):
            raise Refused(
                ErrorCode.NOT_ALLOWED,
                f"the token does not give the right {right.value!r} in this session",
                right=right.value,
            )


@dataclass(frozen=True, slots=True)
class Key:
    """A key that tokens may be signed with, and the one algorithm it is for (RFC 8725, section 3.1)."""

    algorithm: str
    material: Any


class Authenticator:
    """Checks tokens against the keys that were configured."""

    def __init__(self, keys: tuple[Key, ...], *, issuer: str = "", audience: str = "", leeway_s: float = 10.0) -> None:
        if not keys:
            raise ConfigError(
                "no keys to check tokens with: set ANTIPHON_JWT_SECRET_FILE or ANTIPHON_JWT_PUBLIC_KEYS "
                "(for a try-out, `antiphon dev` makes a key of its own)"
            )
        self._keys = keys
        self._issuer = issuer or None
        self._audience = audience or None
        self._leeway_s = leeway_s

    @classmethod
    def from_settings(cls, settings: GatewaySettings) -> Authenticator:
        """Raises ConfigError when there are no keys, or one cannot be used."""
        keys = [*_secret_keys(settings), *_public_keys(settings)]
        return cls(
            tuple(keys),
            issuer=settings.jwt_issuer,
            audience=settings.jwt_audience,
            leeway_s=settings.jwt_leeway_s,
        )

    def identify(self, token: str) -> Identity:
        """The identity that a token proves. Raises Refused (unauthorized) saying why, never echoing the token."""
        if len(token) > MAX_TOKEN_BYTES:
            raise _unauthorized("the token is too large")
        if not token.isascii():
            raise _unauthorized("the token is not a JWT")
        try:
            algorithm = jwt.get_unverified_header(token).get("alg")
        except jwt.InvalidTokenError:
            raise _unauthorized("the token is not a JWT") from None
        problem = "no key here is for this token's algorithm"
        for key in self._keys:
            if key.algorithm != algorithm:
                continue
            try:
                return _identity(self._decode(token, key))
            except jwt.InvalidSignatureError:
                problem = "the token is not signed with a key known here"
            except jwt.ExpiredSignatureError:
                raise _unauthorized("the token has expired") from None
            except jwt.InvalidTokenError as error:
                raise _unauthorized(f"the token cannot be accepted: {type(error).__name__}") from None
        raise _unauthorized(problem)

    def _decode(self, token: str, key: Key) -> Mapping[str, Any]:
        claims: Mapping[str, Any] = jwt.decode(
            token,
            key.material,
            algorithms=[key.algorithm],
            issuer=self._issuer,
            audience=self._audience,
            leeway=self._leeway_s,
            options={"require": ["exp", "sub"], "verify_aud": self._audience is not None},
        )
        return claims


def _unauthorized(message: str) -> Refused:
    return Refused(ErrorCode.UNAUTHORIZED, message)


def _identity(claims: Mapping[str, Any]) -> Identity:
    subject, name, sessions = claims["sub"], claims.get("name"), claims.get("sessions", {})
    if not isinstance(subject, str) or not 1 <= len(subject) <= 128 or not subject.isprintable():
        raise _unauthorized("the claim `sub` must be text of 1-128 printable characters")
    if not isinstance(sessions, dict) or len(sessions) > MAX_PATTERNS:
        raise _unauthorized(f"the claim `sessions` must be an object with at most {MAX_PATTERNS} patterns")
    expires_at = int(claims["exp"])
    if expires_at > _MAX_EXPIRY:
        raise _unauthorized("the claim `exp` is too far in the future: it counts seconds")
    grants = tuple(_grant(pattern, rights) for pattern, rights in sessions.items())
    name = name[:128] if isinstance(name, str) else None
    return Identity(subject, name, expires_at, grants, _roles(claims.get("roles", [])))


def _roles(claim: Any) -> tuple[str, ...]:
    if not isinstance(claim, list) or len(claim) > MAX_ROLES or not all(map(_is_role, claim)):
        raise _unauthorized(f"the claim `roles` must be a list of at most {MAX_ROLES} names of 1-128 characters")
    return tuple(dict.fromkeys(claim))


def _is_role(name: Any) -> bool:
    return isinstance(name, str) and 1 <= len(name) <= 128 and name.isprintable()


def _grant(pattern: str, rights: Any) -> Grant:
    if len(pattern) > 128 or not isinstance(rights, list):
        raise _unauthorized("each of the claim `sessions` must be a pattern with a list of rights")
    return Grant(_expression(pattern), frozenset(right for right in rights if isinstance(right, str)))


def _expression(pattern: str) -> re.Pattern[str]:
    """A pattern of names, in which `*` stands for any run of characters.

    What lies between two stars is looked for once, at its first place, and never again (an atomic group): else a user
    could choose a session's name so that four stars take seconds.
    """
    first, *rest = (re.escape(part) for part in pattern.split("*"))
    if not rest:
        return re.compile(first)
    return re.compile(first + "".join(f"(?>.*?{part})" for part in rest[:-1]) + ".*" + rest[-1])


def _secret_keys(settings: GatewaySettings) -> list[Key]:
    secret = settings.jwt_secret
    if settings.jwt_secret_file:
        secret = _read("ANTIPHON_JWT_SECRET_FILE", settings.jwt_secret_file).decode("utf-8", "replace").strip()
    if not secret:
        return []
    if len(secret.encode()) < MIN_SECRET_BYTES:
        raise ConfigError(f"the JWT secret must have at least {MIN_SECRET_BYTES} bytes")
    if secret.startswith("-----BEGIN "):
        raise ConfigError("the JWT secret is a PEM key: name it in ANTIPHON_JWT_PUBLIC_KEYS instead")
    return [Key("HS256", secret.encode())]


def _public_keys(settings: GatewaySettings) -> list[Key]:
    keys = []
    for path in filter(None, (part.strip() for part in settings.jwt_public_keys.split(","))):
        try:
            material = load_pem_public_key(_read("ANTIPHON_JWT_PUBLIC_KEYS", path))
        except ValueError:
            raise ConfigError(f"ANTIPHON_JWT_PUBLIC_KEYS: {path} is not a PEM public key") from None
        if isinstance(material, RSAPublicKey):
            keys.append(Key("RS256", material))
        elif isinstance(material, Ed25519PublicKey):
            keys.append(Key("EdDSA", material))
        else:
            raise ConfigError(f"ANTIPHON_JWT_PUBLIC_KEYS: {path} is neither an RSA nor an Ed25519 key")
    return keys


def _read(variable: str, path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"{variable}: cannot read {path}: {error.strerror}") from None
