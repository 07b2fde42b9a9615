"""JSON Web Key Sets (RFC 7517): the keys of one that tokens may be signed with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from gateway.keys import Key, algorithm_of

JWKS_BYTES = 262_144
"""Bytes of a key set; a larger one is refused."""
JWKS_KEYS = 64
"""Keys of a key set that tokens are checked with; a set with more is refused."""
KEY_ID_CHARS = 256
"""Characters of a `kid`."""

_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
PUBLISHED = (*_RSA, "ES256", "ES384", "EdDSA")
"""The algorithms that published keys may be for."""


class JwksInvalid(ValueError):
    """It is no key set, or holds no key that can be used."""


def parse_jwks(body: bytes, issuer: str = "", tenant: str | None = None) -> tuple[Key, ...]:
    """The keys of a set, each pinned to one algorithm: its `alg`, or the one that its kind stands for.

    Secrets (`oct`), keys for other uses and of kinds that are not known here are passed over: publishers may add what
    they like. Raises JwksInvalid.
    """
    if len(body) > JWKS_BYTES:
        raise JwksInvalid(f"the key set has more than {JWKS_BYTES} bytes")
    try:
        wire = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise JwksInvalid("the key set is not JSON") from None
    listed = wire.get("keys") if isinstance(wire, dict) else None
    if not isinstance(listed, list):
        raise JwksInvalid("the key set has no list `keys`")
    keys = [key for item in listed if isinstance(item, dict) and (key := _key(item, issuer, tenant)) is not None]
    if not keys:
        raise JwksInvalid("the key set holds no public key for signatures")
    if len(keys) > JWKS_KEYS:
        raise JwksInvalid(f"the key set holds more than {JWKS_KEYS} keys")
    return tuple(keys)


def _key(item: Mapping[str, Any], issuer: str, tenant: str | None) -> Key | None:
    key_id, operations = item.get("kid"), item.get("key_ops", ["verify"])
    if item.get("kty") == "oct" or item.get("use", "sig") != "sig":
        return None
    if not isinstance(operations, list) or "verify" not in operations:
        return None
    if key_id is not None and not (isinstance(key_id, str) and len(key_id) <= KEY_ID_CHARS):
        return None
    # A private key, should somebody publish one, is none of our business: only what is public is taken.
    public = {name: value for name, value in item.items() if name in ("kty", "crv", "n", "e", "x", "y")}
    if not all(isinstance(value, str) for value in public.values()):
        return None
    # PyJWT for public keys alone: see `gateway.keys.pyjwt`.
    import jwt

    try:
        material = jwt.PyJWK(public).key
    except (jwt.PyJWTError, ValueError, TypeError):
        return None
    algorithm = algorithm_of(material)
    wanted = item.get("alg", algorithm)
    if algorithm is None or not (wanted == algorithm or (algorithm == "RS256" and wanted in _RSA)):
        return None
    return Key(wanted, material, key_id, issuer, tenant)
