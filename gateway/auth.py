"""Who somebody is and what they may do: JWTs to identities with rights per session pattern (PROTOCOL, section 1)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from broker.errors import ConfigError, ErrorCode, Refused
from broker.events import Participant
from gateway.config import GatewaySettings
from gateway.keys import Key, pyjwt, read_keys

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


class Authenticator:
    """Checks tokens against the keys that were configured."""

    def __init__(self, keys: tuple[Key, ...], *, issuer: str = "", audience: str = "", leeway_s: float = 10.0) -> None:
        if not keys:
            raise ConfigError(
                "no keys to check tokens with: set ANTIPHON_JWT_SECRET_FILE or ANTIPHON_JWT_PUBLIC_KEYS "
                "(for a try-out, `antiphon dev` makes a key of its own)"
            )
        self._keys = keys
        self._jwt = pyjwt(keys)
        self._issuer = issuer or None
        self._audience = audience or None
        self._leeway_s = leeway_s

    @classmethod
    def from_settings(cls, settings: GatewaySettings) -> Authenticator:
        """Raises ConfigError when there are no keys, or one cannot be used."""
        return cls(
            read_keys(settings),
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
            algorithm = self._jwt.get_unverified_header(token).get("alg")
        except self._jwt.InvalidTokenError:
            raise _unauthorized("the token is not a JWT") from None
        problem = "no key here is for this token's algorithm"
        for key in self._keys:
            if key.algorithm != algorithm:
                continue
            try:
                return _identity(self._decode(token, key))
            except self._jwt.InvalidSignatureError:
                problem = "the token is not signed with a key known here"
            except self._jwt.ExpiredSignatureError:
                raise _unauthorized("the token has expired") from None
            except self._jwt.InvalidTokenError as error:
                raise _unauthorized(f"the token cannot be accepted: {type(error).__name__}") from None
        raise _unauthorized(problem)

    def _decode(self, token: str, key: Key) -> Mapping[str, Any]:
        claims: Mapping[str, Any] = self._jwt.decode(
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
