"""Jobs: a workqueue stream with at most one message for each lane that has work.

The subject of a job names its lane, and the stream refuses a second message on a subject
(`discard_new_per_subject`), so offering is idempotent for as long as the job is queued or leased (ADR 3).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import orjson
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from broker.errors import Unavailable
from broker.jetstream.connection import Connection, ServerRefused
from broker.jetstream.topology import WORK_STREAM, pool_consumer
from broker.subjects import SessionSubjects

_PER_SUBJECT = 10077
_NO_MESSAGE = 10037
_GONE_WAIT_S = 0.002
_NS = 1_000_000_000
_GRACE_S = 1.0


class JetStreamJobQueue:
    """Where gateways put jobs (`broker.interfaces.JobQueue`)."""

    def __init__(self, connection: Connection, pool: str) -> None:
        self._connection = connection
        self._pool = pool

    async def offer(self, subjects: SessionSubjects, lane: str, pool: str | None = None) -> bool:
        try:
            await self._connection.publish(subjects.job(pool or self._pool, lane), b"{}")
        except ServerRefused as error:
            if error.code == _PER_SUBJECT:
                return False
            raise Unavailable(f"NATS refused the job: {error.description}") from error
        return True


@dataclass(frozen=True, slots=True)
class JetStreamJob:
    """A leased job (`broker.interfaces.Job`)."""

    connection: Connection
    reply: str
    session: str
    lane: str
    delivery: int
    waited_s: float
    seq: int
    """Its place in the work queue."""

    async def renew(self) -> None:
        await self.connection.send(self.reply, b"+WPI")

    async def done(self) -> None:
        await self.connection.request(self.reply, b"+ACK")
        # A cluster confirms first and takes the job off a little later; an offer in between would be refused, and lost.
        deadline = asyncio.get_running_loop().time() + self.connection.ack_timeout_s
        while await self._queued():
            if asyncio.get_running_loop().time() > deadline:
                raise Unavailable("the job stays in the queue")
            await asyncio.sleep(_GONE_WAIT_S)

    async def give_back(self, delay_s: float = 0.0) -> None:
        body = b"-NAK" if delay_s <= 0 else b"-NAK " + orjson.dumps({"delay": int(delay_s * _NS)})
        await self.connection.send(self.reply, body)

    async def _queued(self) -> bool:
        """Whether the queue's leader still has the job."""
        try:
            await self.connection.api(f"STREAM.MSG.GET.{WORK_STREAM}", {"seq": self.seq})
        except ServerRefused as error:
            if error.code == _NO_MESSAGE:
                return False
            raise Unavailable(f"NATS refused to look for the job: {error.description}") from error
        return True


class JetStreamJobSource:
    """Where the workers of a pool take jobs from (`broker.interfaces.JobSource`). A context; for one taker.

    One job is asked for at a time, and the inbox is its own: a pull whose inbox has gone is void at the server, so a
    worker that leaves takes no job with it.
    """

    def __init__(self, connection: Connection, pool: str) -> None:
        self._connection = connection
        self._subject = f"$JS.API.CONSUMER.MSG.NEXT.{WORK_STREAM}.{pool_consumer(pool)}"
        self._inbox = connection.new_inbox()
        self._answers: asyncio.Queue[Msg] = asyncio.Queue()
        self._sub: Subscription | None = None
        self._asked_until = 0.0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        if self._sub is None:
            return
        sub, self._sub = self._sub, None
        await self._connection.drain(sub)
        with contextlib.suppress(Unavailable):
            while not self._answers.empty():
                job = self._job(self._answers.get_nowait())
                if job is not None:
                    await job.give_back()

    async def take(self, wait_s: float) -> JetStreamJob | None:
        loop = asyncio.get_running_loop()
        await self._subscribe()
        if self._answers.empty() and loop.time() >= self._asked_until:
            body = orjson.dumps({"batch": 1, "expires": int(wait_s * _NS)})
            await self._connection.send(self._subject, body, reply=self._inbox)
            self._asked_until = loop.time() + wait_s
        try:
            async with asyncio.timeout(wait_s + _GRACE_S):
                msg = await self._answers.get()
        except TimeoutError:
            return None
        self._asked_until = 0.0
        return self._job(msg)

    async def _subscribe(self) -> None:
        if self._sub is None:
            self._sub = await self._connection.subscribe(self._inbox, self._on_answer)

    async def _on_answer(self, msg: Msg) -> None:
        self._answers.put_nowait(msg)

    def _job(self, msg: Msg) -> JetStreamJob | None:
        status = (msg.headers or {}).get("Status")
        if status is not None:
            if status == "503":
                raise Unavailable("the job queue has no leader, or does not exist: `antiphon topology check`")
            return None
        _, _, _, session, lane = msg.subject.split(".")
        place = msg.metadata
        waited_s = max(0.0, time.time() - place.timestamp.timestamp())
        return JetStreamJob(
            self._connection, msg.reply, session, lane, place.num_delivered, waited_s, place.sequence.stream
        )
