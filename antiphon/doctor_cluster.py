"""What `antiphon doctor` sees of a cluster: it asks NATS, listens for gateways, and has `antiphon.findings` judge."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from typing import Any, Final

import aiohttp
import orjson

from antiphon import findings
from antiphon.findings import Finding
from broker.clock import now_ms
from broker.config import LogSettings, NatsSettings, from_environment
from broker.errors import ROLES_HINT, CodecError, LogError
from broker.jetstream.access import said_of, user_access
from broker.jetstream.answers import ServerRefused
from broker.jetstream.connection import Connection
from broker.jetstream.drains import JetStreamDrains
from broker.jetstream.health import JetStreamHealth
from broker.jetstream.log import JetStreamLog
from broker.jetstream.pages import all_pages
from broker.jetstream.topology import OWN_STREAMS, WORK_STREAM, stored_partitions
from broker.jetstream.workers import ask_workers
from broker.permissions import Role, User, access
from broker.subjects import HEARTBEATS, queue_of_consumer, stream_name

LISTEN_S: Final = 3.0
"""A gateway says that it is alive every two seconds, unless it was told otherwise."""
_HTTP_TIMEOUT_S = 5.0
_LOOK_S = 0.2
_NO_VERSION = "unknown"


async def cluster_findings(
    nats: NatsSettings, monitoring: list[str], role: Role | None = None
) -> AsyncIterator[Finding]:
    """Everything that can be seen from here, in the order in which it depends on each other.

    With a `role` only whether this user of NATS has what that role needs: it is not the one who looks at the rest.
    """
    settings = from_environment(LogSettings)
    async with Connection(nats, name="antiphon-doctor") as connection, JetStreamLog(connection, settings) as log:
        if not connection.connected:
            yield Finding(
                f"NATS at {nats.nats_addresses}", f"{connection.last_error}; is it running, and is --nats-url right?"
            )
            return
        yield Finding(f"NATS at {nats.nats_addresses}")
        yield findings.server(connection.server_info)
        yield await _user(connection, settings, role or Role.OBSERVER)
        if role is not None:
            return
        problems = await JetStreamHealth(connection, log, settings).problems()
        yield Finding("streams and consumers", "; ".join(problems))
        seen = _Seen(connection)
        try:
            async for finding in seen.findings():
                yield finding
        except (LogError, ServerRefused) as error:
            yield Finding("JetStream", f"{error}; look at the servers' logs")
        async for finding in _workers(connection, seen.consumers):
            yield finding
        async for finding in _monitored(monitoring, seen.replicas):
            yield finding
        yield findings.gateways(await _heard(connection), LISTEN_S)


async def _user(connection: Connection, settings: LogSettings, role: Role) -> Finding:
    try:
        stored = await stored_partitions(connection)
        found = await user_access(connection)
    except (LogError, ServerRefused) as error:
        return Finding("user of NATS", str(error))
    if found is None:
        return Finding("user of NATS: it may not ask what it may do", ROLES_HINT, needed=False)
    user = User(role, settings.pool_names, connection.inbox_prefix)
    lacks = [*found[1].lacks(access(user, stored or settings.partitions))]
    return findings.user(found[0], role, said_of(lacks) if lacks else "", found[1])


class _Seen:
    """Answers of JetStream, and the clocks of those who answered."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._skews: dict[str, float] = {}
        self.replicas = 1
        self.consumers: list[dict[str, Any]] = []
        """Those of the pools."""

    async def findings(self) -> AsyncIterator[Finding]:
        """Raises Unavailable, TopologyError, ServerRefused."""
        yield findings.account(await self._connection.api("INFO"))
        partitions = await stored_partitions(self._connection) or 0
        names = [*OWN_STREAMS, *(stream_name(n) for n in range(partitions))]
        infos = []
        for name in names:
            try:
                infos.append(await self._info(f"STREAM.INFO.{name}"))
            except LogError as error:
                yield Finding(f"stream {name}", str(error))
        for info in infos:
            yield findings.stream(info)
        if infos:
            self.replicas = max(int(info["config"].get("num_replicas", 1)) for info in infos)
            yield findings.copies(infos, clustered=bool(self._connection.server_info.get("cluster")))
            yield findings.clocks(self._skews)
        async for finding in self._pools():
            yield finding

    async def _pools(self) -> AsyncIterator[Finding]:
        consumers = await self._consumers()
        self.consumers = findings.by_pool(consumers)
        for info in self.consumers:
            yield findings.pool(info)
        queue = await self._info(f"STREAM.INFO.{WORK_STREAM}", {"subjects_filter": "work.>"})
        pools = [queue_of_consumer(str(info["name"])) for info in consumers]
        for finding in findings.orphans(queue["state"].get("subjects") or {}, pools):
            yield finding

    async def _consumers(self) -> list[dict[str, Any]]:
        """Those of the work queue. A worker that asks again and again is not caught asking at every moment."""
        deadline = asyncio.get_running_loop().time() + LISTEN_S
        while True:
            consumers, _ = await all_pages(self._connection, f"CONSUMER.LIST.{WORK_STREAM}", "consumers")
            if all(findings.is_served(each) for each in findings.by_pool(consumers)):
                return consumers
            if asyncio.get_running_loop().time() > deadline:
                return consumers
            await asyncio.sleep(_LOOK_S)

    async def _info(self, operation: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        sent = time.time()
        info = await self._connection.api(operation, body)
        skew = _skew_s(info, sent, time.time())
        leader = (info.get("cluster") or {}).get("leader") or str(self._connection.server_info.get("server_name"))
        if skew is not None and abs(skew) >= abs(self._skews.get(leader, 0.0)):
            self._skews[leader] = skew
        return info


def _skew_s(info: Mapping[str, Any], sent: float, came: float) -> float | None:
    """The server's clock less ours, from an answer with its time; as little as the way there and back allows."""
    if not (said := info.get("ts")):
        return None
    at = datetime.fromisoformat(f"{said[:19]}+00:00").timestamp() + float(f"0{said[19:].rstrip('Z')}")
    return at - came if at > came else min(0.0, at - sent)


async def _workers(connection: Connection, consumers: list[dict[str, Any]]) -> AsyncIterator[Finding]:
    """What the pools' workers say of themselves, and the versions that are drained."""
    pools = [queue_of_consumer(str(info["name"])) for info in consumers]
    try:
        drains = await JetStreamDrains(connection).read()
        notices = await ask_workers(connection, pools)
    except (LogError, CodecError) as error:
        yield Finding("versions of workers", str(error), needed=False)
        return
    for finding in findings.workers(notices):
        yield finding
    for each in drains:
        if each.in_force(now_ms()):
            yield findings.drain(each, notices)
    for info in consumers:
        for finding in findings.only_drained(info, notices):
            yield finding


async def _heard(connection: Connection) -> dict[str, str]:
    """The gateways that speak, and their versions."""
    heard: dict[str, str] = {}

    async def on_heartbeat(msg: Any) -> None:
        try:
            said = orjson.loads(msg.data)
            if not said.get("gone"):
                heard[msg.subject.rpartition(".")[2]] = str(said.get("version", _NO_VERSION))
        except (orjson.JSONDecodeError, AttributeError):
            return

    try:
        sub = await connection.subscribe(HEARTBEATS, on_heartbeat)
        await asyncio.sleep(LISTEN_S)
        await connection.unsubscribe(sub)
    except LogError:
        return {}
    return heard


async def _monitored(urls: list[str], replicas: int) -> AsyncIterator[Finding]:
    timeout = aiohttp.ClientTimeout(total=_HTTP_TIMEOUT_S)
    async with aiohttp.ClientSession(timeout=timeout) as http:
        for url in urls:
            try:
                async with http.get(f"{url.rstrip('/')}/varz") as answer:
                    varz = await answer.json()
            except (aiohttp.ClientError, TimeoutError, ValueError) as error:
                yield Finding(f"monitoring port {url}", f"it does not answer ({type(error).__name__})", needed=False)
            else:
                yield findings.monitored(varz, replicas)
