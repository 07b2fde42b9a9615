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
MIN_RSA_BITS = 2048
"""RFC 7518, section 3.3."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key that tokens may be signed with, and the one algorithm it is for (RFC 8725, section 3.1).

    `id` is the `kid` of a published key: a token that names another one is not checked with it. `issuer` is whose key it
    is: tokens of others are not taken from it ("": whatever issuers the settings allow). `tenant` is the one that its
    tokens are for (None: the one that they name).
    """

    algorithm: str
    material: Any
    id: str | None = None
    issuer: str = ""
    tenant: str | None = None

    def is_for(self, algorithm: Any, key_id: Any) -> bool:
        """Whether a token with this header may be signed with it."""
        return self.algorithm == algorithm and (self.id is None or key_id is None or self.id == key_id)


def read_keys(settings: GatewaySettings) -> tuple[Key, ...]:
    """All keys of the settings, but for those that issuers publish. Raises ConfigError when one cannot be used."""
    return (*_secret_keys(settings), *_public_keys(settings))


def pyjwt(*, secrets_alone: bool) -> ModuleType:
    """PyJWT: without cryptography, 11 MB, where all keys are secrets.

    It is imported once: the first caller of a process decides, and a gateway has one set of keys.
    """
    if secrets_alone:
        with absent("cryptography"):
            import jwt
    import jwt

    return jwt


def algorithm_of(material: Any) -> str | None:
    """The algorithm that a public key is for, unless its publisher says another one; None: it is for none of ours."""
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

    match material:
        case RSAPublicKey() if material.key_size >= MIN_RSA_BITS:
            return "RS256"
        case EllipticCurvePublicKey():
            return {"secp256r1": "ES256", "secp384r1": "ES384"}.get(material.curve.name)
        case Ed25519PublicKey():
            return "EdDSA"
        case _:
            return None


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
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        material = load_pem_public_key(_read("ANTIPHON_JWT_PUBLIC_KEYS", path))
    except ValueError:
        raise ConfigError(f"ANTIPHON_JWT_PUBLIC_KEYS: {path} is not a PEM public key") from None
    algorithm = algorithm_of(material)
    if algorithm is None:
        raise ConfigError(
            f"ANTIPHON_JWT_PUBLIC_KEYS: {path} is none of: RSA of {MIN_RSA_BITS} bits or more, P-256, P-384, Ed25519"
        )
    return Key(algorithm, material)


def _read(variable: str, path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"{variable}: cannot read {path}: {error.strerror}") from None
