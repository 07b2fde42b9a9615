"""Whether the log can be used: NATS is reached, and its streams are as they must be (`broker.interfaces.Health`)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from broker.config import LogSettings
from broker.errors import LogError
from broker.jetstream.access import lacking, said_of
from broker.jetstream.connection import Connection
from broker.jetstream.log import JetStreamLog
from broker.jetstream.topology import Topology
from broker.permissions import Role

_CHECK_EVERY_S = 30.0
_TIMEOUT_S = 2.0


class JetStreamHealth:
    """Asks NATS each time; compares the topology, and what its user may do as `role`, every 30 s, or until it is right."""

    def __init__(
        self, connection: Connection, log: JetStreamLog, settings: LogSettings, role: Role | None = None
    ) -> None:
        self._connection = connection
        self._log = log
        self._settings = settings
        self._role = role
        self._topology = Topology(connection, settings)
        self._good_until = 0.0

    def on_change(self, callback: Callable[[bool], None]) -> None:
        self._connection.on_connectivity(callback)

    async def problems(self) -> list[str]:
        if not self._connection.connected:
            self._good_until = 0.0
            return [f"NATS is away: {self._connection.last_error or 'reconnecting'}"]
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                await self._log.prepare()
                if time.monotonic() < self._good_until:
                    await self._connection.api("INFO")
                    return []
                drift = await self._topology.check_shape()
                lacks = await self._lacks()
        except TimeoutError:
            return ["NATS does not answer in time"]
        except LogError as error:
            return [str(error)]
        if not drift and not lacks:
            self._good_until = time.monotonic() + _CHECK_EVERY_S
        return [*(f"{item} (`antiphon topology apply` mends it)" for item in drift), *lacks]

    async def _lacks(self) -> list[str]:
        if self._role is None:
            return []
        lacks = await lacking(self._connection, self._role, self._log.partitions, self._settings.pool_names)
        if lacks is None:
            # Each time would be one more refusal, which is counted.
            self._role = None
        return [said_of(lacks)] if lacks else []
