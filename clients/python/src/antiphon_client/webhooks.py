"""For who receives webhooks of Antiphon: is a request genuine, and what does it say? Needs no `Client`.

::

    from antiphon_client.webhooks import WebhookInvalid, verify

    async def hook(request):                      # of any web framework
        try:
            event = verify(request.headers, await request.read(), SECRET)
        except WebhookInvalid:
            return Response(status=400)
        if first_time(event.id):                  # the same id may come again
            await tell(event.type, event.data)
        return Response(status=204)

The format is that of Standard Webhooks 1.0, so any library for it does as well.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from .errors import AntiphonError

__all__ = ["Webhook", "WebhookInvalid", "verify"]

_PREFIX = "whsec_"
_VERSION = "v1"


class WebhookInvalid(AntiphonError):
    """A request is not to be believed: answer 400. `code` says why.

    `headers_missing`, `timestamp_invalid` (it is no number), `timestamp_too_old` and `timestamp_too_new` (a replay, or
    a clock that is wrong), `signature_invalid` (somebody else sent it, or another body), `body_invalid` (it is signed,
    and is no event).
    """


@dataclass(frozen=True, slots=True)
class Webhook:
    """What happened. `id` is the same each time that this is sent; `timestamp` is when it happened (RFC 3339)."""

    id: str
    type: str
    timestamp: str
    data: Mapping[str, object]


def verify(
    headers: Mapping[str, str],
    body: bytes | str,
    secret: str | Sequence[str],
    tolerance_s: float = 300.0,
    *,
    now: float | None = None,
) -> Webhook:
    """What a request says, if one of the secrets (`whsec_…`) has signed it, within `tolerance_s` of `now`.

    `body` must be as it came: parsed and written again, it is another one. `now` is seconds since 1970, by default the
    clock's. Raises WebhookInvalid; ValueError for a secret that is none.
    """
    raw = body.encode() if isinstance(body, str) else body
    id_, stamp, signatures = _headers(headers)
    _check_time(stamp, tolerance_s, time.time() if now is None else now)
    keys = [_key(one) for one in ([secret] if isinstance(secret, str) else secret)]
    signed = f"{id_}.{stamp}.".encode() + raw
    if not _any_matches([hmac.new(key, signed, hashlib.sha256).digest() for key in keys], signatures):
        raise WebhookInvalid("signature_invalid", "no signature is by one of the secrets")
    return _webhook(id_, raw)


def _headers(headers: Mapping[str, str]) -> tuple[str, str, str]:
    lowered = {name.lower(): value for name, value in headers.items()}
    found = [lowered.get(f"webhook-{name}", "") for name in ("id", "timestamp", "signature")]
    if not all(found):
        raise WebhookInvalid("headers_missing", "webhook-id, webhook-timestamp and webhook-signature are needed")
    return found[0], found[1], found[2]


def _check_time(stamp: str, tolerance_s: float, now: float) -> None:
    if not (stamp.isascii() and stamp.isdigit() and len(stamp) <= 15):
        raise WebhookInvalid("timestamp_invalid", "webhook-timestamp must be seconds since 1970")
    if int(stamp) < now - tolerance_s:
        raise WebhookInvalid("timestamp_too_old", "the request was signed too long ago")
    if int(stamp) > now + tolerance_s:
        raise WebhookInvalid("timestamp_too_new", "the request was signed in the future")


def _key(secret: str) -> bytes:
    try:
        encoded = secret.removeprefix(_PREFIX)
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"a secret must be {_PREFIX} and Base64") from None
    if not key:
        raise ValueError("a secret must not be empty")
    return key


def _any_matches(expected: list[bytes], header: str) -> bool:
    return any(hmac.compare_digest(one, given) for given in _given(header) for one in expected)


def _given(header: str) -> Iterator[bytes]:
    for part in header.split(" "):
        version, _, encoded = part.partition(",")
        if version != _VERSION:
            continue
        try:
            yield base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            continue


def _webhook(id_: str, raw: bytes) -> Webhook:
    try:
        event = json.loads(raw)
    except ValueError:
        event = None
    match event:
        case {"type": str(type_), "timestamp": str(timestamp), "data": dict(data)}:
            return Webhook(id_, type_, timestamp, data)
        case _:
            raise WebhookInvalid("body_invalid", "the body is no event: {type, timestamp, data}")
