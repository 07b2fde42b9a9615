"""Tokens. Data is the token as it is sent; or, after a `!`, its header and its claims in two lines, which the target signs.

What an attacker can send is the former: nobody signs it. The latter is what an issuer with a fault may sign.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import hashlib
import hmac
import re

import orjson

from broker.errors import Refused
from broker.events import Participant
from gateway.auth import MAX_TOKEN_BYTES, Authenticator
from gateway.claims import MAX_PATTERNS, MAX_ROLES
from gateway.config import GatewaySettings
from gateway.metrics import GatewayMetrics
from gateway.revoked import RevokedTokens
from gateway.rights import Identity, Right
from tests.fuzz.targets import refusing

SECRET = b"fuzz" * 8
_SIGNED = b"!"
_TENANT = re.compile("[a-z0-9][a-z0-9-]{0,31}|")


@functools.cache
def _authenticator() -> Authenticator:
    settings = GatewaySettings(jwt_secret=SECRET.decode())
    return Authenticator.from_settings(settings, GatewayMetrics(), RevokedTokens(known=True))


def signed(header: bytes, claims: bytes) -> str:
    """A token of HS256, whatever its header says."""
    parts = [base64.urlsafe_b64encode(part).rstrip(b"=") for part in (header, claims)]
    mac = hmac.new(SECRET, b".".join(parts), hashlib.sha256).digest()
    return b".".join((*parts, base64.urlsafe_b64encode(mac).rstrip(b"="))).decode()


def _is_signed(token: str) -> bool:
    """Whether it is one that the holder of the secret has made, for all that a check of our own can tell."""
    head, _, mac = token.rpartition(".")
    made = hmac.new(SECRET, head.encode(), hashlib.sha256).digest()
    return hmac.compare_digest(base64.urlsafe_b64encode(made).rstrip(b"=").decode(), mac.rstrip("="))


def tokens(data: bytes) -> None:
    """A token is refused, or proves an identity that holds what its type says."""
    if data.startswith(_SIGNED):
        header, _, claims = data[1:].partition(b"\n")
        token = signed(header, claims)
    else:
        token = data.decode("utf-8", "surrogateescape")
    with refusing(Refused):
        who = asyncio.run(_authenticator().identify(token, "127.0.0.1"))
        assert len(token) <= MAX_TOKEN_BYTES
        assert _is_signed(token), "accepted without a signature"
        _check(who)


def _check(who: Identity) -> None:
    assert 1 <= len(who.id) <= 128
    assert who.id.isprintable()
    assert _TENANT.fullmatch(who.tenant)
    assert isinstance(who.expires_at, int)
    assert isinstance(who.issued_at, int | float)
    assert not isinstance(who.issued_at, bool)
    assert len(who.grants) <= MAX_PATTERNS
    assert len(who.roles) <= MAX_ROLES
    # What a gateway says of the user, to the user and in the log.
    orjson.dumps([who.id, who.name, who.roles, who.token_id, who.expires_at, who.issued_at, who.caller])
    assert who.participant() == Participant("user", who.id, who.name, who.roles)
    for session in ("demo", "a" * 128, "ab" * 64, "a-" * 64):
        for right in Right:
            who.may(right, session)
