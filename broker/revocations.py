"""Revocations: what tokens may no longer be used for, though they have not expired. Pure."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import orjson

from broker import reading
from broker.errors import CodecError


class Revoked(StrEnum):
    """What a revocation is about."""

    TOKEN = "token"  # noqa: S105 (no secret)
    """One token, by its `jti`."""
    USER = "user"
    """All tokens of a user that were issued before."""
    SESSION = "session"
    """What tokens that were issued before allow in one session: everybody's, or one user's."""


@dataclass(frozen=True, slots=True)
class Revocation:
    """Takes back what tokens allow. `whose` is a token's id, a user's id or a session, by `kind`; `tenant` whose that is.

    `user`, of a session: whose tokens; "": everybody's. `before`: tokens that were issued up to that second (since 1970)
    are meant; a token that does not say when it was issued always is. `until`: the second at which the last of them has
    expired, and this may be forgotten.
    """

    kind: Revoked
    whose: str
    before: int
    until: int
    tenant: str = ""
    user: str = ""

    @property
    def key(self) -> str:
        """The same for two of which the later one replaces the other; fit for a subject."""
        named = orjson.dumps([self.tenant, self.whose, self.user])
        return f"{self.kind}.{hashlib.blake2b(named, digest_size=16).hexdigest()}"

    def encode(self) -> bytes:
        return orjson.dumps(dataclasses.asdict(self))

    @classmethod
    def decode(cls, body: bytes) -> Revocation:
        """Raises CodecError. Fields that are not known are ignored."""
        try:
            wire: dict[str, Any] = orjson.loads(body)
            whose, tenant, user = (reading.text(wire[name]) for name in ("whose", "tenant", "user"))
            before, until = (reading.whole(wire[name]) for name in ("before", "until"))
            return cls(Revoked(wire["kind"]), whose, before, until, tenant, user)
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            raise CodecError(f"this is no revocation: {type(error).__name__}") from None


def revocation(kind: Revoked, whose: str, now: float, ttl_s: float, *, tenant: str = "", user: str = "") -> Revocation:
    """One that is made now, and is about tokens that expire within `ttl_s`."""
    return Revocation(kind, whose, int(now), math.ceil(now + ttl_s), tenant, user)
