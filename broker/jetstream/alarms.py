"""Alarms of scheduled inputs: message schedules of NATS in a stream of their own (`broker.interfaces.Alarms`, ADR 41).

An alarm waits on `alarm.at.…` with the headers of a schedule; at its time the server itself moves it to `alarm.due.…`, from
where one gateway takes it. That is done by the stream's leader, whoever that is then, and what was due while there was none
goes off when there is one again.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

import orjson
import structlog
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from broker.errors import NotPermitted, TopologyError, Unavailable
from broker.jetstream.answers import NO_MESSAGE, ServerRefused
from broker.jetstream.connection import Connection
from broker.jetstream.pages import subject_pages
from broker.jetstream.topology import ALARM_CONSUMER, ALARM_STREAM
from broker.subjects import AlarmPlace, SessionKey, alarm_place, alarms_of

_log = structlog.get_logger("antiphon.alarms")

_NS = 1_000_000_000
_GRACE_S = 1.0
_LAST_MS = 253_402_300_799_000
"""The last second of the year 9999: RFC 3339 ends there."""


class JetStreamAlarms:
    """Sets alarms and takes them off."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def set(self, place: AlarmPlace, at: int) -> None:
        when = (
            datetime.fromtimestamp(min(max(at, 0), _LAST_MS) / 1000, UTC)
            .isoformat(timespec="milliseconds")
            .replace("+00:00", "Z")
        )
        headers = {"Nats-Schedule": f"@at {when}", "Nats-Schedule-Target": place.due, "Nats-Rollup": "sub"}
        try:
            await self._connection.publish(place.at, b"", headers)
        except ServerRefused as error:
            raise Unavailable(f"NATS refused the alarm: {error.description}") from error

    async def is_set(self, place: AlarmPlace) -> bool:
        for subject in (place.at, place.due):
            try:
                await self._connection.api(f"STREAM.MSG.GET.{ALARM_STREAM}", {"last_by_subj": subject})
            except ServerRefused as error:
                if error.code != NO_MESSAGE:
                    raise Unavailable(f"NATS refused to look for the alarm: {error.description}") from error
            else:
                return True
        return False

    async def clear(self, place: AlarmPlace) -> None:
        await self._connection.purge(ALARM_STREAM, place.both)


async def forget_alarms(connection: Connection, session: SessionKey, begun: int) -> None:
    """Takes off all alarms that a session had before entry `begun`, with which it began anew. Raises Unavailable."""
    found: set[int] = set()
    try:
        async for page in subject_pages(connection, ALARM_STREAM, alarms_of(session)):
            found.update(alarm_place(subject).begun for subject in page)
    except TopologyError:
        return  # a log of before inputs could be scheduled
    except ServerRefused as error:
        raise Unavailable(f"NATS refused to read: {error.description}") from error
    for place in found:
        if place < begun:
            await connection.purge(ALARM_STREAM, alarms_of(session, place))


@dataclass(frozen=True, slots=True)
class JetStreamDueAlarm:
    """An alarm that has gone off (`broker.interfaces.DueAlarm`)."""

    connection: Connection
    reply: str
    place: AlarmPlace
    delivery: int

    async def done(self) -> None:
        await self.connection.request(self.reply, b"+ACK")

    async def again(self, delay_s: float) -> None:
        await self.connection.send(self.reply, b"-NAK " + orjson.dumps({"delay": max(1, int(delay_s * _NS))}))


class JetStreamAlarmSource:
    """Where a gateway hears alarms (`broker.interfaces.AlarmSource`). A context; for one taker.

    One is asked for at a time. One that comes when nobody waits any more is given to somebody else after its lease.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._subject = f"$JS.API.CONSUMER.MSG.NEXT.{ALARM_STREAM}.{ALARM_CONSUMER}"
        self._inbox = ""
        self._answers: asyncio.Queue[Msg | NotPermitted] = asyncio.Queue()
        self._sub: Subscription | None = None
        self._asked_until = 0.0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._sub is not None:
            sub, self._sub = self._sub, None
            await self._connection.unsubscribe(sub)

    async def take(self, wait_s: float) -> JetStreamDueAlarm | None:
        loop = asyncio.get_running_loop()
        if self._sub is None:
            # Not before: NATS may be away when a gateway starts, and what is its inbox is known once it is there.
            self._inbox = self._connection.new_inbox()
            self._sub = await self._connection.subscribe(self._inbox, self._on_answer)
        if self._answers.empty() and loop.time() >= self._asked_until:
            body = orjson.dumps({"batch": 1, "expires": int(wait_s * _NS)})
            await self._connection.send(self._subject, body, reply=self._inbox)
            self._asked_until = loop.time() + wait_s
        try:
            async with asyncio.timeout(wait_s + _GRACE_S):
                with self._connection.refusals.of(self._subject, self._answers.put_nowait):
                    msg = await self._answers.get()
        except TimeoutError:
            return None
        self._asked_until = 0.0
        return await self._alarm(msg)

    async def _on_answer(self, msg: Msg) -> None:
        self._answers.put_nowait(msg)

    async def _alarm(self, msg: Msg | NotPermitted) -> JetStreamDueAlarm | None:
        if isinstance(msg, NotPermitted):
            raise msg
        status = (msg.headers or {}).get("Status")
        if status == "503":
            raise Unavailable("the stream of alarms has no leader, or does not exist: `antiphon topology check`")
        if status is not None:
            return None
        try:
            place = alarm_place(msg.subject)
        except ValueError:
            _log.error("an alarm names no input", subject=msg.subject)
            await self._connection.send(msg.reply, b"+TERM")
            return None
        return JetStreamDueAlarm(self._connection, msg.reply, place, msg.metadata.num_delivered)
