"""NKeys: the Ed25519 keys by which users, accounts and operators of NATS are known.

https://docs.nats.io/reference/reference-protocols/nats-protocol (nkeys), https://github.com/nats-io/nkeys. A key as text
is base32 of a prefix, which gives its first letter, the 32 bytes, and a CRC-16. The package `nkeys` is not used: it has no
wheel, and `cryptography` is here already.
"""

from __future__ import annotations

import base64
import binascii
from enum import IntEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_SEED: Final = 18 << 3
_CRC_BYTES: Final = 2
_KEY_BYTES: Final = 32


class Kind(IntEnum):
    """Whose a key is; the value is the prefix of its text."""

    USER = 20 << 3
    ACCOUNT = 0
    OPERATOR = 14 << 3


class BadKey(ValueError):
    """A text that is no seed. It does not say what the text was."""


class NKey:
    """A key pair. `seed` is its secret, `public` the name by which others know it."""

    __slots__ = ("_key", "kind")

    def __init__(self, kind: Kind, key: Ed25519PrivateKey) -> None:
        self.kind = kind
        self._key = key

    @classmethod
    def made(cls, kind: Kind) -> NKey:
        """A new one, at random."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        return cls(kind, Ed25519PrivateKey.generate())

    @classmethod
    def of(cls, seed: str) -> NKey:
        """Raises BadKey."""
        # 10 MB that processes with a password have no use for.
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        raw = _decoded(seed)
        if len(raw) != 2 + _KEY_BYTES or raw[0] & 0xF8 != _SEED:
            raise BadKey("this is no seed of an NKey")
        try:
            kind = Kind((raw[0] & 7) << 5 | (raw[1] & 0xF8) >> 3)
        except ValueError:
            raise BadKey("this is a seed of another kind than a user's, an account's or an operator's") from None
        return cls(kind, Ed25519PrivateKey.from_private_bytes(raw[2:]))

    @property
    def public(self) -> str:
        return _encoded(bytes([self.kind]) + self._key.public_key().public_bytes_raw())

    @property
    def seed(self) -> str:
        return _encoded(bytes([_SEED | self.kind >> 5, (self.kind & 31) << 3]) + self._key.private_bytes_raw())

    def sign(self, data: bytes) -> bytes:
        return self._key.sign(data)


def _encoded(raw: bytes) -> str:
    checksum = binascii.crc_hqx(raw, 0).to_bytes(_CRC_BYTES, "little")
    return base64.b32encode(raw + checksum).decode().rstrip("=")


def _decoded(text: str) -> bytes:
    try:
        raw = base64.b32decode(text + "=" * (-len(text) % 8))
    except (binascii.Error, ValueError):
        raise BadKey("this is no NKey: it is not base32") from None
    data, checksum = raw[:-_CRC_BYTES], raw[-_CRC_BYTES:]
    if binascii.crc_hqx(data, 0).to_bytes(_CRC_BYTES, "little") != checksum:
        raise BadKey("this is no NKey: its checksum is wrong")
    return data
