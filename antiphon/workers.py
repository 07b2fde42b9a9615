"""`antiphon workers`: who is there, of which version, and which versions take no jobs. It speaks to NATS alone."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from antiphon.processes import BrokerSettings, reached
from broker.clock import now_ms, utc_text
from broker.drains import Drain, drain_of, with_drain, without_drain
from broker.errors import ConfigError
from broker.jetstream.connection import Connection
from broker.jetstream.drains import JetStreamDrains
from broker.jetstream.topology import stored_pools
from broker.jetstream.workers import ask_workers
from broker.workers import WorkerNotice, WorkerState, said_version


@dataclass(frozen=True, slots=True)
class Whose:
    """Which workers are meant: of a pool, of a version; None: of any."""

    pool: str | None = None
    version: str | None = None

    def means(self, pool: str, version: str) -> bool:
        return self.pool in (None, pool) and self.version in (None, version)


@dataclass(frozen=True, slots=True)
class Draining:
    """How to drain: `finish` as of a Drain; for how long (0: until it is taken back), and how long to wait for it."""

    finish: bool = False
    ttl_s: int = 0
    wait_s: int = 0


@asynccontextmanager
async def _connected(broker: BrokerSettings) -> AsyncIterator[Connection]:
    async with Connection(broker.nats, name="antiphon-workers") as connection:
        await reached(connection)
        yield connection


async def list_workers(broker: BrokerSettings, whose: Whose, *, as_json: bool) -> int:
    """Prints a line for each worker that answers, then one for each drain in force. Returns 0. Raises Unavailable."""
    async with _connected(broker) as connection:
        drains = [drain for drain in await JetStreamDrains(connection).read() if drain.in_force(now_ms())]
        pools = sorted({*await _pools(connection, broker), *(drain.pool for drain in drains)})
        found = await ask_workers(connection, [pool for pool in pools if whose.pool in (None, pool)])
    for notice in found:
        if whose.means(notice.pool, notice.version):
            print(_json("worker", notice) if as_json else _worker_line(notice))
    for drain in drains:
        if whose.means(drain.pool, drain.version):
            print(_json("drain", drain) if as_json else _drain_line(drain, found))
    return 0


async def drain(broker: BrokerSettings, pool: str, version: str, plan: Draining) -> int:
    """Has the workers of a version take no more jobs of a pool, and says what follows.

    Returns 1 if they have something left after the time that it is to wait for. Raises ConfigError, Unavailable.
    """
    now = now_ms()
    made = Drain(pool, version, now, now + 1000 * plan.ttl_s if plan.ttl_s else 0, plan.finish)
    async with _connected(broker) as connection:
        pools = await _pools(connection, broker)
        if pool not in pools:
            raise ConfigError(f"there is no pool {pool!r}: there are {', '.join(sorted(pools))}")
        await JetStreamDrains(connection).change(lambda drains: with_drain(drains, made))
        print(f"workers of version {said_version(version)} take no more jobs of the pool {pool}{_until(made)}")
        found = await ask_workers(connection, [pool])
        if not any(each.state is WorkerState.TAKING and each.version != version for each in found):
            print(
                "antiphon: no other worker that answers takes jobs of this pool: they wait until one does",
                file=sys.stderr,
            )
        return 0 if not plan.wait_s else await _wait(connection, pool, version, plan.wait_s)


async def undrain(broker: BrokerSettings, pool: str, version: str) -> int:
    """Takes a drain back. Returns 0, also if there was none. Raises Unavailable."""
    async with _connected(broker) as connection:
        drains = JetStreamDrains(connection)
        if drain_of(await drains.read(), pool, version, now_ms()) is None:
            print(f"version {said_version(version)} is not drained in the pool {pool}")
            return 0
        await drains.change(lambda known: without_drain(known, pool, version, now_ms()))
    print(f"workers of version {said_version(version)} take jobs of the pool {pool} again")
    return 0


async def _wait(connection: Connection, pool: str, version: str, wait_s: int) -> int:
    """Returns 0 once no worker of the version that answers has anything, 1 if some still do in the end."""
    deadline = time.monotonic() + wait_s
    while True:
        found = [each for each in await ask_workers(connection, [pool]) if each.version == version]
        busy = [each for each in found if each.lanes or each.state is WorkerState.TAKING]
        if not busy:
            print(f"{len(found)} workers of it are there, and have nothing left")
            return 0
        if time.monotonic() >= deadline:
            lanes = sum(each.lanes for each in busy)
            print(f"antiphon: {len(busy)} workers of it still have {lanes} sessions", file=sys.stderr)
            return 1


async def _pools(connection: Connection, broker: BrokerSettings) -> frozenset[str]:
    """Those of the log; those of the settings, of a log that an older version has made."""
    return await stored_pools(connection) or frozenset(broker.log.pool_names)


def _worker_line(notice: WorkerNotice) -> str:
    parked = f" ({notice.parked} parked)" if notice.parked else ""
    return (
        f"{notice.pool:<16}  {said_version(notice.version):<16}  {notice.state:<9}  "
        f"{notice.lanes}/{notice.capacity} sessions{parked}  {notice.agent}  {notice.worker}  {notice.host}  "
        f"since {utc_text(notice.started)}"
    )


def _drain_line(drain: Drain, found: Sequence[WorkerNotice]) -> str:
    there = sum((each.pool, each.version) == (drain.pool, drain.version) for each in found)
    how = ", its workers finish what they have" if drain.finish else ""
    return (
        f"drained: version {said_version(drain.version)} of {drain.pool} since {utc_text(drain.since)}{_until(drain)}{how}; "
        f"{there} workers of it are there"
    )


def _until(drain: Drain) -> str:
    return f" until {utc_text(drain.until)}" if drain.until else " until `antiphon workers undrain`"


def _json(kind: str, one: WorkerNotice | Drain) -> str:
    return json.dumps({"kind": kind, **dataclasses.asdict(one)})
