"""The worker: takes jobs while it has room, works on their lanes, and leaves in order."""

from __future__ import annotations

import asyncio
import contextlib
import math
from contextlib import AbstractAsyncContextManager

import structlog

from agent_worker.owner import LaneOwner
from agent_worker.scope import WorkerServices
from agent_worker.slots import Slot, Slots
from agent_worker.standing import Order, Standing
from agent_worker.tasks import count_tasks
from agent_worker.watchdog import Watchdog
from broker.errors import LogError, Unavailable, WrongSequence
from broker.interfaces import Job, JobSource
from broker.telemetry import bind_only
from broker.workers import WorkerNotice

_log = structlog.get_logger("antiphon.worker")

_AWAY_WAIT_S = 0.5
_DRAIN_LOOK_S = 0.2


class Worker:
    """Serves one pool with one agent. `run` returns when the worker has left; `shutdown` asks it to.

    Leaving is in phases: take no new job; let runs end for `worker_drain_s`; hand the rest over to other workers. A
    worker whose version is drained (`standing` is told so) does the same, and stays.
    """

    def __init__(self, source: JobSource, services: WorkerServices) -> None:
        self._source = source
        self._services = services
        self._owners: dict[tuple[str, str], LaneOwner] = {}
        self._lanes: set[asyncio.Task[None]] = set()
        self._slots = Slots(services.settings.concurrency, services.settings.parked, services.metrics)
        self.standing = Standing(services.settings, services.metrics)
        settings = services.settings
        services.metrics.info.labels(settings.pool, services.agent.name, settings.worker_version).set(1)

    @property
    def busy(self) -> int:
        """Lanes being worked on."""
        return len(self._owners)

    def watched(self) -> AbstractAsyncContextManager[None]:
        """While it is entered, an agent that blocks this thread's event loop is named, and interrupted in the end."""
        return Watchdog(self._services.settings, self._services.metrics).watch()

    def shutdown(self) -> None:
        """Asks the worker to leave; may be called again."""
        self.standing.leave()

    def notice(self, host: str, started_ms: int) -> WorkerNotice:
        """What this worker is, of a process on `host` that has begun at `started_ms`."""
        services, settings = self._services, self._services.settings
        return WorkerNotice(
            worker=services.me.id,
            host=host,
            pool=settings.pool,
            agent=services.agent.name,
            version=settings.worker_version,
            state=self.standing.state(self.busy),
            lanes=self.busy,
            parked=self._slots.parked,
            capacity=settings.concurrency,
            started=started_ms,
            since=self.standing.since_ms,
        )

    async def run(self) -> None:
        """Works until `shutdown`. Cancelling it leaves at once: leases run out, and others take over."""
        count_tasks(asyncio.get_running_loop())
        if self._services.agent.prepare is not None:
            await self._services.agent.prepare()
        standing = self.standing
        await standing.known()
        async with asyncio.TaskGroup() as tasks:
            while True:
                order = standing.order
                if order is Order.TAKE:
                    taking = tasks.create_task(self._take_jobs(tasks))
                    await standing.other_than(order)
                    taking.cancel()
                    await asyncio.wait({taking})
                    await self._source.close()
                    continue
                await self._let_go(order)
                if standing.order is not order:
                    continue
                if order is Order.LEAVE:
                    return
                await standing.other_than(order)

    async def _take_jobs(self, tasks: asyncio.TaskGroup) -> None:
        while True:
            slot = await self._free_slot()
            job = None
            try:
                job = await self._next_job()
            except Unavailable as error:
                _log.warning("no jobs can be taken", reason=str(error))
                await asyncio.sleep(_AWAY_WAIT_S)
            finally:
                if job is None:
                    slot.give()
            if job is not None:
                self._begin(tasks, job, slot)

    async def _free_slot(self) -> Slot:
        """Waits for room; while there is none, no job is kept from other workers."""
        if self._slots.full:
            with contextlib.suppress(Unavailable):
                await self._source.rest()
        return await self._slots.take()

    async def _next_job(self) -> Job | None:
        """A job; None if none came in time, or a run that has waited needs the slot. Raises Unavailable."""
        async with asyncio.TaskGroup() as tasks:
            taking = tasks.create_task(self._take())
            wanted = tasks.create_task(self._slots.wanted.wait())
            await asyncio.wait({taking, wanted}, return_when=asyncio.FIRST_COMPLETED)
            taking.cancel()
            wanted.cancel()
        taken = None if taking.cancelled() else taking.result()
        if isinstance(taken, Unavailable):
            raise taken
        return taken

    async def _take(self) -> Job | Unavailable | None:
        try:
            return await self._source.take(self._services.settings.pull_wait_s)
        except Unavailable as error:
            return error

    def _begin(self, tasks: asyncio.TaskGroup, job: Job, slot: Slot) -> None:
        if job.delivery == 1:
            self._services.metrics.job_wait.observe(job.waited_s)
        known = self._owners.get((job.session, job.lane))
        if known is not None:
            known.renewed_by(job)
            slot.give()
            return
        owner = LaneOwner(job, self._services, slot)
        self._owners[owner.lane] = owner
        self._services.metrics.sessions.inc()
        task = tasks.create_task(self._work(tasks, owner), name=f"lane-{job.session}-{job.lane}")
        self._lanes.add(task)
        task.add_done_callback(self._lanes.discard)

    async def _work(self, tasks: asyncio.TaskGroup, owner: LaneOwner) -> None:
        session, lane = owner.lane
        bind_only(session=session, lane=lane)
        end = "failed"
        try:
            end = await owner.work()
        except* WrongSequence:
            end = "fenced"
            self._services.metrics.fence_refusals.inc()
            _log.warning("another owner has the lane")
        except* LogError as group:
            end = "lost"
            _log.warning("the lane was lost", reason=str(group.exceptions[0]))
        except* Exception:  # noqa: BLE001 (see below)
            # A fault in one lane must not end the others; the job's lease runs out and the lane is tried again.
            _log.exception("a lane failed")
        finally:
            self._owners.pop(owner.lane, None)
            self._services.metrics.sessions.dec()
            self._services.metrics.jobs.labels(end).inc()
            if owner.again is None:
                owner.slot.give()
        if owner.again is not None:
            await self._begin_again(tasks, owner.again, owner.slot)

    async def _begin_again(self, tasks: asyncio.TaskGroup, job: Job, slot: Slot) -> None:
        """Sees to a job that came for a lane which was just being let go of: nobody else has it. It has its slot."""
        if self.standing.order is Order.TAKE:
            self._begin(tasks, job, slot)
            return
        slot.give()
        with contextlib.suppress(Unavailable):
            await job.give_back()

    async def _let_go(self, order: Order) -> None:
        """Lets runs end, and hands over those that do not in the time that the settings allow, or that wait for people.
        With FINISH it waits for all of them, however long. Returns early when the order changes.
        """
        for owner in self._owners.values():
            owner.finish_up()
        loop, finish = asyncio.get_running_loop(), order is Order.FINISH
        deadline = math.inf if finish else loop.time() + self._services.settings.worker_drain_s
        while any(finish or owner.slot.held for owner in self._owners.values()) and loop.time() < deadline:
            await asyncio.wait(self._lanes, timeout=min(_DRAIN_LOOK_S, deadline - loop.time()))
            if self.standing.order is not order:
                return
        if not finish:
            for owner in self._owners.values():
                owner.hand_over()
