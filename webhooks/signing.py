"""Signatures of Standard Webhooks 1.0 (https://github.com/standard-webhooks/standard-webhooks, spec). Pure."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac

PREFIX = "whsec_"
KEY_BYTES_MIN, KEY_BYTES_MAX = 24, 64
"""Bytes of a key, as the specification wants them."""


def key_of(secret: str) -> bytes:
    """The key in a secret `whsec_…`. Raises ValueError that says what is wrong, and nothing of the secret."""
    if not secret.startswith(PREFIX):
        raise ValueError(f"must begin with {PREFIX}")
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except binascii.Error:
        raise ValueError(f"must be {PREFIX} and Base64") from None
    if not KEY_BYTES_MIN <= len(key) <= KEY_BYTES_MAX:
        raise ValueError(f"must hold {KEY_BYTES_MIN} to {KEY_BYTES_MAX} bytes, not {len(key)}")
    return key


def signature(key: bytes, id_: str, timestamp: int, body: bytes) -> str:
    """`v1,…` of one key; `timestamp` is in seconds since 1970."""
    signed = hmac.new(key, b"%b.%d.%b" % (id_.encode(), timestamp, body), hashlib.sha256).digest()
    return "v1," + base64.b64encode(signed).decode()


def headers(keys: tuple[bytes, ...], id_: str, timestamp: int, body: bytes) -> dict[str, str]:
    """What proves to a receiver who has one of the keys where the body is from, and when it was sent."""
    return {
        "webhook-id": id_,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(signature(key, id_, timestamp, body) for key in keys),
    }
