"""What a worker is to do: take jobs, or, as an operator or a signal has said, take no more and let go of what it has."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from enum import Enum, auto

import structlog

from agent_worker.config import WorkerSettings
from agent_worker.metrics import WorkerMetrics
from broker.clock import now_ms
from broker.drains import Drain, drain_of
from broker.workers import WorkerState

_log = structlog.get_logger("antiphon.worker")


class Order(Enum):
    """What a worker was told last."""

    TAKE = auto()
    FINISH = auto()
    """Take no job; what it has stays its own until that ends."""
    DRAIN = auto()
    """Take no job; what does not end in time is handed over. The worker stays."""
    LEAVE = auto()
    """The same, for good."""


class Standing:
    """A worker's order: LEAVE once it was asked to leave, else what the drains say of its version in its pool.

    Not known before `told` is called first: until then no job may be taken.
    """

    def __init__(self, settings: WorkerSettings, metrics: WorkerMetrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._known = asyncio.Event()
        self._changed = asyncio.Event()
        self.order = Order.TAKE
        self.since_ms = now_ms()
        """When the order was given."""
        metrics.capacity.inc(settings.concurrency)

    def leave(self) -> None:
        """May be called again."""
        self._metrics.draining.set(1)
        self._become(Order.LEAVE)
        self._known.set()

    def told(self, drains: Sequence[Drain]) -> None:
        """All drains that there are."""
        drain = drain_of(drains, self._settings.pool, self._settings.worker_version, now_ms())
        if self.order is not Order.LEAVE:
            self._become(Order.TAKE if drain is None else Order.FINISH if drain.finish else Order.DRAIN)
        self._known.set()

    async def known(self) -> None:
        """Returns when the drains are known, or the worker is to leave. Safe to cancel."""
        await self._known.wait()

    async def other_than(self, order: Order) -> None:
        """Returns when the order is another one. Safe to cancel."""
        while self.order is order:
            await self._changed.wait()

    def state(self, lanes: int) -> WorkerState:
        """As it is told to people, of a worker with so many lanes."""
        match self.order:
            case Order.TAKE:
                return WorkerState.TAKING
            case Order.LEAVE:
                return WorkerState.LEAVING
            case _ if not lanes:
                return WorkerState.DRAINED
            case Order.FINISH:
                return WorkerState.FINISHING
            case Order.DRAIN:
                return WorkerState.DRAINING

    def _become(self, order: Order) -> None:
        if order is self.order:
            return
        before, self.order, self.since_ms = self.order, order, now_ms()
        self._count(before, order)
        ids = {"pool": self._settings.pool, "version": self._settings.worker_version}
        if order in _DRAINED:
            _log.warning("drained: no more jobs are taken", **ids, finish=order is Order.FINISH)
        elif order is Order.TAKE:
            _log.info("not drained any more: jobs are taken", **ids)
        self._changed.set()
        self._changed = asyncio.Event()

    def _count(self, before: Order, now: Order) -> None:
        if now in _DRAINED and before not in _DRAINED:
            self._metrics.drained.inc()
            self._metrics.capacity.dec(self._settings.concurrency)
        elif before in _DRAINED and now not in _DRAINED:
            self._metrics.drained.dec()
            self._metrics.capacity.inc(self._settings.concurrency)


_DRAINED = (Order.FINISH, Order.DRAIN)
