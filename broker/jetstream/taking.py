"""Taking jobs out of the queues of a pool (`broker.interfaces.JobSource`): in which order is said by `broker.queues`.

Two ways of asking. While no job waits, a request is kept open at every queue, and what is offered comes at once. While some
wait, or a worker has had no room and does not know, one is asked for at a time, in the order of the queues' turns. A queue
says with each job how many wait behind it.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from types import TracebackType
from typing import Any, Final, Self

import orjson
import structlog
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from broker.errors import Unavailable
from broker.jetstream.connection import Connection
from broker.jetstream.dispatch import TOPOLOGY_AGE_S, JetStreamJob
from broker.jetstream.topology import WORK_STREAM, stored_layouts
from broker.queues import Priority, Queue, Turns
from broker.subjects import pool_consumer, split_key

LOWER_AFTER: Final = 8
"""Jobs of higher priorities that are taken before one of a lower priority that waits."""
_GRACE_S: Final = 1.0
_AWAY_S: Final = 1.0
_REFUSED_S: Final = 10.0
"""A queue that answers that it has no leader, or that NATS does not let be asked, is not asked again for so long."""
_NS: Final = 1_000_000_000

_log = structlog.get_logger("antiphon.jobs")


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request that is open: until when, by the loop's clock, and under which number a refusal of it is told."""

    until: float
    refusal: int


class JetStreamJobSource:
    """Where the workers of a pool take jobs from. A context; for one taker.

    The inbox is its own: a pull whose inbox has gone is void at the server, so a worker that leaves takes no job with it.
    Jobs that come while nobody takes any go back to their queues at once: those that somebody has asked for at the same
    moment at several queues, and has no room for.
    """

    def __init__(self, connection: Connection, pool: str, lower_after: int = LOWER_AFTER) -> None:
        self._connection = connection
        self._tenant, _ = split_key(pool)
        self._pool = pool
        self._turns = Turns(lower_after)
        self._queues: tuple[Queue, ...] = (Queue(pool),)
        self._known_until = -math.inf
        self._inbox = connection.new_inbox()
        self._sub: Subscription | None = None
        self._came: list[tuple[Queue, JetStreamJob]] = []
        self._waiting: set[Queue] = set()
        """Queues in which more jobs wait, by what they said last."""
        self._asked: dict[Queue, _Asked] = {}
        """Requests that are open."""
        self._unsure = True
        """Whether there may be some in any queue: nobody has asked since there was no room."""
        self._failure: Unavailable | None = None
        self._told = asyncio.Event()
        self._resting = False

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
        for queue in tuple(self._asked):
            self._answered(queue)
        # What was asked for is void without its inbox: should jobs be taken again, they are asked for anew, into another.
        self._inbox = self._connection.new_inbox()
        with contextlib.suppress(Unavailable):
            await self.rest()

    async def rest(self) -> None:
        self._resting = self._unsure = True
        came, self._came = self._came, []
        for queue, job in came:
            self._waiting.add(queue)
            await job.give_back()

    async def take(self, wait_s: float) -> JetStreamJob | None:
        self._resting = False
        await self._subscribe()
        await self._learn()
        job = self._best() or await self._look() or await self._wait(wait_s)
        if job is not None and self._tenant and split_key(job.session)[0] != self._tenant:
            # No queue of ours puts it there: somebody has who may write jobs, and wants it done by this tenant's workers.
            _log.error("a job of another tenant was refused", session=job.session, tenant=self._tenant)
            await job.refuse()
            return None
        return job

    # --- asking ------------------------------------------------------------------------------------------------------------

    def _best(self) -> JetStreamJob | None:
        """Of the jobs that are here the one whose turn it is."""
        if not self._came:
            return None
        first = self._turns.order({queue for queue, _ in self._came})[0]
        at = next(n for n, (queue, _) in enumerate(self._came) if queue == first)
        _, job = self._came.pop(at)
        self._turns = self._turns.took(first)
        return job

    async def _look(self) -> JetStreamJob | None:
        """The job whose turn it is, of all that wait; None if none does. Raises Unavailable."""
        while self._unsure or self._waiting:
            for queue in self._turns.order(self._queues):
                await self._ask_now(queue)
                if (job := self._best()) is not None:
                    return job
                self._found_none(queue.priority)
            self._unsure = False
            self._waiting.intersection_update(self._queues)
        return None

    def _found_none(self, priority: Priority) -> None:
        """None is owed to a priority of which no job waits."""
        if self._turns.is_owed(priority) and not any(queue.priority is priority for queue in self._waiting):
            self._turns = self._turns.found_none(priority)

    async def _ask_now(self, queue: Queue) -> None:
        """Asks a queue for a job that waits there now, and returns when it has answered. Raises Unavailable."""
        self._waiting.discard(queue)
        if self._is_asked(queue):
            # A job that came to it would have come here.
            return
        deadline = asyncio.get_running_loop().time() + self._connection.ack_timeout_s
        await self._ask(queue, {"batch": 1, "no_wait": True}, deadline)
        while queue in self._asked:
            if not await self._next_answer(deadline):
                self._answered(queue)
                raise Unavailable("a queue of the pool does not answer")

    async def _wait(self, wait_s: float) -> JetStreamJob | None:
        """Keeps a request open at every queue until the first job comes, or one has to be renewed. Raises Unavailable."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait_s + _GRACE_S
        for queue in self._queues:
            if not self._is_asked(queue):
                await self._ask(queue, {"batch": 1, "expires": int(wait_s * _NS)}, deadline)
        while not self._came and all(queue in self._asked for queue in self._queues):
            if not await self._next_answer(deadline):
                break
        return self._best()

    def _is_asked(self, queue: Queue) -> bool:
        """Whether a request is open there."""
        if queue not in self._asked:
            return False
        if self._asked[queue].until > asyncio.get_running_loop().time():
            return True
        self._answered(queue)
        return False

    async def _ask(self, queue: Queue, request: Mapping[str, Any], until: float) -> None:
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{WORK_STREAM}.{pool_consumer(queue.key)}"
        refusal = self._connection.refusals.begin(subject, partial(self._fail, queue, _REFUSED_S))
        self._asked[queue] = _Asked(until, refusal)
        try:
            await self._connection.send(subject, orjson.dumps(request), reply=f"{self._inbox}.{queue.key}")
        except Unavailable:
            self._answered(queue)
            raise

    # --- answers -----------------------------------------------------------------------------------------------------------

    async def _next_answer(self, deadline: float) -> bool:
        """Whether one came in time. Raises Unavailable if one says that there is no queue."""
        if self._failure is None:
            self._told.clear()
            try:
                async with asyncio.timeout_at(deadline):
                    await self._told.wait()
            except TimeoutError:
                return False
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        return True

    def _answered(self, queue: Queue) -> None:
        if (asked := self._asked.pop(queue, None)) is not None:
            self._connection.refusals.end(asked.refusal)

    def _fail(self, queue: Queue, for_s: float, error: Unavailable) -> None:
        """The queue cannot be asked, and is not for a while: others may have jobs."""
        if queue in self._asked:
            until = asyncio.get_running_loop().time() + for_s
            self._asked[queue] = replace(self._asked[queue], until=until)
        self._failure = error
        self._told.set()

    async def _on_answer(self, msg: Msg) -> None:
        status = (msg.headers or {}).get("Status")
        if status is None:
            await self._on_job(JetStreamJob.of(self._connection, msg), msg.metadata.num_pending)
            return
        queue = Queue.of(msg.subject.rpartition(".")[2])
        if queue is None:
            return
        if status == "503":
            text = "the job queue has no leader, or does not exist: `antiphon topology check`"
            self._fail(queue, _AWAY_S, Unavailable(text))
            return
        self._answered(queue)
        self._told.set()

    async def _on_job(self, job: JetStreamJob, behind: int) -> None:
        queue = job.queue or Queue(self._pool)
        self._answered(queue)
        if behind or self._resting:
            self._waiting.add(queue)
        else:
            self._waiting.discard(queue)
        if not self._resting:
            self._came.append((queue, job))
            self._told.set()
            return
        with contextlib.suppress(Unavailable):
            await job.give_back()

    async def _subscribe(self) -> None:
        if self._sub is None:
            self._sub = await self._connection.subscribe(f"{self._inbox}.*", self._on_answer)

    async def _learn(self) -> None:
        """Which queues the pool has, now and then. Raises Unavailable."""
        now = asyncio.get_running_loop().time()
        if now >= self._known_until:
            _, layout = await stored_layouts(self._connection)
            self._queues = layout.queues(self._pool)
            self._known_until = now + TOPOLOGY_AGE_S
