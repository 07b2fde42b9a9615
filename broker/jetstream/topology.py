"""The streams and consumers that Antiphon needs: what they must be, making them so, and saying where they differ."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
import structlog

from broker.config import LogSettings
from broker.errors import TopologyError, Unavailable
from broker.jetstream.answers import NO_CONSUMER, NO_MESSAGE, NO_STREAM, ServerRefused
from broker.jetstream.connection import Connection
from broker.queues import SHARES_MAX, Layout
from broker.subjects import ALARMS, ALARMS_DUE, ATTACHMENTS, USAGE, pool_consumer, stream_name
from broker.versions import LOG_FORMAT, VERSION

WORK_STREAM = "WORK"
META_STREAM = "ANTIPHON_META"
INDEX_STREAM = "INDEX"
HOOKS_STREAM = "HOOKS"
ATTACHMENT_STREAM = "ATTACHMENTS"
REVOKED_STREAM = "REVOKED"
AUDIT_STREAM = "AUDIT"
USAGE_STREAM = "USAGE"
ALARM_STREAM = "ALARMS"
ALARM_CONSUMER = "due"
"""From which gateways take alarms that have gone off."""
REVOCATIONS_MAX = 100_000
"""Revocations in force at once; gateways keep all of them in memory, about 1 KB each."""
OWN_STREAMS = (
    *(META_STREAM, INDEX_STREAM, HOOKS_STREAM, ATTACHMENT_STREAM, REVOKED_STREAM, AUDIT_STREAM, USAGE_STREAM),
    *(ALARM_STREAM, WORK_STREAM),
)
"""Of the log, beside those of the partitions."""
META_PARTITIONS = "antiphon.meta.partitions"
META_FORMAT = "antiphon.meta.format"
META_POOLS = "antiphon.meta.pools"
META_DRAINS = "antiphon.meta.drains"
"""Which versions of workers take no jobs (`broker.drains`); nothing that `apply` makes."""
META_QUEUES = "antiphon.meta.queues"

_DEPENDED_ON = frozenset(
    (
        *("subjects", "retention", "max_age", "republish", "allow_direct", "allow_msg_ttl", "allow_rollup_hdrs"),
        *("discard_new_per_subject", "max_msgs_per_subject", "filter_subject", "ack_policy", "allow_msg_schedules"),
    )
)
_DUPLICATE_WINDOW_S = 120.0
_ALARM_LEASE_S = 30.0
"""How long a gateway has for an alarm until another hears it."""
_ALARMS_HEARD = 4096
"""Alarms that gateways may have at hand, or have put off for a while, all of them together."""
_NS = 1_000_000_000

_log = structlog.get_logger("antiphon.topology")


@dataclass(frozen=True, slots=True)
class Drift:
    """One thing that is not as it must be; `have` is None if it is absent."""

    where: str
    field: str
    want: Any
    have: Any

    def __str__(self) -> str:
        if self.have is None:
            return f"{self.where} is missing"
        return f"{self.where}: {self.field} is {self.have!r}, must be {self.want!r}"


def wanted_streams(settings: LogSettings) -> dict[str, dict[str, Any]]:
    """Stream configurations by name."""
    streams = {
        META_STREAM: _newest(settings, META_STREAM, "antiphon.meta.*"),
        INDEX_STREAM: _newest(settings, INDEX_STREAM, "idx.>"),
        HOOKS_STREAM: _hooks(settings),
        WORK_STREAM: _work(settings),
        AUDIT_STREAM: _audit(settings),
        REVOKED_STREAM: _newest(settings, REVOKED_STREAM, "revoked.>")
        | {"allow_msg_ttl": True, "max_msgs": REVOCATIONS_MAX, "discard": "new"},
        USAGE_STREAM: _newest(settings, USAGE_STREAM, USAGE),
        ATTACHMENT_STREAM: _attachments(settings),
        ALARM_STREAM: _alarms(settings),
    }
    for partition in range(settings.partitions):
        streams[stream_name(partition)] = _partition(settings, partition)
    return streams


def wanted_consumers(settings: LogSettings) -> dict[str, dict[str, Any]]:
    """Configurations of the consumers of WORK, by name."""
    queues = [queue.key for pool in settings.pool_names for queue in settings.layout.queues(pool)]
    return {
        pool_consumer(queue): {
            "durable_name": pool_consumer(queue),
            "filter_subject": f"work.{queue}.>",
            "ack_policy": "explicit",
            "ack_wait": int(settings.lease_s * _NS),
            "deliver_policy": "all",
            "max_ack_pending": 65_536,
            "max_deliver": -1,
            "max_waiting": 4096,
        }
        for queue in queues
    }


def wanted_alarm_consumer() -> dict[str, Any]:
    """Configuration of the consumer of alarms that have gone off."""
    return {
        "durable_name": ALARM_CONSUMER,
        "filter_subject": ALARMS_DUE,
        "ack_policy": "explicit",
        "ack_wait": int(_ALARM_LEASE_S * _NS),
        "deliver_policy": "all",
        "max_ack_pending": _ALARMS_HEARD,
        "max_deliver": -1,
        "max_waiting": 4096,
    }


def _common(settings: LogSettings) -> dict[str, Any]:
    return {"storage": "file", "num_replicas": settings.replicas, "allow_direct": True}


def _partition(settings: LogSettings, partition: int) -> dict[str, Any]:
    pp = f"{partition:02d}"
    return _common(settings) | {
        "name": stream_name(partition),
        "subjects": [f"s.{pp}.>", f"c.{pp}.*"],
        "retention": "limits",
        "discard": "new",
        # A server that starts deletes all that is older than a stream's age, `Nats-TTL: never` or not.
        "max_age": 0,
        "duplicate_window": int(min(_DUPLICATE_WINDOW_S, settings.delta_ttl_s) * _NS),
        "allow_msg_ttl": True,
        "allow_rollup_hdrs": True,
        "republish": {"src": f"s.{pp}.>", "dest": f"live.{pp}.>"},
    }


def _work(settings: LogSettings) -> dict[str, Any]:
    return _common(settings) | {
        "name": WORK_STREAM,
        "subjects": ["work.>"],
        "retention": "workqueue",
        "discard": "new",
        "discard_new_per_subject": True,
        "max_msgs_per_subject": 1,
    }


def _audit(settings: LogSettings) -> dict[str, Any]:
    """A stream out of which nobody can delete what has not had its time."""
    return _common(settings) | {
        "name": AUDIT_STREAM,
        "subjects": ["audit.*"],
        "retention": "limits",
        "discard": "old",
        "max_age": int(settings.audit_ttl_s * _NS),
        "max_msgs": settings.audit_records,
        "deny_delete": True,
        "deny_purge": True,
    }


def _attachments(settings: LogSettings) -> dict[str, Any]:
    return _common(settings) | {
        "name": ATTACHMENT_STREAM,
        "subjects": [ATTACHMENTS],
        "retention": "limits",
        "discard": "new",
        "max_age": 0,
        "max_bytes": settings.attachments_bytes or -1,
        "duplicate_window": int(_DUPLICATE_WINDOW_S * _NS),
        "allow_msg_ttl": True,
        "allow_rollup_hdrs": True,
    }


def _alarms(settings: LogSettings) -> dict[str, Any]:
    """A stream of its own: who may write into one that allows schedules may have the server write anywhere in it."""
    return _common(settings) | {
        "name": ALARM_STREAM,
        "subjects": [ALARMS],
        "retention": "workqueue",
        # Schedules cannot be with `new`; it has no limit at which anything would be discarded.
        "discard": "old",
        "max_age": 0,
        "allow_rollup_hdrs": True,
        "allow_msg_schedules": True,
    }


def _newest(settings: LogSettings, name: str, subjects: str) -> dict[str, Any]:
    """A stream that keeps the last message of each subject."""
    return _common(settings) | {
        "name": name,
        "subjects": [subjects],
        "retention": "limits",
        "discard": "old",
        "max_msgs_per_subject": 1,
    }


def _hooks(settings: LogSettings) -> dict[str, Any]:
    """The outbox of webhooks. What waits has a TTL of its own; the sender's mark has none."""
    return _common(settings) | {
        "name": HOOKS_STREAM,
        "subjects": ["hooks.>"],
        "retention": "limits",
        "discard": "new",
        "max_age": 0,
        "allow_msg_ttl": True,
        "allow_rollup_hdrs": True,
    }


class Topology:
    """Applies and checks the topology over a connection."""

    def __init__(self, connection: Connection, settings: LogSettings) -> None:
        self._connection = connection
        self._settings = settings

    async def apply(self) -> list[Drift]:
        """Makes streams and consumers as they must be; returns what it changed. May be run again at any time.

        Raises TopologyError for what cannot be changed (the number of partitions), Unavailable.
        """
        await refuse_newer_format(self._connection)
        await self._refuse_other_partitions()
        changed: list[Drift] = []
        for name, config in wanted_streams(self._settings).items():
            changed += await self._apply_stream(name, config)
        for name, config in wanted_consumers(self._settings).items():
            changed += await self._apply_consumer(WORK_STREAM, name, config)
        changed += await self._apply_consumer(ALARM_STREAM, ALARM_CONSUMER, wanted_alarm_consumer())
        await self._connection.publish(META_FORMAT, str(LOG_FORMAT).encode())
        await self._connection.publish(META_PARTITIONS, str(self._settings.partitions).encode())
        await self._connection.publish(META_POOLS, orjson.dumps(self._settings.pool_names))
        await self._publish_layout()
        return changed

    async def _publish_layout(self) -> None:
        """After the consumers are there: from now on jobs may be put into them. Those of before are served for ever."""
        offered, served = await stored_layouts(self._connection)
        wanted = self._settings.layout
        said = {"offered": dataclasses.asdict(wanted), "served": dataclasses.asdict(served.with_all_of(wanted))}
        await self._connection.publish(META_QUEUES, orjson.dumps(said))
        if offered != wanted:
            _log.info("queues of pools", **said)

    async def check(self) -> list[Drift]:
        """What differs from what must be. Raises Unavailable."""
        found: list[Drift] = []
        stored = await stored_partitions(self._connection)
        if stored not in (None, self._settings.partitions):
            found.append(Drift("the log", "partitions", self._settings.partitions, stored))
        for name, config in wanted_streams(self._settings).items():
            found += _compare(f"stream {name}", config, await self._stream_config(name))
        for name, config in wanted_consumers(self._settings).items():
            found += _compare(f"consumer {name}", config, await self._consumer_config(WORK_STREAM, name))
        alarms = await self._consumer_config(ALARM_STREAM, ALARM_CONSUMER)
        found += _compare(f"consumer {ALARM_CONSUMER}", wanted_alarm_consumer(), alarms)
        return found

    async def check_shape(self) -> list[Drift]:
        """As `check`, of what a running process depends on: a process need not know how long deltas and the audit log are
        kept, nor how many copies there are, and takes the number of partitions from the log.
        """
        stored = await stored_partitions(self._connection)
        if stored is None:
            return [Drift("the topology", "", "", None)]
        layout, _ = await stored_layouts(self._connection)
        settings = dataclasses.replace(
            self._settings, partitions=stored, priorities=layout.priorities, tenant_shares=layout.shares
        )
        checker = Topology(self._connection, settings)
        return [d for d in await checker.check() if d.have is None or d.field in _DEPENDED_ON]

    async def _refuse_other_partitions(self) -> None:
        stored = await stored_partitions(self._connection)
        if stored is not None and stored != self._settings.partitions:
            raise TopologyError(
                f"this log has {stored} partitions, fixed when it was made: set ANTIPHON_PARTITIONS={stored}, "
                "or move its sessions into another log (`antiphon move`)"
            )

    async def _apply_stream(self, name: str, config: dict[str, Any]) -> list[Drift]:
        have = await self._stream_config(name)
        drift = _compare(f"stream {name}", config, have)
        if have is None:
            await self._call(f"STREAM.CREATE.{name}", config)
        elif drift:
            await self._call(f"STREAM.UPDATE.{name}", have | config)
        return drift

    async def _apply_consumer(self, stream: str, name: str, config: dict[str, Any]) -> list[Drift]:
        drift = _compare(f"consumer {name}", config, await self._consumer_config(stream, name))
        if drift:
            body = {"stream_name": stream, "config": config}
            await self._call(f"CONSUMER.DURABLE.CREATE.{stream}.{name}", body)
        return drift

    async def _call(self, operation: str, body: dict[str, Any]) -> None:
        try:
            await self._connection.api(operation, body)
        except ServerRefused as error:
            raise TopologyError(
                f"{operation.rsplit('.', maxsplit=1)[-1]}: NATS refused: {error.description}"
            ) from error

    async def _stream_config(self, name: str) -> dict[str, Any] | None:
        return await self._info(f"STREAM.INFO.{name}", NO_STREAM)

    async def _consumer_config(self, stream: str, name: str) -> dict[str, Any] | None:
        return await self._info(f"CONSUMER.INFO.{stream}.{name}", NO_CONSUMER)

    async def _info(self, operation: str, absent: int) -> dict[str, Any] | None:
        try:
            config = (await self._connection.api(operation))["config"]
        except TopologyError:
            return None
        except ServerRefused as error:
            if error.code == absent:
                return None
            raise TopologyError(f"{operation}: NATS refused: {error.description}") from error
        assert isinstance(config, dict)
        return config


async def stored_lease_s(connection: Connection, pool: str) -> float:
    """The lease that the pool's jobs have, whatever a process thinks of it. Raises TopologyError, Unavailable."""
    try:
        info = await connection.api(f"CONSUMER.INFO.{WORK_STREAM}.{pool_consumer(pool)}")
    except ServerRefused as error:
        raise TopologyError(
            f"there is no pool {pool!r}: name it in ANTIPHON_POOLS for `antiphon topology apply`"
        ) from error
    return float(info["config"]["ack_wait"]) / _NS


async def stored_partitions(connection: Connection) -> int | None:
    """The number of partitions that this log was made with; None if it has not been made. Raises Unavailable."""
    return await _stored_number(connection, META_PARTITIONS)


async def refuse_newer_format(connection: Connection) -> None:
    """Raises TopologyError if only newer versions than this one may touch the log, Unavailable."""
    stored = await _stored_number(connection, META_FORMAT)
    if stored is not None and stored > LOG_FORMAT:
        raise TopologyError(
            f"this log has format {stored}, and antiphon {VERSION} knows those up to {LOG_FORMAT}: run a newer version"
        )


async def stored_pools(connection: Connection) -> frozenset[str]:
    """The pools by their keys, as `apply` was told last; none if it was an older one. Raises Unavailable."""
    return frozenset(await _stored(connection, META_POOLS) or ())


async def stored_layouts(connection: Connection) -> tuple[Layout, Layout]:
    """Into which queues of the pools jobs are put, and in which there may be some, as `apply` was told; one queue for each
    pool if it was an older one. Raises Unavailable.
    """
    said = await _stored(connection, META_QUEUES) or {}
    offered, served = (_layout(said.get(name) or {}) for name in ("offered", "served"))
    return offered, served.with_all_of(offered)


def _layout(wire: Mapping[str, Any]) -> Layout:
    return Layout(bool(wire.get("priorities", False)), min(SHARES_MAX, int(wire.get("shares", 0))))


async def _stored_number(connection: Connection, subject: str) -> int | None:
    found = await _stored(connection, subject)
    return None if found is None else int(found)


async def _stored(connection: Connection, subject: str) -> Any:
    """What `apply` has left in the log, None if there is nothing. Raises Unavailable."""
    try:
        msg = await connection.api(f"STREAM.MSG.GET.{META_STREAM}", {"last_by_subj": subject})
    except TopologyError:
        return None
    except ServerRefused as error:
        if error.code in (NO_STREAM, NO_MESSAGE):
            return None
        raise Unavailable(f"NATS refused to read the topology: {error.description}") from error
    return orjson.loads(base64.b64decode(msg["message"]["data"]))


def _compare(where: str, want: dict[str, Any], have: dict[str, Any] | None) -> list[Drift]:
    if have is None:
        return [Drift(where, "", want, None)]
    return [Drift(where, key, value, have.get(key)) for key, value in want.items() if have.get(key) != value]
