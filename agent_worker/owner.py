"""Owning a lane: from its job to its release. Claim, fold, run what waits, write under the fence, let go."""

from __future__ import annotations

import asyncio

import structlog

from agent_worker.assignment import EndCancelled, GiveUp, Release, Start, TakeOver, next_action
from agent_worker.run import HandOver, LaneTaken, RunExecution, StopReason
from agent_worker.scope import LaneScope, WorkerServices
from agent_worker.slots import Slot
from agent_worker.takeover import end_cancelled, end_lost, take_over
from agent_worker.writer import LaneWriter
from broker.checkpoint import MAX_BYTES, advance, encode_checkpoint
from broker.clock import now_ms
from broker.errors import LogError, Unavailable, WrongSequence
from broker.events import Participant
from broker.interfaces import Job, Of
from broker.lease import Settled, has_work, judge_job, queue_of
from broker.loading import Loaded, load
from broker.state import SessionState
from broker.subjects import place_of
from broker.tail import Rewound

_log = structlog.get_logger("antiphon.worker")

_STALE_WAIT_S = 0.02


class LaneOwner:
    """Works on one lane for as long as it has work. `work` is a task of the worker's.

    `hand_over` asks it to stop at once and leave the run to another worker; `finish_up` to take no new run.
    """

    def __init__(self, job: Job, services: WorkerServices, slot: Slot) -> None:
        self._job = job
        self.slot = slot
        self._services = services
        self._subjects = services.log.subjects(job.session)
        self._loaded: Loaded | None = None
        self._changed = asyncio.Event()
        self._doubles: list[Job] = []
        """Further jobs of the lane, out of other queues, that came here while it is owned."""
        self._letting_go = False
        self._taking_runs = True
        self._handing_over = False
        self.again: Job | None = None
        """A job that came while the lane was being let go of, or lost: nobody is at work on it."""

    @property
    def lane(self) -> tuple[str, str]:
        return self._job.session, self._job.lane

    def renewed_by(self, job: Job) -> None:
        """The lane's job was delivered again, or a new one, to this worker: that is the lease now.

        Unless it is a second one beside it: by the first one others tell that the lane is worked on.
        """
        self.again = job
        if job.seq == self._job.seq or self._letting_go:
            self._job = job
        else:
            self._doubles.append(job)

    def finish_up(self) -> None:
        """Take no new run; the one that runs may end."""
        self._taking_runs = False

    def hand_over(self) -> None:
        """Stop now; another worker goes on with the run."""
        self._taking_runs = False
        self._handing_over = True
        self._notify()

    async def work(self) -> str:
        """Returns what came of the job: settled, done, handed_over, taken, contended, second.

        Raises LogError when the lane is lost.
        """
        services = self._services
        self._loaded = await self._load()
        verdict = judge_job(self._state, self._job.lane)
        if isinstance(verdict, Settled):
            return await self._let_go("settled")
        if await self._is_second():
            return await self._drop()
        if not self._taking_runs:
            return await self._give_back()
        try:
            can = ("inject",) if services.agent.accepts_steering else ()
            fence = await services.log.claim(
                self._subjects, self._job.lane, verdict.expected, services.me, now_ms(), can, self._job.seq
            )
        except WrongSequence:
            await self._job.give_back(1.0)
            return "contended"
        return await self._own(fence)

    # --- while owning --------------------------------------------------------------------------------------------------

    async def _own(self, fence: int) -> str:
        services = self._services
        writer = LaneWriter(
            services.log,
            self._subjects,
            self._job.lane,
            fence,
            Participant("agent", services.agent.name, version=services.me.version),
            services.settings,
            services.metrics,
        )
        _log.info("lane claimed", fence=fence)
        handed_over = False
        async with asyncio.TaskGroup() as tasks:
            helpers = [tasks.create_task(c) for c in (self._heartbeat(), self._follow(), writer.run())]
            scope = self._scope(writer, fence)
            await scope.reached(fence)
            try:
                await self._run_all(scope)
            except HandOver:
                handed_over = True
            except LaneTaken:
                for helper in helpers:
                    helper.cancel()
                return await self._let_go("taken")
            if not handed_over:
                await writer.flush()
                await self._checkpoint(fence)
            for helper in helpers[:1] + helpers[2:]:
                helper.cancel()
            await services.log.release(self._subjects, self._job.lane, fence, services.me, now_ms())
            if handed_over or not self._taking_runs:
                end = await self._give_back()
            else:
                end = await self._let_go("done")
            helpers[1].cancel()
        return end

    def _scope(self, writer: LaneWriter, fence: int) -> LaneScope:
        assert self._loaded is not None
        return LaneScope(
            self._services, self._subjects, self._job.lane, fence, writer, self._loaded, self.slot, self._next_change
        )

    async def _run_all(self, scope: LaneScope) -> None:
        """Ends when nothing is left to do, or no new run may be taken. Raises HandOver, LaneTaken."""
        execution = RunExecution(scope, lambda run_id: self._stopped(scope, run_id))
        free_ms = 0
        while True:
            await scope.stored()
            if not scope.owned:
                raise LaneTaken
            await self.slot.hold()
            match next_action(scope.state, scope.lane, self._services.settings.max_attempts):
                case Release():
                    return
                case EndCancelled(run):
                    await end_cancelled(scope, run)
                case GiveUp(run):
                    await end_lost(scope, run)
                case TakeOver(run, attempt):
                    await take_over(execution, run, attempt)
                case Start(inputs):
                    if not self._taking_runs:
                        return
                    await execution.start(inputs, free_ms)
            await scope.stored()
            free_ms = now_ms()
            await self._checkpoint(scope.fence)

    async def _heartbeat(self) -> None:
        """Renews the job's lease. Missing a beat is no harm: the fence guards the log."""
        while True:
            await asyncio.sleep(self._services.lease_s / 3)
            try:
                for job in (self._job, *self._doubles):
                    await job.renew()
            except Unavailable:
                self._services.metrics.renewals_failed.inc()
                _log.warning("the lease could not be renewed")

    async def _follow(self) -> None:
        """Folds the session's records as they come."""
        while True:
            assert self._loaded is not None
            async with self._services.log.tail(self._subjects, self._state.as_of, Of.RECORDS) as tail:
                rewound = False
                while not rewound:
                    for delivery in await tail.next():
                        if isinstance(delivery, Rewound):
                            rewound = True
                            break
                        self._loaded.apply(delivery)
                    self._notify()
            fresh = await load(self._services.log, self._subjects)
            self._loaded.transcript, self._loaded.quiet = fresh.transcript, fresh.quiet
            self._notify()

    async def _next_change(self) -> None:
        await self._changed.wait()

    async def _stopped(self, scope: LaneScope, run_id: str) -> StopReason:
        """Returns when the run is to be stopped at once, saying why."""
        while not self._handing_over:
            if not scope.owned:
                return "taken"
            run = self._state.runs.get(run_id)
            if run is None or (run.cancel is not None and run.cancel.mode == "immediate"):
                return "cancelled"
            await self._changed.wait()
        return "leaving"

    async def _checkpoint(self, fence: int) -> None:
        """Writes a checkpoint when it is time. Without one all goes on, only slower for who joins."""
        assert self._loaded is not None
        loaded = self._loaded
        checkpoint = advance(loaded.checkpoint, loaded.quiet, self._state)
        if checkpoint is None:
            return
        body = encode_checkpoint(checkpoint)
        if len(body) > MAX_BYTES:
            _log.warning("the checkpoint is too large and was not written", bytes=len(body))
            return
        try:
            await self._services.log.write_checkpoint(self._subjects, self._job.lane, fence, body)
        except Unavailable:
            return
        loaded.checkpoint = checkpoint
        loaded.quiet = [state for state in loaded.quiet if state.as_of > checkpoint.state.as_of]

    # --- letting go ------------------------------------------------------------------------------------------------------

    async def _let_go(self, end: str) -> str:
        """Takes the job off the queue, then looks once more: an input may have come while its job was still queued."""
        self.again = None
        for job in self._all_jobs():
            await job.done()
        try:
            await self._offer((await self._load()).state)
        except LogError:
            _log.warning("could not look for late inputs; a gateway will")
        return end

    async def _drop(self) -> str:
        """Ends a second job of a lane: whoever has the first one sees to it, and looks at the log when it is off the queue.

        Only while that is so may ours be gone: else nobody might know of an input that came meanwhile.
        """
        _log.info("another job stands for the lane")
        self.again = None
        for job in self._all_jobs():
            await job.done()
        self._loaded = await self._load()
        if not await self._is_second():
            await self._offer(self._state)
        return "second"

    async def _is_second(self) -> bool:
        """Whether the lane is owned by who has another job for it, that came by another queue. Raises Unavailable."""
        if self._state.lane(self._job.lane).owner is None:
            return False
        claimed_by = await self._services.log.claimed_by(self._subjects, self._job.lane)
        return await self._job.is_second_to(claimed_by)

    def _all_jobs(self) -> list[Job]:
        """The lane's jobs that are to be let go of, the one by which it is owned last. What comes from now on is `again`."""
        self._letting_go = True
        doubles, self._doubles = self._doubles, []
        return [*doubles, self._job]

    async def _offer(self, state: SessionState) -> None:
        lane = self._job.lane
        if has_work(state, lane):
            await self._services.jobs.offer(self._subjects, lane, *queue_of(state, lane))

    async def _give_back(self) -> str:
        if has_work(self._state, self._job.lane):
            self.again = None
            *doubles, first = self._all_jobs()
            for job in doubles:
                await job.done()
            await first.give_back()
            return "handed_over"
        return await self._let_go("done")

    async def _load(self) -> Loaded:
        """The session with all that the stream's leader has: reading may lag, and no input must be taken for absent.

        Raises Unavailable.
        """
        log, deadline = self._services.log, asyncio.get_running_loop().time() + self._services.lease_s
        head = await log.head(self._subjects, Of.RECORDS)
        while True:
            loaded = await load(log, self._subjects)
            if head is None or loaded.state.as_of >= head.seq or place_of(head.subject) is None:
                return loaded
            if asyncio.get_running_loop().time() > deadline:
                raise Unavailable("a replica of the log stays behind")
            await asyncio.sleep(_STALE_WAIT_S)

    @property
    def _state(self) -> SessionState:
        assert self._loaded is not None
        return self._loaded.state

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
