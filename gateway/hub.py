"""The sessions that a gateway has open: one feed each, shared by all who read it or command in it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Self

import structlog

from broker.interfaces import JobQueue, SessionLog
from broker.subjects import SessionKey
from broker.telemetry import bind_only
from gateway.config import GatewaySettings
from gateway.feed import Feed
from gateway.metrics import GatewayMetrics
from gateway.tracing import GatewayTracing
from gateway.turn import Turn

_log = structlog.get_logger("antiphon.hub")

_REPAIRS_AT_ONCE = 16


class Hub:
    """A context: `async with Hub(...) as hub`, `async with hub.session(key) as feed`."""

    def __init__(
        self,
        log: SessionLog,
        jobs: JobQueue,
        settings: GatewaySettings,
        metrics: GatewayMetrics,
        tracing: GatewayTracing,
    ) -> None:
        self._log = log
        self._jobs = jobs
        self._settings = settings
        self._metrics = metrics
        self._tracing = tracing
        self._feeds: dict[SessionKey, tuple[Feed, asyncio.Task[None]]] = {}
        self._lingering: dict[SessionKey, asyncio.TimerHandle] = {}
        self._tasks = asyncio.TaskGroup()
        self._turn = Turn()
        self._repairing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        self._repairing = self._tasks.create_task(self._repair(), name="repairs")
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        for timer in self._lingering.values():
            timer.cancel()
        for _, task in self._feeds.values():
            task.cancel()
        if self._repairing is not None:
            self._repairing.cancel()
        await self._tasks.__aexit__(exc_type, exc, tb)

    @asynccontextmanager
    async def session(self, key: SessionKey) -> AsyncIterator[Feed]:
        """The feed of a session, by its key, for as long as the context is open; it may not be ready yet.

        Raises InvalidName, Unavailable (NATS has not been reached since the gateway started).
        """
        feed = self.hold(key)
        try:
            yield feed
        finally:
            self.let_go(feed)

    def in_flight(self) -> int:
        """Entries that are due to readers and have not been dealt with yet, of all sessions."""
        return sum(feed.in_flight for feed, _ in self._feeds.values())

    def let_go(self, feed: Feed) -> None:
        """Ends what `hold` began."""
        feed.users -= 1
        if feed.users == 0:
            self._linger(feed)

    def hold(self, key: SessionKey) -> Feed:
        """As `session`, until `let_go`. Raises InvalidName, Unavailable."""
        timer = self._lingering.pop(key, None)
        if timer is not None:
            timer.cancel()
        if key not in self._feeds:
            deliveries = self._tracing.deliveries(key)
            subjects, settings, metrics = self._log.subjects(key), self._settings, self._metrics
            feed = Feed(subjects, self._log, self._jobs, settings, metrics, self._turn, deliveries)
            self._feeds[key] = feed, self._tasks.create_task(self._run(feed), name=f"feed-{key}")
            self._metrics.sessions.inc()
        feed = self._feeds[key][0]
        feed.users += 1
        return feed

    def feeds(self) -> list[Feed]:
        """Those of all sessions that are open."""
        return [feed for feed, _ in self._feeds.values()]

    async def _run(self, feed: Feed) -> None:
        bind_only(session=feed.subjects.key)
        while True:
            try:
                await feed.run()
            except Exception:  # noqa: BLE001 (see below)
                # A fault in one session must not end the others; it is opened afresh from the log.
                _log.exception("a feed failed")
                await asyncio.sleep(1.0)

    async def _repair(self) -> None:
        """Looks after the sessions that are quiet, twice in each `job_repair_s`: one timer for all of them."""
        while True:
            await asyncio.sleep(self._settings.job_repair_s / 2)
            quiet = [feed for feed, _ in self._feeds.values() if feed.is_quiet()]
            for feeds in (quiet[i : i + _REPAIRS_AT_ONCE] for i in range(0, len(quiet), _REPAIRS_AT_ONCE)):
                async with asyncio.TaskGroup() as repairs:
                    for feed in feeds:
                        repairs.create_task(_repaired(feed))

    def _linger(self, feed: Feed) -> None:
        loop = asyncio.get_running_loop()
        self._lingering[feed.subjects.key] = loop.call_later(self._settings.session_linger_s, self._close, feed)

    def _close(self, feed: Feed) -> None:
        self._lingering.pop(feed.subjects.key, None)
        known = self._feeds.get(feed.subjects.key)
        if feed.users == 0 and known is not None and known[0] is feed:
            del self._feeds[feed.subjects.key]
            known[1].cancel()
            self._metrics.sessions.dec()


async def _repaired(feed: Feed) -> None:
    try:
        await feed.repair()
    except Exception:  # noqa: BLE001 (a fault in one session must not keep the others from being repaired)
        _log.exception("a repair failed", session=feed.subjects.key)
