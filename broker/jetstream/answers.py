"""What JetStream answers: JSON, and errors in it."""

from __future__ import annotations

from typing import Any

import orjson
from nats.aio.msg import Msg

from broker.errors import LogFull, TopologyError, Unavailable

_STORAGE_FULL = frozenset({10002, 10047, 10023, 10028, 10077})
"""Limits of the account exceeded, insufficient storage, insufficient resources, storage exceeded, maximum exceeded."""
NO_CONSUMER = 10014
NO_MESSAGE = 10037
NO_SEQUENCE = 10043
NO_STREAM = 10059
WRONG_LAST_SEQUENCE = 10071
MAXIMUM_PER_SUBJECT = 10077
CONTENDED = 10164
"""What `ServerRefused.code` says (nats-server's errors.json). The last: a write with the same
expectation is in flight; retry. It does not say that the expectation failed."""
_TRANSIENT = frozenset({10008, 10009, 10039, 10076, 10118})
"""System unavailable, cluster without a leader, JetStream not (yet) enabled, stream offline, and such."""


class ServerRefused(Exception):
    """JetStream refused a request; `code` is its `err_code`."""

    def __init__(self, code: int, description: str) -> None:
        self.code = code
        self.description = description
        super().__init__(f"{description} ({code})")


def answer_of(msg: Msg) -> dict[str, Any]:
    """Raises Unavailable if it is none."""
    try:
        answer = orjson.loads(msg.data)
    except orjson.JSONDecodeError:
        raise Unavailable("NATS gave an answer that is not JSON") from None
    if not isinstance(answer, dict):
        raise Unavailable("NATS gave an answer that is not an object")
    return answer


def raise_for(answer: dict[str, Any]) -> None:
    """Raises LogFull, TopologyError, Unavailable or ServerRefused if it is an error."""
    error = answer.get("error")
    if error is None:
        return
    code = int(error.get("err_code", 0))
    description = str(error.get("description", "refused"))
    if code in _STORAGE_FULL and "per subject" not in description:
        raise LogFull(f"the log's storage is full ({description}): free space or raise the server's storage limit")
    if code == NO_STREAM:
        raise TopologyError("the stream does not exist: run `antiphon topology apply`")
    if code in _TRANSIENT or (code == 0 and int(error.get("code", 0)) == 503):
        raise Unavailable(f"JetStream is not ready: {description}")
    raise ServerRefused(code, description)
