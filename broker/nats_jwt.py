"""JWTs as NATS has them: signed with NKeys, a user's by its account (https://github.com/nats-io/jwt, version 2). Pure."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

from broker.nkeys import NKey
from broker.permissions import Access

_HEADER: Final = {"typ": "JWT", "alg": "ed25519-nkey"}
_NO_LIMIT: Final = -1


def signed(claims: Mapping[str, Any], key: NKey) -> str:
    """A JWT of these claims, from the key's owner."""
    body = {**claims, "iss": key.public}
    body["jti"] = base64.b32encode(hashlib.sha256(_json(body)).digest()).decode().rstrip("=")
    text = f"{_base64(_json(_HEADER))}.{_base64(_json(body))}"
    return f"{text}.{_base64(key.sign(text.encode()))}"


def user_jwt(
    public_key: str,
    name: str,
    given: Access,
    key: NKey,
    *,
    now_s: int,
    expires_s: int | None = None,
    account: str | None = None,
) -> str:
    """A user's JWT, from the account whose key this is. `expires_s` is its end, seconds since 1970.

    `account` is the one that a server puts the user into which has asked who it is; None: that of the key.
    """
    claims: dict[str, Any] = {"sub": public_key, "name": name, "iat": now_s, "nats": user_claims(given)}
    if expires_s is not None:
        claims["exp"] = expires_s
    if account is not None:
        claims["aud"] = account
    return signed(claims, key)


def user_claims(given: Access) -> dict[str, Any]:
    """What a user may do, as the `nats` of its JWT."""
    return {
        "type": "user",
        "version": 2,
        "pub": {"allow": list(given.publish)},
        "sub": {"allow": list(given.subscribe)},
        **dict.fromkeys(("subs", "data", "payload"), _NO_LIMIT),
    }


def authorization(user: str, server: str, key: NKey, *, now_s: int, jwt: str = "", error: str = "") -> str:
    """What a server is answered that has asked who may come in: the user's JWT, or why not."""
    answer = {"type": "authorization_response", "version": 2} | ({"jwt": jwt} if jwt else {"error": error})
    return signed({"sub": user, "aud": server, "iat": now_s, "nats": answer}, key)


def claims_of(jwt: str) -> dict[str, Any]:
    """The claims of a JWT that a server we are connected to has handed on. Raises ValueError; checks no signature."""
    parts = jwt.split(".")
    if len(parts) != 3:
        raise ValueError("this is no JWT")
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (binascii.Error, UnicodeDecodeError):
        raise ValueError("this is no JWT: its claims are not base64") from None
    if not isinstance(claims, dict):
        raise ValueError("this is no JWT: its claims are no object")  # noqa: TRY004 (one error for what is no JWT)
    return claims


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
