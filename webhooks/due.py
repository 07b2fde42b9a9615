"""An event that waits for an endpoint, as NATS keeps it, and whether somebody who is meant watches. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from broker import reading
from broker.depth import STORED_DEPTH_MAX, is_deeper
from broker.errors import CodecError
from broker.presence import Present
from broker.tracing import TraceContext, parse_context
from webhooks.notices import Notice


@dataclass(frozen=True, slots=True)
class Due:
    """An event for one endpoint, as it waits. `partition` and `at` are the place in the log that it comes from.

    `ts` is when it happened, in ms since 1970; `again`: an operator wants it sent once more.
    """

    id: str
    type: str
    ts: int
    endpoint: str
    session: str
    partition: int
    at: int
    data: Mapping[str, Any]
    users: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    trace: TraceContext | None = None
    again: bool = False

    def encode(self) -> bytes:
        wire: dict[str, Any] = {"id": self.id, "type": self.type, "ts": self.ts, "data": self.data}
        wire |= {"endpoint": self.endpoint, "session": self.session, "partition": self.partition, "at": self.at}
        wire |= {"users": self.users, "roles": self.roles, "again": self.again}
        return orjson.dumps(wire | ({} if self.trace is None else self.trace.headers))


def decode(body: bytes) -> Due:
    """Raises CodecError."""
    try:
        wire = orjson.loads(body)
        if is_deeper(wire, body, STORED_DEPTH_MAX):
            raise ValueError("nested too deeply")
        texts = {name: reading.text(wire[name]) for name in ("id", "type", "endpoint", "session")}
        return Due(
            **texts,
            ts=reading.whole(wire["ts"]),
            partition=reading.whole(wire["partition"]),
            at=reading.whole(wire["at"]),
            data=reading.thing(wire["data"]),
            users=reading.texts(wire["users"]),
            roles=reading.texts(wire["roles"]),
            trace=parse_context(wire.get("traceparent"), wire.get("tracestate")),
            again=reading.flag(wire["again"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise CodecError(f"not an event that waits: {type(error).__name__}") from None


def due_of(notice: Notice, endpoint: str, session: str, partition: int, at: int, text: str | None) -> Due:
    """`text` is what the endpoint gets of it, if it wants any."""
    data = notice.data if text is None else {**notice.data, "text": text}
    return Due(
        *(notice.id, notice.type, notice.ts, endpoint, session, partition, at, data),
        users=notice.users,
        roles=notice.roles,
        trace=notice.trace,
    )


def excerpt(text: str | None, chars: int) -> str | None:
    """Its first characters; an ellipsis says that there are more."""
    if text is None or len(text) <= chars:
        return text
    return text[: chars - 1] + "…"


def away(due: Due, present: Iterable[Present]) -> bool:
    """Whether nobody of those who are meant watches. Where nobody in particular is meant, it is everybody."""
    watching = [user for user in present if user.watching and user.state != "away"]
    if not due.users and not due.roles:
        return not watching
    return not any(user.id in due.users or set(user.roles) & set(due.roles) for user in watching)
