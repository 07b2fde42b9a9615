"""The sessions that a gateway has open: one feed each, shared by all who read it or command in it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Self

import structlog

from broker.interfaces import JobQueue, SessionLog
from broker.telemetry import bind_only
from gateway.config import GatewaySettings
from gateway.feed import Feed
from gateway.metrics import GatewayMetrics
from gateway.tracing import GatewayTracing

_log = structlog.get_logger("antiphon.hub")


class Hub:
    """A context: `async with Hub(...) as hub`, `async with hub.session(name) as feed`."""

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
        self._feeds: dict[str, tuple[Feed, asyncio.Task[None]]] = {}
        self._lingering: dict[str, asyncio.TimerHandle] = {}
        self._tasks = asyncio.TaskGroup()

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        for timer in self._lingering.values():
            timer.cancel()
        for _, task in self._feeds.values():
            task.cancel()
        await self._tasks.__aexit__(exc_type, exc, tb)

    @asynccontextmanager
    async def session(self, name: str) -> AsyncIterator[Feed]:
        """The feed of a session, for as long as the context is open; it may not be ready yet.

        Raises InvalidName, Unavailable (NATS has not been reached since the gateway started).
        """
        feed = self.hold(name)
        try:
            yield feed
        finally:
            self.let_go(feed)

    def let_go(self, feed: Feed) -> None:
        """Ends what `hold` began."""
        feed.users -= 1
        if feed.users == 0:
            self._linger(feed)

    def hold(self, name: str) -> Feed:
        """As `session`, until `let_go`. Raises InvalidName, Unavailable."""
        timer = self._lingering.pop(name, None)
        if timer is not None:
            timer.cancel()
        if name not in self._feeds:
            deliveries = self._tracing.deliveries(name)
            feed = Feed(self._log.subjects(name), self._log, self._jobs, self._settings, self._metrics, deliveries)
            self._feeds[name] = feed, self._tasks.create_task(self._run(feed), name=f"feed-{name}")
            self._metrics.sessions.inc()
        feed = self._feeds[name][0]
        feed.users += 1
        return feed

    async def _run(self, feed: Feed) -> None:
        bind_only(session=feed.session)
        while True:
            try:
                await feed.run()
            except Exception:  # noqa: BLE001 (see below)
                # A fault in one session must not end the others; it is opened afresh from the log.
                _log.exception("a feed failed")
                await asyncio.sleep(1.0)

    def _linger(self, feed: Feed) -> None:
        loop = asyncio.get_running_loop()
        self._lingering[feed.session] = loop.call_later(self._settings.session_linger_s, self._close, feed)

    def _close(self, feed: Feed) -> None:
        self._lingering.pop(feed.session, None)
        known = self._feeds.get(feed.session)
        if feed.users == 0 and known is not None and known[0] is feed:
            del self._feeds[feed.session]
            known[1].cancel()
            self._metrics.sessions.dec()
