"""The keys that tokens are checked with, and the library that checks them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from broker.errors import ConfigError
from broker.importing import absent
from gateway.config import GatewaySettings

MIN_SECRET_BYTES = 32
"""RFC 7518, section 3.2: an HS256 key has at least the size of the hash."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key that tokens may be signed with, and the one algorithm it is for (RFC 8725, section 3.1)."""

    algorithm: str
    material: Any


def read_keys(settings: GatewaySettings) -> tuple[Key, ...]:
    """All keys of the settings. Raises ConfigError when one cannot be used."""
    return (*_secret_keys(settings), *_public_keys(settings))


def pyjwt(keys: tuple[Key, ...]) -> ModuleType:
    """PyJWT, ready for these keys: without cryptography, 11 MB, where all of them are secrets.

    It is imported once: the first keys of a process decide, and a gateway has one set of them.
    """
    if all(key.algorithm == "HS256" for key in keys):
        with absent("cryptography"):
            import jwt
    import jwt

    return jwt


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
    paths = [path for part in settings.jwt_public_keys.split(",") if (path := part.strip())]
    return [_public_key(path) for path in paths]


def _public_key(path: str) -> Key:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        material = load_pem_public_key(_read("ANTIPHON_JWT_PUBLIC_KEYS", path))
    except ValueError:
        raise ConfigError(f"ANTIPHON_JWT_PUBLIC_KEYS: {path} is not a PEM public key") from None
    if isinstance(material, RSAPublicKey):
        return Key("RS256", material)
    if isinstance(material, Ed25519PublicKey):
        return Key("EdDSA", material)
    raise ConfigError(f"ANTIPHON_JWT_PUBLIC_KEYS: {path} is neither an RSA nor an Ed25519 key")


def _read(variable: str, path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"{variable}: cannot read {path}: {error.strerror}") from None
