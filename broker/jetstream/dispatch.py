"""Jobs: a workqueue stream with at most one message in a queue for each lane that has work.

The subject of a job names its lane, and the stream refuses a second message on a subject
(`discard_new_per_subject`), so offering is idempotent for as long as the job is queued or leased (ADR 3). How workers take
jobs is in `broker.jetstream.taking`.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from nats.aio.msg import Msg

from broker.errors import Unavailable
from broker.jetstream.answers import MAXIMUM_PER_SUBJECT, NO_MESSAGE, ServerRefused
from broker.jetstream.connection import Connection
from broker.jetstream.topology import WORK_STREAM, stored_layouts, stored_pools
from broker.queues import Layout, Priority, Queue
from broker.subjects import SessionSubjects, pool_key, split_key, split_queue

_GONE_WAIT_S = 0.002
_NS = 1_000_000_000
TOPOLOGY_AGE_S = 10.0
"""A pool that a tenant is given has its jobs within this time, and a queue that a pool is given, without a restart of
anything.
"""


class JetStreamJobQueue:
    """Where gateways put jobs (`broker.interfaces.JobQueue`).

    Where a tenant has a pool of its own of the name that is wanted, its jobs go there; no other tenant's do, for no
    session can name it. In which of the pool's queues a job waits is said by the layout that `topology apply` has left.
    """

    def __init__(self, connection: Connection, pool: str) -> None:
        self._connection = connection
        self._pool = pool
        self._pools: frozenset[str] = frozenset()
        self._layout = Layout()
        self._known_until = -math.inf

    async def offer(
        self, subjects: SessionSubjects, lane: str, pool: str | None = None, priority: str = Priority.NORMAL
    ) -> bool:
        where = await self._where(subjects, pool, priority)
        try:
            await self._connection.publish(subjects.job(where.key, lane), b"{}")
        except ServerRefused as error:
            if error.code == MAXIMUM_PER_SUBJECT:
                return False
            raise Unavailable(f"NATS refused the job: {error.description}") from error
        return True

    async def _where(self, subjects: SessionSubjects, pool: str | None, priority: str) -> Queue:
        """The queue that the job goes to. Raises Unavailable."""
        # The default pool of a worker may be its tenant's own: as everybody's it has the same name.
        _, name = split_key(pool or self._pool)
        if not subjects.tenant and priority == Priority.NORMAL:
            return Queue(name)
        now = asyncio.get_running_loop().time()
        if now >= self._known_until:
            self._pools = await stored_pools(self._connection)
            self._layout, _ = await stored_layouts(self._connection)
            self._known_until = now + TOPOLOGY_AGE_S
        own = pool_key(subjects.tenant, name) if subjects.tenant else name
        return self._layout.queue(own if own in self._pools else name, subjects.tenant, priority)


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
    """Its place in the stream of all jobs: no other one has had it."""
    subject: str

    @classmethod
    def of(cls, connection: Connection, msg: Msg) -> JetStreamJob:
        """The one that a message is."""
        _, _, _, session, lane = msg.subject.split(".")
        place = msg.metadata
        waited_s = max(0.0, time.time() - place.timestamp.timestamp())
        return cls(
            *(connection, msg.reply, session, lane, place.num_delivered, waited_s, place.sequence.stream, msg.subject)
        )

    @property
    def queue(self) -> Queue | None:
        """The queue that it is in; None for one that this version does not know."""
        return Queue.of(self.subject.split(".")[1])

    async def renew(self) -> None:
        await self.connection.send(self.reply, b"+WPI")

    async def done(self) -> None:
        await self.connection.request(self.reply, b"+ACK")
        # A cluster confirms first and takes the job off a little later; an offer in between would be refused, and lost.
        deadline = asyncio.get_running_loop().time() + self.connection.ack_timeout_s
        while await self._queued({"seq": self.seq}) is not None:
            if asyncio.get_running_loop().time() > deadline:
                raise Unavailable("the job stays in the queue")
            await asyncio.sleep(_GONE_WAIT_S)

    async def refuse(self) -> None:
        """Takes it out of the queue, undone."""
        await self.connection.send(self.reply, b"+TERM")

    async def give_back(self, delay_s: float = 0.0) -> None:
        body = b"-NAK" if delay_s <= 0 else b"-NAK " + orjson.dumps({"delay": int(delay_s * _NS)})
        await self.connection.send(self.reply, body)

    async def is_second_to(self, first: int | None) -> bool:
        kind, queue, *lane = self.subject.split(".")
        if first == self.seq:
            return False
        if first is not None:
            # A lane that was restored from another log names a job of that one.
            found = await self._queued({"seq": first})
            return found is not None and found.split(".")[2:] == lane
        # The owner is of an earlier version, which knows one queue of a pool alone.
        pool, _, _ = split_queue(queue)
        plain = ".".join((kind, pool, *lane))
        return plain != self.subject and await self._queued({"seq": 1, "next_by_subj": plain}) is not None

    async def _queued(self, query: Mapping[str, Any]) -> str | None:
        """The subject of a job that the queue's leader still has."""
        try:
            answer = await self.connection.api(f"STREAM.MSG.GET.{WORK_STREAM}", query)
        except ServerRefused as error:
            if error.code == NO_MESSAGE:
                return None
            raise Unavailable(f"NATS refused to look for the job: {error.description}") from error
        return str(answer["message"]["subject"])
