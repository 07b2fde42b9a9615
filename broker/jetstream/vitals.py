"""What is only asked of NATS when somebody looks at the metrics (`broker.interfaces.Vitals`).

Whoever scrapes sets the pace, so nothing is asked where nobody scrapes, and never more often than `_FRESH_S`, however
many do.
"""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections.abc import Mapping
from datetime import datetime
from types import TracebackType
from typing import Any, Self

import structlog

from broker.errors import LogError
from broker.jetstream.answers import ServerRefused
from broker.jetstream.connection import Connection
from broker.jetstream.pages import all_pages
from broker.jetstream.topology import ATTACHMENT_STREAM, META_STREAM, OWN_STREAMS, WORK_STREAM
from broker.metrics import LogMetrics, QueueMetrics, QueueSeen
from broker.queues import Queue
from broker.replicas import is_away
from broker.subjects import pool_consumer

_log = structlog.get_logger("antiphon.vitals")

_FRESH_S = 5.0
_PATIENCE_S = 1.0
_TIMEOUT_S = 8.0
"""A cluster that has lost a server takes four seconds to say which streams do not answer."""
_AWAY_S = 15.0
_OURS = re.compile("|".join((r"S\d\d", *OWN_STREAMS)))


class JetStreamVitals:
    """The connection's; with `queue` also the jobs of all pools, and the streams. One for a process; a context."""

    def __init__(self, connection: Connection, queue: QueueMetrics | None = None) -> None:
        self._connection = connection
        self._metrics: LogMetrics = connection.metrics
        self._queue = queue
        self._tasks = asyncio.TaskGroup()
        self._looking: asyncio.Task[None] | None = None
        self._fresh_until = 0.0

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._looking is not None:
            self._looking.cancel()
        await self._tasks.__aexit__(exc_type, exc, tb)

    async def refresh(self) -> None:
        if self._looking is None:
            if time.monotonic() < self._fresh_until:
                return
            self._looking = self._tasks.create_task(self._look_once())
        # What takes longer goes on, and is there for the next one who looks.
        await asyncio.wait({self._looking}, timeout=_PATIENCE_S)

    async def _look_once(self) -> None:
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                await self._look()
        except (LogError, ServerRefused, TimeoutError):
            self._forget()
        except Exception:  # noqa: BLE001 (a fault in measuring must not end what is measured)
            _log.exception("NATS was asked for metrics and its answer not understood")
            self._forget()
        finally:
            self._fresh_until = time.monotonic() + _FRESH_S
            self._looking = None

    async def _look(self) -> None:
        begun = time.monotonic()
        await self._connection.flush()
        self._metrics.round_trip.set(time.monotonic() - begun)
        sent = time.time()
        meta = await self._connection.api(f"STREAM.INFO.{META_STREAM}")
        here = (sent + time.time()) / 2
        self._metrics.clock_offset.set(_seconds(meta["ts"]) - here)
        if self._queue is not None:
            await self._look_at_pools(self._queue)
            await self._look_at_streams(self._queue)
            self._queue.asked_at.set(time.time())

    def _forget(self) -> None:
        self._metrics.round_trip.set(math.nan)
        self._metrics.clock_offset.set(math.nan)
        if self._queue is not None:
            self._queue.forget()

    async def _look_at_pools(self, queue: QueueMetrics) -> None:
        found = []
        consumers, _ = await all_pages(self._connection, f"CONSUMER.LIST.{WORK_STREAM}", "consumers")
        for consumer in consumers:
            key = consumer["config"].get("filter_subject", "").split(".")[1:2]
            one = Queue.of(key[0]) if key and consumer["name"] == pool_consumer(key[0]) else None
            if one is not None:
                waiting, leased, asking = (consumer[f"num_{count}"] for count in ("pending", "ack_pending", "waiting"))
                found.append(QueueSeen(one, waiting, leased, asking, await self._oldest_s(consumer)))
        queue.see(found)

    async def _oldest_s(self, consumer: Mapping[str, Any]) -> float:
        """How long the first job that nobody has had has waited, by the server's clock alone."""
        if not consumer["num_pending"]:
            return 0.0
        query = {
            "seq": consumer["delivered"]["stream_seq"] + 1,
            "next_by_subj": consumer["config"]["filter_subject"],
        }
        try:
            answer = await self._connection.api(f"STREAM.MSG.GET.{WORK_STREAM}", query)
        except ServerRefused:
            return 0.0  # taken, and done, in between
        return max(0.0, _seconds(consumer["ts"]) - _seconds(answer["message"]["time"]))

    async def _look_at_streams(self, queue: QueueMetrics) -> None:
        listed, missing = await all_pages(self._connection, "STREAM.LIST", "streams")
        streams = [s for s in listed if _OURS.fullmatch(s["config"]["name"])]
        attachments = [s for s in listed if s["config"]["name"] == ATTACHMENT_STREAM]
        streams += attachments
        replicas = [replica for s in streams for replica in s.get("cluster", {}).get("replicas") or ()]
        queue.bytes.set(sum(s["state"]["bytes"] for s in streams if s not in attachments))
        queue.entries.set(sum(s["state"]["messages"] for s in streams if s not in attachments))
        queue.attachments.set(sum(s["state"]["bytes"] for s in attachments))
        queue.replica_lag.set(max((replica.get("lag", 0) for replica in replicas), default=0))
        queue.replicas_offline.set(sum(is_away(replica, _AWAY_S) for replica in replicas))
        leaderless = sum("cluster" in s and not s["cluster"].get("leader") for s in streams)
        queue.silent.set(leaderless + sum(bool(_OURS.fullmatch(name)) for name in missing))


def _seconds(time_text: str) -> float:
    """Seconds since 1970 of a time in RFC 3339."""
    return datetime.fromisoformat(time_text).timestamp()
