"""The streams and consumers that Antiphon needs: what they must be, making them so, and saying where they differ."""

from __future__ import annotations

import base64
import dataclasses
from dataclasses import dataclass
from typing import Any

import orjson

from broker.config import LogSettings
from broker.errors import TopologyError, Unavailable
from broker.jetstream.connection import Connection, ServerRefused
from broker.subjects import stream_name
from broker.versions import LOG_FORMAT, VERSION

WORK_STREAM = "WORK"
META_STREAM = "ANTIPHON_META"
INDEX_STREAM = "INDEX"
META_PARTITIONS = "antiphon.meta.partitions"
META_FORMAT = "antiphon.meta.format"

_DEPENDED_ON = frozenset(
    (
        *("subjects", "retention", "max_age", "republish", "allow_direct", "allow_msg_ttl", "allow_rollup_hdrs"),
        *("discard_new_per_subject", "max_msgs_per_subject", "filter_subject", "ack_policy"),
    )
)
_NO_STREAM = 10059
_NO_CONSUMER = 10014
_NO_MESSAGE = 10037
_DUPLICATE_WINDOW_S = 120.0
_NS = 1_000_000_000


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


def pool_consumer(pool: str) -> str:
    """The durable consumer that a pool's workers pull from."""
    return f"pool-{pool}"


def wanted_streams(settings: LogSettings) -> dict[str, dict[str, Any]]:
    """Stream configurations by name."""
    streams = {
        META_STREAM: _newest(settings, META_STREAM, "antiphon.meta.*"),
        INDEX_STREAM: _newest(settings, INDEX_STREAM, "idx.>"),
        WORK_STREAM: _work(settings),
    }
    for partition in range(settings.partitions):
        streams[stream_name(partition)] = _partition(settings, partition)
    return streams


def wanted_consumers(settings: LogSettings) -> dict[str, dict[str, Any]]:
    """Configurations of the consumers of WORK, by name."""
    return {
        pool_consumer(pool): {
            "durable_name": pool_consumer(pool),
            "filter_subject": f"work.{pool}.>",
            "ack_policy": "explicit",
            "ack_wait": int(settings.lease_s * _NS),
            "deliver_policy": "all",
            "max_ack_pending": 65_536,
            "max_deliver": -1,
            "max_waiting": 4096,
        }
        for pool in settings.pool_names
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


def _newest(settings: LogSettings, name: str, subjects: str) -> dict[str, Any]:
    """A stream that keeps the last message of each subject."""
    return _common(settings) | {
        "name": name,
        "subjects": [subjects],
        "retention": "limits",
        "discard": "old",
        "max_msgs_per_subject": 1,
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
            changed += await self._apply_consumer(name, config)
        await self._connection.publish(META_FORMAT, str(LOG_FORMAT).encode())
        await self._connection.publish(META_PARTITIONS, str(self._settings.partitions).encode())
        return changed

    async def check(self) -> list[Drift]:
        """What differs from what must be. Raises Unavailable."""
        found: list[Drift] = []
        stored = await stored_partitions(self._connection)
        if stored not in (None, self._settings.partitions):
            found.append(Drift("the log", "partitions", self._settings.partitions, stored))
        for name, config in wanted_streams(self._settings).items():
            found += _compare(f"stream {name}", config, await self._stream_config(name))
        for name, config in wanted_consumers(self._settings).items():
            found += _compare(f"consumer {name}", config, await self._consumer_config(name))
        return found

    async def check_shape(self) -> list[Drift]:
        """As `check`, of what a running process depends on: a process need not know how long deltas are kept, nor how
        many copies there are, and takes the number of partitions from the log.
        """
        stored = await stored_partitions(self._connection)
        if stored is None:
            return [Drift("the topology", "", "", None)]
        settings = dataclasses.replace(self._settings, partitions=stored)
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

    async def _apply_consumer(self, name: str, config: dict[str, Any]) -> list[Drift]:
        drift = _compare(f"consumer {name}", config, await self._consumer_config(name))
        if drift:
            body = {"stream_name": WORK_STREAM, "config": config}
            await self._call(f"CONSUMER.DURABLE.CREATE.{WORK_STREAM}.{name}", body)
        return drift

    async def _call(self, operation: str, body: dict[str, Any]) -> None:
        try:
            await self._connection.api(operation, body)
        except ServerRefused as error:
            raise TopologyError(
                f"{operation.rsplit('.', maxsplit=1)[-1]}: NATS refused: {error.description}"
            ) from error

    async def _stream_config(self, name: str) -> dict[str, Any] | None:
        return await self._info(f"STREAM.INFO.{name}", _NO_STREAM)

    async def _consumer_config(self, name: str) -> dict[str, Any] | None:
        return await self._info(f"CONSUMER.INFO.{WORK_STREAM}.{name}", _NO_CONSUMER)

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
    return await _stored(connection, META_PARTITIONS)


async def refuse_newer_format(connection: Connection) -> None:
    """Raises TopologyError if only newer versions than this one may touch the log, Unavailable."""
    stored = await _stored(connection, META_FORMAT)
    if stored is not None and stored > LOG_FORMAT:
        raise TopologyError(
            f"this log has format {stored}, and antiphon {VERSION} knows those up to {LOG_FORMAT}: run a newer version"
        )


async def _stored(connection: Connection, subject: str) -> int | None:
    """A number that `apply` has left in the log, None if there is none. Raises Unavailable."""
    try:
        msg = await connection.api(f"STREAM.MSG.GET.{META_STREAM}", {"last_by_subj": subject})
    except TopologyError:
        return None
    except ServerRefused as error:
        if error.code in (_NO_STREAM, _NO_MESSAGE):
            return None
        raise Unavailable(f"NATS refused to read the topology: {error.description}") from error
    return int(orjson.loads(base64.b64decode(msg["message"]["data"])))


def _compare(where: str, want: dict[str, Any], have: dict[str, Any] | None) -> list[Drift]:
    if have is None:
        return [Drift(where, "", want, None)]
    return [Drift(where, key, value, have.get(key)) for key, value in want.items() if have.get(key) != value]
